"""Texts inside of others, as a function in its class or in a run of its file: by the runs of tokens that they share.

Where `minhash` compares texts whole, a function of a benchmark that is a tenth of a chunk goes unseen. Here a text is
known by its runs of RUN tokens (those of `never`, so formatting, comments and docstrings make no difference), of which
a fourth is kept, chosen by its hash, so that both sides keep the same. Knows no pairs and no evaluation sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from zlib import crc32

RUN = 8
"""Tokens of a run, punctuation too: of fewer, functions that only do the same share many."""
KEPT = 4
"""Of so many runs one is kept."""
FEWEST = 8
"""Kept runs below which a text is too short to be known inside of another: some 40 tokens, three or four lines."""
SHARE = 0.8
"""Of the kept runs of a text, from which on it is inside of the other."""
IDIOM = 50
"""Texts that share a run from which on it is anybody's, as a licence or the beginning of a test is."""


def kept(tokens: Sequence[str]) -> set[int]:
    """Hashes of the runs that are kept of a text."""
    hashes = [crc32(token.encode("utf-8", "surrogatepass")) for token in tokens]
    found = set[int]()
    for start in range(len(hashes) - RUN + 1):
        run = hash(tuple(hashes[start : start + RUN]))  # of whole numbers: the same in every process
        if run % KEPT == 0:
            found.add(run)
    return found


class Index:
    """Texts by number, asked which of them lies in a new one, or holds it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._with: dict[int, list[int]] = {}

    def add(self, number: int, runs: set[int]) -> None:
        if len(runs) < FEWEST:
            return
        self._sizes[number] = len(runs)
        for run in runs:
            self._with.setdefault(run, []).append(number)

    def find(self, runs: set[int]) -> tuple[int, float] | None:
        """(number, share) of the known text that is most inside of this one, or this one of it; None for none."""
        shared = Counter[int]()
        for run in runs:
            if len(known := self._with.get(run, ())) < IDIOM:
                shared.update(known)
        own = len(runs) if len(runs) >= FEWEST else inf  # a short text is inside of none
        best: tuple[int, float] | None = None
        for number, count in shared.items():
            share = count / min(self._sizes[number], own)
            if share >= SHARE and (best is None or share > best[1]):
                best = number, share
        return best
