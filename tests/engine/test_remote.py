"""Encoders that are servers: what comes back, what is sent, and one sentence for whatever goes wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcode import Encoder, Role, Truncate, load
from embedcode.engine import endpoint
from embedcode.engine.remote import BATCH, BATCH_BYTES, IN_FLIGHT, RemoteEncoder
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.model.presets import INSTRUCTIONS
from embedcode.types import InputError, Tokens

Serve = Callable[..., Any]
TEXTS = ["open a file", "close the file", "def parse(line): return line.split()", "naïve café"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and patience a hundredth as long."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "PATIENCE"):
        monkeypatch.setattr(endpoint, name, getattr(endpoint, name) / 100)


def expected(server: Any, texts: list[str], role: str | None) -> np.ndarray:
    vectors = np.stack([server.vector(text, role) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def failure(encoder: Encoder, kind: type[Exception] = ModelError, texts: list[str] | None = None) -> str:
    """The one sentence of what encoding raises."""
    with pytest.raises(kind) as caught:
        encoder.encode(texts or ["x"], Role.PASSAGE)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What comes back, and what is sent


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("floats", [True, False])
def test_vectors_are_the_servers_at_unit_length(serve: Serve, role: Role, floats: bool) -> None:
    server = serve(floats=floats)
    encoder = load(server.url)
    assert isinstance(encoder, Encoder)
    found = encoder.encode(TEXTS, role)
    assert (found.dtype, found.shape, encoder.dim) == (np.float32, (4, 64), 64)
    np.testing.assert_allclose(found, expected(server, TEXTS, role), atol=1e-6)
    sent = server.embeddings[-1].body
    assert (sent["input_type"], sent["truncate"], sent["encoding_format"]) == (role, "NONE", "base64")
    assert encoder.encode([], role).shape == (0, 64)


@pytest.mark.parametrize(
    "ending", ["", "/", "/v1", "/v1/", "/v1/embeddings", "#nvidia/nv-embedcode-7b-v1", "/v1#m%2Fx"]
)
def test_ways_to_write_an_address(serve: Serve, ending: str) -> None:
    server = serve(models=["nvidia/nv-embedcode-7b-v1"] if "x" not in ending else ["m/x", "y"])
    assert load(server.url.upper() + ending).encode(["x"], Role.QUERY).shape == (1, 64)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.example.com/v1", "/v1"),
        ("https://api.example.com/api/paas/v4/", "/api/paas/v4"),
        ("https://api.example.com/v1beta/openai", "/v1beta/openai"),
        ("https://api.example.com/models/small", "/models/small/v1"),
        ("http://[::1]:8000", "/v1"),
    ],
)
def test_a_path_with_a_version_is_taken_as_it_is(url: str, base: str) -> None:
    assert load(url).address.base == base


def test_fields_that_a_server_refuses_are_left_out_and_that_is_remembered(serve: Serve) -> None:
    server = serve("openai", models=["text-embedding-3-small"])
    encoder = load(server.url)
    np.testing.assert_allclose(encoder.encode(TEXTS, Role.QUERY), expected(server, TEXTS, None), atol=1e-6)
    refused = [asked for asked in server.embeddings if {"input_type", "truncate"} & asked.body.keys()]
    assert len(refused) == 2  # it names one at a time
    count = len(server.embeddings)
    encoder.encode(TEXTS, Role.PASSAGE)
    load(server.url).encode(TEXTS, Role.PASSAGE)  # another process
    for asked in server.embeddings[count:]:
        assert set(asked.body) == {"model", "input", "encoding_format"}
    assert len(server.embeddings) == count + 2


def test_a_role_is_not_given_up_for_another_fields_sake(serve: Serve) -> None:
    """pydantic ends its messages with `input_type=str`, whichever field it does not know."""
    server = serve()

    def strict(asked: Any) -> Any:
        if "truncate" in asked.body:
            return server.error(400, "truncate: Extra inputs are not permitted [type=extra_forbidden, input_type=str]")
        return None

    server.answer = strict
    found = load(server.url).encode(TEXTS, Role.QUERY)
    np.testing.assert_allclose(found, expected(server, TEXTS, "query"), atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "input_type"], "msg": "Extra inputs are not permitted"}
            ]
        },
        {"error": {"message": "Unknown parameter.", "param": "input_type"}},
        {"error": 'json: unknown field "input_type"'},
        {"detail": "extra fields not permitted: ['input_type']"},
        {"message": "Additional properties are not allowed ('input_type' was unexpected)"},
    ],
)
def test_ways_to_refuse_a_field(serve: Serve, body: dict[str, Any]) -> None:
    server = serve()
    plain = server.vectors([server.vector("x", None)])
    server.answer = lambda asked: (
        None
        if asked.path != "/v1/embeddings"
        else (422, {}, json.dumps(body).encode())
        if "input_type" in asked.body
        else plain
    )
    np.testing.assert_allclose(load(server.url).encode(["x"], Role.QUERY), expected(server, ["x"], None), atol=1e-6)


def test_a_value_that_is_refused_is_no_unknown_field(serve: Serve) -> None:
    """Else the role would be lost, silently."""
    server = serve()
    refusal = server.error(400, "Value 'passage' supplied for argument 'input_type' is not valid")
    server.answer = lambda asked: refusal if "input_type" in asked.body else None
    assert "'input_type' is not valid" in failure(load(server.url))


def test_many_texts_keep_their_order_in_requests_of_limited_size(serve: Serve) -> None:
    server = serve(delay=0.05)
    texts = [f"word {'abcdefghij'[n % 10]} {'klmnopqrst'[n // 10 % 10]} {'uvwxyz'[n // 100]}" for n in range(500)]
    encoder = load(server.url)
    found = encoder.encode(texts, Role.PASSAGE)
    np.testing.assert_allclose(found, expected(server, texts, "passage"), atol=1e-6)
    sent = server.embeddings[1:]  # after the one that asks for the dimensions
    assert max(len(asked.body["input"]) for asked in sent) == BATCH
    assert len(sent) == -(-500 // BATCH)
    assert 1 < server.most <= IN_FLIGHT
    assert len({asked.connection for asked in server.asked}) <= IN_FLIGHT + 1  # kept alive
    server.asked.clear()
    server.answer = lambda asked: server.vectors([[1.0] * 64] * len(asked.body["input"])) if asked.body else None
    encoder.encode(["x" * (BATCH_BYTES // 3)] * 7, Role.PASSAGE)
    assert sorted(len(asked.body["input"]) for asked in server.embeddings) == [1, 3, 3]


def test_rows_are_put_in_the_order_of_the_texts(serve: Serve) -> None:
    server = serve()
    usual = server.reply

    def reversed_rows(asked: Any) -> Any:
        server.answer = lambda asked: None
        status, headers, raw = usual(asked)
        server.answer = reversed_rows
        value = json.loads(raw)
        value.get("data", []).reverse()
        return status, headers, json.dumps(value).encode()

    server.answer = reversed_rows
    found = load(server.url).encode(TEXTS, Role.PASSAGE)
    np.testing.assert_allclose(found, expected(server, TEXTS, "passage"), atol=1e-6)


def test_tokenizing_asks_nothing_and_says_that_it_estimates(serve: Serve) -> None:
    server = serve()
    encoder = load(server.url)
    entries = encoder.tokenize([*TEXTS, "a\ud800b", "", 3, [1, 2]], Role.QUERY)  # type: ignore[list-item]
    assert server.asked == []
    assert all(isinstance(entry, Tokens) and entry.estimated and entry.used > 0 for entry in entries[:6])
    for index in (6, 7):
        refused = entries[index]
        assert isinstance(refused, InputError)
        assert refused.index == index
    assert "is a int: a server is sent texts" in str(entries[6])
    vectors = encoder.forward(entries[:6])  # type: ignore[arg-type]
    np.testing.assert_allclose(vectors, expected(server, [*TEXTS, "a�b", ""], "query"), atol=1e-6)
    with pytest.raises(UsageError, match="another encoder's"):
        encoder.forward([Tokens((1, 2), 2, 2)])
    with pytest.raises(UsageError, match="as a list"):
        encoder.encode("text", Role.QUERY)
    with pytest.raises(UsageError, match="max_tokens 5 out"):
        encoder.encode(["text"], Role.QUERY, max_tokens=5)
    with pytest.raises(EncodeError, match="Input 1 is a NoneType") as caught:
        encoder.encode(["text", None], Role.QUERY)  # type: ignore[list-item]
    assert caught.value.index == 1


def test_ids_tell_apart_what_is_sent_otherwise(serve: Serve) -> None:
    """Results that are kept by them, as `embedcode embed -o` does, are of this text in this role only."""
    encoder = load(serve().url)
    ids = {
        entry.ids
        for text in TEXTS
        for role in Role
        for truncate in Truncate
        for entry in encoder.tokenize([text], role, truncate=truncate)
        if isinstance(entry, Tokens)
    }
    assert len(ids) == 4 * 2 * 3


def test_prompts_are_for_servers_that_put_none(serve: Serve) -> None:
    server = serve("openai", models=["qwen"])
    prompts = {Role.QUERY: "Instruct: {instruction}\nQuery: "}
    encoder = load(server.url, prompts=prompts)
    encoder.encode(["close a file"], Role.QUERY, instruction="find code")
    assert server.embeddings[-1].body["input"] == ["Instruct: find code\nQuery: close a file"]
    encoder.encode(["close a file"], Role.PASSAGE)
    assert server.embeddings[-1].body["input"] == ["close a file"]
    with pytest.raises(UsageError, match="give one"):
        encoder.encode(["x"], Role.QUERY)
    with pytest.raises(ModelError, match="does not say that it takes an instruction for a passage: leave it out"):
        encoder.encode(["x"], Role.PASSAGE, instruction="find code")


def test_prompts_stand_in_the_address_which_an_index_remembers(serve: Serve) -> None:
    server = serve("openai", models=["e5", "x"])
    url = f"{server.url}?query=query: &passage=a%2Bb%0A#e5"
    encoder, bare = load(url), load(f"{server.url}#e5")
    for role, sent in ((Role.QUERY, "query: x"), (Role.PASSAGE, "a+b\nx")):
        encoder.encode(["x"], role)
        assert server.embeddings[-1].body["input"] == [sent]
    bare.encode(["x"], Role.PASSAGE)
    assert server.embeddings[-1].body["input"] == ["x"]
    assert encoder.space != bare.space == load(f"{server.url}?query=find: #e5").space
    assert load(url, prompts={Role.PASSAGE: ""}).space == bare.space, "the caller goes before the address"
    assert encoder.conditions.prompts == {Role.QUERY: "query: ", Role.PASSAGE: "a+b\n"}


def test_an_instruction_is_sent_where_a_server_says_that_it_takes_one(serve: Serve) -> None:
    server = serve()
    entry = {"id": server.models[0], "instruction_roles": ["query", 7], "max_model_len": 512}
    listed = 200, {}, json.dumps({"data": [entry]}).encode()

    def ours(asked: Any) -> Any:
        if asked.path == "/v1/models":
            return listed
        if asked.path != "/v1/embeddings":
            return None
        return server.embed({name: value for name, value in asked.body.items() if name != "instruction"})

    server.answer = ours
    encoder = load(server.url)
    tokens = [encoder.tokenize(["x"], Role.QUERY, said)[0] for said in (None, "bug", "find code", "bug")]
    assert encoder.forward([one for one in tokens if isinstance(one, Tokens)]).shape == (4, 64)
    sent = [asked.body.get("instruction") for asked in server.embeddings[-4:]]
    assert sorted(map(str, sent)) == sorted(map(str, [None, INSTRUCTIONS["bug"], "find code", INSTRUCTIONS["bug"]]))
    count = len(server.embeddings)
    for again in (encoder, load(server.url)):  # another process
        with pytest.raises(ModelError, match="takes an instruction for a passage"):
            again.encode(["x"], Role.PASSAGE, instruction="bug")
    assert len(server.embeddings) == count, "nothing is sent"


# Which model


def test_of_several_models_one_is_named_behind_the_hash(serve: Serve) -> None:
    server = serve(models=["large", "small"])
    assert f"serves 2 models (large, small): name one, as in {server.url}/v1#large." in failure(load(server.url))
    load(f"{server.url}#small").encode(["x"], Role.QUERY)
    assert server.embeddings[-1].body["model"] == "small"
    message = failure(load(f"{server.url}#tiny"))
    assert "The model `tiny` does not exist" in message
    assert "check the address and the model, tiny" in message


def test_a_server_that_lists_no_model_needs_its_name(serve: Serve) -> None:
    server = serve()
    server.answer = lambda asked: server.error(404, "no such page") if asked.path == "/v1/models" else None
    assert "does not tell its model (/models answered 404 Not Found: no such page)" in failure(load(server.url))
    assert load(f"{server.url}#{server.models[0]}").encode(["x"], Role.QUERY).shape == (1, 64)
    server.answer = lambda asked: None
    server.models = []
    assert "/models lists none" in failure(load(server.url))


def test_roles_that_are_models_of_their_own(serve: Serve) -> None:
    """As a gateway lists them that passes on no `input_type`."""
    server = serve(models=["embed-query", "embed-passage", "embed"])
    found = load(server.url).encode(TEXTS, Role.QUERY)
    np.testing.assert_allclose(found, expected(server, TEXTS, "query"), atol=1e-6)
    assert server.embeddings[-1].body["model"] == "embed-query"
    assert "input_type" not in server.embeddings[-1].body


def test_a_model_of_one_role_is_refused(serve: Serve) -> None:
    server = serve()
    message = failure(load(f"{server.url}#{server.models[0]}-query"))
    assert message.endswith("would embed queries and passages alike: name it without -query.")


def test_space_is_the_models_and_build_the_servers(serve: Serve) -> None:
    def metadata(url: str, version: str = "2.4") -> dict[str, Any]:
        return {"modelInfo": [{"shortName": "m", "modelUrl": url}], "version": version, "selectedModelProfileId": "p"}

    encoders = [
        load(serve(metadata=metadata("ngc://m:1")).url),
        load(serve(metadata=metadata("ngc://m:1", "2.5")).url),
        load(serve(metadata=metadata("ngc://m:2")).url),
        load(serve(metadata=metadata("ngc://m:1"), dim=32).url),
        load(serve(metadata=metadata("ngc://m:1"), models=["other"]).url),
        load(serve(metadata=metadata("ngc://m:1")).url, prompts={Role.PASSAGE: "passage: "}),
        load(serve("openai", metadata=metadata("ngc://m:1")).url),
    ]
    spaces = [encoder.space for encoder in encoders]
    assert spaces[0] == spaces[1]
    assert len(set(spaces)) == 6
    assert encoders[0].build == f"remote {encoders[0].address.url} 2.4 p"
    assert encoders[1].build.endswith("2.5 p")


def test_what_a_server_told_is_known_while_it_is_down(serve: Serve) -> None:
    server = serve()
    first = load(server.url)
    facts = (first.dim, first.space, first.build, first.max_tokens)
    server.answer = lambda asked: server.error(400, "down")
    count = len(server.asked)
    again = load(server.url)
    assert (again.dim, again.space, again.build, again.max_tokens) == facts
    assert len(server.asked) == count


@pytest.mark.parametrize(
    "change", [{"models": ["another"]}, {"metadata": {"modelInfo": [{"modelUrl": "b"}]}}, {"dim": 32}]
)
def test_another_model_at_the_same_address_gives_no_vector_in_the_old_space(
    serve: Serve, change: dict[str, Any]
) -> None:
    server = serve(metadata={"modelInfo": [{"modelUrl": "a"}]})
    before = load(server.url).space
    for name, value in change.items():
        setattr(server, name, value)
    encoder = load(server.url)
    assert encoder.space == before
    message = failure(encoder)
    assert "before: start again." in message
    after = load(server.url)
    assert after.encode(["x"], Role.QUERY).shape == (1, server.dim)
    assert after.space != before


def test_models_that_tell_the_same_are_told_apart_by_their_vectors(serve: Serve, own_home: Path) -> None:
    server = serve()

    def seen() -> str:
        encoder: Any = load(server.url)
        return str(encoder.seen)

    first = seen()
    assert re.fullmatch("[0-9a-f]{12}", first) and seen() == first
    usual = server.vector
    server.vector = lambda text, role: (
        usual(text, role) + np.linspace(0, 0.01, server.dim)
    )  # as another batch size does
    assert seen() == first, "though its vectors are other numbers"
    server.vector = lambda text, role: usual(text, role)[::-1] if role == "query" else usual(text, role)
    second = seen()
    assert second == seen() != first, "of a role alone too"
    del server.vector
    assert seen() == first
    server.vector = lambda text, role: usual(text, role)[::-1] if role == "query" else usual(text, role)
    for file in (own_home / "servers").glob("*.npy"):
        file.write_bytes(b"")
    assert seen() == second, "counted anew it would have had the first one's number, and its vectors"


def test_a_limit_that_is_told_is_known(serve: Serve) -> None:
    server = serve()
    data = {"data": [{"id": "m", "max_model_len": 512}]}
    server.answer = lambda asked: (200, {}, json.dumps(data).encode()) if asked.path == "/v1/models" else None
    server.models = ["m"]
    assert load(server.url).max_tokens == 512


# Sizes


@pytest.mark.parametrize(("truncate", "kept"), [(Truncate.END, slice(0, 200)), (Truncate.START, slice(50, 250))])
def test_the_server_cuts_at_the_end_that_is_asked_for(serve: Serve, truncate: Truncate, kept: slice) -> None:
    server = serve()
    words = [f"{'abcde'[n % 5]}{'fghij'[n // 5 % 5]}{'klmnopqrst'[n // 25]}" for n in range(250)]
    found = load(server.url).encode([" ".join(words)], Role.PASSAGE, truncate=truncate)
    np.testing.assert_allclose(found, expected(server, [" ".join(words[kept])], "passage"), atol=1e-6)


def test_a_text_that_is_too_long_is_named_wherever_it_stands(serve: Serve) -> None:
    server = serve()
    texts = ["short"] * 100 + ["word " * 300] + ["short"] * 30
    with pytest.raises(EncodeError) as caught:
        load(server.url).encode(texts, Role.PASSAGE)
    assert caught.value.index == 100
    assert str(caught.value).startswith(
        "Input length 300 exceeds maximum allowed token size 200 (input 100): shorten it"
    )
    assert "truncate" in str(caught.value)
    assert len(server.embeddings) <= 16  # by halves, and not one by one
    refusal = server.error(400, "Input length 9 exceeds maximum allowed token size 8")
    server.answer = lambda asked: refusal if asked.body else None
    with pytest.raises(EncodeError, match=r"size 8 \(input 0\): shorten it, since this server cuts nothing"):
        load(server.url).encode(["x"], Role.PASSAGE, truncate=Truncate.END)


def test_a_server_that_cannot_cut_says_so(serve: Serve) -> None:
    server = serve("openai")
    with pytest.raises(EncodeError) as caught:
        load(server.url).encode(["a", "word " * 300], Role.PASSAGE, truncate=Truncate.END)
    assert caught.value.index == 1
    for part in ("Input 1 is refused", "maximum context length is 200 tokens", "this server cuts nothing"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "the engine died of it", "param": "input"}},
        {"message": "the engine died of it", "detail": {"index": 3}},  # of another numbering
        # llama.cpp, of a text of more tokens than its physical batch
        {"error": {"code": 500, "message": "the engine died of it: input (700 tokens) is too large to process"}},
    ],
)
def test_a_text_of_which_a_server_fails_is_named_at_once_and_costs_no_other(serve: Serve, body: dict[str, Any]) -> None:
    """Whatever the status: a server that says 500 of one text is not overloaded, and says it again."""
    server = serve()
    texts = [*TEXTS, "poison", *TEXTS]

    def answer(asked: Any) -> Any:
        return (500, {}, json.dumps(body).encode()) if "poison" in (asked.body or {}).get("input", ()) else None

    server.answer = answer
    start = time.monotonic()
    message = failure(load(server.url), EncodeError, texts)
    assert time.monotonic() - start < 20
    assert message.startswith("Input 4 is refused by ")
    assert "500 Internal Server Error: the engine died of it" in message
    assert len(server.embeddings) <= 10  # by halves, each once
    with pytest.raises(EncodeError) as caught:
        load(server.url).encode(texts, Role.PASSAGE)
    assert caught.value.index == 4


@pytest.mark.parametrize(
    "said",
    [
        lambda at: {"message": "no", "detail": {"index": at}, "error": {"message": "no", "param": "input"}},  # ours
        lambda at: {"detail": [{"loc": ["body", "input", at], "msg": "no"}]},  # FastAPI
        lambda at: {"error": {"message": f"Invalid '$.input[{at}]': no", "param": f"$.input[{at}]"}},
    ],
)
def test_a_text_that_a_server_names_is_asked_alone_and_no_half_again(
    serve: Serve, said: Callable[[int], dict[str, Any]]
) -> None:
    server = serve()

    def answer(asked: Any) -> Any:
        texts = (asked.body or {}).get("input", [])
        return (400, {}, json.dumps(said(texts.index("bad"))).encode()) if "bad" in texts else None

    server.answer = answer
    with pytest.raises(EncodeError, match="Input 37 is refused by ") as caught:
        load(server.url).encode([*(f"text {number}" for number in range(37)), "bad", *TEXTS], Role.PASSAGE)
    assert caught.value.index == 37
    # Its dimensions, all, the one alone, and a text that is known to be fine.
    assert [len(asked.body["input"]) for asked in server.embeddings] == [1, 42, 1, 1]


def test_a_process_that_was_forked_has_connections_and_threads_of_its_own(serve: Serve, tmp_path: Path) -> None:
    """On those of its parent each would read what the other had asked for, and wait for threads that are not there."""
    code = """
import os, sys
import numpy as np
from embedcode import Role, load
encoder = load(sys.argv[1])
ours, theirs = ([f"{who} {number}" for number in range(300)] for who in ("parent", "child"))
before = encoder.encode(ours, Role.PASSAGE), encoder.encode(theirs, Role.PASSAGE)
child = os.fork()
texts, expected = (ours, before[0]) if child else (theirs, before[1])
same = all(np.array_equal(encoder.encode(texts, Role.PASSAGE), expected) for _ in range(3))
if not child:
    os._exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (0 if same else 4))
"""
    environment = os.environ | {"EMBEDCODE_HOME": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", code, serve().url]
    assert subprocess.run(command, timeout=100, check=False, env=environment).returncode == 0


def test_a_body_that_is_too_large_is_sent_in_halves(serve: Serve) -> None:
    server = serve()
    server.answer = lambda asked: server.error(413, "too large") if len(asked.body.get("input", "")) > 3 else None
    encoder = load(server.url)
    found = encoder.encode(TEXTS * 3, Role.PASSAGE)
    np.testing.assert_allclose(found, expected(server, TEXTS * 3, "passage"), atol=1e-6)
    server.asked.clear()
    encoder.encode(TEXTS * 3, Role.PASSAGE)
    assert [len(asked.body["input"]) for asked in server.embeddings] == [3] * 4, "it was told its size before"


def test_a_text_that_is_refused_makes_no_request_smaller(serve: Serve) -> None:
    server = serve()
    server.answer = lambda asked: server.error(400, "no") if "bad" in asked.body.get("input", "") else None
    encoder = load(server.url)
    with pytest.raises(EncodeError, match="Input 5 "):
        encoder.encode([*TEXTS, "x", "bad", "y", "z"], Role.PASSAGE)
    server.asked.clear()
    encoder.encode(TEXTS * 2, Role.PASSAGE)
    assert [len(asked.body["input"]) for asked in server.embeddings] == [8]


def test_many_texts_are_worth_all_requests_of_a_server_that_is_quick(serve: Serve) -> None:
    """An index sent one request of 32 texts at a time. Of a slow server the last would not be waited for."""
    for delay, texts, quick in ((0.0, TEXTS * 16, True), (0.5, TEXTS, False)):
        server = serve(delay=delay)
        encoder = load(server.url)
        assert encoder.bulk == 1, "nobody knows yet"
        encoder.encode(texts, Role.PASSAGE)
        assert encoder.bulk == (BATCH * IN_FLIGHT if quick else 1)


@pytest.mark.parametrize("truncate", ["MIDDLE", "end"])
def test_which_end_is_cut_is_checked_here(serve: Serve, truncate: Any) -> None:
    """It was sent as it stood, and a server that knows no such field was asked again without."""
    encoder = load(serve().url)
    with pytest.raises(UsageError, match=f"truncate '{truncate}' is none of NONE, START, END"):
        encoder.encode(["x"], Role.PASSAGE, truncate=truncate)
    (plain,), (named,) = (encoder.tokenize(["x"], Role.PASSAGE, truncate=one) for one in ("END", Truncate.END))
    assert plain == named


def test_dimensions_are_what_the_server_cuts_to(serve: Serve) -> None:
    server = serve()
    encoder = load(server.url)
    found = encoder.encode(TEXTS, Role.QUERY, dimensions=32)
    whole = expected(server, TEXTS, "query")[:, :32]
    np.testing.assert_allclose(found, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(
        UsageError, match=r"does not give 7 dimensions \(400 Bad Request: dimensions 7 is not supported"
    ):
        encoder.encode(TEXTS, Role.QUERY, dimensions=7)
    ignoring = serve()
    ignoring.answer = lambda asked: asked.body.pop("dimensions", None) and None
    with pytest.raises(UsageError, match="does not cut to 32 dimensions"):
        load(ignoring.url).encode(TEXTS, Role.QUERY, dimensions=32)


# Overload


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_overload_is_waited_for(serve: Serve, status: int) -> None:
    server = serve()
    busy = iter([True, True])
    server.answer = lambda asked: server.error(status, "busy") if asked.body and next(busy, False) else None
    assert load(server.url).encode(["x"], Role.QUERY).shape == (1, 64)


@pytest.mark.parametrize("told", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_is_honoured(serve: Serve, hasty: None, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 10)
    server = serve()
    busy = iter([True])
    server.answer = lambda asked: (
        server.error(429, "busy", {"Retry-After": told()}) if asked.body and next(busy, False) else None
    )
    load(server.url).encode(["x"], Role.QUERY)
    first, second = server.embeddings[:2]
    assert 0.9 < second.at - first.at < 3


def test_patience_ends_with_the_servers_own_words(serve: Serve, hasty: None) -> None:
    server = serve()
    encoder = load(server.url)
    encoder.encode(["x"], Role.QUERY)
    server.answer = lambda asked: server.error(503, "the model is being loaded")
    start = time.monotonic()
    message = failure(encoder)
    assert 0.3 < time.monotonic() - start < 3
    assert "overloaded or not ready (503 Service Unavailable: the model is being loaded): try again later" in message
    count = len(server.asked)
    failure(encoder)
    assert len(server.asked) == count + 1  # it is not waited for twice
    server.answer = lambda asked: None
    assert encoder.encode(["x"], Role.QUERY).shape == (1, 64)


def test_a_wait_longer_than_patience_is_not_begun(serve: Serve) -> None:
    server = serve()
    server.answer = lambda asked: server.error(429, "out of credit", {"Retry-After": "3600"})
    start = time.monotonic()
    assert "(429 Too Many Requests: out of credit): try again after 3600 s" in failure(load(server.url))
    assert time.monotonic() - start < 2


def test_a_connection_that_was_closed_while_idle_costs_no_pause(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 40.0)
    server = serve()
    encoder = load(server.url)
    encoder.encode(["x"], Role.QUERY)
    server.drop()
    start = time.monotonic()
    assert encoder.encode(["x"], Role.QUERY).shape == (1, 64)
    assert time.monotonic() - start < 10


def test_a_server_that_is_started_again_meanwhile_is_waited_for(serve: Serve) -> None:
    server = serve()
    encoder = load(server.url)
    encoder.encode(["x"], Role.QUERY)
    server.stop()
    with pytest.raises(ModelError, match="refuses the connection"):
        load(server.url.replace("127.0.0.1", "127.0.0.2")).encode(["x"], Role.QUERY)  # at first it is not
    again = threading.Timer(0.7, lambda: serve(port=server.http.server_address[1]))
    again.start()
    assert encoder.encode(["x"], Role.QUERY).shape == (1, 64)
    again.join()


def test_an_interrupt_ends_a_wait_at_once(serve: Serve) -> None:
    server = serve()
    encoder = load(server.url)
    tokens = [entry for entry in encoder.tokenize(["x"] * 200, Role.QUERY) if isinstance(entry, Tokens)]
    encoder.forward(tokens)
    server.answer = lambda asked: server.error(503, "busy", {"Retry-After": "30"})
    failed: list[Exception] = []

    def work() -> None:
        try:
            encoder.forward(tokens)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    start = time.monotonic()
    encoder.interrupt()
    thread.join(10)
    assert time.monotonic() - start < 1
    assert isinstance(failed[0], ModelError)
    server.answer = lambda asked: None
    assert encoder.forward(tokens).shape == (200, 64)  # and it can be used again


# What goes wrong


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_server_that_is_not_there(serve: Serve) -> None:
    port = closed_port()
    message = failure(load(f"http://127.0.0.1:{port}"))
    assert message == f"http://127.0.0.1:{port}/v1 refuses the connection: start the server, or check the port."
    assert "cannot be found" in failure(load("http://no-such-host.invalid:8000"))


def test_a_server_without_tls(serve: Serve) -> None:
    assert "does not speak TLS" in failure(load(serve().url.replace("http:", "https:")))


def test_a_certificate_must_be_trusted(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: Callable[[Any], Path]
) -> None:
    server = serve()
    certificate = tls(server)
    message = failure(load(server.url))
    assert "shows a certificate that is not trusted" in message
    assert "SSL_CERT_FILE" in message
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert load(server.url).encode(["x"], Role.QUERY).shape == (1, 64)


def test_an_answer_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.2)
    assert "gives no answer in time" in failure(load(serve(delay=1.0).url))


def test_a_server_that_has_not_answered_yet_is_given_less_time_to_connect(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search in a terminal waited 10 seconds for an address that swallows what is sent there."""
    waited = []
    connect = http.client.HTTPConnection.connect

    def noted(connection: http.client.HTTPConnection) -> None:
        waited.append(connection.timeout)
        connect(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", noted)
    server = serve()
    encoder = load(server.url)
    encoder.encode(["x"], Role.PASSAGE)
    server.drop()
    encoder.encode(["y"], Role.PASSAGE)
    assert waited == [endpoint.FIRST_SECONDS, endpoint.CONNECT_SECONDS]


def test_who_took_long_to_give_no_answer_is_left_alone_for_a_while(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search asked up to three times in a row, of which each may take 10 seconds to connect, or 120."""
    for name, seconds in (("ANSWER_SECONDS", 0.2), ("QUICK", 0.1), ("REST", 60.0)):
        monkeypatch.setattr(endpoint, name, seconds)
    server = serve(delay=1.0)
    encoder = load(server.url)
    assert isinstance(encoder, RemoteEncoder)
    first, count = failure(encoder), len(server.asked)
    server.delay = 0.0
    assert failure(encoder) == first
    assert len(server.asked) == count
    assert encoder._endpoint._rest is not None
    until, problem = encoder._endpoint._rest
    encoder._endpoint._rest = until - 60, problem
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 120.0)
    assert encoder.encode(["x"], Role.QUERY).shape == (1, 64)


def test_one_request_that_is_lost_among_others_with_answers_begins_no_rest(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those after it were refused for 30 seconds."""
    server = serve()
    encoder = load(server.url)
    assert isinstance(encoder, RemoteEncoder)
    encoder.encode(["x"], Role.PASSAGE)
    exchange = encoder._endpoint._exchange

    def lost(*asked: Any) -> Any:
        monkeypatch.setattr(encoder._endpoint, "_exchange", exchange)
        encoder.encode(["y"], Role.PASSAGE)  # as of another thread
        for name, seconds in (("ANSWER_SECONDS", 0.2), ("QUICK", 0.1)):
            monkeypatch.setattr(endpoint, name, seconds)
        server.delay = 1.0
        try:
            return exchange(*asked)
        finally:
            server.delay = 0.0

    monkeypatch.setattr(encoder._endpoint, "_exchange", lost)
    assert "gives no answer in time" in failure(encoder)
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 120.0)
    assert encoder.encode(["x"], Role.PASSAGE).shape == (1, 64)


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        ((200, {}, b"<html><body>Welcome</body></html>"), "embeds nothing (200 OK: <html><body>Welcome"),
        ((200, {}, b"[1, 2]"), "embeds nothing (200 OK: 1; 2)"),
        ((200, {}, b"[" * 100_000), "embeds nothing (200 OK: [[["),
        ((200, {}, b"{}"), "gives no vectors for 1 texts"),
        ((200, {}, b'{"data": []}'), "gives 0 vectors for 1 texts"),
        ((200, {}, b'{"data": [{"index": 7, "embedding": [1]}]}'), "numbers its vectors [7]"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": "%%%"}]}'), "no vectors of numbers"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": ["a"]}]}'), "no vectors of numbers"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": [1' + b"0" * 400 + b"]}]}"), "no vectors of numbers"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": []}]}'), "shape (0,)"),
        ((200, {}, b'{"data": [{"index": 0, "embedding": [[1, 2]]}]}'), "shape (1, 2)"),
        ((200, {}, b'{"data": [{"index": 0}]}'), "shape ()"),
        ((401, {}, b'{"error": {"message": "no key"}}'), "(401 Unauthorized: no key): set EMBEDCODE_API_KEY"),
        ((403, {}, b"{}"), "denies access (403 Forbidden): set EMBEDCODE_API_KEY"),
        ((400, {}, b'{"error": "go \\u001b[31m away"}'), "(400 Bad Request: go [31m away)"),
        ((418, {}, b"<h1>teapot</h1>"), "<h1>teapot</h1>"),
        (
            (302, {"Location": "https://u:p@else.where/v1/embeddings?k=1"}, b""),
            "(302 Found: it redirects to https://else.where/v1/embeddings)",
        ),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(
    serve: Serve, reply: tuple[int, dict[str, str], bytes], part: str
) -> None:
    server = serve()
    server.answer = lambda asked: reply if asked.body else None
    assert part in failure(load(server.url))


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", b"\x15\x03\x01\x00\x02"])
def test_a_connection_that_ends_early(raw: bytes, hasty: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def end() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(raw)

        thread = threading.Thread(target=end)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert f"{url}/v1 cannot be reached (" in failure(load(url))
        thread.join()


def test_an_endless_answer_is_not_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_BYTES", 100_000)
    server = serve()
    server.answer = lambda asked: (200, {}, b" " * 200_000) if asked.body else None
    assert "sends more than 0.1 MB" in failure(load(server.url))


@pytest.mark.parametrize(
    "bad", [[None] * 64, [float("nan")] * 64, [float("inf")] + [0.0] * 63, [0.0] * 64, [1e300] * 64]
)
def test_a_row_that_is_no_vector_is_asked_for_again_alone(serve: Serve, bad: list[float]) -> None:
    server = serve()
    encoder = load(server.url)
    encoder.encode(["x"], Role.PASSAGE)

    def spoiled(asked: Any) -> Any:
        texts = asked.body.get("input", ())
        if "bad" not in texts or (len(texts) == 1 and not always):
            return None
        return server.vectors([bad if text == "bad" else server.vector(text, "passage") for text in texts])

    server.answer, always = spoiled, False
    texts = ["one", "bad", "two"]
    np.testing.assert_allclose(encoder.encode(texts, Role.PASSAGE), expected(server, texts, "passage"), atol=1e-6)
    always = True
    with pytest.raises(
        EncodeError, match="Input 1 has no finite vector in nvidia/nv-embedcode-7b-v1 at http"
    ) as caught:
        encoder.encode(texts, Role.PASSAGE)
    assert caught.value.index == 1


# Keys, proxies


def test_the_key_is_sent_and_never_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve("openai", key="sk-right")
    assert "set EMBEDCODE_API_KEY" in failure(load(server.url))
    monkeypatch.setenv("EMBEDCODE_API_KEY", "sk-wrong\n")
    message = failure(load(server.url))
    assert "Incorrect API key provided: Bearer …" in message
    assert "check EMBEDCODE_API_KEY" in message
    assert "sk-wrong" not in message
    monkeypatch.setenv("EMBEDCODE_API_KEY", "sk-right")
    assert load(server.url).encode(["x"], Role.QUERY).shape == (1, 64)


def test_a_key_that_may_embed_but_not_list_models(serve: Serve) -> None:
    server = serve()
    server.answer = lambda asked: None if asked.body else server.error(403, "Missing scopes: api.model.read")
    assert load(f"{server.url}#{server.models[0]}").encode(["x"], Role.QUERY).shape == (1, 64)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://user:secret@host:8000", "holds a user or a password"),
        ("http://:secret@host:8000", "holds a user or a password"),
        ("https://host/v1?key=secret", "has a query"),
        ("https://host/v1?query=x&key=secret", "has a query"),
        ("https://host/v1?secret", "has a query"),
        ("http://", "names no server"),
        ("http://ho st", "names no server"),
        ("http://host:99999", "is no URL"),
        ("http://[::1", "is no URL"),
        ("http://a..b", "is no URL"),
        ("http://host/größe", "names no server"),
    ],
)
def test_an_address_that_is_none(url: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(url)
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_travels_encrypted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_API_KEY", "sk-secret")
    with pytest.raises(UsageError, match="unencrypted: use https"):
        load("http://models.example:8000")
    for url in ("https://models.example", "http://localhost:8000", "http://127.9.9.9", "http://[::1]:8000"):
        load(url)
    monkeypatch.setenv("EMBEDCODE_API_KEY", "sk-sécret")
    with pytest.raises(UsageError) as caught:
        load("https://models.example")
    assert "cret" not in str(caught.value).replace("secret", "")


def test_the_proxy_of_the_environment_is_used_but_for_loopback(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(), serve()
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://me:pass@"))
    monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://me:pass@"))
    load(server.url).encode(["x"], Role.QUERY)
    assert proxy.asked == []
    # A proxy that answers itself is enough to see what it is sent.
    proxy.answer = lambda asked: (
        (200, {}, b'{"data": [{"id": "far"}]}')
        if asked.path.endswith("/models")
        else proxy.vectors([[1.0] * 64] * len(asked.body.get("input", ())))
    )
    assert load("http://models.example:8000").encode(["x"], Role.QUERY).shape == (1, 64)
    assert proxy.asked[0].path == "http://models.example:8000/v1/models"
    assert proxy.asked[0].headers["Proxy-Authorization"] == "Basic bWU6cGFzcw=="
    monkeypatch.setenv("NO_PROXY", "models.example")
    monkeypatch.setenv("no_proxy", "models.example")
    count = len(proxy.asked)
    failure(load("http://models.example:8000#far"))
    assert len(proxy.asked) == count
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    for wrong in ("socks5://127.0.0.1:1080", "http://127.0.0.1:none", "http://"):
        monkeypatch.setenv("http_proxy", wrong)
        assert "is no http one: set HTTP_PROXY" in failure(load("http://models.example:8000#far2"), UsageError)


def test_doctor_says_whether_roles_matter(serve: Serve) -> None:
    findings = {name: finding for name, finding, ok in load(serve().url).checks() if ok}
    assert "nvidia/nv-embedcode-7b-v1 at http://127.0.0.1" in findings["model"]
    assert "64 dimensions" in findings["model"]
    assert "differ (cosine" in findings["roles"]
    assert "texts/s" in findings["speed"]
    findings = {name: finding for name, finding, ok in load(serve("openai").url).checks() if ok}
    assert "are one" in findings["roles"]


@pytest.fixture
def tls(tmp_path: Path) -> Callable[[Any], Path]:
    """Puts a server behind TLS with a certificate of its own, which is returned."""
    import ssl

    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")

    def tls(server: Any) -> Path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        return certificate

    return tls
