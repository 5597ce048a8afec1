"""CoIR: its ten tasks and twenty subtasks by name (coir.toml), read from folders in the schema they are published in.

A subtask is a folder, or a pair NAME-queries-corpus and NAME-qrels, of parquet or JSON-lines files called corpus*,
queries* and test* (judgements), or in folders so called (`go-corpus/…` where a folder holds several languages); rows
have _id, title and text, or query-id, corpus-id and score. Knows no model.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError, line
from embedcode.evaluate.beir import Task
from embedcode.evaluate.choices import Convention
from embedcode.evaluate.metrics import mean
from embedcode.evaluate.rows import rows
from embedcode.files import is_folder


@dataclass(frozen=True, slots=True)
class Part:
    """A subtask, with the sizes that are published."""

    name: str
    task: str
    hub: str
    revision: str
    queries: int
    documents: int
    config: str = ""
    """The language, where a repository holds several."""


_TABLE = tomllib.loads(Path(__file__).with_name("coir.toml").read_text("utf-8"))
INSTRUCTION: str = _TABLE["instruction"]
PARTS: Mapping[str, tuple[Part, ...]] = {
    name: tuple(Part(task=name, hub=row["hub"], revision=row["revision"], **part) for part in row["parts"])
    for name, row in _TABLE["tasks"].items()
}
"""The subtasks of each task."""
LISTED = 3
"""Subtasks that a message names."""
_NAMED = {part.name.lower(): (part,) for parts in PARTS.values() for part in parts} | dict(PARTS)


def chosen(names: Sequence[str]) -> list[Part]:
    """The subtasks of tasks and subtasks by name, case and repeats aside; all twenty where none is named."""
    found: dict[str, Part] = {}
    for name in names or list(PARTS):
        if name.lower() not in _NAMED:
            raise UsageError(f"{name!r} is no task of CoIR: the tasks are {', '.join(PARTS)}")
        found |= {part.name: part for part in _NAMED[name.lower()]}
    return list(found.values())


def instructions(given: Sequence[str], parts: Sequence[Part]) -> dict[str, str]:
    """By subtask, of TEXT, which is for all, and TASK=TEXT for a task or subtask. UsageError for a task that there is
    not or that `parts` have nothing of, and for two texts of one."""
    found: dict[str, str] = {}
    alone: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if equals and re.fullmatch(r"[\w.-]+", name):  # a sentence with = in it has blanks before
            into, own = found, chosen([name])
            if not any(part in parts for part in own):
                raise UsageError(
                    f"{name} is given an instruction and is not measured: leave it out, or name it in --tasks"
                )
        else:
            into, own, text = alone, list(parts), one
        if twice := [part.name for part in own if part.name in into]:
            raise UsageError(f"{twice[0]} is given two instructions: give one")
        into |= {part.name: text for part in own}
    return alone | found


def load(part: Part, data: Path | None, convention: Convention) -> Task:
    """The task called coir/NAME, from a folder below `data`, else from the hub at its pinned revision.

    UsageError naming file and row for what is missing or wrong, also a judgement that points nowhere.
    """
    folders = _local(part, data) if data is not None else [_downloaded(part)]
    files = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".parquet", ".jsonl", ".json")
    ]
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    for into, kind in ((corpus, "corpus"), (queries, "queries")):
        for row, where in _rows(_of(part, files, kind, folders)):
            title, text = (_text(row, name, where) for name in ("title", "text"))
            if into is corpus and convention is Convention.MTEB:
                text = f"{title} {text}".strip()  # without a title too: code often begins or ends in white space
            into[_id(row, "_id", where)] = text
    qrels: dict[str, dict[str, int]] = {}
    for row, where in _rows(_of(part, files, "test", folders)):
        query, document = (_id(row, name, where) for name in ("query-id", "corpus-id"))
        for id, held, kind in ((query, queries, "queries"), (document, corpus, "corpus")):
            if id not in held:
                raise UsageError(f"{where} judges {id!r}, which is not in the {kind} of {part.name}: get the task anew")
        score = row.get("score")
        if not (isinstance(score, int) or (isinstance(score, float) and score.is_integer())):
            raise UsageError(f"{where} has {score!r} for 'score': it must be a whole number")
        qrels.setdefault(query, {})[document] = int(score)
    return Task(f"coir/{part.name}", corpus, {query: queries[query] for query in qrels}, qrels)


def differs(part: Part, task: Task) -> str:
    """Why a task's figure does not compare with published ones; "" where its size is the published one."""
    found, published = (len(task.queries), len(task.corpus)), (part.queries, part.documents)
    if found == published:
        return ""
    return f"{found[0]:,} queries and {found[1]:,} documents, not the published {published[0]:,} and {published[1]:,}"


def means(values: Mapping[str, float]) -> dict[str, float]:
    """Of values by subtask: those of tasks whose subtasks are all there, and of `coir` where all ten tasks are."""
    found = {
        task: mean({part.name: values[part.name] for part in parts})
        for task, parts in PARTS.items()
        if all(part.name in values for part in parts)
    }
    return found | ({"coir": mean(found)} if len(found) == len(PARTS) else {})


def lacking(values: Mapping[str, float], why: Mapping[str, str] | None = None) -> dict[str, str]:
    """What each mean that `means` does not give lacks, with why: `coir`, and tasks of several subtasks."""
    found = {}
    for mean_of, parts in {**PARTS, "coir": chosen([])}.items():
        lost = [part.name for part in parts if part.name not in values]
        if lost and len(parts) > 1:
            told = [f"{name} ({(why or {}).get(name, 'not measured')})" for name in lost[:LISTED]]
            found[mean_of] = ", ".join(told) + (f" and {len(lost) - LISTED} more" if len(lost) > LISTED else "")
    return found


def _local(part: Part, data: Path) -> list[Path]:
    whole = part.hub.rpartition("/")[2]
    for names in ((part.name,), (f"{part.name}-queries-corpus", f"{part.name}-qrels"), (whole,)):
        if all(is_folder(data / name) for name in names):
            return [data / name for name in names]
    raise UsageError(
        f"{data} has no folder {part.name}, nor {part.name}-queries-corpus and {part.name}-qrels: give the folder that "
        f"holds what `hf download --repo-type dataset {part.hub}` fetched"
    )


def _downloaded(part: Part) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UsageError(
            "CoIR comes from the hub by huggingface_hub: run `pip install '.[torch]'` in your clone of embedcode, or "
            "give --data DIR"
        ) from None
    patterns = [f"{part.config}-*", f"{part.config}-*/*"] if part.config else None
    try:
        return Path(snapshot_download(part.hub, repo_type="dataset", revision=part.revision, allow_patterns=patterns))
    except Exception as error:  # of the network, the hub and the disk
        raise UsageError(
            f"{part.hub} at {part.revision[:12]} cannot be had from the hub ({line(error)}): "
            "check the network, or give --data DIR"
        ) from None


def _of(part: Part, files: Sequence[Path], kind: str, folders: Sequence[Path]) -> list[Path]:
    """The files of one kind: corpus, queries, or test for judgements."""
    prefix = f"{part.config}-" if part.config else ""
    kinds = ("qrels", "test", "default") if kind == "test" else (kind,)

    def within(path: Path) -> tuple[str, ...]:
        root = next(folder for folder in folders if path.is_relative_to(folder))
        return path.relative_to(root).parts

    def is_language(path: Path) -> bool:
        return any(name.startswith(prefix) for name in within(path))

    several = bool(prefix) and any(map(is_language, files))

    def is_of(path: Path) -> bool:
        if several and not is_language(path):
            return False
        names = [name.removeprefix(prefix) for name in within(path)]
        if kind != "test":
            return any(name.startswith(kind) for name in names)
        if any(name.startswith(("corpus", "queries", "train", "valid", "dev")) for name in names):
            return False
        return names[-1].startswith(kinds)

    found = [path for path in files if is_of(path)]
    if not found:
        called = "test*" if kind == "test" else f"{kind}*"
        raise UsageError(
            f"{' and '.join(map(str, folders))}: no file {called}.parquet or .jsonl for {part.name}: get the task anew"
        )
    return found


def _rows(files: Sequence[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    return chain.from_iterable(rows(path, "get the task anew") for path in files)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if value is None and name == "title":
        return ""
    if not isinstance(value, str):
        raise UsageError(f"{where} has {value!r} for {name!r}: it must be a string")
    return value


def _id(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name, row.get(name.replace("-", "_")))
    if not isinstance(value, str | int) or value == "":
        raise UsageError(f"{where} has {value!r} for {name!r}: it must be an id")
    return str(value)
