"""Mining in rounds: hard negatives for the pairs of a mix, by the model as it is at the start of a round.

What may be a negative data/negatives.py says. What was mined is kept in the round's folder, so that a run that goes on
does not mine again. Candidates are of the same data set: those of another would be told apart by their kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedcode.data import negatives, pairs
from embedcode.data.negatives import Rule
from embedcode.train.batches import Texts
from embedcode.train.mix import Mix
from embedcode.train.network import encode
from embedcode.train.recipe import Recipe
from embedcode.types import Floats, InputError, Pair, Role, Tokens, Truncate


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


def mined(mix: Mix, recipe: Recipe, model: Any, texts: Texts, first: int, folder: Path) -> Mix:
    """The mix with negatives mined by `model`, from `folder` where they are there already."""
    rows: list[Pair] = []
    encoder = Trained(model, texts, first)
    count = recipe.mining.kept or recipe.negatives
    for one in mix.sets:
        file = folder / f"negatives-{one.data.name}.jsonl.gz"
        if not file.is_file():
            own = mix.pairs[one.start : one.stop]
            rule = Rule("share", recipe.mining.share)
            found, _ = negatives.mine(own, encoder, count, rule, instruction=one.data.instruction or None)
            pairs.write(file, found)
        rows += pairs.read(file)
    return replace(mix, pairs=rows)
