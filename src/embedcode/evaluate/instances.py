"""Issues of SWE-bench and data sets of its kind: where each was written, what it says, and the files its patch edits.

Reads JSON lines or parquet. Knows no clone: whether a commit or a file is there is not asked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.evaluate.rows import rows

FIELDS = ("instance_id", "repo", "base_commit", "problem_statement", "patch")

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abfnrtv"\\])')
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    repo: str
    """owner/name."""
    commit: str
    """Its files are what is searched."""
    issue: str
    gold: tuple[str, ...]
    """The files that the patch edits, removes or renames, by their paths at the commit: none that it makes."""


def read(path: Path) -> list[Instance]:
    """The instances of a .jsonl or .parquet file, in order; UsageError names the row that is wrong."""
    found: dict[str, Instance] = {}
    for row, where in rows(path, f"give JSON lines or a .parquet file of rows with {', '.join(FIELDS)}."):
        instance = _instance(row, where)
        if instance.id in found:
            raise UsageError(f"{where} has the instance_id {instance.id!r} again: make ids distinct.")
        found[instance.id] = instance
    if not found:
        raise UsageError(f"{path} has no instance: give a file of SWE-bench rows.")
    return list(found.values())


def summarised(instances: list[Instance], summaries: dict[str, str]) -> list[Instance]:
    """The instances with their summaries in place of their issues; UsageError names one that has none."""
    for one in instances:
        if one.id not in summaries:
            raise UsageError(f"there is no summary of {one.id}: add one, or let --summarise write it.")
    return [replace(one, issue=summaries[one.id]) for one in instances]


def edited(patch: str) -> tuple[str, ...]:
    """The paths before a unified diff of the files it changes, in order; ValueError where there is no such diff."""
    found: dict[str, None] = {}
    any_file = False
    old = new = 0
    """Lines of the hunk that are still to come: a removed line `-- a/b` reads like the head of a file."""
    for line in patch.split("\n"):
        if old > 0 or new > 0:
            old -= line[:1] != "+" and line[:1] != "\\"
            new -= line[:1] != "-" and line[:1] != "\\"
        elif hunk := _HUNK.match(line):
            old, new = (1 if size is None else int(size) for size in hunk.groups())
        elif line.startswith(("diff --git ", "+++ ")):
            any_file = True
        elif line.startswith("--- "):
            path = _unquoted(line[4:].split("\t")[0].rstrip("\r"))
            if path != "/dev/null":
                found[path.removeprefix("a/")] = None
        elif line.startswith("rename from "):
            found[_unquoted(line.removeprefix("rename from ").rstrip("\r"))] = None
    if not any_file:
        raise ValueError("it is no unified diff")
    return tuple(found)


def _unquoted(path: str) -> str:
    """A path as git writes it: quoted, with octal bytes, where it has other characters than ASCII."""
    if not (len(path) > 1 and path[0] == path[-1] == '"'):
        return path
    raw = _ESCAPE.sub(
        lambda found: bytes([int(found[1], 8)]) if found[1][:1].isdigit() else _ESCAPES.get(found[1], found[1]),
        path[1:-1].encode(),
    )
    return raw.decode("utf-8", "backslashreplace")


def _instance(row: Mapping[str, Any], where: str) -> Instance:
    for field in FIELDS:
        if not isinstance(row.get(field), str):
            raise UsageError(f"{where} has {row.get(field)!r} for {field!r}: it must be a string.")
    id, repo, commit, issue, patch = (row[field] for field in FIELDS)
    if not id.strip() or any(map(str.isspace, id)):
        raise UsageError(f"{where} has the instance_id {id!r}: give one without blanks.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or ".." in repo or repo.startswith("-"):
        raise UsageError(f"{where} ({id}) has the repo {repo!r}: write owner/name.")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise UsageError(f"{where} ({id}) has the base_commit {commit!r}: give a commit's whole hash.")
    if not issue.strip():
        raise UsageError(f"{where} ({id}) has an empty problem_statement, which finds nothing: drop the row.")
    try:
        gold = edited(patch)
    except ValueError as error:
        raise UsageError(f"{where} ({id}) has a patch that cannot be read ({error}): correct it.") from None
    if not gold:
        raise UsageError(f"{where} ({id}) has a patch that edits no file of its commit: there is nothing to find.")
    return Instance(id, repo, commit, issue, gold)
