"""Filtering and hard negatives, against brute force over a model whose vectors a test can foresee."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedcode.data import negatives, scoring
from embedcode.data.filter import consistent
from embedcode.data.negatives import ANSWERS, CLOSE, FEW, Rule, mine
from embedcode.evaluate import vectors
from embedcode.types import Pair, Role, Tokens


class Words:
    """Counts of words as unit vectors: scores are known by hand. Queries and passages alike."""

    max_tokens, space, build = 512, "words", "words"

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.asked: list[Role] = []

    @property
    def dim(self) -> int:
        return 64

    def tokenize(self, *_: object, **__: object) -> list[Tokens]:
        raise AssertionError

    forward = tokenize

    def encode(self, texts: Sequence[str], role: Role, *_: object, **__: object) -> np.ndarray:
        self.asked.append(role)
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.split():
                row[self.words.setdefault(word, len(self.words))] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_nearest_is_what_sorting_all_scores_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 7)
    monkeypatch.setattr(scoring, "PASSAGES", 11)
    random = np.random.default_rng(1)
    queries = random.standard_normal((30, 8)).astype(np.float32)
    passages = np.round(random.standard_normal((100, 8)), 1).astype(np.float32)
    passages[50:60] = passages[:10]  # ties
    scores, places = scoring.nearest(queries, passages, 13)
    exact = queries @ passages.T
    for i in range(30):
        order = sorted(range(100), key=lambda place: (-round(float(exact[i, place]), 4), place))[:13]
        assert sorted(places[i]) == sorted(order)
        assert np.allclose(scores[i], exact[i, places[i]], atol=1e-5) and (np.diff(scores[i]) <= 1e-6).all()
    best = exact.max(axis=1) - 1
    assert (scoring.ranks(queries, passages, best) == (exact > best[:, None] + 1e-6).sum(axis=1) + 1).all()
    assert scoring.nearest(queries, passages[:5], 13)[0].shape == (30, 5)


PAIRS = [
    Pair("read file", ("read file path",), language="python"),
    Pair("write file", ("write file path",), language="python"),
    Pair("sort list", ("totally else",), language="python"),
    Pair("sort list", ("sort list fast", "order list"), language="python"),
    Pair("read file", ("open read file",), language="java"),
]


def test_what_a_model_does_not_find_goes() -> None:
    filtered = consistent(PAIRS, Words(), top=1)
    assert filtered.ranks.tolist()[:2] == [1, 1] and filtered.ranks[2] > 1
    assert [pair for pair in PAIRS if pair not in filtered.kept] == [PAIRS[2]]
    assert len(consistent(PAIRS, Words(), top=5).kept) == len(PAIRS)


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 2)

    class Killed(Words):
        def encode(self, texts: Sequence[str], role: Role, *_: object, **__: object) -> np.ndarray:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().encode(texts, role)

    whole, first, second = Words(), Killed(), Words()
    expected = consistent(PAIRS, whole, top=1)
    with pytest.raises(KeyboardInterrupt):
        consistent(PAIRS, first, top=1, kept=tmp_path)
    second.words = first.words  # the same model
    steps: list[tuple[str, int, int]] = []
    found = consistent(PAIRS, second, top=1, kept=tmp_path, told=lambda *step: steps.append(step))
    assert (found.ranks == expected.ranks).all()
    assert steps[0] == ("passages", 2, 5)  # the queries were done
    third = Words()
    third.words = first.words
    mined, _ = mine(PAIRS, third, 1, kept=tmp_path)
    assert not third.asked and mined == mine(PAIRS, whole, 1)[0]


def test_an_instruction_is_of_the_queries_and_a_model_that_takes_none_says_so_before_the_passages(
    tmp_path: Path,
) -> None:
    told: list[tuple[Role, str | None]] = []

    class Instructed(Words):
        def encode(self, texts: Sequence[str], role: Role, *rest: object, **__: object) -> np.ndarray:
            told.append((role, str(rest[0]) if rest[0] else None))
            return super().encode(texts, role)

    for kept in (None, tmp_path):
        consistent(PAIRS[:2], Instructed(), instruction="bug", kept=kept)
        mine(PAIRS[:2], Instructed(), instruction="bug")
    assert told == [(Role.QUERY, "bug"), (Role.PASSAGE, None)] * 4


def test_ranks_among_a_part_are_those_of_the_passages_drawn() -> None:
    some = consistent(PAIRS, Words(), top=1, pool=2).ranks
    again = consistent(PAIRS, Words(), top=1, pool=2).ranks
    assert (some == again).all() and (some <= 3).all()


def test_negatives_are_the_hardest_that_are_no_answers() -> None:
    mined, passed = mine(PAIRS, Words(), count=2)
    first, second = mined[0].negatives
    assert first == "write file path", "it shares a word"
    assert second in {"totally else", "sort list fast", "order list"}, "as far from the query as each other"
    assert "open read file" not in mined[0].negatives, "another language"
    for pair in mined[2:4]:
        assert not {"totally else", "sort list fast", "order list"} & set(pair.negatives), "answers of the same query"
    assert mined[4].negatives == () and passed[FEW] >= 1 and passed[ANSWERS] >= 5


def test_what_is_close_to_the_positive_is_no_negative() -> None:
    pairs = [
        Pair("a b c d", ("a b c",), language="c"),  # .87
        Pair("x", ("a b d",), language="c"),  # .87 to the first query: as good as its positive
        Pair("y", ("a b",), language="c"),  # .71
        Pair("z", ("a",), language="c"),  # .50
    ]

    def of_first(rule: Rule) -> tuple[str, ...]:
        return mine(pairs, Words(), count=7, rule=rule)[0][0].negatives

    assert of_first(Rule()) == ("a b", "a")
    assert of_first(Rule("share", 0.8)) == ("a",)
    assert of_first(Rule("margin", 0.1)) == ("a b", "a")
    assert of_first(Rule("margin", 0.2)) == ("a",)
    assert of_first(Rule("share", 0.95, ceiling=0.6)) == ("a",)
    assert mine(pairs, Words())[1][CLOSE] >= 1
    assert Rule().limit(-0.2) == pytest.approx(-0.21), "a share of a negative score is below it too"


def test_copies_of_an_answer_are_no_negatives() -> None:
    pairs = [
        Pair("a b", ("int f ( ) { a }",), language="c"),
        Pair("q", ("int f()  { a } // remark",), language="c"),
        Pair("r", ("void g() { b }",), language="c"),
    ]
    mined, _ = mine(pairs, Words(), rule=Rule("share", 1.0))
    assert all("remark" not in text for text in mined[0].negatives)


def test_answers_of_others_that_are_only_a_comment_are_negatives() -> None:
    pairs = [Pair("a b", ("# a b",)), Pair("q", ("// c",)), Pair("r", ("-- d",))]
    assert set(mine(pairs, Words())[0][0].negatives) == {"// c", "-- d"}


def test_a_second_round_replaces_or_adds() -> None:
    pairs = [Pair("read file", ("read file path",), ("old",)), Pair("write file", ("write file path",))]
    assert mine(pairs, Words(), count=1)[0][0].negatives == ("write file path",)
    assert mine(pairs, Words(), count=1, keep=True)[0][0].negatives == ("write file path", "old")


def test_a_query_that_all_is_close_to_has_its_negatives_from_further_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As to a network that is not trained yet; without in-batch negatives a pair that has none teaches nothing."""
    monkeypatch.setattr(negatives, "DEPTH", 4)
    monkeypatch.setattr(negatives, "SCORES", 8)
    pairs = [Pair("a b", ("a b",)), *(Pair(f"q{i}", (f"a b {'a b ' * i}",)) for i in range(40))]
    pairs += [Pair("u", ("a c c",)), Pair("v", ("a d d",))]
    mined, passed = mine(pairs, Words(), count=2, rule=Rule("share", 0.9))
    assert mined[0].negatives == ("a c c", "a d d")
    assert passed[CLOSE] >= 40


def test_answers_of_a_query_below_its_limit_do_not_use_up_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "DEPTH", 4)
    pairs = [Pair("a b", ("a b",)), *(Pair("a b", (f"a b {f'x{i} ' * 3}",)) for i in range(20))]
    pairs += [Pair("u", ("a c c c c",)), Pair("v", ("a d d d d",))]
    mined, _ = mine(pairs, Words(), count=2)
    assert mined[0].negatives == ("a c c c c", "a d d d d")


def test_sampling_draws_among_the_allowed_and_is_repeatable() -> None:
    pairs = [Pair(f"a w{i}", (f"a w{i} v{i}",)) for i in range(15)]
    hardest = mine(pairs, Words(), count=3)[0]
    sampled = mine(pairs, Words(), count=3, sample=True)[0]
    assert sampled == mine(pairs, Words(), count=3, sample=True)[0]
    assert [pair.negatives for pair in sampled] != [pair.negatives for pair in hardest]
    assert all(len(pair.negatives) == 3 for pair in sampled)


def test_roles_are_told_apart() -> None:
    encoder = Words()
    consistent(PAIRS[:2], encoder)
    assert set(encoder.asked) == {Role.QUERY, Role.PASSAGE}


def test_at_most_so_many_of_a_language_are_drawn_in_their_order() -> None:
    from embedcode.data.filter import drawn

    given = [Pair(f"q{number}", ("p",), language="go" if number % 3 else "c") for number in range(90)]
    kept = drawn(given, 40)
    assert kept == drawn(given, 40) and kept == [pair for pair in given if pair in kept]
    assert sum(pair.language == "c" for pair in kept) == 30 and len(kept) == 70
