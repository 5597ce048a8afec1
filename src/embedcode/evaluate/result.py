"""Result: one system on one task: its figures, the conditions they hold under, and the run they were computed from.

A result is two files, NAME.json and NAME.run, the latter as trec_eval reads it, so that anyone can compute the figures
again. Knows no model and no task.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedcode.errors import UsageError
from embedcode.evaluate.metrics import Run, first
from embedcode.files import is_file, replacing

FORMAT = 1
COUNTED = frozenset(
    {"identical ids", "cut texts", "file versions", "distinct units", "files left out", "answers outside the files"}
)
"""Conditions that come of the work and are not chosen: known after it only."""


@dataclass(frozen=True, slots=True)
class Result:
    """Figures are shares in [0, 1]; seconds and megabytes are of the process that measured."""

    task: str
    """Such as cosqa-dev, coir/cosqa or swebench-lite."""
    system: str
    """bm25, lexical, hybrid, the name of a model, or the address of a server."""
    conditions: Mapping[str, Any]
    """All that a figure depends on beside task and system: convention, chunking, instruction, precision, stemming."""
    queries: int
    documents: int
    metrics: Mapping[str, float]
    """Means over queries by name, such as ndcg@10, recall@1, mrr@10."""
    intervals: Mapping[str, tuple[float, float]]
    """95 %, of the same names."""
    values: Mapping[str, Mapping[str, float]]
    """Of each query: {metric: {query: value}}; what two results are compared by."""
    command: str
    """What makes it again."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each stage, such as documents, queries, search."""
    peak_mb: float = 0.0
    made: Mapping[str, Any] = field(default_factory=dict)
    """Version, commit, files, date and machine."""
    partial: bool = False
    """Whether queries are missing, so that means are not those of the task."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Of each query, where queries are not independent, such as its repository: intervals draw those whole."""

    def write(self, path: Path, run: Run) -> None:
        """PATH.json and PATH.run; both are written whole before either takes its place."""
        run_file, result_file = (path.with_name(f"{path.name}.{ending}") for ending in ("run", "json"))
        with replacing(run_file) as ranks, replacing(result_file) as file:
            for query, found in run.items():
                for rank, document in enumerate(first(len(found), query, found), 1):
                    names = _word(query), "Q0", _word(document), str(rank), repr(found[document]), _word(self.system)
                    ranks.write(" ".join(names).encode() + b"\n")
            ranks.flush()  # a full disk is met here, and not when the other has its place
            file.write(json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False).encode() + b"\n")


def _word(name: str) -> str:
    """A name as a run file can have it, whose fields are parted by blanks: those as %20; urllib's unquote undoes it."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), name)


def refuse_another(path: Path, task: str, system: str, conditions: Mapping[str, Any]) -> None:
    """UsageError where PATH.json is of another task or system, or was measured under others of these conditions."""
    file = path.with_name(f"{path.name}.json")
    if not os.path.lexists(file):
        return
    cure = "give another folder with --out, or remove it"
    try:
        there = read(file)
    except UsageError:
        raise UsageError(f"{file} is there and no result that can be compared with the new one: {cure}") from None
    known = {"task": there.task, "system": there.system, **there.conditions}
    unknown = COUNTED if "content" in there.conditions else COUNTED | {"content"}
    chosen = {name: value for name, value in conditions.items() if name not in unknown}
    wanted = json.loads(json.dumps({"task": task, "system": system, **chosen}))
    if differ := [name for name, value in wanted.items() if known.get(name) != value]:
        raise UsageError(f"{file} holds a result that differs in {', '.join(differ)}: {cure}")


def already(path: Path, content: str, now: Mapping[str, Any]) -> Result | None:
    """The result at PATH, under whatever conditions `refuse_another` allows, where it is whole, of the same texts, and
    of the code that `now`, a `made()`, tells; None for any other."""
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("json", "run")]
    if not all(map(is_file, files)):
        return None
    found = read(files[0])
    same = found.made.get("files") == now["files"]  # a commit is "" where there is none, and says nothing of edits
    return found if same and not found.partial and found.conditions.get("content") == content else None


def read(path: Path) -> Result:
    """The result of a .json that `Result.write` made; UsageError for another file."""
    try:
        record = json.loads(path.read_text("utf-8"))
        if record.pop("format") != FORMAT:
            raise UsageError(f"{path} was written by another version of embedcode: measure it again.")
        record["intervals"] = {name: (low, high) for name, (low, high) in record["intervals"].items()}
        return Result(**record)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a result of `embedcode eval`.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no result of `embedcode eval`: give one.") from None
