"""Exact search: the k nearest of many vectors, in blocks of both sides, so that the similarity matrix is never whole.

Knows no text and no file. 300,000 documents need as much memory as 16,384.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedcode.engine.vectors import packed
from embedcode.evaluate.vectors import Moment, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.types import Floats

QUERIES, DOCUMENTS = 1024, 16_384
"""Of one block: 67 MB of scores."""

MANY = 8
"""Times k candidates of a block, from which it is first cut to its own k best: of the first block, rarely of others."""


class Rows(Protocol):
    """Vectors [n, dim] that are read in blocks."""

    def __len__(self) -> int: ...

    def block(self, start: int, stop: int) -> Floats: ...


KINDS = ("float", "int8", "binary")


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as whoever keeps them cut and packed compares them: inner products of the first `dimensions`, of int8, or of
    signs, which order as the Hamming distance of bits does."""

    rows: Rows
    dimensions: int | None
    kind: str

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int) -> Floats:
        whole = self.rows.block(start, stop)
        if self.kind == "binary":
            whole = whole if self.dimensions is None else whole[:, : self.dimensions]
            return np.where(whole > 0, np.float32(1), np.float32(-1))
        found: Floats = packed(whole, self.kind, self.dimensions).astype(np.float32, copy=False)
        return found


def search(
    queries: Rows, documents: Rows, k: int, progress: Progress = lambda moment: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and scores [queries, min(k, documents)] of the documents with the highest inner product, best first.

    Of equal scores the earlier document comes first, also where only some of them fit.
    """
    k = min(k, len(documents))
    places = np.zeros((len(queries), k), np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    begun = time.monotonic()
    for start in range(0, len(documents), DOCUMENTS):
        stop = min(start + DOCUMENTS, len(documents))
        block = documents.block(start, stop).T
        for first in range(0, len(queries), QUERIES):
            last = min(first + QUERIES, len(queries))
            _merge(places[first:last], scores[first:last], queries.block(first, last) @ block, start)
        seconds = time.monotonic() - begun
        progress(Moment("comparing documents", stop, len(documents), seconds / stop * (len(documents) - stop)))
    return places, scores


def _merge(places: NDArray[np.int64], scores: NDArray[np.float32], found: Floats, start: int) -> None:
    """Put the best of `found` [q, block], whose documents begin at `start`, among the best so far, in place."""
    k = places.shape[1]
    if not k:
        return
    better = found >= scores[:, -1:]
    if np.count_nonzero(better) > MANY * k * len(found) and found.shape[1] > k:
        better &= found >= np.partition(found, -k, axis=1)[:, -k : found.shape[1] - k + 1]
    rows, columns = np.nonzero(better)
    held_rows, held = np.nonzero(scores > -np.inf)
    everything = (
        np.concatenate([held_rows, rows]),
        np.concatenate([scores[held_rows, held], found[rows, columns]]),
        np.concatenate([places[held_rows, held], columns + start]),
    )
    order = np.lexsort((everything[2], -everything[1], everything[0]))
    row, score, place = (part[order] for part in everything)
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < k
    scores[row[kept], rank[kept]] = score[kept]
    places[row[kept], rank[kept]] = place[kept]
