"""The server's contract over HTTP, with the packaged model: shapes of NIM and OpenAI, and every kind of bad input."""

from __future__ import annotations

import base64
import gzip
import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import BadRequestError, OpenAI

import embedcode
from embedcode import Role
from embedcode.serve.answering import patience

from .serving import MODEL, Server, serving

CODE = "def invalidate(session):\n    session.flush()\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def vector(answer: Any, index: int = 0) -> Any:
    return np.array(answer["data"][index]["embedding"])


# ---- answers -----------------------------------------------------------------------------------------------------


def test_an_answer_has_the_published_shape_and_the_encoders_vectors(server: Server) -> None:
    texts = [CODE, "close a session", "x" * 300]
    status, answer = server.embed(texts, input_type="passage")
    assert status == 200
    assert (answer["object"], answer["model"]) == ("list", MODEL)
    assert [(row["object"], row["index"]) for row in answer["data"]] == [("embedding", i) for i in range(3)]
    encoder = embedcode.load()
    expected = encoder.encode(texts, Role.PASSAGE)
    assert np.allclose([row["embedding"] for row in answer["data"]], expected, atol=1e-6)
    count = sum(entry.used for entry in encoder.tokenize(texts, Role.PASSAGE))  # type: ignore[union-attr]
    assert answer["usage"] == {"prompt_tokens": count, "total_tokens": count}
    assert answer["embedcode"]["space"] == encoder.space


def test_the_openai_client_gets_the_same_by_floats_and_by_base64(client: OpenAI) -> None:
    floats = client.embeddings.create(model=MODEL, input=[CODE], encoding_format="float")
    packed = client.embeddings.create(model=f"{MODEL}-passage", input=CODE)  # base64, which the client unpacks
    assert np.allclose(floats.data[0].embedding, packed.data[0].embedding, atol=1e-7)
    assert packed.usage.prompt_tokens == floats.usage.prompt_tokens > 5
    assert [model.id for model in client.models.list()] == [MODEL, f"{MODEL}-query", f"{MODEL}-passage"]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model=MODEL, input=[[1, 2, 3]])
    assert refused.value.body["param"] == "input"  # type: ignore[index]
    assert "--accept-token-ids" in refused.value.message


def test_the_five_kinds_of_numbers_and_their_base64(server: Server) -> None:
    exact = vector(server.embed(CODE)[1])
    kinds = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8, "float": np.float32}
    for kind, dtype in kinds.items():
        plain = server.embed(CODE, embedding_type=kind)[1]["data"][0]["embedding"]
        packed = server.embed(CODE, embedding_type=kind, encoding_format="base64")[1]["data"][0]["embedding"]
        assert np.array_equal(np.frombuffer(base64.b64decode(packed), dtype), np.array(plain, dtype))
        assert len(plain) == (48 if "binary" in kind else 384)
        if kind == "ubinary":
            assert np.array_equal(np.unpackbits(np.array(plain, np.uint8)) == 1, exact > 0)
        elif kind == "int8":
            assert np.abs(np.array(plain) - exact * 127).max() <= 0.5001


def test_receipts_of_what_is_cut(server: Server) -> None:
    goats, taxes = "The goat eats grass on the mountain. " * 200, "Value added tax is paid by companies. " * 200
    for truncate, kept, lost in (("END", goats, taxes), ("START", taxes, goats)):
        before = server.metric("embedcode_truncated_texts_total")
        status, headers, content = server.send(
            "/v1/embeddings", {"model": MODEL, "input": ["short", goats + taxes], "truncate": truncate}
        )
        answer = json.loads(content)
        assert (status, headers["x-embedcode-truncated"]) == (200, "1")
        assert headers["x-embedcode-space"] == answer["embedcode"]["space"]
        assert "x-embedcode-prompt-twice" not in headers
        short, long = answer["embedcode"]["inputs"]
        assert short == {"index": 0, "tokens": 3, "used": 3, "truncated": False}
        assert (long["index"], long["used"], long["truncated"]) == (1, 512, True)
        assert long["tokens"] > 3000
        assert answer["usage"]["total_tokens"] == 515
        assert server.metric("embedcode_truncated_texts_total") == before + 1
        near, far = (vector(server.embed(text[:500])[1]) for text in (kept, lost))
        assert vector(answer, 1) @ near > 0.8
        assert vector(answer, 1) @ far < 0.5
    status, answer = server.embed(["short", goats])
    assert status == 400
    assert answer["message"].startswith("Input length ")
    assert " exceeds maximum allowed token size 512" in answer["message"]
    assert answer["detail"]["index"] == 1


@pytest.mark.parametrize("given", [{"x-stainless-read-timeout": "0.001"}, {"x-envoy-expected-rq-timeout-ms": "1"}])
def test_what_a_caller_says_it_waits_is_heeded(server: Server, given: dict[str, str]) -> None:
    text = f"late {given} " * 10
    body = {"model": MODEL, "input": [text], "input_type": "query"}
    status, headers, content = server.send("/v1/embeddings", body, **given)
    answer = json.loads(content)
    # For its time, or, where the tokens are counted before that is over, for its size.
    assert (status, answer["error"]["code"]) in ((429, "deadline"), (413, "too_large"))
    assert "0.001 seconds" in answer["message"]
    assert status == 413 or int(headers["retry-after"]) >= 1
    for said in ("nan", "-1", "0", "soon", "60000"):  # no time, and time enough
        assert server.ask("/v1/embeddings", body, **dict.fromkeys(given, said))[0] == 200


def test_the_openai_clients_timeout_is_heeded(server: Server) -> None:
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=5) as client:
        answer = client.embeddings.with_raw_response.create(model=f"{MODEL}-query", input="in time")
    assert answer.status_code == 200
    assert patience(answer.http_request.headers) == 5.0


def test_duplicates_are_computed_once_and_known_texts_not_at_all(server: Server) -> None:
    text = "a text that no other test sends"
    computed, hits = server.metric("embedcode_texts_total"), server.metric("embedcode_cache_hits_total")
    _, first = server.embed([text] * 5 + [text + "!"])
    assert server.metric("embedcode_texts_total") == computed + 2
    assert len({tuple(row["embedding"]) for row in first["data"]}) == 2
    _, again = server.embed(text, input_type="query")
    assert server.metric("embedcode_texts_total") == computed + 2
    assert server.metric("embedcode_cache_hits_total") == hits + 1
    assert again["data"][0]["embedding"] == first["data"][0]["embedding"]


def test_partial_success_says_which_input_is_bad(server: Server) -> None:
    status, headers, content = server.send(
        "/v1/embeddings", {"model": MODEL, "input": ["good", "", "word " * 600, "fine"], "on_error": "partial"}
    )
    answer = json.loads(content)
    assert (status, headers["x-embedcode-errors"]) == (200, "2")
    assert [row["index"] for row in answer["data"]] == [0, 3]
    assert [error["index"] for error in answer["embedcode"]["errors"]] == [1, 2]
    assert np.allclose(vector(answer, 1), vector(server.embed("fine")[1]), atol=1e-6)
    status, answer = server.embed(["good", 5, None], on_error="partial")
    assert (status, [row["index"] for row in answer["data"]]) == (200, [0])
    assert answer["embedcode"]["errors"] == [
        {"index": 1, "message": "input 1 is the number 5: send a text."},
        {"index": 2, "message": "input 2 is missing or null: send a text."},
    ]
    status, answer = server.embed(["", ""], on_error="partial")
    assert (status, answer["detail"]["index"]) == (400, 0)


# ---- what the server tells of itself -----------------------------------------------------------------------------


def test_health_and_what_the_model_is(server: Server) -> None:
    ready = {"object": "health.response", "message": "ready", "ready": True}
    assert server.ask("/v1/health/ready") == (200, ready)
    status, live = server.ask("/v1/health/live")
    assert (status, live["object"], live["live"]) == (200, "health.response", True)
    _, models = server.ask("/v1/models")
    assert models["object"] == "list"
    assert {entry["root"] for entry in models["data"]} == {MODEL}
    assert {entry["max_model_len"] for entry in models["data"]} == {512}
    _, metadata = server.ask("/v1/metadata")
    names = "assetInfo licenseInfo modelInfo repository_override version selectedModelProfileId"
    assert metadata.keys() == set(names.split())
    assert metadata["modelInfo"][0].keys() == {"shortName", "modelUrl"}
    assert server.ask("/v1/manifest")[1].keys() == {"manifest_file", "repository_override"}
    assert server.ask("/v1/version")[1] == {"release": embedcode.__version__, "api": "1.0.0"}
    assert "Apache-2.0" in server.ask("/v1/license")[1]["content"]


def test_our_own_client_reads_it(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path))
    remote = embedcode.load(server.address)
    local = embedcode.load()
    assert remote.max_tokens == local.max_tokens
    assert np.allclose(remote.encode([CODE], Role.PASSAGE), local.encode([CODE], Role.PASSAGE), atol=1e-6)


def test_metrics_are_prometheus_text(server: Server) -> None:
    status, headers, content = server.send("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert 'embedcode_queue_tokens{lane="query"} 0.0' in content.decode()
    assert server.metric("embedcode_ready") == 1
    assert server.metric("embedcode_drain_tokens_per_second") > 1
    assert server.metric("embedcode_engine_process_resident_memory_bytes") > 50_000_000


# ---- bad input ---------------------------------------------------------------------------------------------------

GOOD = {"model": MODEL, "input": "a"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 422, None),
        (b"{", 422, None),
        (b"[1]", 422, None),
        (b'{"model": "\xff"}', 422, None),
        (b"[" * 100_000, 422, None),
        (b'{"model":"x","input":"a","dimensions":NaN}', 422, None),
        ({"input": "a"}, 422, "model"),
        ({"model": MODEL}, 422, "input"),
        ({**GOOD, "model": 1}, 422, "model"),
        ({**GOOD, "model": "gpt-4"}, 404, "model"),
        ({**GOOD, "input": None}, 422, "input"),
        ({**GOOD, "input": 3}, 422, "input"),
        ({**GOOD, "input": {"text": "a"}}, 422, "input"),
        ({**GOOD, "input": ["a", 3]}, 422, "input"),
        ({**GOOD, "input": ["a", ["b"]]}, 422, "input"),
        ({**GOOD, "input": []}, 400, "input"),
        ({**GOOD, "input": ""}, 400, "input"),
        ({**GOOD, "input": ["a", ""]}, 400, "input"),
        ({**GOOD, "input": ["a"] * 10_000}, 400, "input"),
        ({**GOOD, "input": "word " * 200_000}, 400, "input"),
        ({**GOOD, "input": [1, 2]}, 400, "input"),
        ({**GOOD, "input": [[1], [2]]}, 400, "input"),
        ({**GOOD, "input_type": "document"}, 422, "input_type"),
        ({**GOOD, "model": f"{MODEL}-query", "input_type": "passage"}, 400, "input_type"),
        ({**GOOD, "encoding_format": "hex"}, 422, "encoding_format"),
        ({**GOOD, "embedding_type": "int4"}, 422, "embedding_type"),
        ({**GOOD, "dimensions": 7}, 400, "dimensions"),
        ({**GOOD, "dimensions": 0}, 400, "dimensions"),
        ({**GOOD, "dimensions": 1.5}, 422, "dimensions"),
        ({**GOOD, "dimensions": "many"}, 422, "dimensions"),
        ({**GOOD, "dimensions": True}, 422, "dimensions"),
        ({**GOOD, "truncate": "end"}, 422, "truncate"),
        ({**GOOD, "truncate": ["END"]}, 422, "truncate"),
        ({**GOOD, "modality": "image"}, 400, "modality"),
        ({**GOOD, "modality": ["text", "text"], "input": ["a"]}, 400, "modality"),
        ({**GOOD, "user": 5}, 422, "user"),
        (b'{"model": "\\ud800", "input": "a"}', 404, "model"),
        ({**GOOD, "late_chunking": True}, 400, "late_chunking"),
        ({**GOOD, "instruction": "find"}, 400, "instruction"),
        ({**GOOD, "input_typ": "query"}, 422, "input_typ"),
        (b'{"\\ud800": 1}', 422, "\ufffd"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_input_has_its_status_and_both_shapes_of_an_error(
    server: Server, body: object, status: int, param: str | None
) -> None:
    found, headers, content = server.send("/v1/embeddings", body)
    error = json.loads(content)
    assert (found, error["error"]["param"]) == (status, param)
    assert error["object"] == "error"
    assert error["type"] == error["error"]["type"] == "invalid_request_error"
    assert error["message"] == error["error"]["message"]
    assert error["error"].keys() == {"message", "type", "param", "code"}
    assert error["detail"]["request_id"] == headers["x-request-id"]
    assert "Traceback" not in error["message"]
    assert len(error["message"]) < 600
    assert server.embed("fine")[0] == 200  # the server is unharmed


def test_the_index_of_the_offending_input_is_told(server: Server) -> None:
    for given, index in ((["a", "", "b"], 1), (["a"] * 40 + ["word " * 600], 40), (["a", "b", None], 2)):
        _, answer = server.embed(given)
        assert answer["detail"]["index"] == index
        assert f"input {index}" in answer["message"].lower()


def test_strange_texts_have_finite_vectors(server: Server) -> None:
    texts = ["\ud800 half a pair", "\0\x01", "import os", "🙂" * 50, " ", "\u202e", "a" * 10_000]
    status, answer = server.embed(texts, truncate="END")
    assert status == 200
    for index in range(len(texts)):
        assert math.isclose(np.linalg.norm(vector(answer, index)), 1, abs_tol=1e-5)


def test_other_paths_and_methods_have_errors_of_the_same_shape(server: Server) -> None:
    for path, body, status in (("/v2/embeddings", {}, 404), ("/v1/embeddings", None, 405), ("/v1/models/x", None, 404)):
        found, answer = server.ask(path, body)
        assert (found, answer["object"]) == (status, "error")
        assert answer["error"]["message"]


def test_other_hosts_and_other_sites_are_refused(server: Server) -> None:
    assert server.ask("/v1/models", Host="evil.example")[0] == 403
    assert server.ask("/v1/embeddings", GOOD, Origin="https://evil.example")[0] == 403
    for host in ("localhost", "127.0.0.1:9999", "[::1]:80", "LOCALHOST:1"):
        assert server.ask("/v1/models", Host=host)[0] == 200


def test_a_body_above_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{")
        assert line.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert server.embed("fine")[0] == 200


def test_a_request_id_is_taken_over_and_logged_and_no_text_is(server: Server) -> None:
    secret = "the launch code is xyzzy"
    _, headers, _ = server.send("/v1/embeddings", {"model": MODEL, "input": secret}, **{"X-Request-Id": "mine-7"})
    assert headers["x-request-id"] == "mine-7"
    for tracers in ("Root=1-67891233-abcdef012345678912345678", "{5f1b1e0a-0000}", "aGk+/w=="):
        assert server.send("/v1/models", **{"X-Request-Id": tracers})[1]["x-request-id"] == tracers
    _, headers, _ = server.send("/v1/models", **{"X-Request-Id": "no good\tid"})
    assert headers["x-request-id"] != "no good\tid"
    server.embed([secret, ""])
    server.ask("/v1/embeddings", secret.encode())
    (line,) = [line for line in server.events() if line.get("id") == "mine-7"]
    assert (line["status"], line["role"], line["inputs"], line["path"]) == (200, "passage", 1, "/v1/embeddings")
    assert secret not in server.log.read_text()
    assert "xyzzy" not in server.log.read_text()


def test_a_body_that_is_compressed_is_named_as_such(server: Server) -> None:
    body = gzip.compress(json.dumps({"model": MODEL, "input": "a"}).encode())
    status, _, answer = server.send("/v1/embeddings", body, **{"Content-Encoding": "gzip"})
    assert status == 415
    assert json.loads(answer)["message"] == "Content-Encoding 'gzip' is not read here: send the body as it is."
    plain = {"Content-Encoding": "identity"}
    assert server.send("/v1/embeddings", {"model": MODEL, "input": "a"}, **plain)[0] == 200
