"""Packs and batches: texts grouped by a budget of tokens, side by side or padded. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedcode.types import Tokens

BULK, CALL = 0.03, 0.15
"""Most padding, as a share of what is computed: of many texts, and of a few, where full batches count more."""


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


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Texts, by index, to run together padded to the longest: at most `budget` tokens with padding, of like lengths.

    Of all that is computed up to any batch no larger share is padding than CALL, or than BULK where the texts fill more
    than one: what long texts save lets short ones, which hardly count, run in few batches. A text that is longer than
    the budget goes alone.
    """
    most = BULK if sum(lengths) > budget else CALL
    batch: list[int] = []
    real = computed = 0  # tokens of the texts so far, and of the batches before this one with their padding
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        size = lengths[batch[0]] * (len(batch) + 1) if batch else 0
        if batch and (size > budget or real + lengths[index] < (1 - most) * (computed + size)):
            yield batch
            computed += lengths[batch[0]] * len(batch)
            batch = []
        batch.append(index)
        real += lengths[index]
    if batch:
        yield batch
