"""Report: published figures and measured ones in one table, each task's figures, and two results compared.

Knows results and published.toml, and nothing of how a result came to be.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedcode.errors import UsageError
from embedcode.evaluate import coir
from embedcode.evaluate.measure import SATURATED
from embedcode.evaluate.metrics import Interval, first, mean, paired_bootstrap
from embedcode.evaluate.result import COUNTED, Result, read
from embedcode.files import is_folder

COLUMNS: Mapping[str, str] = {
    "coir": "CoIR, nDCG@10",
    "swebench-lite": "SWE-bench Lite, recall@1",
    "summarised": "the same, summarised",
}
"""Of the table like a model card's, in hundredths."""
INSTANCES, REPOSITORIES = 300, 12
"""Of SWE-bench Lite's test split, which the published figures are of."""
COMPARABLE = {"files": "all", "test files": "in"}
"""Conditions of those figures: fewer files to choose from make the task easier."""
OF_A_TASK = {"data", "content", *COUNTED}
"""Conditions that differ between tasks of one system."""
TOLD = 40
"""Characters of a condition that a label shows."""


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
    clusters: int
    """Such as repositories, drawn whole; 0 where queries are drawn one by one."""


def results(paths: Sequence[Path]) -> list[Result]:
    """The results of files, and of all .json files in folders, by task and system.

    UsageError where two are of the same task and system under the same conditions.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if is_folder(path) else [path]
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

    CoIR's is there only where all twenty subtasks are, whole, at their published sizes and under the same conditions;
    SWE-bench Lite's only of the test split's 300 issues, with all files to choose from. A system's results under
    different conditions are not mixed: each set of conditions is a row. UsageError where a subtask has two figures.
    """
    rows = published()
    for system in sorted({one.system for one in found}):
        own = [one for one in found if one.system == system and not one.partial]
        for note, parts in _coir(found, system):
            if (figure := coir.means(_by_name(parts)).get("coir")) is not None:
                rows.append(Row(system, "measured", {"coir": 100 * figure}, made(parts), note))
        for one in own:
            if _is_published_task(one):
                issue = str(one.conditions.get("issue", "raw"))
                column = "summarised" if issue.startswith("summar") else "swebench-lite"
                told = ("protocol", "chunking", "path prefix", *COMPARABLE, "tokenizer", "max_tokens", "rows", "issue")
                note = ", ".join(f"{name}: {one.conditions[name]}" for name in told if name in one.conditions)
                rows.append(Row(system, "measured", {column: 100 * one.metrics["recall@1"]}, made([one]), note))
    return rows


def lacking(found: Sequence[Result]) -> dict[str, str]:
    """Of systems that have results of CoIR and no mean of them: what it lacks, by system and conditions."""
    told = {}
    for system in sorted({one.system for one in found}):
        of_coir = [one for one in found if one.system == system and one.task.startswith("coir/")]
        why = {one.task.removeprefix("coir/"): "partial" if one.partial else "another size" for one in of_coir}
        groups = _coir(found, system) or ([("", [])] if of_coir else [])
        for note, parts in groups:
            if (lost := coir.lacking(_by_name(parts), why if len(groups) == 1 else None).get("coir")) is not None:
                told[f"{system} ({note})" if note else system] = lost
    return told


def _coir(found: Sequence[Result], system: str) -> list[tuple[str, list[Result]]]:
    """The whole results of a system on CoIR's subtasks at their published sizes, in groups of the same conditions, each
    with a label. An instruction may be a task's own, where a task has no two."""
    sized = [
        one
        for one in found
        if one.system == system and one.task.startswith("coir/") and not one.partial and "size" not in one.conditions
    ]
    names = {"convention"} | _differing(sized) - OF_A_TASK
    groups = []
    for note, parts in _alike(sized, names - {"instruction"}):
        if len({one.task for one in parts}) < len(parts):
            groups += _alike(parts, names)
        else:
            own = ", instructions differ by task" if "instruction" in _differing(parts) else ""
            groups.append((note + own, parts))
    return groups


def _by_name(parts: Sequence[Result]) -> dict[str, float]:
    """nDCG@10 by subtask. UsageError where one has two."""
    values: dict[str, float] = {}
    for one in parts:
        name = one.task.removeprefix("coir/")
        if name in values:
            raise UsageError(
                f"two results are of {one.system} on {one.task} and differ in their data only: give one of them"
            )
        values[name] = one.metrics["ndcg@10"]
    return values


def _is_published_task(one: Result) -> bool:
    """Whether a result is of SWE-bench Lite's test split, under conditions like those of the published figures."""
    return (
        one.task.startswith("swebench-lite")
        and one.queries == INSTANCES
        and len(set(one.clusters.values())) == REPOSITORIES
        and all(one.conditions.get(name) == value for name, value in COMPARABLE.items())
    )


def _differing(found: Sequence[Result]) -> set[str]:
    """Conditions that are not the same in all."""
    names = {name for one in found for name in one.conditions}
    return {name for name in names if any(one.conditions.get(name) != found[0].conditions.get(name) for one in found)}


def _alike(found: Sequence[Result], names: Set[str]) -> list[tuple[str, list[Result]]]:
    """The results in groups under which these conditions are the same, each with a label of them."""
    groups: dict[str, list[Result]] = {}
    for one in found:
        groups.setdefault(repr([one.conditions.get(name) for name in sorted(names)]), []).append(one)

    def label(one: Result) -> str:
        return ", ".join(f"{name}: {str(one.conditions.get(name))[:TOLD]}" for name in sorted(names))

    return [(label(groups[key][0]), groups[key]) for key in sorted(groups)]


def made(parts: Sequence[Result]) -> str:
    """Commit, or version and files, and date; several where they differ."""

    def code(one: Mapping[str, Any]) -> str:
        files = f" (files {one['files']})" if "files" in one else ""
        return str(one.get("commit") or f"{one.get('version', '?')}{files}")

    return ", ".join(sorted({f"{code(one.made)}, {one.made.get('date', '?')}" for one in parts}))


def saturated(found: Sequence[Result]) -> set[str]:
    """Tasks at which plain BM25 is so good that they tell systems apart no more."""
    return {one.task for one in found if one.system == "bm25" and one.metrics[main_metric(one.task)] >= SATURATED}


def compare(a: Result, b: Result, metric: str = "") -> Comparison:
    """UsageError where they are of different tasks or queries, or have no such metric."""
    if a.task != b.task:
        raise UsageError(f"the results are of two tasks, {a.task} and {b.task}: compare two systems on one")
    contents = {str(one.conditions["content"]) for one in (a, b) if "content" in one.conditions}
    if len(contents) > 1:
        raise UsageError(
            f"two tasks are called {a.task}, and differ in their texts or judgements "
            f"(content {' and '.join(sorted(contents))}): compare two systems on one"
        )
    metric = metric or main_metric(a.task)
    for one in (a, b):
        if metric not in one.values:
            raise UsageError(f"{one.system} on {one.task} has no {metric}: its metrics are {', '.join(one.values)}")
    clusters = {**b.clusters, **a.clusters}
    drawn = len({clusters.get(query) for query in a.values[metric]})
    if drawn < 2:  # of one cluster there is no interval over clusters
        clusters, drawn = {}, 0
    difference = paired_bootstrap(a.values[metric], b.values[metric], clusters=clusters or None)
    before = [one.system for one in (a, b) if "identical ids" not in one.conditions]
    if len(before) == 1:  # of the same queries; a task none of which is a document has it in neither
        raise UsageError(
            f"the result of {before[0]} has queries in their own rankings, and the other leaves them out: "
            f"measure {before[0]} again"
        )
    by = {query: value - b.values[metric][query] for query, value in a.values[metric].items()}
    won = sorted((query for query in by if by[query] > 0), key=lambda query: (-by[query], query))
    lost = sorted((query for query in by if by[query] < 0), key=lambda query: (by[query], query))
    return Comparison(metric, difference, won, lost, len(by) - len(won) - len(lost), drawn)


def apart(found: Sequence[Result]) -> list[str]:
    """Chosen conditions that all have, and not the same in each."""
    names = _differing(found) - OF_A_TASK
    return sorted(name for name in names if all(name in one.conditions for one in found))


def ranking(run: Path, query: str) -> list[tuple[str, float]]:
    """The (document, score) of a query in a run file, in the order of the figures, whichever the file's is."""
    found: dict[str, float] = {}
    try:
        with run.open(encoding="utf-8") as lines:
            for line in lines:
                asked, _, document, _, score, _ = line.split()
                if unquote(asked) == query:
                    found[unquote(document)] = float(score)
    except OSError as error:
        raise UsageError(f"{run} cannot be read ({error.strerror}): it lies beside the result") from None
    except ValueError:
        raise UsageError(f"{run} is no run file: measure the system again") from None
    return [(document, found[document]) for document in first(len(found), query, found)]


def speed(found: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """{system: (texts a second, mean main figure)} over the tasks that all systems have; only whole, computed ones.

    Texts are documents and queries, seconds those of all stages. A system with vectors of an earlier run has no speed.
    One that has other weights or precisions, or results of one task under other conditions, is a point for each.
    """
    usable = [one for one in found if not one.partial and one.seconds and not any(_kept(one).values())]
    systems: dict[str, list[Result]] = {}
    for system in sorted({one.system for one in usable}):
        own = [one for one in usable if one.system == system]
        names = _differing(own) & {"space", "precision"}
        for task in {one.task for one in own}:
            names |= _differing([one for one in own if one.task == task])
        systems |= {f"{system} ({told})" if told else system: some for told, some in _alike(own, names)}
    tasks = [{one.task for one in own} for own in systems.values()]
    shared = set.intersection(*tasks) if tasks else set()
    points = {}
    for system, own in systems.items() if shared else ():
        own = [one for one in own if one.task in shared]
        seconds = sum(sum(one.seconds.values()) for one in own)
        if seconds > 0:
            texts = sum(one.documents + one.queries for one in own)
            points[system] = texts / seconds, mean({one.task: one.metrics[main_metric(one.task)] for one in own})
    return points


def _kept(one: Result) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = one.made.get("kept") or {}
    return kept
