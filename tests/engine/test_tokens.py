"""Texts to ids with receipts, compared with the `tokenizers` library itself."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from embedcode import Role, Truncate
from embedcode.engine.graph import GraphEncoder
from embedcode.errors import UsageError
from embedcode.model.spec import DEFAULT
from embedcode.types import InputError, Tokens

LONG = " ".join(f"word{number} value" for number in range(200))


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def one(encoder: GraphEncoder, text: object, truncate: Truncate = Truncate.NONE, limit: int | None = None) -> Tokens:
    (entry,) = encoder.tokenize([text], Role.PASSAGE, truncate=truncate, max_tokens=limit)  # type: ignore[list-item]
    assert isinstance(entry, Tokens), entry
    return entry


def refused(encoder: GraphEncoder, inputs: list[object], **options: object) -> list[InputError]:
    entries = encoder.tokenize(inputs, Role.PASSAGE, **options)  # type: ignore[arg-type]
    return [entry for entry in entries if isinstance(entry, InputError)]


@pytest.mark.parametrize(
    "text", ["", "import os", "def f(x):\n    return x  # größer", "日本語", "a\0b", " " * 300, "getUserName_2"]
)
def test_a_short_text_has_the_ids_of_the_library(encoder: GraphEncoder, reference: Tokenizer, text: str) -> None:
    entry = one(encoder, text)
    assert list(entry.ids) == reference.encode(text).ids
    assert entry.original == entry.used == len(entry.ids)
    assert not entry.truncated


@pytest.mark.parametrize("limit", [None, 256, 100, 3])
@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
def test_a_long_text_is_cut_at_the_end_that_was_asked_for(
    encoder: GraphEncoder, reference: Tokenizer, truncate: Truncate, limit: int | None
) -> None:
    whole = reference.encode(LONG).ids
    first, *inner, last = whole
    room = (limit or 512) - 2
    kept = inner[-room:] if truncate is Truncate.START else inner[:room]
    entry = one(encoder, LONG, truncate, limit)
    assert list(entry.ids) == [first, *kept, last]
    assert (entry.original, entry.used, entry.truncated) == (len(whole), room + 2, True)


def test_a_limit_above_the_model_s_is_the_model_s(encoder: GraphEncoder) -> None:
    assert one(encoder, LONG, Truncate.END, 10_000).used == 512


@pytest.mark.parametrize("limit", [2, 1, 0, -5])
def test_a_limit_without_room_for_a_text_is_refused(encoder: GraphEncoder, limit: int) -> None:
    for truncate in Truncate:
        with pytest.raises(UsageError, match=rf"max_tokens {limit} .*at least 3"):
            encoder.tokenize(["a few words"], Role.QUERY, truncate=truncate, max_tokens=limit)


def test_too_long_a_text_is_an_error_with_its_place(encoder: GraphEncoder, reference: Tokenizer) -> None:
    (error,) = refused(encoder, ["short", LONG])
    assert error.index == 1
    length = len(reference.encode(LONG).ids)
    assert error.message.startswith(f"Input length {length} exceeds maximum allowed token size 512")
    assert "1" in error.message and "truncate" in error.message


def test_exactly_as_long_as_allowed(encoder: GraphEncoder, reference: Tokenizer) -> None:
    text = " ".join(["word"] * 510)
    assert len(reference.encode(text).ids) == 512
    assert not one(encoder, text).truncated
    assert refused(encoder, [f"{text} word"])


def test_a_megabyte_has_a_receipt(encoder: GraphEncoder) -> None:
    entry = one(encoder, ("a" * 9 + " ") * 100_000, Truncate.END)
    assert entry.original > 100_000
    assert entry.used == 512


def test_lone_surrogates_are_replaced(encoder: GraphEncoder, reference: Tokenizer) -> None:
    assert list(one(encoder, "name \ud800 value").ids) == reference.encode("name \ufffd value").ids
    assert one(encoder, "\ud83d\ude42").ids == one(encoder, "\N{SLIGHTLY SMILING FACE}").ids


@pytest.mark.parametrize("value", [None, 3, 2.5, b"bytes", {"text": "x"}, object()])
def test_what_is_no_text_is_an_error_with_its_place(encoder: GraphEncoder, value: object) -> None:
    (error,) = refused(encoder, ["fine", value, "fine"])
    assert error.index == 1
    assert f"Input 1 is a {type(value).__name__}: give a string" in error.message


def test_token_ids_are_taken_as_they_are(encoder: GraphEncoder) -> None:
    entry = one(encoder, [101, 2000, 102])
    assert (entry.ids, entry.original, entry.used) == ((101, 2000, 102), 3, 3)


@pytest.mark.parametrize("ids", [[-1], [101, 30522], [10**12]])
def test_token_ids_out_of_range_are_refused(encoder: GraphEncoder, reference: Tokenizer, ids: list[int]) -> None:
    (error,) = refused(encoder, [[101], ids])
    assert error.index == 1
    assert f"0..{reference.get_vocab_size() - 1}" in error.message


def test_an_empty_list_of_token_ids_is_called_so(encoder: GraphEncoder) -> None:
    (error,) = refused(encoder, [[101], []])
    assert (error.index, error.message) == (1, "Input 1 is an empty list: leave it out, or send a text.")


def test_what_looks_like_token_ids_is_refused(encoder: GraphEncoder) -> None:
    assert [error.index for error in refused(encoder, [[1.0], ["a"], [True]])] == [0, 1, 2]


def test_long_token_ids(encoder: GraphEncoder) -> None:
    ids = list(range(1000, 1600))
    (error,) = refused(encoder, [ids])
    assert error.message.startswith("Input length 600 exceeds maximum allowed token size 512")
    assert one(encoder, ids, Truncate.END).ids == tuple(ids[:512])
    start = one(encoder, ids, Truncate.START)
    assert (start.ids, start.original, start.used) == (tuple(ids[-512:]), 600, 512)


@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
@pytest.mark.parametrize("wrong", [-3, 10**12])
def test_token_ids_of_another_tokenizer_are_refused_though_the_part_that_is_kept_has_none(
    encoder: GraphEncoder, truncate: Truncate, wrong: int
) -> None:
    ids = list(range(1000, 1600))
    ids[0 if truncate is Truncate.START else -1] = wrong
    (error,) = encoder.tokenize([ids], Role.PASSAGE, truncate=truncate)
    assert isinstance(error, InputError)
    assert error.message == "Input 0 has token ids outside 0..30521: send its text."
