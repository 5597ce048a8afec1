"""A request for embeddings as it is read: whatever comes, it is an Asked or a problem with its status."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcode.serve import asked
from embedcode.serve.asked import FIELDS, LARGE_BODY, NO_ROLE, Asked, Model, PromptGuard, check, read
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import Lane
from embedcode.types import Role, Truncate

PROMPTS = {Role.QUERY: "Instruct: {instruction}\nQuery: ", Role.PASSAGE: ""}
MODEL = Model("nvidia/nv-embedcode-7b-v1", 4096, (512, 1024), PROMPTS, late=True)
PLAIN = Model("plain", 12, (), dict.fromkeys(Role, ""))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
USUAL = {
    "model": st.sampled_from([MODEL.name, f"{MODEL.name}-query", f"{MODEL.name}-passage"]),
    "input": st.text() | st.lists(st.text(), max_size=3),
    "input_type": st.sampled_from(["query", "passage"]),
    "truncate": st.sampled_from(["NONE", "START", "END"]),
    "dimensions": st.sampled_from([512, 1024, 4096, 5]),
}
BODIES = st.fixed_dictionaries({}, optional={name: USUAL.get(name, JSON) | JSON for name in (*FIELDS, "more")})


@given(BODIES)
@settings(deadline=None)
def test_any_fields_are_a_request_or_a_problem_of_the_caller(body: dict[str, object]) -> None:
    for model in (MODEL, PLAIN):
        try:
            asked = check(body, model)
        except ProblemError as problem:
            assert problem.status in (400, 404, 422)
            assert 10 < len(problem.message) < 700
        else:
            assert isinstance(asked, Asked)
            assert asked.texts
            assert asked.model in model.names


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_request_or_a_problem_of_the_caller(body: bytes) -> None:
    with pytest.raises(ProblemError) as problem:
        read(body, MODEL)
    assert problem.value.status == 422


def test_the_role_and_the_lane() -> None:
    def lane(model: Model, given: object, name: str = "", **fields: object) -> tuple[Role, Lane]:
        asked = check({"model": name or model.name, "input": given, **fields}, model)
        return asked.role, asked.lane

    assert lane(MODEL, ["a"], input_type="passage") == (Role.PASSAGE, Lane.PASSAGE)
    assert lane(MODEL, ["a", "b"], f"{MODEL.name}-query") == (Role.QUERY, Lane.QUERY)
    assert lane(MODEL, "a", "NVIDIA/NV-EmbedCode-7b-v1-passage") == (Role.PASSAGE, Lane.PASSAGE)
    assert lane(PLAIN, "one text") == (Role.PASSAGE, Lane.QUERY)
    assert lane(PLAIN, ["two", "texts"]) == (Role.PASSAGE, Lane.PASSAGE)
    usual = replace(MODEL, default_role=Role.QUERY)
    assert lane(usual, ["a"]) == (Role.QUERY, Lane.QUERY)
    with pytest.raises(ProblemError, match=re.escape(NO_ROLE)):
        lane(MODEL, "a")


def test_fields_that_are_null_are_as_if_they_were_left_out() -> None:
    nulls = dict.fromkeys(FIELDS) | {"model": "plain", "input": "a"}
    asked = check(nulls, PLAIN)
    assert (asked.truncate, asked.encoding, asked.kind, asked.dimensions) == (Truncate.NONE, "float", "float", None)


def test_a_size_that_does_not_pack_to_bytes() -> None:
    with pytest.raises(ProblemError, match="multiple of 8"):
        check({"model": "plain", "input": "a", "embedding_type": "binary"}, PLAIN)


def test_an_instruction_that_is_too_long_is_told_and_half_a_surrogate_pair_in_one_is_harmless() -> None:
    body = {"model": f"{MODEL.name}-query", "input": "a"}
    with pytest.raises(ProblemError, match="instruction has 2,001 characters and at most 2,000") as caught:
        check({**body, "instruction": "x" * 2001}, MODEL)
    assert (caught.value.status, caught.value.param) == (400, "instruction")
    for text in ("x" * 2000, "find \ud800"):
        asked = check({**body, "instruction": text}, MODEL)
        assert asked.instruction is not None
        assert len(asked.instruction.encode()) > 7


def test_a_field_name_of_any_size_is_refused_at_once() -> None:
    name = "x" * 2_000_000
    start = time.monotonic()
    with pytest.raises(ProblemError) as caught:
        check({"model": MODEL.name, "input": "a", name: 1}, MODEL)
    assert time.monotonic() - start < 0.1
    assert (caught.value.status, caught.value.param) == (422, "x" * 80)


@pytest.mark.parametrize("part", [b"[]", b"{}", b'""', b"0.5", b'"\\\\","a"', b"[1]"])
def test_a_body_of_more_values_than_inputs_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    body = b'{"model":"plain","input":[' + b",".join([part] * 200_000) + b"]}"
    monkeypatch.setattr(asked, "orjson", None)
    for model in (PLAIN, replace(PLAIN, accept_ids=True))[: 1 if part == b"0.5" else 2]:  # ids are many numbers
        with pytest.raises(ProblemError, match="more values than 2,048 inputs need: split the request") as caught:
            read(body, model)
        assert (caught.value.status, caught.value.param) == (400, "input")
        assert ("check_embedding_ctx_length=False" in caught.value.message) is not model.accept_ids


@pytest.mark.parametrize("text", ["[{,", '\\",[', "\\", '\\\\"'])
def test_a_large_body_of_as_many_inputs_as_there_may_be_is_read_whatever_is_in_them(text: str) -> None:
    texts = [text * 100] * PLAIN.most_inputs
    body = json.dumps({"model": "plain", "input": texts, "modality": ["text"] * len(texts)}).encode()
    assert len(body) > LARGE_BODY
    assert list(read(body, PLAIN).texts) == texts
    ids = [list(range(100))] * PLAIN.most_inputs
    body = json.dumps({"model": "plain", "input": ids}).encode()
    assert len(read(body, replace(PLAIN, accept_ids=True)).ids) == PLAIN.most_inputs


def test_a_large_body_that_ends_in_a_string_is_no_json_soon() -> None:
    start = time.monotonic()
    with pytest.raises(ProblemError, match="not JSON"):
        read(b'{"input":"' + b'\\"' * 1_000_000, PLAIN)
    assert time.monotonic() - start < 5


def test_a_prompt_is_found_whatever_its_instruction() -> None:
    twice = PromptGuard(PROMPTS)
    assert twice("Instruct: Retrieve code or text based on user query\nQuery: log out")
    assert twice("  Instruct: x\nQuery:log out")
    for text in ("log out", "Instruct: the crew\n", "Query: a", "def instruct(): ...", ""):
        assert not twice(text)
    assert twice.sure("Instruct: x\nQuery: log out")
    words = PromptGuard({Role.QUERY: "query: ", Role.PASSAGE: "search_document: "})
    for text in ("query: |\n  SELECT 1\n", "  query: sum(rate(http_requests[5m]))", "search_document: a"):
        assert words(text)
        assert not words.sure(text)  # nobody can tell
    assert PromptGuard({Role.QUERY: "Represent this query: ", Role.PASSAGE: ""}).sure("Represent this query: a")
    assert not PromptGuard(dict.fromkeys(Role, ""))("anything")


def test_ids_are_no_more_than_those_of_as_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of 32 MB holds 16 million, each of which took 40 bytes and a look."""
    model = replace(PLAIN, accept_ids=True, most_inputs=2, max_tokens=3)
    for ids in ([1] * 6, [[1] * 3] * 2, [[1] * 6]):
        assert check({"model": "plain", "input": ids}, model).ids
    for ids in ([1] * 7, [[1] * 3, [1] * 4]):
        with pytest.raises(ProblemError, match="input has 7 token ids, and at most 6 are taken: split") as caught:
            check({"model": "plain", "input": ids}, model)
        assert (caught.value.status, caught.value.param) == (400, "input")
    monkeypatch.setattr(asked, "orjson", None)
    with pytest.raises(ProblemError, match="more values than 2 inputs need: split the request"):
        read(b'{"model":"plain","input":[' + b"1," * 200_000 + b"1]}", model)
