"""Batches: each data set has its share, a row comes as often as the others, and no answer is taken for a negative."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcode.train.batches import Collator, MixedBatches, Pieces, Texts, draw, groups_of, relate, together
from embedcode.train.losses import NEGATIVE, POSITIVE, UNKNOWN
from embedcode.train.mix import Mix, Set, answers, key
from embedcode.train.recipe import Data
from embedcode.types import Pair

MIXES = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 1000)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(MIXES, st.integers(1, 40), st.integers(1, 30), st.integers(0, 5))
def test_every_set_has_its_share_at_every_time(mix: list[tuple[int, int]], batch: int, count: int, seed: int) -> None:
    sizes, weights = [size for size, _ in mix], [weight for _, weight in mix]
    starts = np.cumsum([0, *sizes])
    total = np.zeros(len(mix))
    for number, rows in enumerate(MixedBatches(sizes, weights, batch, count, seed), 1):
        assert len(rows) == batch
        total += np.histogram(rows, starts)[0]
        wanted = np.array(weights) / sum(weights) * batch * number
        assert abs(total - wanted).max() < max(1.0, len(mix) / 2) + 1e-6
    assert total.sum() == batch * count


def test_a_set_with_a_row_s_worth_is_in_every_batch() -> None:
    for rows in MixedBatches([1000, 400, 30], [0.6, 0.3, 0.1], 16, 50, seed=1):
        counts = np.histogram(rows, [0, 1000, 1400, 1430])[0]
        assert (counts > 0).all(), counts


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 40))
def test_rows_come_equally_often(size: int, batch: int, count: int) -> None:
    seen = Counter(row for rows in MixedBatches([size], [1.0], batch, count, 0) for row in rows)
    times = [seen[row] for row in range(size)]
    assert max(times) - min(times) <= 1
    assert sum(times) == batch * count


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=90), st.integers(1, 8), st.integers(1, 40), st.integers(0, 9))
def test_rows_of_a_group_come_together_and_all_equally_often(
    numbers: list[int], batch: int, count: int, seed: int
) -> None:
    groups = np.array([*numbers, *numbers])
    sizes = [len(numbers), len(numbers)]
    rows = [row for rows in MixedBatches(sizes, [1, 1], batch, count, seed, groups) for row in rows]
    for start in (0, len(numbers)):
        seen = Counter(row for row in rows if start <= row < start + len(numbers))
        times = [seen[start + row] for row in range(len(numbers))]
        assert max(times) - min(times) <= 1


def test_up_to_so_many_of_a_group_follow_each_other() -> None:
    groups = np.repeat([0, 1, 2], [50, 7, 40])
    order = np.random.default_rng(1).permutation(97)
    order = together(order, groups[order], np.random.default_rng(2))
    runs = [groups[order[0]]]
    lengths = [0]
    for group in groups[order]:
        if group != runs[-1]:
            runs.append(group)
            lengths.append(0)
        lengths[-1] += 1
    assert sorted(order.tolist()) == list(range(97))
    # Parts of at most 32; two of one group may meet.
    assert sorted(lengths) in ([7, 8, 18, 32, 32], [7, 18, 32, 40], [7, 8, 32, 50], [7, 40, 50])
    assert order.tolist() != sorted(order.tolist())


def test_the_group_of_a_pair_is_its_source_within_its_set() -> None:
    pairs = [Pair("q", ("p",), source=source) for source in ("a", "b", "a", "a", "b")]
    sets = (Set(Data("x", (), group="source"), 0, 3, 0.5), Set(Data("y", ()), 3, 5, 0.5))
    found = groups_of(Mix(sets, pairs))
    assert found is not None and found.tolist() == [0, 1, 0, -1, -1]
    assert groups_of(Mix(sets[1:], pairs)) is None


def test_the_seed_decides_and_turns_differ() -> None:
    first, again, other = (list(MixedBatches([9, 7], [1, 1], 4, 12, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first[:4] != first[4:8]


def test_pieces_are_the_batches_in_their_order() -> None:
    whole = MixedBatches([50, 20], [2, 1], 12, 5, 3)
    pieces = Pieces(whole, 4)
    assert len(list(pieces)) == len(pieces) == 15
    assert [row for rows in pieces for row in rows] == [row for rows in whole for row in rows]


def collator(mix: Mix, places: bool = False) -> Collator:
    return Collator(mix, Texts(None, "", "", "", 8, 8), 1, 2.0, False, 0, places=places)  # type: ignore[arg-type]


def test_a_pair_that_comes_alone_draws_anew_each_time() -> None:
    mix = Mix((), [Pair("q", tuple("abcde"), tuple("vwxyz"))])
    pieces = Pieces(MixedBatches([1], [1.0], 1, 50, 0), 1, places=True)
    found = [collator(mix, True).batch(piece[:1], piece[1:]).documents for piece in pieces]
    assert {one[0] for one in found} == set("abcde") and len({one[1] for one in found}) > 2
    assert found == [collator(mix, True).batch(piece[:1], piece[1:]).documents for piece in pieces]


def test_larger_batches_draw_as_they_always_did() -> None:
    """As of commit d400bdd: the weights in the package are made again, to the byte, by the batches that made them."""
    mix = Mix((), [Pair(f"q{n}", (f"a{n}", f"b{n}"), (f"v{n}", f"w{n}", f"x{n}")) for n in range(9)])
    sampler = MixedBatches([6, 3], [2, 1], 4, 3, 5)
    assert list(sampler) == [[5, 0, 8, 4], [1, 3, 6, 7], [5, 2, 2, 8]]
    assert [" ".join(collator(mix).batch(rows).documents) for rows in sampler] == [
        "a5 v5 a0 v0 a8 w8 a4 x4", "a1 x1 b3 x3 a6 v6 b7 v7", "b5 x5 a2 v2 b8 v8",
    ]  # fmt: skip


def test_draw_takes_the_hardest_or_by_temperature() -> None:
    hard = [f"n{number}" for number in range(10)]
    rng = np.random.default_rng(0)
    assert draw(hard, 3, 0.0, rng) == ["n0", "n1", "n2"]
    assert draw(hard[:2], 3, 2.0, rng) == ["n0", "n1"]
    drawn = [draw(hard, 1, 2.0, rng)[0] for _ in range(20_000)]
    weights = [math.exp(-rank / 2) for rank in range(10)]
    for name, weight in zip(hard, weights, strict=True):
        assert drawn.count(name) / len(drawn) == pytest.approx(weight / sum(weights), abs=0.015)
    assert all(len(set(draw(hard, 4, 5.0, rng))) == 4 for _ in range(100))


A, B = Pair("sort a list", ("def sort",), ("def swap", "def  sort")), Pair("sort  a list", ("def order",))
C = Pair("close", ("def close", "def shut"), ("def open",))
D = Pair("end", ("def close",), ("def swap",))


def marks(in_batch: bool) -> dict[tuple[str, str], int]:
    chosen = [
        (A, "def sort", A.negatives),
        (B, "def order", ()),
        (C, "def shut", C.negatives),
        (D, "def close", D.negatives),
    ]
    batch = relate(chosen, answers([A, B, C, D]), in_batch)
    assert len(batch.documents) == len({key(text) for text in batch.documents}) == 6
    return {
        (name, text): int(batch.relation[row, column])
        for row, name in enumerate("ABCD")
        for column, text in enumerate(batch.documents)
    }


def test_no_answer_of_a_query_is_its_negative() -> None:
    found = marks(in_batch=True)
    assert found["A", "def sort"] == POSITIVE  # its own negative "def  sort" is the same document
    assert found["A", "def order"] == UNKNOWN  # answers the same query in another pair
    assert found["B", "def sort"] == UNKNOWN
    assert found["C", "def close"] == UNKNOWN  # its other positive, drawn by D
    assert found["C", "def shut"] == found["D", "def close"] == POSITIVE
    assert found["B", "def swap"] == found["D", "def shut"] == NEGATIVE


def test_explicit_negatives_only() -> None:
    found = marks(in_batch=False)
    assert {at for at, mark in found.items() if mark == NEGATIVE} == {
        ("A", "def swap"),
        ("C", "def open"),
        ("D", "def swap"),
    }
    assert {at for at, mark in found.items() if mark == POSITIVE} == {
        ("A", "def sort"), ("B", "def order"), ("C", "def shut"), ("D", "def close")
    }  # fmt: skip
