"""Runs of lines, how large they are, and how neighbours are joined. Knows no languages and no syntax."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

TARGET = 750
"""Characters, without indentation, that small neighbours are joined up to: about 250 tokens, what the smallest encoders
read whole. 750 ranked better than 1,500 in semble's trial."""
CAP = 1_500
"""A function, method or class up to this size stays whole; only a single line may be larger."""
SMALL = 200
"""A whole definition above this size is joined with no other: two functions in one vector blur both."""
CRUMB = 60
"""Up to this size (`__all__ = [...]`, `class A:`) a piece joins its neighbour as long as that stays below CAP."""


class Lines:
    """The lines of a text, split at "\\n" only. A trailing line break makes no line of its own."""

    def __init__(self, text: str) -> None:
        self.lines = text.removesuffix("\n").split("\n")
        self._sums = [0, *accumulate(map(len, map(str.strip, self.lines)))]

    def __len__(self) -> int:
        return len(self.lines)

    def size(self, first: int, end: int) -> int:
        """Characters of rows first..end-1 without indentation and line ends: blank lines cost nothing."""
        return self._sums[end] - self._sums[first]

    def blank(self, row: int) -> bool:
        return self._sums[row] == self._sums[row + 1]

    def indent(self, row: int) -> int:
        line = self.lines[row]
        return len(line) - len(line.lstrip())

    def reach(self, first: int, size: int) -> int:
        """The end of the longest run from `first` that is at most `size`, with the blank lines behind it."""
        return bisect_right(self._sums, self._sums[first] + size) - 1


@dataclass(slots=True)  # not frozen: a file makes hundreds, and a frozen one takes four times as long to make
class Piece:
    """Rows first..end-1 (0-based) on their way to a chunk."""

    first: int
    end: int
    size: int
    names: tuple[str, ...] = ()
    """Qualified names of what is defined here, in order."""
    scope: str = ""
    """The definition that the rows are a part of."""
    whole: bool = False
    """Holds whole definitions, not statements or the head of one."""
    solid: bool = False
    """A part of something too large for one chunk: not to be joined with what stands beside that."""


def join(pieces: list[Piece]) -> list[Piece]:
    """Neighbours joined from the top down, within the limits above; a piece of blank lines always joins."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and _joins(joined[-1], piece):
            last = joined.pop()
            piece = Piece(
                last.first,
                piece.end,
                last.size + piece.size,
                (*last.names, *(name for name in piece.names if name not in last.names)),
                last.scope if last.size else piece.scope,
                last.whole or piece.whole,
                last.solid or piece.solid,
            )
        joined.append(piece)
    return joined


def _joins(one: Piece, two: Piece) -> bool:
    smaller, total = min(one.size, two.size), one.size + two.size
    if smaller == 0:
        return True
    if one.solid or two.solid:  # only a bare head (`module A`) goes with what it opens
        return two.solid and not one.solid and bool(one.scope) and one.size <= CRUMB and total <= CAP
    if total <= TARGET:
        return smaller <= SMALL or not (one.whole or two.whole)
    return smaller <= CRUMB and total <= CAP


def by_lines(lines: Lines, first: int, end: int, names: tuple[str, ...] = (), scope: str = "") -> list[Piece]:
    """Rows first..end-1 cut near TARGET, if possible behind a blank line, else where the indentation is least."""
    pieces: list[Piece] = []
    while first < end:
        cut = min(_cut(lines, first), end)
        pieces.append(Piece(first, cut, lines.size(first, cut), names, scope))
        first, names = cut, ()
    return join(pieces)


def _cut(lines: Lines, first: int) -> int:
    full = lines.reach(first, TARGET)
    if full >= len(lines):
        return full
    if lines.size(first, full) == 0:  # the line at `full` is above the target alone
        return lines.reach(first, lines.size(first, full + 1))
    # Row `full` overflows, so it is not blank, and a cut before it is always possible.
    best, best_key = full, (False, 0)
    for row in range(full, lines.reach(first, TARGET // 2), -1):
        if lines.blank(row):
            continue
        closes = lines.lines[row].lstrip()[0] in ")]}"
        key = (lines.blank(row - 1), -lines.indent(row) - 1000 * closes)
        if row == full or key > best_key:
            best, best_key = row, key
    return best


def solid(pieces: list[Piece]) -> list[Piece]:
    return [replace(piece, solid=True) for piece in pieces]
