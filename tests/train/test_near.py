"""Queries that are alike come together, and what answers a query that is nearly the same is no negative."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedcode.train import mix
from embedcode.train.batches import MixedBatches, groups_of, relate
from embedcode.train.losses import NEGATIVE as NO
from embedcode.train.losses import POSITIVE as YES
from embedcode.train.losses import UNKNOWN as OPEN
from embedcode.train.mix import Mix, Set, key
from embedcode.train.near import GROUP, halved, near
from embedcode.train.recipe import Data
from embedcode.types import Floats, Pair

SUBJECTS, EACH = 4, 40


def vectors(queries: Sequence[str]) -> Floats:
    """Queries of one subject beside each other, further apart than ALIKE but for equal ones."""
    rows = []
    for query in queries:
        subject, number = query.split()[:2]
        own = np.random.default_rng(int(number)).normal(size=64) * 0.2
        own[int(subject)] += 1
        rows.append(own / np.linalg.norm(own))
    return np.array(rows, np.float32)


def mixed(rows: list[Pair], group: str = "near") -> Mix:
    data = Data("x", (), group=group)  # type: ignore[arg-type]
    return Mix((Set(data, 0, len(rows), 1.0),), rows, mix.answers(rows))


def rows() -> list[Pair]:
    found = [
        Pair(f"{subject} {number}", (f"code {subject} {number}",), language="go")
        for number in range(EACH)
        for subject in range(SUBJECTS)
    ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def test_batches_are_of_queries_that_are_alike(tmp_path: Path) -> None:
    given = rows()
    found = near(mixed(given), lambda _, queries: vectors(queries), tmp_path)
    groups = groups_of(found)
    assert groups is not None
    shares = []
    for batch in MixedBatches([len(given)], [1.0], GROUP, 5, 0, groups):
        of = [given[row].query.split()[0] for row in batch]
        shares.append(max(of.count(subject) for subject in set(of)) / len(of))
    assert np.mean(shares) > 0.6  # .25 where they come as they are


def test_every_pair_has_one_group_of_at_most_so_many_and_of_one_language(tmp_path: Path) -> None:
    given = [Pair(pair.query, pair.positives, language="go" if n % 3 else "c") for n, pair in enumerate(rows())]
    found = near(mixed(given), lambda _, queries: vectors(queries), tmp_path)
    assert found.near is not None
    for number in np.unique(found.near):
        inside = np.flatnonzero(found.near == number)
        assert number >= 0
        assert len(inside) <= GROUP
        assert len({given[row].language for row in inside}) == 1


def test_an_answer_to_nearly_the_same_query_is_no_negative(tmp_path: Path) -> None:
    given = [Pair("1 7", ("one",)), Pair("1 7 again", ("two",)), Pair("1 8", ("three",))]
    found = near(mixed(given), lambda _, queries: vectors(queries), tmp_path)
    assert found.answers == {key("1 7"): {key("one"), key("two")}, key("1 7 again"): {key("one"), key("two")}}
    batch = relate([(pair, pair.positives[0], ()) for pair in given], found.answers, True)
    assert batch.relation.tolist() == [[YES, OPEN, NO], [OPEN, YES, NO], [NO, NO, YES]]


def test_a_run_that_goes_on_has_the_groups_of_before(tmp_path: Path) -> None:
    def fails(_: Set, __: Sequence[str]) -> Floats:
        raise AssertionError("embedded again")

    first = near(mixed(rows()), lambda _, queries: vectors(queries), tmp_path)
    again = near(mixed(rows()), fails, tmp_path)
    np.testing.assert_array_equal(first.near, again.near)
    assert first.answers == again.answers


def test_sets_that_do_not_ask_for_it_have_none(tmp_path: Path) -> None:
    found = near(mixed(rows(), "none"), lambda _, queries: vectors(queries), tmp_path)
    assert groups_of(found) is None
    assert list(tmp_path.iterdir()) == []


def test_equal_vectors_are_halved_too() -> None:
    parts = halved(np.ones((100, 8), np.float32), np.arange(100))
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert max(map(len, parts)) <= GROUP
