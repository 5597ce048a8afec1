"""Texts inside of others, as a function in its class or in a run of its file: by the runs of tokens that they share.

Where `minhash` compares texts whole, a function of a benchmark that is a tenth of a chunk goes unseen. Here a text is
known by its runs of RUN tokens (those of `never`, so formatting, comments and docstrings make no difference), of which
a fourth is kept, chosen by its hash, so that both sides keep the same; and by longer ones in which names make no
difference either. Knows no pairs and no evaluation sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import inf
from zlib import crc32

from embedcode.index import words

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

LONG, MARKS = 12, 5
"""Of runs without names: tokens, and how many of them are keywords, marks, numbers or strings."""
_KEYWORDS = words(
    "and as async await break case catch class const continue def do elif else except extends false False final "
    "finally fn for from func function if implements import in interface is lambda let match new nil None not null or "
    "private protected public pub raise return self static struct switch this throw throws True true try var void "
    "while with yield"
)


def kept(tokens: Sequence[str]) -> set[int]:
    """Hashes of the runs that are kept of a text."""
    hashes = [crc32(token.encode("utf-8", "surrogatepass")) for token in tokens]
    found = set[int]()
    for start in range(len(hashes) - RUN + 1):
        run = hash(tuple(hashes[start : start + RUN]))  # of whole numbers: the same in every process
        if run % KEPT == 0:
            found.add(run)
    return found


def renamed(tokens: Sequence[str]) -> set[int]:
    """The same of runs of LONG tokens in which a name is told by how far back it was last met, so that code whose names
    were changed has the same runs. Runs of fewer than MARKS keywords and marks are prose, or say too little. Of the 92
    functions of HumanEval that are long enough 80 are found with all names changed, and none is taken for one of some
    1,800 documents of other sets that are."""
    kinds = [0 if re.match(r"[^\W\d]\w*+$", token) and token not in _KEYWORDS else _hash(token) for token in tokens]
    back, last = [], dict[str, int]()
    for place, token in enumerate(tokens):
        back.append(place - last.get(token, -LONG) if not kinds[place] else 0)
        last[token] = place
    found = set[int]()
    for start in range(len(kinds) - LONG + 1):
        run = tuple(kinds[start : start + LONG])
        if hash(run) % KEPT == 0 and LONG - run.count(0) >= MARKS:
            met = tuple(far if far <= place else 0 for place, far in enumerate(back[start : start + LONG]))
            found.add(hash((run, met)))
    return found


def _hash(token: str) -> int:
    return crc32(token.encode("utf-8", "surrogatepass")) | 1


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
