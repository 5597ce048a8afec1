"""Where the cells of a Jupyter notebook lie among the lines of its file. Knows no chunks.

The positions come from decoding the JSON value by value, so any indentation will do.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from embedcode.index.headings import sections

_DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Cell:
    """Rows first..last (0-based, inclusive) of one cell."""

    first: int
    last: int
    split: int | None
    """The row where its source ends and its outputs begin, or the other way round; None if it has no outputs."""
    heading: str
    """The heading path that the notebook's Markdown cells have reached here."""


def cells(text: str) -> list[Cell] | None:
    """The cells in order; None if the text is no notebook of format 4."""
    try:
        return list(_cells(text))
    except (ValueError, TypeError, IndexError, RecursionError):
        return None


def _cells(text: str) -> Iterator[Cell]:
    starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))

    def row(at: int) -> int:
        return bisect_right(starts, at) - 1

    held = {key: (start, value) for key, start, _, value in _members(text, _skip(text, 0))}
    start, listed = held.get("cells", (0, None))
    if not isinstance(listed, list):
        raise ValueError("no cells")
    written: list[str] = []
    found: list[Cell] = []
    reached: list[int] = []  # lines of Markdown written when each cell ends
    for first, end, value in _elements(text, start):
        if not isinstance(value, dict):
            raise ValueError("a cell that is no object")
        at = {key: begin for key, begin, _, _ in _members(text, first)}
        if value.get("cell_type") == "markdown":
            source = value.get("source") or ""
            written += (source if isinstance(source, str) else "".join(source)).split("\n")
        split = row(max(at["source"], at["outputs"])) if value.get("outputs") and "source" in at else None
        found.append(Cell(row(first), row(end - 1), split, ""))
        reached.append(len(written))
    headings = sections(written, "markdown")
    rows = [at for at, _ in headings]
    for cell, until in zip(found, reached, strict=True):
        last = bisect_left(rows, until) - 1
        yield replace(cell, heading=headings[last][1] if last >= 0 else "")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _members(text: str, at: int) -> Iterator[tuple[str, int, int, Any]]:
    """(key, start of the key, end of the value, value) of each member of the object at `at`."""
    at = _open(text, at, "{")
    while text[at] != "}":
        begin = at
        key, at = _DECODER.raw_decode(text, at)
        at = _open(text, _skip(text, at), ":")
        value, end = _DECODER.raw_decode(text, at)
        yield key, begin, end, value
        at = _next(text, end)


def _elements(text: str, at: int) -> Iterator[tuple[int, int, Any]]:
    """(start, end, value) of each element of the array that is the value of the member at `at`."""
    _, at = _DECODER.raw_decode(text, at)
    at = _open(text, _open(text, _skip(text, at), ":"), "[")
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield at, end, value
        at = _next(text, end)


def _open(text: str, at: int, sign: str) -> int:
    if text[at] != sign:
        raise ValueError(f"no {sign}")
    return _skip(text, at + 1)


def _next(text: str, end: int) -> int:
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at
