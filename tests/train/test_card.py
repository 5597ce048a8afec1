"""What a model's card says of its data and training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcode.model.checkpoint import Checkpoint
from embedcode.train import card, mix
from embedcode.train.recipe import Data, Recipe

Card = Callable[..., str]


@pytest.fixture
def text(world: Path) -> Card:
    """text({...}, key=...): the card of a model with one data set: fields of the set, keys of the recipe."""

    def text(of_set: dict[str, Any] | None = None, of_meta: dict[str, Any] | None = None, **values: Any) -> str:
        recipe = Recipe(world, "m", "base", **{"steps": 12, "warmup": 2, **values})
        one = mix.Set(Data("one", ("one.jsonl",)), 0, 64, 1.0, **(of_set or {}))
        meta = {
            "parameters": 1, "steps": recipe.steps, "made": {}, "ndcg@10": {"before": {}, "after": {}},
            "trained in": "fp32", "base read": "", "pairs that lack negatives": "", "compared with": ["a", "b-1"],
            **(of_meta or {}),
        }  # fmt: skip
        return card.text(recipe, Checkpoint.read(world / "base"), mix.Mix((one,), []), meta)

    return text


def row(card: str, name: str) -> list[str]:
    """The cells of a table's row."""
    found = re.search(rf"^[|] {name} [|].*$", card, re.MULTILINE)
    assert found
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def test_all_languages_are_named(text: Card) -> None:
    languages = tuple((f"language{number}", 8) for number in range(9))
    assert row(text({"languages": languages}), "one")[4] == ", ".join(f"{name} 8" for name, _ in languages)


def test_what_was_left_out_for_its_licence_is_counted(text: Card) -> None:
    said = text({"forbidden": 3, "unlicensed": 32}, licences=("MIT", "ISC"))
    assert row(said, "one")[5:] == ["3", "32"] and "Other licences are those beside MIT, ISC." in said
    assert "Other licences are" not in text()


def test_what_was_left_out_is_what_the_recipe_leaves_out(text: Card) -> None:
    said = text(never=("tasks/a", "tasks/b-*"), held_out="held.toml")
    assert "is in `data/never.toml` or is held out (`held.toml`), and" in said
    assert "a text, or nearly, of the tasks `a`, `b-1`." in said, "the folders that there were, not the patterns"
    assert "is in `data/never.toml`; no task was compared with." in text(of_meta={"compared with": []})
    assert "CoIR" not in said and "held out" not in text()
    assert "`data/never.toml` (but for CoIR's train splits, which this regime allows), and" in text(regime="in-domain")


def test_warm_up_and_decay_are_those_that_were(text: Card) -> None:
    assert "2 warm-up steps, linear decay" in row(text(), "optimiser")[1]
    assert "12 warm-up steps, no decay" in row(text(warmup=100), "optimiser")[1]


def test_the_loss_and_the_optimiser_are_those_that_were(text: Card) -> None:
    assert row(text(symmetric=True), "loss")[1] == "InfoNCE, temperature 0.05, both directions"
    said = row(text(dimensions=(16, 32), packings=("int8", "binary")), "loss")[1]
    assert "the mean of vectors as they are and in int8, binary" in said
    assert "summed over all dimensions and the first 32, 16 (Matryoshka)" in said
    assert row(text(), "optimiser")[1].startswith("Adam, learning rate")
    assert row(text(weight_decay=0.01), "optimiser")[1].startswith("AdamW, weight decay 0.01, learning rate")
