"""Mining: hard negatives for the pairs of a mix, by the model that is to learn from them.

Positive-aware (NV-Retriever, arXiv 2407.15831): a document that scores above a share of the positive's score may be an
answer that nobody has written down, and is left out. Candidates are the other positives of the same data set: those of
another would be told apart by their kind. What was mined is kept in the round's folder, so that a run that goes on does
not mine again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcode.data import pairs
from embedcode.train.batches import Texts
from embedcode.train.mix import Mix, Set, key
from embedcode.train.recipe import Recipe
from embedcode.types import Floats, Pair

BLOCK = 512
"""Queries whose scores are held at once: against 200,000 documents 400 MB."""


def mined(mix: Mix, recipe: Recipe, model: Any, texts: Texts, first: int, folder: Path) -> Mix:
    """The mix with negatives mined by `model`, from `folder` where they are there already."""
    rows: list[Pair] = []
    for one in mix.sets:
        file = folder / f"negatives-{one.data.name}.jsonl.gz"
        own = mix.pairs[one.start : one.stop]
        if not file.is_file():
            pairs.write(file, _of_set(own, one, mix, recipe, model, texts, first))
        rows += pairs.read(file)
    return replace(mix, pairs=rows)


def _of_set(
    own: Sequence[Pair], one: Set, mix: Mix, recipe: Recipe, model: Any, texts: Texts, first: int
) -> list[Pair]:
    from embedcode.train.network import encode

    documents: dict[bytes, str] = {key(text): text for pair in own for text in pair.positives}
    names = list(documents)
    places = {name: place for place, name in enumerate(names)}
    passages = encode(model, texts.passage(list(documents.values())), first)
    said = [one.data.instruction] * len(own)
    queries = encode(model, texts.query([pair.query for pair in own], said), first)
    positive = [[places[key(text)] for text in pair.positives] for pair in own]
    barred = [[places[name] for name in mix.answers.get(key(pair.query), ()) if name in places] for pair in own]
    count = recipe.mining.kept or recipe.negatives
    found = hardest(queries, passages, positive, barred, recipe.mining.share, count)
    texts_ = list(documents.values())
    return [
        replace(pair, negatives=tuple(texts_[place] for place in row)) for pair, row in zip(own, found, strict=True)
    ]


def hardest(
    queries: Floats,
    documents: Floats,
    positives: Sequence[Sequence[int]],
    barred: Sequence[Sequence[int]],
    share: float,
    count: int,
) -> list[list[int]]:
    """For each query the places of the `count` nearest documents, nearest first, that score below `share` of its
    lowest positive and are neither its positive nor barred; fewer where there are no more."""
    out: list[list[int]] = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ documents.T
        for row, own, others in zip(scores, positives[start:], barred[start:], strict=False):
            lowest = float(row[list(own)].min())
            row[[*own, *others]] = -np.inf
            # 95 % of a negative score lies above it; then the positive itself is the bound.
            row[row >= min(share * lowest, lowest)] = -np.inf
            near = np.argpartition(-row, min(count, len(row) - 1))[:count]
            out.append([int(place) for place in near[np.argsort(-row[near])] if np.isfinite(row[place])])
    return out
