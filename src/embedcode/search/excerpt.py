"""The few lines of a chunk that tell most about a query. Knows no screen and no colours."""

from __future__ import annotations

from collections.abc import Sequence, Set

from embedcode.store.terms import split

LINES = 10
COLUMNS = 200
"""Read and shown of a line; data and generated code have lines of many pages."""


def beginning(lines: Sequence[str]) -> int:
    """The position of the first that is not blank."""
    return next((number for number, line in enumerate(lines) if line.strip()), 0)


def telling(lines: Sequence[str], terms: Set[str]) -> range:
    """At most LINES of them, by position: the first that are not blank, unless others hold more different terms. Of
    those that hold as many, some that do without the last line, which then shows what follows."""
    top = beginning(lines)
    if len(lines) - top <= LINES or not terms:
        return range(top, min(len(lines), top + LINES))
    held = [terms & set(split(line[:COLUMNS])) for line in lines]
    starts = [start for start in range(top, len(lines) - LINES + 1) if start == top or lines[start].strip()]

    def told(start: int) -> tuple[int, int, int]:
        before = set[str]().union(*held[start : start + LINES - 1])
        return len(before | held[start + LINES - 1]), len(before), -start

    best = max(starts, key=told)
    return range(best, best + LINES)
