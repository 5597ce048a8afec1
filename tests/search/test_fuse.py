"""Fusion of two candidate lists: what a user sees move, whatever the weight is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.search.fuse import DENSE_WEIGHT, fuse

SCORES = st.dictionaries(st.integers(1, 40), st.floats(-1, 30, allow_nan=False), min_size=1)


def test_by_hand() -> None:
    # Words are scaled by their best (0 stays 0), vectors by best and worst; 3 has no vector and gets their mean.
    fused = dict(fuse({1: 8.0, 2: 4.0, 3: 2.0}, {1: 0.2, 2: 0.6, 4: 0.4}, weight=0.5))
    assert fused == pytest.approx({1: 0.5, 2: 0.75, 3: 0.125 + 0.25, 4: 0.25})


def test_the_weight_s_ends_are_the_two_lists() -> None:
    lexical, dense = {1: 9.0, 2: 5.0, 3: 1.0}, {1: 0.1, 2: 0.3, 3: 0.2}
    assert [id for id, _ in fuse(lexical, dense, weight=0.0)] == [1, 2, 3]
    assert [id for id, _ in fuse(lexical, dense, weight=1.0)] == [2, 3, 1]


def test_ties_are_in_the_order_of_the_store() -> None:
    assert [id for id, _ in fuse({7: 1.0, 3: 1.0, 5: 1.0}, {})] == [3, 5, 7]


def test_a_missing_vector_neither_rewards_nor_hides() -> None:
    lexical = {1: 5.0, 2: 5.0, 3: 5.0}
    assert [id for id, _ in fuse(lexical, {1: 0.9, 2: 0.1})] == [1, 3, 2]


def test_the_best_of_both_lists_is_best() -> None:
    assert fuse({1: 3.0, 2: 2.0, 3: 1.0}, {1: 0.9, 2: 0.5, 4: 0.8})[0][0] == 1


def test_one_candidate_or_none() -> None:
    assert fuse({}, {}) == []
    for lexical, dense in (({1: 2.0}, {}), ({}, {1: 0.3}), ({1: 0.0}, {1: -0.5})):
        ((id, score),) = fuse(lexical, dense)
        assert id == 1
        assert 0 <= score <= 1


@given(SCORES, SCORES)
def test_every_candidate_once_best_first(lexical: dict[int, float], dense: dict[int, float]) -> None:
    lexical = {id: abs(score) for id, score in lexical.items()}  # BM25 is never below 0
    order = fuse(lexical, dense)
    assert sorted(id for id, _ in order) == sorted(lexical.keys() | dense.keys())
    scores = [score for _, score in order]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)


@given(SCORES, SCORES, st.integers(2, 1000))
def test_the_scale_of_a_signal_does_not_matter(lexical: dict[int, float], dense: dict[int, float], times: int) -> None:
    lexical = {id: abs(score) for id, score in lexical.items()}
    once = dict(fuse(lexical, dense))
    scaled = dict(fuse({id: score * times for id, score in lexical.items()}, dense))
    assert scaled == pytest.approx(once, abs=1e-6)


def test_both_signals_count() -> None:
    assert 0 < DENSE_WEIGHT < 1
