"""A long text is read by a window, and gets the ids that reading it whole and then cutting gives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from embedcode.engine import tokens as module
from embedcode.engine.tokens import TextTokenizer
from embedcode.types import InputError, Tokens, Truncate

LIMIT = 40
CODE = Path(module.__file__).read_text("utf-8")
KINDS: dict[str, Callable[[], Tokenizer]] = {
    "mistral": vocabularies.mistral,
    "gemma": vocabularies.gemma,
    "byte level": lambda: vocabularies.byte_level(["<|endoftext|>"], "$A <|endoftext|>"),
    "word piece": vocabularies.word_piece,
    "unigram": vocabularies.unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Tokenizer]:
    """Ours, and the library's for the same file."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    KINDS[request.param]().save(str(path))
    return TextTokenizer(path, LIMIT), Tokenizer.from_file(str(path))


def expected(library: Tokenizer, prompt: str, plain: Encoding, truncate: Truncate) -> tuple[int, ...]:
    """Tokenise, then cut: special tokens and prompt stay. `plain` is of prompt and text, without special tokens."""
    special = library.num_special_tokens_to_add(False)
    own = sum(1 for _ in takewhile(lambda place: place[1] <= len(prompt.rstrip()), plain.offsets)) if prompt else 0
    room = LIMIT - special - own
    ids = plain.ids[own:]
    kept = plain.ids[:own] + (ids[-room:] if truncate is Truncate.START else ids[:room])
    whole = library.encode("a").ids
    inner = library.encode("a", add_special_tokens=False).ids
    at = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return (*whole[:at], *kept, *whole[at + len(inner) :])


def long_texts() -> list[str]:
    draw = random.Random(0)
    lines = CODE.split("\n")
    return [
        CODE * 3,
        "\n".join(draw.choice(lines) for _ in range(900)),
        "    " * 5000 + "end of the indent",
        "x" * 20_000,
        "é" * 18_000 + " tail",
        "word " * 5_000,
        "\t\tif x:  \n\n\n   y = '  '\n" * 900,
        "\N{GRINNING FACE} " * 9_000,
        " ".join("".join(draw.choices("abcdef_.()", k=draw.randrange(1, 30))) for _ in range(1200)),
    ]


@pytest.mark.parametrize("prompt", ["", "Instruct: find code\nQuery: "])
def test_a_window_gives_what_reading_all_gives(pair: tuple[TextTokenizer, Tokenizer], prompt: str) -> None:
    ours, library = pair
    for text in long_texts():
        plain = library.encode(prompt + text, add_special_tokens=False)
        original = len(plain.ids) + library.num_special_tokens_to_add(False)
        for truncate in (Truncate.START, Truncate.END):
            (entry,) = ours([text], prompt, truncate, None)
            assert isinstance(entry, Tokens)
            assert entry.ids == expected(library, prompt, plain, truncate), text[:40]
            if entry.estimated:
                assert 0.3 < entry.original / original < 3, text[:40]
            else:
                assert entry.original == original


@given(
    words=st.lists(st.text("ab_ .\n\t'é", min_size=1, max_size=12), min_size=2, max_size=6),
    between=st.sampled_from([" ", "", "\n", "    ", ";"]),
    times=st.integers(1, 400),
    truncate=st.sampled_from([Truncate.START, Truncate.END]),
)
@settings(max_examples=60, deadline=None)
def test_any_text_has_the_same_ids_by_window(
    pair: tuple[TextTokenizer, Tokenizer], words: list[str], between: str, times: int, truncate: Truncate
) -> None:
    ours, library = pair
    text = between.join(words) * times
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WHOLE", 64)
        patch.setattr(module, "WINDOW", 3)
        patch.setattr(module, "WIDENED", 9)
        (entry,) = ours([text], "", truncate, None)
    assert isinstance(entry, Tokens)
    whole, plain = library.encode(text), library.encode(text, add_special_tokens=False)
    assert entry.ids == (tuple(whole.ids) if len(whole.ids) <= LIMIT else expected(library, "", plain, truncate))


@pytest.mark.parametrize("content", [CODE, CODE.replace(" ", ""), "\t".join(CODE.split()), "".join(CODE.split())])
def test_the_time_for_a_text_is_bounded_by_the_limit(pair: tuple[TextTokenizer, Tokenizer], content: str) -> None:
    """Ten megabytes take about as long as a hundred kilobytes: with spaces, in lines, by tabs only, and in one line."""
    ours, _ = pair
    small, large = (content * 20)[:100_000], (content * 2000)[:10_000_000]
    ours([small], "", Truncate.END, None)

    def seconds(text: str, truncate: Truncate) -> float:
        start = time.perf_counter()
        (entry,) = ours([text], "", truncate, None)
        assert isinstance(entry, Tokens) and entry.estimated
        return time.perf_counter() - start

    for truncate in (Truncate.START, Truncate.END):
        quick = min(seconds(small, truncate) for _ in range(3))
        assert min(seconds(large, truncate) for _ in range(3)) < 10 * quick + 0.05


def test_a_text_that_is_surely_too_long_is_refused_by_its_window(pair: tuple[TextTokenizer, Tokenizer]) -> None:
    ours, _ = pair
    (error,) = ours([CODE * 500], "", Truncate.NONE, None)
    assert isinstance(error, InputError)
    assert "exceeds maximum allowed token size 40" in error.message


@pytest.mark.parametrize("content", ["x", " ", "\u0416"])
def test_a_word_or_a_blank_of_megabytes_costs_no_more_and_counts_as_cut(
    pair: tuple[TextTokenizer, Tokenizer], content: str
) -> None:
    ours, _ = pair
    small, large = (f"first {content * size} last" for size in (300_000, 5_000_000))

    def read(text: str, truncate: Truncate) -> tuple[float, tuple[int, ...]]:
        start = time.perf_counter()
        (entry,) = ours([text], "", truncate, None)
        passed = time.perf_counter() - start
        assert isinstance(entry, Tokens) and entry.estimated and entry.original > entry.used
        return passed, entry.ids

    for truncate in (Truncate.START, Truncate.END):
        quick, ids = min(read(small, truncate) for _ in range(3))
        passed, same = read(large, truncate)
        assert same == ids
        assert passed < 10 * quick + 0.05
    (error,) = ours([large], "", Truncate.NONE, None)
    assert isinstance(error, InputError) and "exceeds maximum allowed token size 40" in error.message
