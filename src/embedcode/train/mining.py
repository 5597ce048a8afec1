"""Mining in rounds: hard negatives for the pairs of a mix, by the model as it is at the start of a round.

What may be a negative data/negatives.py says. What was mined is kept in the round's folder, so that a run that goes on
does not mine again. Candidates are of the same data set: those of another would be told apart by their kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedcode.data import filter as consistency
from embedcode.data import negatives, pairs, scoring
from embedcode.data.negatives import Rule
from embedcode.data.scoring import Told
from embedcode.errors import UsageError
from embedcode.train.batches import Texts
from embedcode.train.mix import Mix, Set, limited, with_pairs
from embedcode.train.network import encode
from embedcode.train.recipe import Recipe
from embedcode.types import Floats, InputError, Pair, Role, Tokens, Truncate

SCORES = 1 << 28
"""Scores that a card holds at a time: 1 GB."""


class Trained:
    """A model in training as an Encoder, whose texts are cut as in training."""

    space = build = ""

    def __init__(self, model: Any, texts: Texts, first: int) -> None:
        self._model, self._texts, self._first = model, texts, first
        self.dim = int(model.get_embedding_dimension())
        self.max_tokens = max(texts.query_tokens, texts.passage_tokens)

    def tokenize(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.END,
        max_tokens: int | None = None,
    ) -> list[Tokens | InputError]:
        own = [str(text) for text in texts]
        if role is Role.PASSAGE:
            return list(self._texts.passage(own))
        return list(self._texts.query(own, [instruction or ""] * len(own)))

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        return encode(self._model, tokens, self._first)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.END,
        max_tokens: int | None = None,
        dimensions: int | None = None,
    ) -> Floats:
        entries = self.tokenize(texts, role, instruction)
        return self.forward([entry for entry in entries if isinstance(entry, Tokens)])

    def nearest(self, queries: Floats, passages: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """As scoring.nearest(), where the model is: 60,000 passages for as many queries take a minute on 16 cores,
        and a second on a card."""
        device = next(self._model.parameters()).device
        if device.type == "cpu":
            return scoring.nearest(queries, passages, count)
        held = torch.from_numpy(passages).to(device).T
        block = max(1, SCORES // len(passages))
        found = [
            torch.topk(torch.from_numpy(queries[start : start + block]).to(device) @ held, min(count, len(passages)))
            for start in range(0, len(queries), block)
        ]
        scores, places = (torch.cat([one[part] for one in found]).cpu().numpy() for part in (0, 1))
        return scores, places


def consistent(mix: Mix, recipe: Recipe, model: Any, texts: Texts, first: int, folder: Path, told: Told) -> Mix:
    """The mix with those pairs only whose positive `model` finds, where a set asks for it; from `folder` where they
    are there already."""
    encoder = Trained(model, texts, first)

    def found() -> Iterator[tuple[Set, Sequence[Pair]]]:
        for one in mix.sets:
            own = list(mix.pairs[one.start : one.stop])
            if one.data.top:
                file = folder / f"consistent-{one.data.name}.jsonl.gz"
                if not file.is_file():
                    said = one.data.instruction or None
                    kept = consistency.consistent(own, encoder, one.data.top, instruction=said, told=told)
                    if not kept.kept:
                        raise UsageError(
                            f"data set {one.data.name}: the base finds none of its {len(own):,} pairs among the first "
                            f"{one.data.top}: set top higher, or to 0."
                        )
                    pairs.write(file, limited(kept.kept, recipe, one.data))
                own = list(pairs.read(file))
            yield one, own

    return with_pairs(found())


def mined(mix: Mix, recipe: Recipe, model: Any, texts: Texts, first: int, folder: Path, told: Told) -> Mix:
    """The mix with negatives mined by `model`, from `folder` where they are there already."""
    rows: list[Pair] = []
    encoder = Trained(model, texts, first)
    count = recipe.mining.kept or recipe.negatives
    for one in mix.sets:
        file = folder / f"negatives-{one.data.name}.jsonl.gz"
        if not file.is_file():
            own = mix.pairs[one.start : one.stop]
            rule = Rule("share", recipe.mining.share)
            said = one.data.instruction or None
            found, _ = negatives.mine(own, encoder, count, rule, instruction=said, told=told, find=encoder.nearest)
            pairs.write(file, found)
        rows += pairs.read(file)
    return replace(mix, pairs=rows)
