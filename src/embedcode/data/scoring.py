"""The passages of pairs and how a model scores them against queries: exact, in blocks, so that memory is bounded.

Not sentence-transformers' mine_hard_negatives: it takes its own models only, and one positive a query. Knows neither
filtering nor negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcode.evaluate import dense, vectors
from embedcode.types import Encoder, Floats, Pair, Role, Truncate

BLOCK = 1024
"""Texts embedded, and queries scored, at a time."""
PASSAGES = 65_536
"""Passages scored at a time: with a block of queries, 268 MB of scores."""

Told = Callable[[str, int, int], None]
"""What is embedded, how many are done, of how many."""


@dataclass(frozen=True, slots=True)
class Passages:
    """The distinct positives of pairs, and where those of each pair are."""

    texts: list[str]
    of_pair: list[list[int]]
    of_query: dict[str, set[int]]
    """Every passage that answers a query somewhere: none of them is a negative of it."""

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Passages:
        places: dict[str, int] = {}
        of_pair, of_query = [], dict[str, set[int]]()
        for pair in pairs:
            mine = [places.setdefault(text, len(places)) for text in pair.positives]
            of_pair.append(mine)
            of_query.setdefault(pair.query, set()).update(mine)
        return cls(list(places), of_pair, of_query)


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    role: Role,
    told: Told = lambda *_: None,
    instruction: str | None = None,
    kept: Path | None = None,
) -> Floats:
    """float32 [n, dim], unit length; a text that is too long is cut at its end.

    In the folder `kept` are vectors that are done, for a run that goes on where this one was killed.
    """
    what = "query" if role is Role.QUERY else "passage"
    many = "queries" if role is Role.QUERY else "passages"
    # Lone surrogates are no text for a tokenizer.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    if kept is not None:
        by_number = {str(number): text for number, text in enumerate(texts)}

        def tell(moment: vectors.Moment) -> None:
            told(many, moment.done, moment.total)

        done = vectors.embed(encoder, by_number, role, kept, what=what, instruction=instruction, progress=tell)
        return done.block(0, len(done))
    found = []
    for start in range(0, len(texts), BLOCK):
        told(many, start, len(texts))
        found.append(encoder.encode(texts[start : start + BLOCK], role, instruction, Truncate.END))
    return np.concatenate(found) if found else np.zeros((0, encoder.dim), np.float32)


def own(queries: Floats, passages: Floats, positives: Sequence[Sequence[int]]) -> list[Floats]:
    """The scores of each query's own positives."""
    return [queries[i] @ passages[list(mine)].T for i, mine in enumerate(positives)]


def ranks(queries: Floats, passages: Floats, best: Floats) -> NDArray[np.int64]:
    """int64 [n]: how many passages score above `best`, the score of each query's best positive, plus 1."""
    found = np.ones(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        for first in range(0, len(passages), PASSAGES):
            # A product of matrices rounds otherwise than one of vectors: a passage is not above itself by 1e-7.
            scores = queries[rows] @ passages[first : first + PASSAGES].T
            found[rows] += (scores > best[rows, None] + 1e-6).sum(axis=1)
    return found


def nearest(queries: Floats, passages: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Scores and places [n, min(count, passages)] of the best passages of each query, best first; ties by place."""
    places, scores = dense.search(_Held(queries), _Held(passages), count)
    return scores, places


@dataclass(frozen=True, slots=True)
class _Held:
    """Vectors in memory, read in blocks."""

    rows: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int) -> Floats:
        return self.rows[start:stop]
