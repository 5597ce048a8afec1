"""Consistency: a pair stays when a model finds its positive among the best k of many. What an author wrote above the
wrong function, or what says too little to find it by, goes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcode.data.scoring import Passages, Told, embed, own, ranks
from embedcode.types import Encoder, Pair, Role

POOL = 10_000
"""Passages that a positive is ranked among: with more, what is kept depends on how many pairs there are."""
SEED = 20261126


@dataclass(frozen=True, slots=True)
class Filtered:
    kept: list[Pair]
    ranks: NDArray[np.int64]
    """Of each pair given: 1 is best."""


def drawn(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most so many pairs of each language, drawn by SEED, in their order: embedding all takes a night, and few
    languages have most of them."""
    kept: set[int] = set()
    for language in dict.fromkeys(pair.language for pair in pairs):
        mine = [number for number, pair in enumerate(pairs) if pair.language == language]
        kept.update(random.Random(f"{SEED} {language}").sample(mine, min(most, len(mine))))
    return [pair for number, pair in enumerate(pairs) if number in kept]


def consistent(
    pairs: Sequence[Pair],
    encoder: Encoder,
    top: int = 20,
    pool: int = POOL,
    instruction: str | None = None,
    told: Told = lambda *_: None,
    kept: Path | None = None,
) -> Filtered:
    """The pairs whose best positive ranks within `top` among `pool` passages of all pairs of the same language.

    The passages are drawn by SEED, the same for each call with the same pairs. `kept` is embed()'s folder.
    """
    result = np.zeros(len(pairs), np.int64)
    languages = dict.fromkeys(pair.language for pair in pairs)
    for language in languages:
        chosen = [number for number, pair in enumerate(pairs) if pair.language == language]
        mine = [pairs[number] for number in chosen]
        passages = Passages.of(mine)
        drawn = random.Random(SEED).sample(range(len(passages.texts)), min(pool, len(passages.texts)))
        # Queries first: a model that takes no instruction says so at once, and passages never have one.
        queries = embed(encoder, [pair.query for pair in mine], Role.QUERY, told, instruction, kept)
        vectors = embed(encoder, passages.texts, Role.PASSAGE, told, kept=kept)
        best = np.array([scores.max() for scores in own(queries, vectors, passages.of_pair)], np.float32)
        result[chosen] = ranks(queries, vectors[drawn], best)
    return Filtered([pair for pair, rank in zip(pairs, result, strict=True) if rank <= top], result)
