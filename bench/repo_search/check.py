"""Check query files: every label exists, and no query gives its target away.

    python bench/repo_search/check.py --repos DIR bench/repo_search/queries/*.jsonl --second bench/repo_search/second

`--second` also says how far a second person, who saw a fifth of the queries and no label, found the same places.

DIR holds the repositories as `prepare.py` unpacks them. A line of a query file is

    {"id": "tmux-001", "repo": "tmux", "kind": "behaviour", "query": "...", "path": "grid.c",
     "start_line": 10, "end_line": 42}

with lines from 1, inclusive. Kinds: `behaviour` (what code does), `decision` (where a thing is decided or configured),
`symbol` (a name half-remembered). A query of the first two kinds shares no identifier with its target: no word of it
is, in any case, an identifier in the labelled lines, comments and strings left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("behaviour", "decision", "symbol")
FIELDS = {"id", "repo", "kind", "query", "path", "start_line", "end_line"}
MOST_LINES = 80
"""Of a label: more is a file, not a place."""

_COMMENT = re.compile(
    r"\"\"\".*?\"\"\"|'''.*?'''|/\*.*?\*/|\{-.*?-\}|^\s*(?:#(?!include|define|if|el|endif)|--\s)[^\n]*|//[^\n]*"
    r"|\s#\s[^\n]*|\s--\s[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`]*`", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_FREE = """
    a an and any are as at be been but by can case code do does each else every for from get has have how if in into
    is it its like made make makes new no not of off on one only or other out over set so some such than that the
    then there they this to up use used uses using value was what when where whether which while who why will with
    without would all also between both come comes first given gives go goes more most must name names next same
    two type types via
    class const def default end enum error false file fn func function impl import int interface let match module
    mut null number object package private public return self string struct super switch this true try var void
"""
FREE = frozenset(_FREE.split())
"""Words of English without which there is no question, and keywords of languages: neither names anything."""


def identifiers(code: str) -> set[str]:
    """The identifiers in a piece of code, in lower case, comments and strings left out."""
    return {word.lower() for word in _WORD.findall(_STRING.sub(" ", _COMMENT.sub(" ", code)))}


def problems(row: dict[str, Any], repos: Path) -> Iterator[str]:
    if row.keys() != FIELDS:
        yield f"has the fields {sorted(row)}, not {sorted(FIELDS)}"
        return
    if row["kind"] not in KINDS:
        yield f"is of kind {row['kind']!r}, not one of {KINDS}"
    if not 2 <= len(row["query"].split()) <= 40 and row["kind"] != "symbol":
        yield "is not a query of 2 to 40 words"
    file = repos / row["repo"] / row["path"]
    if not file.is_file():
        yield f"names {row['path']}, which {row['repo']} does not have"
        return
    lines = file.read_text("utf-8", "replace").split("\n")
    start, end = row["start_line"], row["end_line"]
    if not 1 <= start <= end <= len(lines):
        yield f"names lines {start}-{end} of {len(lines)}"
        return
    if end - start >= MOST_LINES:
        yield f"labels {end - start + 1} lines: the place, at most {MOST_LINES}"
    if row["kind"] != "symbol":
        words = {word.lower() for word in _WORD.findall(row["query"])} - FREE
        if shared := words & identifiers("\n".join(lines[start - 1 : end])):
            yield f"shares {', '.join(sorted(shared))} with its target"


def agreement(rows: dict[str, dict[str, Any]], folder: Path) -> str:
    """Share of second labels in the file of the first, and with a line in common."""
    second = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    pairs = [(rows[row["id"]], row) for row in second if row["id"] in rows]
    same = [(a, b) for a, b in pairs if a["path"] == b["path"]]
    meet = [a for a, b in same if a["start_line"] <= b["end_line"] and b["start_line"] <= a["end_line"]]
    count = max(1, len(pairs))
    return f"labelled twice: {len(pairs)}; same file {len(same) / count:.3f}, same place {len(meet) / count:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repos", type=Path, required=True, help="the repositories, unpacked")
    parser.add_argument("--second", type=Path, help="the folder of second labels")
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    count = bad = 0
    for file in args.files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            row = json.loads(line)
            count += 1
            found = [*problems(row, args.repos), *(["has the id of another"] if row["id"] in rows else [])]
            rows[row["id"]] = row
            bad += bool(found)
            for problem in found:
                print(f"{file}:{number}: {row['id']} {problem}")
    print(f"{count} queries, {bad} with problems")
    if args.second:
        print(agreement(rows, args.second))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
