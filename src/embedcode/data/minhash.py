"""Near duplicates among many texts: MinHash signatures, and bands of them as keys of buckets (LSH).

The similarity is Jaccard's over the words, numbers and strings of a text, each occurrence its own, so that formatting,
comments and punctuation make no difference (tokens of `never`). Candidates from the buckets are checked exactly where
their elements are kept. Knows no pairs and no evaluation sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from embedcode.data.never import tokens

THRESHOLD = 0.8
"""Jaccard similarity from which two texts are near duplicates."""
BANDS, ROWS = 20, 5
"""A pair at the threshold shares a band with probability 1 - (1 - .8^5)^20 = .9996, one at .5 with .47."""
FEWEST = 10
"""Elements below which only equal texts are duplicates: among few words, one that differs is much."""

Elements = NDArray[np.uint64]
Signatures = NDArray[np.uint32]

_RANDOM = np.random.default_rng(20261126)
_A = _RANDOM.integers(1, 1 << 63, BANDS * ROWS, np.uint64) | np.uint64(1)
_B = _RANDOM.integers(0, 1 << 63, BANDS * ROWS, np.uint64)
_MIX = _RANDOM.integers(1, 1 << 63, ROWS, np.uint64) | np.uint64(1)


def elements(text: str) -> Elements:
    """uint64 [n], sorted and distinct: a hash of each word or string with the number of its occurrence."""
    return elements_of(tokens(text))


def elements_of(found: Iterable[str]) -> Elements:
    """The same by what never.tokens() gave."""
    seen = Counter[str]()
    hashes = set[int]()
    for token in found:
        if token[0].isalnum() or token[0] in '_"' or '"' in token:
            seen[token] += 1
            hashes.add(crc32(f"{seen[token]}\0{token}".encode("utf-8", "surrogatepass")))
    return np.array(sorted(hashes), np.uint64)


def signature(found: Elements) -> Signatures:
    """uint32 [BANDS * ROWS]: the least value of each hash function over the elements, all ones for none."""
    if not len(found):
        return np.full(BANDS * ROWS, 0xFFFFFFFF, np.uint32)
    # Multiply-shift: the upper half of a * x + b modulo 2^64 is universal over 32-bit x.
    least: Signatures = ((found[:, None] * _A + _B) >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return least


def buckets(signatures: Signatures) -> NDArray[np.uint64]:
    """uint64 [n, BANDS]: equal where a band is. `signatures` is [n, BANDS * ROWS]."""
    rows = signatures.reshape(-1, BANDS, ROWS).astype(np.uint64)
    mixed: NDArray[np.uint64] = (rows * _MIX).sum(axis=2, dtype=np.uint64)
    return mixed


def jaccard(one: Elements, other: Elements) -> float:
    """Of two sets of elements; 0.0 where either is empty."""
    if not len(one) or not len(other):
        return 0.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


class Index:
    """Texts known by their elements, asked which of them are near a new one."""

    def __init__(self) -> None:
        self._elements: list[Elements] = []
        self._buckets: list[dict[int, list[int]]] = [{} for _ in range(BANDS)]

    def __len__(self) -> int:
        return len(self._elements)

    def add(self, found: Elements) -> int:
        """The number of the text; one with fewer than FEWEST elements is near to none."""
        number = len(self._elements)
        self._elements.append(found)
        if len(found) >= FEWEST:
            for table, key in zip(self._buckets, self._keys(found), strict=True):
                table.setdefault(key, []).append(number)
        return number

    def near(self, found: Elements, threshold: float = THRESHOLD) -> Iterator[tuple[int, float]]:
        """(number, exact similarity) of those at or above the threshold, each once."""
        if len(found) < FEWEST:
            return
        candidates = set[int]()
        for table, key in zip(self._buckets, self._keys(found), strict=True):
            candidates.update(table.get(key, ()))
        for number in sorted(candidates):
            similarity = jaccard(found, self._elements[number])
            if similarity >= threshold:
                yield number, similarity

    @staticmethod
    def _keys(found: Elements) -> list[int]:
        keys: list[int] = buckets(signature(found)[None, :])[0].tolist()
        return keys


def copies(signatures: Signatures, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """bool [n]: whether a row is a near duplicate of an earlier one, by the share of equal values in their signatures.

    For a million rows, where keeping the elements would not do: the share estimates the similarity with a standard
    error of .04 at the threshold. Each row is compared with the first of its bucket in each band, and with its
    neighbour there.
    """
    total = len(signatures)
    keys = buckets(signatures)
    drop = np.zeros(total, np.bool_)
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        ordered = keys[order, band]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        first = np.repeat(order[starts], np.diff(np.r_[starts, total]))
        for earlier in (first, np.r_[order[:1], order[:-1]]):
            rows = np.flatnonzero((earlier != order) & (keys[earlier, band] == ordered))
            for part in np.array_split(rows, max(1, len(rows) // 100_000)):
                alike = (signatures[earlier[part]] == signatures[order[part]]).mean(axis=1)
                drop[order[part[alike >= threshold]]] = True
    drop &= signatures.min(axis=1) != np.uint32(0xFFFFFFFF)
    return drop


def sketch(found: Elements) -> Signatures:
    """uint32 [BANDS * ROWS] of a text by its elements; all ones for one with too few to be near another."""
    return signature(found if len(found) >= FEWEST else found[:0])
