"""Packs and batches: every text once, within the budget, and little padding on real code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.engine.packs import BULK, CALL, batches, packs
from embedcode.types import Tokens, digest

SOURCES = sorted(Path(__file__).parents[2].glob("src/**/*.py"))


def computed(groups: list[list[int]], lengths: list[int]) -> int:
    """Tokens, padding included."""
    return sum(max(lengths[index] for index in group) * len(group) for group in groups)


@pytest.fixture(scope="module")
def lengths() -> list[int]:
    """Of the definitions in this package, as the packaged tokenizer counts them, in an order of no meaning, in which an
    edited definition moves alone: of all orders one in eight has eight texts in a row that take five batches."""
    from embedcode import Role, Truncate, load

    texts = [part for path in SOURCES for part in path.read_text("utf-8").split("\n\n\n") if part.strip()]
    texts.sort(key=digest)
    entries = load().tokenize(texts, Role.PASSAGE, truncate=Truncate.END)
    found = [entry.used for entry in entries if isinstance(entry, Tokens)]
    assert len(found) > 500 and max(found) == 512 and min(found) < 30
    return found


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 2000))
def test_every_text_is_in_one_batch_and_padding_is_bounded(lengths: list[int], budget: int) -> None:
    groups = list(batches(lengths, budget))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or computed([group], lengths) <= budget
    most = BULK if sum(lengths) > budget else CALL
    assert sum(lengths) >= (1 - most) * computed(groups, lengths)


@pytest.mark.parametrize("budget", [2048, 4096, 16384])
def test_a_whole_repository_pads_little_and_in_large_batches(lengths: list[int], budget: int) -> None:
    groups = list(batches(lengths, budget))
    assert sum(lengths) >= (1 - BULK) * computed(groups, lengths)
    assert len(groups) < 40 + 2 * sum(lengths) / budget


@pytest.mark.parametrize("texts", [2, 8, 32])
def test_a_call_of_a_few_texts_pads_little_in_a_few_batches(lengths: list[int], texts: int) -> None:
    for start in range(0, 10 * texts, texts):
        call = lengths[start : start + texts]
        groups = list(batches(call, 16_384))
        assert sum(call) >= (1 - CALL) * computed(groups, call)  # as the rule has it: a quotient rounds
        assert len(groups) <= 2 + texts // 4


def test_texts_of_one_length_run_together() -> None:
    assert list(batches([7] * 5, 35)) == [[0, 1, 2, 3, 4]]
    assert [len(group) for group in batches([7] * 5, 34)] == [4, 1]


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    assert list(batches([5, 900, 5], 100)) == [[1], [0, 2]]
    tokens = [Tokens((0,) * size, size, size) for size in (5, 900, 5)]
    assert [len(tokens[part]) for part in packs(tokens, 100)] == [1, 1, 1]
