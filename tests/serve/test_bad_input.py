"""What is sent by mistake or on purpose: wrong types of every field, token arrays that are none, texts and lists of any
size, and callers who send drop by drop. Each is refused with its status, and nobody else notices."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import embedcode
from embedcode import Role
from embedcode.serve.asked import FIELDS

from .serving import MODEL, PATIENCE, Server, serving, shop

BODY_SECONDS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("bad")
    variables = {"EMBEDCODE_SERVE_BODY_SECONDS": str(BODY_SECONDS), "EMBEDCODE_SERVE_HEADER_SECONDS": "3"}
    with serving(home, "--accept-token-ids", "--index", str(shop(home)), **variables) as server:
        yield server
        assert not [event for event in server.events() if event["event"] in ("mistake", "engine ended")]


def both_shapes(answer: Any, status: int, param: str | None = None) -> None:
    assert answer.keys() == {"object", "message", "type", "detail", "error"}
    assert (answer["object"], answer["message"]) == ("error", answer["error"]["message"])
    assert answer["type"] == answer["error"]["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert answer["error"]["param"] == param


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_every_wrong_type_is_named(server: Server, field: str) -> None:
    right: dict[str, tuple[type, ...]] = {"dimensions": (int,), "late_chunking": (bool,), "input": (str, list)}
    for wrong in (True, 3, 0, -1, 1.5, 1e300, 10**40, "", "x", [], ["x"], [[]], {}, {"a": 1}):
        if isinstance(wrong, right.get(field, (str,))) and not (isinstance(wrong, bool) and field != "late_chunking"):
            continue  # of the right type
        body = {"model": MODEL, "input": "a", field: wrong}
        status, answer = server.ask("/v1/embeddings", body)
        if field == "modality" and wrong in ([], ["x"]):  # a list of words is of the right type
            assert status == (200 if wrong == [] else 400)
            continue
        assert (status, field, wrong) == (422, field, wrong)
        both_shapes(answer, 422, field)
    assert server.embed("fine")[0] == 200


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x10", b"1_0", b"00", b"--1"])
def test_a_number_that_is_none(server: Server, number: bytes) -> None:
    body = b'{"model": "%s", "input": "a", "dimensions": %s}' % (MODEL.encode(), number)
    status, answer = server.ask("/v1/embeddings", body)
    assert status == 422
    both_shapes(answer, 422, None if b"e999" not in number else answer["error"]["param"])


@pytest.mark.parametrize(
    ("given", "status", "index"),
    [
        ([], 400, None),
        ([[]], 400, 0),
        ([[1, 2], []], 400, 1),
        ([-1], 400, 0),
        ([[5], [5, -7]], 400, 1),
        ([30_522], 400, 0),  # one above the last
        ([[5], [10**30]], 422, 1),
        ([2**63], 400, 0),
        ([1.5], 422, 0),
        ([True, False], 422, 0),
        ([[1], ["a"]], 422, 1),
        ([[1], "a"], 422, 1),
        (["a", [1]], 422, 1),
        ([[1], [[2]]], 422, 1),
        ([[1], [None]], 422, 1),
        ([[1]] * 10_000, 400, None),
        ([5] * 100_000, 400, 0),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_token_arrays_that_are_none(server: Server, given: object, status: int, index: int | None) -> None:
    found, answer = server.embed(given)
    assert (found, answer["detail"].get("index")) == (status, index), answer["message"]
    both_shapes(answer, status, "input")
    assert len(answer["message"]) < 400


def test_text_that_looks_like_packed_tokens_is_a_text(server: Server) -> None:
    texts = ["AAAAAA==", "not base64!", "=", "////", "[1, 2, 3]", "\\x00"]
    status, answer = server.embed(texts, input_type="query")
    assert status == 200
    expected = embedcode.load().encode(texts, Role.QUERY)
    for row, vector in zip(answer["data"], expected, strict=True):
        assert row["embedding"] == pytest.approx(vector.tolist(), abs=1e-6)


def test_ten_thousand_inputs_and_a_string_of_a_megabyte(server: Server) -> None:
    status, answer = server.embed(["a"] * 10_000)
    assert (status, answer["error"]["param"]) == (400, "input")
    assert "10,000 entries and at most 2,048" in answer["message"]
    large = "session flush " * 75_000
    assert len(large) > 1_000_000
    status, answer = server.embed(["a", large])
    assert (status, answer["detail"]["index"]) == (400, 1)
    assert answer["message"].startswith("Input length ")
    for text, truncate in ((large, "END"), (large, "START"), ("x" * 1_000_000, "END")):
        status, answer = server.embed(text, truncate=truncate)
        assert status == 200
        assert answer["usage"]["total_tokens"] <= 512


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/search"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_comes_drop_by_drop_is_refused_in_time_and_hinders_nobody(
    server: Server, path: str, chunked: bool
) -> None:
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000000"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode()
    lines = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(40)]
    start = time.monotonic()
    try:
        for line in lines:
            line.sendall(head)
            line.setblocking(False)
        said: dict[int, bytes] = {}
        while len(said) < len(lines):
            assert time.monotonic() - start < PATIENCE
            for number, line in enumerate(lines):
                if number in said:
                    continue
                try:
                    line.send(b"1\r\n \r\n" if chunked else b" ")
                    said[number] = line.recv(4096)
                except BlockingIOError:
                    pass
                except OSError:
                    said[number] = b""
            assert server.embed("not hindered")[0] == 200
            time.sleep(0.2)
        assert time.monotonic() - start >= BODY_SECONDS - 0.5
        told = [answer for answer in said.values() if answer]
        assert len(told) > len(lines) / 2  # the others were sending as it was closed
        for answer in told:
            top, _, body = answer.partition(b"\r\n\r\n")
            assert top.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in top.lower()
            if body:  # else it was read before the rest of it had come
                assert "did not come within 3 seconds" in json.loads(body)["message"]
        for line in lines:  # and nothing more is taken from it
            line.settimeout(PATIENCE)
            with pytest.raises(OSError):
                while True:
                    line.sendall(b" " * 1000)
                    time.sleep(0.01)
    finally:
        for line in lines:
            line.close()
    assert server.metric(f'embedcode_requests_total{{path="{path}",status="408"}}') >= 40


def test_a_crowd_that_comes_and_leaves_at_once_takes_no_memory(server: Server) -> None:
    """The server is held while 1,500 come, so that all of them wait for it, and are gone, when it goes on."""
    process, sent = Path(f"/proc/{server.process.pid}"), b'{"model": "embedcode-small", "input": "' + b"x" * 40_000
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent) + 9}\r\n\r\n".encode()

    def megabytes(field: str) -> float:
        (line,) = [line for line in (process / "status").read_text().splitlines() if line.startswith(field)]
        return int(line.split()[1]) / 1024

    server.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(1500):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
                line.sendall(head + sent)
        (process / "clear_refs").write_text("5")  # the peak begins anew
        before = megabytes("VmHWM")
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert server.embed("behind them")[0] == 200
    assert megabytes("VmHWM") - before < 60  # that were sent; 24 measured, and 148 where all are accepted at once


def test_a_body_that_is_cut_off_is_no_mistake_of_the_server(server: Server) -> None:
    for length, body in ((50, b'{"model"'), (10**6, b""), (5, b"[[[[[[[[[[[[[[")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            line.sendall(head.encode() + body)
            line.shutdown(socket.SHUT_WR)
            line.recv(4096)
    for head in (
        b"\r\n" * 100,
        b"GET\r\n\r\n",
        b"\xff" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
            try:
                line.sendall(head)
                line.shutdown(socket.SHUT_WR)
                answer = line.recv(4096)
            except OSError:
                answer = b""
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.embed("fine")[0] == 200
