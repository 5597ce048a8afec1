"""One system on one task: ranks, counts, and says under which conditions. Knows no file and no model."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from embedcode.errors import UsageError
from embedcode.evaluate.beir import Task
from embedcode.evaluate.made import forget_peak, made, peak_mb
from embedcode.evaluate.metrics import Qrels, Run, answerable, bootstrap, first, mean, mrr_at, ndcg_at, recall_at
from embedcode.evaluate.result import Result
from embedcode.evaluate.systems import System
from embedcode.evaluate.vectors import Progress

DEPTH = 100
"""Documents of a query that a run holds."""
RECALLS = (1, 3, 5, 10, 100)
SATURATED = 0.95
"""nDCG@10 of the plain baseline from which a set tells systems apart no more."""


@dataclass(frozen=True, slots=True)
class Measured:
    result: Result
    run: Run
    failed: Mapping[str, str]
    """By query: why it has no answer. The means of the result are then over the others, and it is `partial`."""


def measure(
    system: System,
    task: Task,
    command: str,
    conditions: Mapping[str, Any] | None = None,
    progress: Progress = lambda moment: None,
) -> Measured:
    """`command` is what makes the result again; `conditions` are those of the task, such as its convention.

    A query without text, or whose vector cannot be had, is left out and named. UsageError where none is left, or where
    nothing is judged relevant.
    """
    alone = forget_peak()
    judged = answerable(task.qrels)
    if not judged:
        raise UsageError(f"{task.name} judges no document as relevant, so there is nothing to measure: check its qrels")
    failed = {query: f"query {query!r} of {task.name} has no text" for query in judged if not _has_text(task, query)}
    asked = {query: task.queries[query] for query in judged if query not in failed}
    own = task.own & asked.keys()
    ranked = system.rank(replace(task, queries=asked), DEPTH + bool(own), progress)
    run = _without_itself(ranked.run, own) if own else ranked.run
    failed |= ranked.failed
    answered = {query: gains for query, gains in judged.items() if query not in failed}
    if not answered:
        raise UsageError(f"{system.name} answers no query of {task.name}: {next(iter(failed.values()))}")
    more: dict[str, Any] = {"kept": dict(ranked.kept)} if ranked.kept else {}
    if not alone:
        more["peak"] = "of the process so far"
    counted: dict[str, Any] = {"identical ids": "dropped"} if own else {}
    if ranked.cut:
        counted["cut texts"] = dict(ranked.cut)
    result = summed(
        run,
        answered,
        task=task.name,
        system=system.name,
        conditions={**(conditions or {}), **system.conditions, "depth": DEPTH, **counted},
        documents=len(task.corpus),
        command=command,
        seconds=ranked.seconds,
        more=more,
        partial=bool(failed),
    )
    return Measured(result, run, failed)


def summed(
    run: Run,
    qrels: Qrels,
    *,
    seconds: Mapping[str, float],
    more: Mapping[str, Any],
    clusters: Mapping[str, str] | None = None,
    **named: Any,
) -> Result:
    """The result of a run over the queries of `qrels`, with `more` of how it was made; `named` are its other fields."""
    values = figures(run, qrels)
    intervals = {}
    if len({clusters[query] for query in qrels} if clusters else qrels) > 1:
        for name, each in values.items():
            interval = bootstrap(each, clusters=clusters)
            intervals[name] = (interval.low, interval.high)
    return Result(
        queries=len(qrels),
        metrics={name: mean(each) for name, each in values.items()},
        intervals=intervals,
        values=values,
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
        peak_mb=round(peak_mb(), 1),
        made={**made(), **more},
        clusters=clusters or {},
        **named,
    )


def figures(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """{metric: {query: value}} of every metric that is reported."""
    recalls = {f"recall@{k}": recall_at(k, run, qrels) for k in RECALLS}
    return {"ndcg@10": ndcg_at(10, run, qrels), **recalls, "mrr@10": mrr_at(10, run, qrels)}


def _without_itself(run: Run, own: Set[str]) -> dict[str, dict[str, float]]:
    """The DEPTH first documents of each query, without the query itself where it is one of `own`."""
    found = {}
    for query, scores in run.items():
        others = {id: score for id, score in scores.items() if query not in own or id != query}
        found[query] = {id: others[id] for id in first(DEPTH, query, others)}
    return found


def _has_text(task: Task, query: str) -> bool:
    return bool(task.queries[query].strip())
