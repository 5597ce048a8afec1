"""Report: published figures and measured ones in one table, each task's figures, and two results compared.

Knows results and published.toml, and nothing of how a result came to be.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.evaluate import coir
from embedcode.evaluate.measure import SATURATED
from embedcode.evaluate.metrics import Interval, mean, paired_bootstrap
from embedcode.evaluate.result import Result, read

COLUMNS: Mapping[str, str] = {
    "coir": "CoIR, nDCG@10",
    "swebench-lite": "SWE-bench Lite, recall@1",
    "summarised": "the same, summarised",
}
"""Of the table like a model card's, in hundredths."""


@dataclass(frozen=True, slots=True)
class Row:
    """One system in that table."""

    system: str
    kind: str
    """published or measured."""
    figures: Mapping[str, float]
    """By the names of COLUMNS."""
    where: str
    """The source of a published row; commit and date of a measured one."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A less B over the same queries of one task."""

    metric: str
    difference: Interval
    won: Sequence[str]
    """Queries at which A is better, those with the largest difference first."""
    lost: Sequence[str]
    equal: int


def results(paths: Sequence[Path]) -> list[Result]:
    """The results of files, and of all .json files in folders, by task and system.

    UsageError where two are of the same task and system under the same conditions.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{', '.join(map(str, paths))}: no result is there; `embedcode eval beir` writes them")
    found = sorted((read(file) for file in files), key=lambda one: (one.task, one.system))
    seen: dict[str, Result] = {}
    for one in found:
        key = repr((one.task, one.system, sorted(one.conditions.items(), key=repr)))
        if key in seen:
            raise UsageError(
                f"two results are of {one.system} on {one.task} under the same conditions: give one of them"
            )
        seen[key] = one
    return found


def main_metric(task: str) -> str:
    """What a task is judged by."""
    return "recall@1" if task.startswith("swebench") else "ndcg@10"


def published() -> list[Row]:
    table = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))
    rows = []
    for row in table["rows"]:
        name = f"{row['system']} ({row['size']})" if "size" in row else row["system"]
        figures = {column: float(row[column]) for column in COLUMNS if column in row}
        rows.append(Row(name, "published", figures, row["source"], row.get("note", "")))
    return rows


def card(found: Sequence[Result]) -> list[Row]:
    """The published rows, then a row for each measured system that has a figure of a column.

    CoIR's is there only where all twenty subtasks are, whole, at their published sizes and under one convention. A
    system's results under different conditions are not mixed: each set of conditions is a row.
    """
    rows = published()
    for system in sorted({one.system for one in found}):
        own = [one for one in found if one.system == system and not one.partial]
        for convention in sorted(
            {str(one.conditions.get("convention")) for one in own if one.task.startswith("coir/")}
        ):
            parts = [
                one for one in own if one.task.startswith("coir/") and one.conditions.get("convention") == convention
            ]
            values = {
                one.task.removeprefix("coir/"): one.metrics["ndcg@10"] for one in parts if "size" not in one.conditions
            }
            if (figure := coir.means(values).get("coir")) is not None:
                rows.append(Row(system, "measured", {"coir": 100 * figure}, made(parts), convention))
        for one in own:
            if one.task.startswith("swebench-lite"):
                issue = str(one.conditions.get("issue", "raw"))
                column = "summarised" if issue.startswith("summar") else "swebench-lite"
                note = f"{one.task.partition('/')[2] or 'own protocol'}, {one.queries} instances, issue: {issue}"
                rows.append(Row(system, "measured", {column: 100 * one.metrics["recall@1"]}, made([one]), note))
    return rows


def made(parts: Sequence[Result]) -> str:
    """Commit and date; several where they differ."""
    return ", ".join(
        sorted(
            {f"{one.made.get('commit') or one.made.get('version', '?')}, {one.made.get('date', '?')}" for one in parts}
        )
    )


def saturated(found: Sequence[Result]) -> set[str]:
    """Tasks at which plain BM25 is so good that they tell systems apart no more."""
    return {one.task for one in found if one.system == "bm25" and one.metrics[main_metric(one.task)] >= SATURATED}


def compare(a: Result, b: Result, metric: str = "") -> Comparison:
    """UsageError where they are of different tasks or queries, or have no such metric."""
    if a.task != b.task:
        raise UsageError(f"the results are of two tasks, {a.task} and {b.task}: compare two systems on one")
    metric = metric or main_metric(a.task)
    for one in (a, b):
        if metric not in one.values:
            raise UsageError(f"{one.system} on {one.task} has no {metric}: its metrics are {', '.join(one.values)}")
    difference = paired_bootstrap(a.values[metric], b.values[metric])
    by = {query: value - b.values[metric][query] for query, value in a.values[metric].items()}
    won = sorted((query for query in by if by[query] > 0), key=lambda query: (-by[query], query))
    lost = sorted((query for query in by if by[query] < 0), key=lambda query: (by[query], query))
    return Comparison(metric, difference, won, lost, len(by) - len(won) - len(lost))


def ranking(run: Path, query: str) -> list[tuple[str, float]]:
    """The (document, score) of a query in a run file, in their order; UsageError where the query has none."""
    found = []
    try:
        with run.open(encoding="utf-8") as lines:
            for line in lines:
                head, _, score, _ = line.rsplit(" ", 3)  # a document may be a path with blanks
                asked, _, document = head.split(" ", 2)
                if asked == query:
                    found.append((document, float(score)))
    except OSError as error:
        raise UsageError(f"{run} cannot be read ({error.strerror}): it lies beside the result") from None
    except ValueError:
        raise UsageError(f"{run} is no run file: measure the system again") from None
    return found


def speed(found: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """{system: (texts a second, mean main figure)} over the tasks that all systems have; only whole, computed ones.

    Texts are documents and queries, seconds those of all stages. A system with vectors of an earlier run has no speed.
    """
    usable = [one for one in found if not one.partial and one.seconds and not any(_kept(one).values())]
    systems = {one.system for one in usable}
    tasks = {one.task for one in usable}
    shared = {task for task in tasks if {one.system for one in usable if one.task == task} == systems}
    points = {}
    for system in sorted(systems) if shared else []:
        own = [one for one in usable if one.system == system and one.task in shared]
        seconds = sum(sum(one.seconds.values()) for one in own)
        if seconds > 0:
            texts = sum(one.documents + one.queries for one in own)
            points[system] = texts / seconds, mean({one.task: one.metrics[main_metric(one.task)] for one in own})
    return points


def _kept(one: Result) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = one.made.get("kept") or {}
    return kept
