"""Fusion: one score from the lexical and the dense one. Knows scores only, no store and no text.

The rule is a convex combination after scaling each list to 0..1 by its own best and worst candidate
(Bruch, Gai, Ingber 2023, arXiv 2210.11934), with one weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DENSE_WEIGHT = 0.7
"""The best mean nDCG@10 over four development sets (.602; words alone .539, vectors alone .539, reciprocal rank fusion
.569): bench/fusion."""
NAME_DENSE_WEIGHT = 0.5
"""The same for a name half-remembered, where words are the better signal."""


def fuse(
    lexical: Mapping[int, float],
    dense: Mapping[int, float],
    weight: float = DENSE_WEIGHT,
    others: Iterable[int] = (),
) -> list[tuple[int, float]]:
    """(candidate, score in 0..1), best first, ties by candidate.

    A candidate that words did not find scores 0 there, the floor of BM25; one whose vector is missing gets the mean of
    the others, so that a half-embedded index neither rewards nor hides it. One list alone is only scaled. `others` are
    candidates that may be in neither.
    """
    words = _scaled(lexical, floor=0.0)
    vectors = _scaled(dense, floor=min(dense.values(), default=0.0))
    if not (words and vectors):
        weight = float(not words)
    unknown = sum(vectors.values()) / len(vectors) if vectors else 0.0
    ids = {**lexical, **dense, **dict.fromkeys(others)}
    scores = {id: (1 - weight) * words.get(id, 0.0) + weight * vectors.get(id, unknown) for id in ids}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _scaled(scores: Mapping[int, float], floor: float) -> dict[int, float]:
    top = max(scores.values(), default=0.0)
    span = top - floor
    return {id: (score - floor) / span if span > 0 else 1.0 for id, score in scores.items()}
