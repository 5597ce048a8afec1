"""Other forms of a query's words: those a person would use for the same thing, and no flood of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.search.forms import FORM_WEIGHT, MOST_TERMS, forms, with_forms


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("invalidated", "invalidate"),
        ("invalidate", "invalidation"),
        ("sessions", "session"),
        ("session", "sessions"),
        ("caches", "cache"),
        ("retries", "retry"),
        ("retry", "retries"),
        ("stopped", "stop"),
        ("parsing", "parser"),
        ("compressed", "compression"),
        ("validates", "validator"),
    ],
)
def test_forms_that_are_asked_for_too(asked: str, written: str) -> None:
    assert written in forms(asked)


@pytest.mark.parametrize("word", ["", "x", "the", "utf8", "größe", "a_b", "读取"])
def test_what_is_no_english_word_has_no_forms(word: str) -> None:
    assert forms(word) == frozenset()


def test_a_form_weighs_less_than_the_word_and_never_replaces_it() -> None:
    found = with_forms({"parser": 1.0, "parsers": 1.5})
    assert found["parser"] == 1.0
    assert found["parsers"] == 1.5
    assert found["parse"] == 1.5 * FORM_WEIGHT


def test_a_long_query_is_left_as_it_is() -> None:
    terms = {f"word{'x' * n}": 1.0 for n in range(MOST_TERMS + 1)}
    assert with_forms(terms) == terms


@given(st.text("abcdeginrstuy", max_size=20))
def test_few_forms_and_not_the_word_itself(word: str) -> None:
    found = forms(word)
    assert word not in found
    assert len(found) <= 60
