"""Hard negatives: passages that a model takes for answers and that are none, as far as can be told.

Positive-aware, as NV-Retriever has it: what scores close to the positive is more likely an answer that nobody marked,
so that a candidate stays only below 95 % of the positive's score, or below it by a margin. What answers the same query
elsewhere is never one. A second round is the same with the refined model.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcode.data.never import fingerprint
from embedcode.data.scoring import Passages, Told, embed, nearest, own
from embedcode.types import Encoder, Floats, Pair, Role

DEPTH, DEEPER = 100, 8
"""Passages of each query that are looked at, and how many times as many where all of them are too good."""
SCORES = 1 << 23
"""Scores that are held at a time: 100 MB with their places."""
SEED = 20261126

Nearest = Callable[[Floats, Floats, int], tuple[Floats, NDArray[np.int64]]]
"""As scoring.nearest()."""

ANSWERS = "answers the query"
CLOSE = "too close to the positive"
FEW = "pairs with fewer negatives than asked for"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which candidates are too good: those above the lowest positive's score s times `share`, or less `margin`, or
    above `ceiling`. With s below 0, the share counts downwards."""

    kind: Literal["share", "margin"] = "share"
    value: float = 0.95
    ceiling: float = 1.0

    def limit(self, positive: float) -> float:
        if self.kind == "margin":
            return min(positive - self.value, self.ceiling)
        return min(positive - (1 - self.value) * abs(positive), self.ceiling)


def mine(
    pairs: Sequence[Pair],
    encoder: Encoder,
    count: int = 7,
    rule: Rule = Rule(),
    sample: bool = False,
    keep: bool = False,
    instruction: str | None = None,
    told: Told = lambda *_: None,
    find: Nearest = nearest,
) -> tuple[list[Pair], Counter[str]]:
    """The pairs with up to `count` negatives each, hardest first, and why candidates were passed over.

    Passages of all pairs of the same language are candidates. `sample` draws from those allowed instead of taking the
    hardest; `keep` has the negatives that a pair has stand behind the new ones instead of replacing them.
    """
    result = list(pairs)
    passed = Counter[str]()
    for language in dict.fromkeys(pair.language for pair in pairs):
        chosen = [number for number, pair in enumerate(pairs) if pair.language == language]
        mine = [pairs[number] for number in chosen]
        passages = Passages.of(mine)
        vectors = embed(encoder, passages.texts, Role.PASSAGE, told, instruction)
        queries = embed(encoder, [pair.query for pair in mine], Role.QUERY, told, instruction)
        positives = own(queries, vectors, passages.of_pair)
        prints = [fingerprint(text) for text in passages.texts]
        limits = [rule.limit(float(one.min())) for one in positives]
        for i, scores, places in _nearest(queries, vectors, find, limits, 2 * count):
            pair, limit = mine[i], limits[i]
            answers = passages.of_query[pair.query]
            known = {prints[place] for place in answers}
            allowed: list[str] = []
            for score, place in zip(scores.tolist(), places.tolist(), strict=True):
                if place in answers or prints[place] in known:
                    passed[ANSWERS] += 1
                elif score >= limit:
                    passed[CLOSE] += 1
                else:
                    known.add(prints[place])
                    allowed.append(passages.texts[place])
                    if len(allowed) == count and not sample:
                        break
            if sample and len(allowed) > count:
                drawn = random.Random(f"{SEED} {pair.query}").sample(range(len(allowed)), count)
                allowed = [allowed[place] for place in sorted(drawn)]
            passed[FEW] += len(allowed) < count
            old = pair.negatives if keep else ()
            result[chosen[i]] = replace(pair, negatives=tuple(dict.fromkeys((*allowed, *old))))
    return result, passed


def _nearest(
    queries: Floats, vectors: Floats, find: Nearest, limits: Sequence[float], enough: int
) -> Iterator[tuple[int, Floats, NDArray[np.int64]]]:
    """(query, scores, places of its nearest passages): DEPTH or more, `enough` of them below the query's limit, or all.

    Where a model finds everything alike, as one that is not trained yet does, the first hundred may all be too good.
    """
    left, depth = list(range(len(queries))), max(DEPTH, 2 * enough)
    while left:
        short = []
        block = max(1, SCORES // depth)
        for start in range(0, len(left), block):
            rows = left[start : start + block]
            for i, scores, places in zip(rows, *find(queries[rows], vectors, depth), strict=True):
                if depth < len(vectors) and int((scores < limits[i]).sum()) < enough:
                    short.append(i)
                else:
                    yield i, scores, places
        left, depth = short, min(depth * DEEPER, len(vectors))
