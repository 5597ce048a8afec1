"""Near: pairs whose queries are alike come together, so that what a query is compared with is hard to tell from its
answer at no cost of a step (as in arXiv 2410.02525, which clusters what batches are made of).

The base's vectors of the queries, of one language at a time, are halved along their main direction until the parts are
as large as a group. Of two queries of a group that are nearly the same neither's answer is a negative of the other.
Knows no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcode.files import replacing
from embedcode.train.mix import Mix, Set, key
from embedcode.types import Floats

GROUP = 32
"""Pairs of one group that come together, half of a batch of 64."""
ALIKE = 0.8
"""Cosine of two queries from which on the answer of one may be the other's: 3 of 1,000 neighbours, mostly overloads."""
_TURNS = 8
"""Of the power iteration that finds a direction; it need not be exact."""


def near(mix: Mix, encode: Callable[[Set, Sequence[str]], Floats], folder: Path) -> Mix:
    """The mix with the groups of its sets that ask for them; the vectors are kept in `folder`."""
    found = np.full(len(mix.pairs), -1, np.int64)
    answers: dict[bytes, set[bytes]] = {}
    number = 0
    for one in mix.sets:
        if one.data.group != "near":
            continue
        place = folder / f"near-{one.data.name}.npy"
        if not place.is_file():
            vectors = encode(one, [pair.query for pair in mix.pairs[one.start : one.stop]])
            with replacing(place) as file:
                np.save(file, vectors.astype(np.float16))
        vectors = np.load(place).astype(np.float32)
        languages = np.array([pair.language for pair in mix.pairs[one.start : one.stop]])
        for language in np.unique(languages):
            for part in halved(vectors, np.flatnonzero(languages == language)):
                found[one.start + part] = number
                number += 1
                _answer(mix, one.start + part, vectors[part], answers)
    return replace(mix, near=found, answers=mix.answers | {query: frozenset(of) for query, of in answers.items()})


def halved(vectors: Floats, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """`rows` of the vectors in parts of GROUP, and one with the rest, neighbours together."""
    if len(rows) <= GROUP:
        return [rows]
    centred = vectors[rows] - vectors[rows].mean(0)
    direction = np.random.default_rng(len(rows)).normal(size=centred.shape[1]).astype(np.float32)
    for _ in range(_TURNS):
        direction = centred.T @ (centred @ direction)
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
    order = rows[np.argsort(centred @ direction, kind="stable")]
    half = max(1, round(len(rows) / 2 / GROUP)) * GROUP
    return halved(vectors, order[:half]) + halved(vectors, order[half:])


def _answer(mix: Mix, rows: NDArray[np.int64], vectors: Floats, answers: dict[bytes, set[bytes]]) -> None:
    """Note what answers the queries that are nearly the same."""
    alike = vectors @ vectors.T >= ALIKE
    for place in np.flatnonzero(alike.sum(1) > 1):
        query = key(mix.pairs[rows[place]].query)
        of = answers.setdefault(query, set(mix.answers.get(query, ())))
        for other in rows[alike[place]]:
            of |= {key(text) for text in mix.pairs[other].positives}
