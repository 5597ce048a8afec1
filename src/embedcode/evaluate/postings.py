"""BM25 over the history of a repository: the terms of every distinct unit once, statistics of one commit at a time.

The figures are those of an index built for the commit alone: N, document frequencies and mean lengths count only what
is present in it. Knows no paths, no git and no queries' weights. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Counts:
    """The terms of some units: of unit i, those from ends[i-1] to ends[i] in `terms` (places in `names`) and `counts`.

    Small enough to send from one process to another.
    """

    names: list[str]
    terms: Ints
    counts: Ints
    ends: Ints

    @classmethod
    def of(cls, units: Sequence[Mapping[str, int]]) -> Counts:
        places = _Places()
        terms: list[int] = []
        counts: list[int] = []
        ends = []
        for unit in units:
            terms += map(places.__getitem__, unit)
            counts += unit.values()
            ends.append(len(terms))
        return cls(list(places), *(np.array(part, np.int32) for part in (terms, counts, ends)))


class _Places(dict[str, int]):
    """The place of each name, given at its first look-up."""

    def __missing__(self, name: str) -> int:
        self[name] = place = len(self)
        return place


class Postings:
    """Built of batches of units in order; then score() answers."""

    def __init__(self) -> None:
        self._places = _Places()
        self._parts: list[tuple[Ints, Ints, Ints]] = []
        self._units = 0
        self._sizes: list[Ints] = []
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self._held: Ints = np.empty(0, np.int32)
        self._counts: Ints = np.empty(0, np.int32)
        self.lengths: NDArray[np.float64] = np.empty(0)
        """Terms of each unit, with repeats."""

    def add(self, batch: Counts, kept: Sequence[int]) -> None:
        """The units of a batch at the places `kept`, as the next ones."""
        ids = np.array([self._places[name] for name in batch.names], np.int32)
        if not kept:
            return
        first = np.concatenate(([0], batch.ends[:-1])).astype(np.int64)[list(kept)]
        widths = batch.ends[list(kept)] - first
        # One run of places after another: the whole of each kept unit.
        runs = np.repeat(first - np.concatenate(([0], np.cumsum(widths)[:-1])), widths) + np.arange(widths.sum())
        counts = batch.counts[runs]
        units = np.repeat(np.arange(self._units, self._units + len(kept), dtype=np.int32), widths)
        self._parts.append((ids[batch.terms[runs]], units, counts))
        self._sizes.append(np.bincount(units - self._units, counts, len(kept)).astype(np.int32))
        self._units += len(kept)

    def close(self) -> None:
        """Nothing is added any more."""
        none = np.empty(0, np.int32)
        terms, units, counts = (np.concatenate(part) for part in zip((none, none, none), *self._parts, strict=True))
        self._parts.clear()
        order = np.argsort(terms, kind="stable")
        self._starts = np.searchsorted(terms[order], np.arange(len(self._places) + 1)).astype(np.int64)
        self._held, self._counts = units[order], counts[order]
        self.lengths = np.concatenate([none, *self._sizes]).astype(np.float64)

    def score(
        self,
        weights: Mapping[str, float],
        present: NDArray[np.float64],
        k1: float,
        b: float,
        norms: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """[units]: BM25 in Lucene's variant without its factor k1 + 1, of the units that are present.

        `present` [units] says how often each is in the commit; `norms` are lengths in place of the exact ones, in the
        norm of a unit and not in the mean, as indexes that store them in a byte have it.
        """
        scores = np.zeros(self._units)
        documents = float(present.sum())
        mean = float(present @ self.lengths) / documents if documents else 0.0
        if not mean:
            return scores
        norm = k1 * (1 - b + b * (self.lengths if norms is None else norms) / mean)
        for name, weight in weights.items():
            place = self._places.get(name)
            if place is None or weight <= 0 or not math.isfinite(weight):
                continue
            span = slice(self._starts[place], self._starts[place + 1])
            units = self._held[span]
            found = float(present[units].sum())
            if found:
                counts = self._counts[span]
                idf = math.log(1 + (documents - found + 0.5) / (found + 0.5))
                scores[units] += weight * idf * counts / (counts + norm[units])
        scores[present == 0] = 0.0
        return scores


def in_a_byte(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths as Lucene and tantivy keep them in one byte: exact below 40, then rounded down to four leading bits."""
    return _KEPT[np.searchsorted(_KEPT, lengths, side="right") - 1]


def _kept() -> NDArray[np.float64]:
    """The 256 lengths that a byte stands for: 24 exact ones, then those of a float with three bits of mantissa."""
    small = [i & 7 if i < 8 else (i & 7 | 8) << ((i >> 3) - 1) for i in range(232)]
    return np.array([*range(24), *(24 + value for value in small)], np.float64)


_KEPT = _kept()
