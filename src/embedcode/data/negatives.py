"""Hard negatives: passages that a model takes for answers and that are none, as far as can be told.

Positive-aware, as NV-Retriever has it: what scores close to the positive is more likely an answer that nobody marked,
so that a candidate stays only below 95 % of the positive's score, or below it by a margin. What answers the same query
elsewhere is never one. A second round is the same with the refined model.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcode.data.never import fingerprint
from embedcode.data.scoring import Passages, Told, embed, nearest, own, ranks
from embedcode.types import Encoder, Floats, Pair, Role

DEPTH, DEEPER = 100, 8
"""Passages of each query that are looked at, and how many times as many where they hold too few negatives: to a model
that is not trained yet all are alike, and the first hundred all too good."""
SCORES = 1 << 21
"""Scores that are sorted at a time: 150 MB with all that sorting takes."""
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
    kept: Path | None = None,
) -> tuple[list[Pair], Counter[str]]:
    """The pairs with up to `count` negatives each, hardest first, and why candidates were passed over.

    Passages of all pairs of the same language are candidates. `sample` draws from those allowed instead of taking the
    hardest; `keep` has the negatives that a pair has stand behind the new ones instead of replacing them. `kept` is
    embed()'s folder.
    """
    result = list(pairs)
    passed = Counter[str]()
    for language in dict.fromkeys(pair.language for pair in pairs):
        chosen = [number for number, pair in enumerate(pairs) if pair.language == language]
        mine = [pairs[number] for number in chosen]
        passages = Passages.of(mine)
        # Queries first: a model that takes no instruction says so at once, and passages never have one.
        queries = embed(encoder, [pair.query for pair in mine], Role.QUERY, told, instruction, kept)
        vectors = embed(encoder, passages.texts, Role.PASSAGE, told, kept=kept)
        positives = own(queries, vectors, passages.of_pair)
        limits = np.array([rule.limit(float(one.min())) for one in positives], np.float32)
        _, prints = np.unique([fingerprint(text) for text in passages.texts], return_inverse=True)
        reasons = [Counter[str]() for _ in mine]
        left, depth = list(range(len(mine))), DEPTH
        while left:
            short = []
            block = max(1, SCORES // depth)
            for start in range(0, len(left), block):
                rows = left[start : start + block]
                for i, scores, places in zip(rows, *find(queries[rows], vectors, depth), strict=True):
                    pair, most = mine[i], len(places) if sample else count
                    known = prints[list(passages.of_query[pair.query])]
                    allowed, reasons[i] = _allowed(scores, prints[places], known, limits[i], most)
                    if len(allowed) < count:
                        reasons[i][FEW] = 1
                        short.append(i)
                    if sample and len(allowed) > count:
                        drawn = random.Random(f"{SEED} {pair.query}").sample(range(len(allowed)), count)
                        allowed = [allowed[place] for place in sorted(drawn)]
                    found = (passages.texts[places[rank]] for rank in allowed)
                    old = pair.negatives if keep else ()
                    result[chosen[i]] = replace(pair, negatives=tuple(dict.fromkeys((*found, *old))))
            if short and depth == DEPTH:  # sorting all passages takes hours: not where none is below the limit
                worse = len(vectors) + 1 - ranks(queries[short], vectors, limits[short])
                short = [i for i, some in zip(short, worse > 0, strict=True) if some]
            left, depth = short if depth < len(vectors) else [], depth * DEEPER
        passed += sum(reasons, Counter())
    return result, passed


def _allowed(
    scores: Floats, prints: NDArray[np.int64], answers: NDArray[np.int64], limit: float, most: int
) -> tuple[list[int], Counter[str]]:
    """The ranks of up to `most` negatives, and why those above were passed over. Copies count once, by their prints."""
    known = set(answers.tolist())
    first = int(np.count_nonzero(scores >= limit))  # best first
    above = int(np.isin(prints[:first], answers).sum())
    passed = Counter({ANSWERS: above, CLOSE: first - above})
    allowed: list[int] = []
    for rank, one in enumerate(prints[first:].tolist(), first):
        if len(allowed) == most:
            break
        if one in known:
            passed[ANSWERS] += 1
        else:
            known.add(one)
            allowed.append(rank)
    return allowed, passed
