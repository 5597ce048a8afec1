"""Packs: texts grouped by a budget of tokens, in order. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedcode.types import Tokens


def packs(tokens: Sequence[Tokens], budget: int) -> Iterator[slice]:
    """Consecutive texts of at most `budget` tokens together; a longer text goes alone."""
    start = size = 0
    for index, entry in enumerate(tokens):
        if index > start and size + entry.used > budget:
            yield slice(start, index)
            start, size = index, 0
        size += entry.used
    if start < len(tokens):
        yield slice(start, len(tokens))
