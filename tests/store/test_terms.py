"""Terms: names are found by their parts and as a whole, in every style and script, at a stated speed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.store import contract, terms
from embedcode.store.terms import MAX_TERM, NAME_WEIGHT, query_terms, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", "getusername get user name"),
        ("get_user_name", "getusername get user name"),
        ("GET_USER_NAME", "getusername get user name"),
        ("get-user-name", "getusername get user name"),
        ("HTTPServer", "httpserver http server"),
        ("parseHTTPResponse", "parsehttpresponse parse http response"),
        ("userIDs", "userids user ids"),
        ("utf8", "utf8 utf"),
        ("sha256sum", "sha256sum sha 256 sum"),
        ("__init__", "init"),
        ("_private", "private"),
        ("get_x", "getx get"),
        ("x", "x"),
        ("n-1 a-b", "n 1 a b"),
        ("plan-b größe-b", "plan b grösse b"),
        ("--dry-run", "dryrun dry run"),
        ("self.session.close()", "self session close"),
        ("std::vector<int>", "std vector int"),
        ("3.14 42 0xFF", "3 14 42 0xff ff"),
        ("größeÄndern", "grösseändern grösse ändern"),
        ("Straße STRASSE", "strasse strasse"),
        ("cafe\u0301 caf\u00e9", "café café"),
        ("हिन्दी", "हिन्दी"),
        ("получитьИмя", "получитьимя получить имя"),
        ("读取文件", "读取 取文 文件"),
        ("用getName读", "用 getname get name 读"),
        ("a a b a", "a a b a"),
        ("", ""),
        (" -- ___ !? \n", ""),
    ],
)
def test_words_are_split_and_kept_whole(text, expected):
    assert split(text) == expected.split()


@given(st.text())
def test_any_text_gives_terms_that_a_whitespace_tokenizer_keeps(text):
    for term in split(text):
        assert 0 < len(term) <= MAX_TERM
        assert term.split() == [term]
        assert term == term.casefold()


@given(st.lists(st.text()))
def test_lines_are_split_independently(lines):
    assert split("\n".join(lines)) == [term for line in lines for term in split(line)]


def test_long_terms_are_cut_and_still_meet():
    assert split("a" * 1000) == ["a" * MAX_TERM]
    name = "test_" + "very_" * 30 + "long"
    assert split(name)[0] == name.replace("_", "")[:MAX_TERM]
    assert split(name)[-1] == "long"


def test_a_query_keeps_what_it_asks_for_and_drops_how_it_asks():
    weights = query_terms("How do I find where the sessions are invalidated?")
    assert weights == {"find": 1.0, "sessions": 1.0, "invalidated": 1.0}


def test_stop_words_stay_when_they_are_all_there_is_or_are_quoted():
    assert set(query_terms("what is this")) == {"what", "is", "this"}
    assert set(query_terms("how is `with` parsed")) == {"with", "parsed"}
    assert query_terms("") == query_terms("?!") == {}


def test_names_weigh_more_than_words_and_repeats_less_than_their_number():
    weights = query_terms("getUserName fails with `timeout` error error error error")
    assert weights["getusername"] == weights["timeout"] == NAME_WEIGHT
    assert weights["user"] == weights["fails"] == 1.0
    assert 1.0 < weights["error"] < 4.0


def test_a_pasted_issue_keeps_its_title_and_its_names():
    noise = "\n".join(f"line {i}: 0x{i:06x} nothing{i:04d}interesting" for i in range(2500))
    issue = f"Sessions survive a password change\n{noise}\nraised by SessionStore.cycle_key in `backends`"
    assert len(issue) > 100_000
    weights = query_terms(issue)
    assert len(weights) == 256
    assert {"sessions", "survive", "password", "change"} <= weights.keys()
    few = query_terms("one two three four five six seven eight 1001 1002 1003 some_name", limit=10)
    assert few.keys() == {"one", "two", "three", "four", "five", "six", "seven", "eight", "somename", "name"}


@pytest.mark.parametrize("limit", [0, 1, 2, 7])
def test_the_limit_holds(limit):
    assert len(query_terms("alpha beta gamma_delta epsilon zeta eta theta", limit)) == limit


@pytest.mark.parametrize("unit", ["a", "A", "aB", "_", "-", "a-", "ab-", "1", "漢", "\u0301", "\u0301\u0327", " ", "`"])
def test_a_megabyte_of_one_character_takes_linear_time(unit):
    started = time.perf_counter()
    split(unit * (1_000_000 // len(unit)))
    query_terms(unit * (1_000_000 // len(unit)))
    assert time.perf_counter() - started < 5


def test_code_is_split_at_more_than_a_megabyte_a_second():
    # Five or more on an idle core; the bound leaves room for a busy one.
    code = "".join(Path(str(module.__file__)).read_text() for module in (terms, contract)) * 100
    started = time.process_time()
    split(code)
    assert len(code) / (time.process_time() - started) > 1e6
