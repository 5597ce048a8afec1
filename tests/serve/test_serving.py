"""How the server lives: overload, lanes, callers who leave, an engine that is killed, slow callers, and its end."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcode
from embedcode import Role
from embedcode.errors import ModelError
from embedcode.model.presets import INSTRUCTIONS

from .serving import MODEL, PATIENCE, Server, prompted, serving


def texts(count: int, of: str) -> list[str]:
    """Of some 200 tokens each, no two alike."""
    return [f"{of} number {i}: " + "the parcel goes to the harbour by ship, " * 22 for i in range(count)]


def waits(until: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("serve"),
        EMBEDCODE_THREADS="1",
        EMBEDCODE_SERVE_MAX_QUEUE_TOKENS="3000",
        EMBEDCODE_SERVE_HEADER_SECONDS="3",
        EMBEDCODE_SERVE_READ_SECONDS="2",
        EMBEDCODE_SERVE_TIMEOUT="600",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def sent(server: Server, given: object, **fields: object) -> HTTPConnection:
    """A request whose answer nobody reads yet."""
    connection = server.connect()
    body = json.dumps({"model": MODEL, "input": given, "input_type": "passage", **fields})
    connection.request("POST", "/v1/embeddings", body)
    return connection


def test_a_full_lane_refuses_the_other_stays_open_and_a_caller_who_leaves_costs_nothing(server: Server) -> None:
    before = server.metric("embedcode_texts_total")
    bulk = sent(server, texts(300, "parcel"))
    waits(lambda: server.metric('embedcode_queue_tokens{lane="passage"}') > 3000)
    status, headers, content = server.send(
        "/v1/embeddings", {"model": MODEL, "input": texts(2, "late"), "input_type": "passage"}
    )
    answer = json.loads(content)
    assert (status, answer["error"]["code"]) == (429, "overloaded")
    assert answer["type"] == "rate_limit_error"
    assert int(headers["retry-after"]) >= 1
    assert server.metric('embedcode_refused_requests_total{reason="tokens"}') == 1
    waits(lambda: _is_refused_unread(server))
    start = time.monotonic()
    assert server.embed("where is the parcel?", input_type="query")[0] == 200
    assert server.metric('embedcode_queue_tokens{lane="passage"}') > 0  # it has overtaken
    assert time.monotonic() - start < PATIENCE / 4
    bulk.close()
    waits(lambda: server.metric("embedcode_open_requests") == 0)
    waits(lambda: server.metric("embedcode_engine_tokens") == 0)
    assert server.metric("embedcode_queue_tokens") == 0
    computed, dropped = server.metric("embedcode_texts_total") - before, server.metric("embedcode_dropped_texts_total")
    assert dropped > 100
    assert computed + dropped == 301  # with the query
    assert server.metric('embedcode_requests_total{path="/v1/embeddings",status="499"}') == 1


def _is_refused_unread(server: Server) -> bool:
    """Refused before its tokens are counted."""
    count = 'embedcode_stage_seconds_count{stage="tokenize"}'
    before = server.metric(count)
    larger = {"model": MODEL, "input": texts(4, "larger"), "input_type": "passage"}
    status, headers, _ = server.send("/v1/embeddings", larger)
    assert (status, "retry-after" in headers) == (429, True)
    return server.metric(count) == before


def test_what_is_no_http_is_counted_and_told_and_nothing_of_it(server: Server) -> None:
    count = 'embedcode_requests_total{path="other",status="%s"}'
    secret = b"secret"
    twice = b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    wrong = (b"\x16\x03\x01" + secret * 10 + b"\r\n\r\n", twice, b"GET /" + secret * 20_000)
    for content in wrong:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line, suppress(ConnectionError):
            line.sendall(content)
            said = line.recv(4096)
            assert said.startswith(b"HTTP/1.1 414 " if content is wrong[-1] else b"HTTP/1.1 400 ")
            assert (b"\r\nx-request-id: mine\r\n" in said) == (content is twice)
    waits(lambda: (server.metric(count % 400), server.metric(count % 414)) == (2, 1))
    waits(lambda: [line["event"] for line in server.events()].count("not http") == len(wrong))
    known = {"time": 0, "level": "info", "event": "not http", "client": "127.0.0.1"}
    told = [line | {"time": 0} for line in server.events() if line["event"] == "not http"]
    assert sorted(line.pop("status") for line in told) == [400, 400, 414]
    assert {line.pop("reason") for line in told} == {"Invalid method encountered", "Duplicate Content-Length", "target"}
    ids = [line.pop("id") for line in told]
    assert len(set(ids)) == 3 and "mine" in ids
    assert all(line == known for line in told)


def test_a_whole_url_in_the_place_of_a_path_is_asked_like_the_path_and_opens_no_other_host(server: Server) -> None:
    """Some proxies send it, as they may (RFC 9112, 3.2.2)."""
    for start in ("http://localhost", "HTTPS://localhost:8000"):
        for target, host, status in (
            (f"{start}/v1/metrics", "localhost", 200), (start, "localhost", 200), (f"{start}/nosuch", "localhost", 404),
            (f"{start}/v1/metrics", "evil.example", 400),
            ("http://evil.example/v1/metrics", "localhost", 400), ("http://evil.example/", "evil.example", 403),
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
                line.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert line.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_client_is_who_it_is_and_not_who_it_says(server: Server) -> None:
    server.send("/v1/version", **{"X-Request-Id": "forwarded", "X-Forwarded-For": "6.6.6.6"})
    waits(lambda: "forwarded" in [line.get("id") for line in server.events()])
    assert [line["client"] for line in server.events() if line.get("id") == "forwarded"] == ["127.0.0.1"]


def test_an_answer_on_a_kept_connection_does_not_wait_for_the_clients_system(server: Server) -> None:
    connection = server.connect()
    spent = []
    for _ in range(40):
        start = time.perf_counter()
        connection.request("GET", "/v1/health/live")
        connection.getresponse().read()
        spent.append(time.perf_counter() - start)
    connection.close()
    # Systems acknowledge the first ones at once; later ones after 40 ms, whatever the load.
    assert min(spent[20:]) < 0.035


def test_a_connection_that_was_idle_for_a_while_is_still_answered_on(server: Server) -> None:
    """A balancer keeps one for a minute, and the request that it sends on one that is just being closed is lost."""
    line = server.connect()
    line.request("GET", "/v1/health/live")
    line.getresponse().read()
    kept = line.sock
    time.sleep(6)
    line.request("GET", "/v1/health/live")
    assert line.getresponse().status == 200
    assert line.sock is kept
    line.close()


def test_an_answer_that_nobody_reads_is_not_kept_for_ever(server: Server) -> None:
    body = json.dumps({"model": MODEL, "input": [f"unread {number}" for number in range(600)]}).encode()
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(PATIENCE)
        line.connect(("127.0.0.1", server.port))
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        line.recv(1)  # the answer is there
        assert server.embed("another one")[0] == 200
        waits(lambda: server.metric("embedcode_open_requests") == 0)
        time.sleep(3)
        got = 0
        with suppress(ConnectionError):
            while block := line.recv(1 << 16):
                got += len(block)
    assert got < len(server.send("/v1/embeddings", body)[2])  # what the system had not taken was let go
    assert server.ready()


def test_one_text_that_many_ask_for_at_once_is_computed_once(server: Server, pool: ThreadPoolExecutor) -> None:
    before = server.metric("embedcode_texts_total")
    given = texts(10, "wanted by all")
    answers = list(pool.map(lambda _: server.embed(given, input_type="passage"), range(6)))
    assert [status for status, _ in answers] == [200] * 6
    assert len({json.dumps(answer["data"]) for _, answer in answers}) == 1
    assert server.metric("embedcode_texts_total") == before + 10


def test_an_engine_that_is_killed_costs_no_request(server: Server, pool: ThreadPoolExecutor) -> None:
    given = texts(30, "kill")
    restarts = server.metric("embedcode_engine_restarts_total")
    bulk = pool.submit(server.embed, given, input_type="passage")
    waits(lambda: server.metric('embedcode_engine_tokens{lane="passage"}') > 0)
    engine = server.engine()
    os.kill(engine, signal.SIGKILL)
    waits(lambda: not server.ready())
    _, told = server.ask("/v1/health/ready")
    status, headers, content = server.send("/v1/embeddings", {"model": MODEL, "input": "a query", "user": "x"})
    if not told.get("ready") and status != 200:  # it may be back by now
        assert (status, json.loads(content)["error"]["code"]) == (503, "not_ready")
        assert int(headers["retry-after"]) >= 1
    status, answer = bulk.result(PATIENCE)
    assert status == 200
    vectors = np.array([row["embedding"] for row in answer["data"]])
    assert np.allclose(vectors, embedcode.load().encode(given, Role.PASSAGE), atol=1e-6)
    server.wait_ready()
    assert server.healthy()
    assert server.engine() != engine
    assert server.metric("embedcode_engine_restarts_total") == restarts + 1
    assert server.embed("and again")[0] == 200


def test_more_connections_are_taken_than_a_process_may_have_files_at_first(tmp_path: Path) -> None:
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, most))  # which the server inherits
        try:
            server = stack.enter_context(serving(tmp_path, EMBEDCODE_SERVE_MAX_REQUESTS="1000000"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
        connection = stack.enter_context(closing(server.connect(timeout=10)))  # idle ones are cut off after 15
        connection.request("GET", "/v1/health/ready")
        assert connection.getresponse().status == 200
        warned = [event for event in server.events() if event["event"] == "few open files"]
        assert len(warned) == (most < 1_000_200)


def test_who_sends_drop_by_drop_is_cut_off_and_hinders_nobody(server: Server) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(50)]
    start = time.monotonic()
    try:
        for line in lines:
            line.sendall(b"POST /v1/embeddings HTTP/1.1\r\n")
        assert server.embed("not hindered")[0] == 200
        while time.monotonic() - start < PATIENCE:
            with suppress(OSError):
                for line in lines:
                    line.sendall(b"a: b\r\n")
            if all(_closed(line) for line in lines):
                break
            time.sleep(0.3)
        assert 2 < time.monotonic() - start < 60
    finally:
        for line in lines:
            line.close()


def _closed(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return line.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        line.setblocking(True)


# ---- the end -----------------------------------------------------------------------------------------------------


def test_at_its_end_queries_are_answered_and_passages_refused(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    variables = {
        "EMBEDCODE_THREADS": "1",
        "EMBEDCODE_SERVE_STRICT_NIM": "1",
        "EMBEDCODE_SERVE_DRAIN_SECONDS": "300",
        "EMBEDCODE_SERVE_MAX_QUEUE_TOKENS": "10",
    }
    with serving(tmp_path, **variables) as server:
        bulk = pool.submit(server.embed, texts(200, "bulk"), input_type="passage")
        waits(lambda: server.metric('embedcode_queue_tokens{lane="passage"}') > 0)
        status, headers, _ = server.send(
            "/v1/embeddings", {"model": MODEL, "input": texts(1, "over"), "input_type": "passage"}
        )
        assert (status, "retry-after" in headers) == (503, True)  # NIM's status of an overload
        query = pool.submit(server.embed, texts(20, "query"), input_type="query")
        waits(lambda: server.metric('embedcode_engine_tokens{lane="query"}') > 0)
        server.process.send_signal(signal.SIGTERM)
        status, answer = bulk.result(PATIENCE)
        assert (status, answer["error"]["code"]) == (503, "draining")
        if not query.done():
            status, health = server.ask("/v1/health/ready")
            assert (status, health["ready"]) == (503, False)
        status, answer = query.result(PATIENCE)
        assert (status, len(answer["data"])) == (200, 20)
        engine = server.engine() if server.process.poll() is None else 0
        assert server.process.wait(PATIENCE) == 0
        assert server.events()[-1] | {"time": 0} == {"time": 0, "level": "info", "event": "drained", "clean": True}
        assert not engine or not Path(f"/proc/{engine}").exists()


def test_a_second_signal_cuts_off_and_the_exit_code_tells(tmp_path: Path) -> None:
    with serving(tmp_path, EMBEDCODE_THREADS="1", EMBEDCODE_SERVE_TIMEOUT="600") as server:
        query = sent(server, texts(400, "query"), input_type="query")
        waits(lambda: server.metric('embedcode_engine_tokens{lane="query"}') > 0)
        engine = server.engine()
        server.process.send_signal(signal.SIGINT)
        waits(lambda: not server.ready())
        assert server.end(signal.SIGTERM) == 1
        query.close()
        assert not Path(f"/proc/{engine}").exists()


def test_a_terminal_that_closes_ends_a_server_as_sigterm_does(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with serving(tmp_path, EMBEDCODE_THREADS="1", EMBEDCODE_SERVE_DRAIN_SECONDS="300") as server:
        query = pool.submit(server.embed, texts(20, "query"), input_type="query")
        waits(lambda: server.metric('embedcode_engine_tokens{lane="query"}') > 0)
        os.kill(server.engine(), signal.SIGHUP)  # which the whole group gets
        server.process.send_signal(signal.SIGHUP)
        waits(lambda: "draining" in [line["event"] for line in server.events()])
        assert not query.done()
        assert server.end(signal.SIGHUP) == 0  # no second signal, which cuts off
        assert query.result(PATIENCE)[0] == 200
        assert [line["event"] for line in server.events()[1:]] == ["draining", "request", "drained"]


def test_a_server_that_was_told_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with serving(tmp_path, ready=False) as server:
            server.process.send_signal(signal.SIGHUP)
            server.wait_ready()
            assert server.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_callers_who_keep_asking_keep_no_server_from_its_end(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with serving(tmp_path, EMBEDCODE_THREADS="1", EMBEDCODE_SERVE_DRAIN_SECONDS="6") as server:
        going_down: list[tuple[int, dict[str, str]]] = []
        began = time.monotonic() + PATIENCE

        def ask(caller: int) -> None:
            number = 0
            with suppress(OSError):  # it has ended
                while True:
                    number += 1
                    body = {"model": MODEL, "input": texts(3, f"{caller} {number}"), "input_type": "query"}
                    status, headers, _ = server.send("/v1/embeddings", body)
                    assert status == 200 or (status, headers["retry-after"]) == (503, "5")
                    if time.monotonic() > began:
                        going_down.append((status, headers))

        callers = [pool.submit(ask, caller) for caller in range(6)]
        waits(lambda: server.metric('embedcode_engine_tokens{lane="query"}') > 0)
        server.process.send_signal(signal.SIGTERM)
        waits(lambda: not server.ready())
        began = time.monotonic()
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 6
        for caller in callers:
            caller.result(PATIENCE)
        assert {status for status, _ in going_down} == {200, 503}
        assert all(headers["connection"] == "close" for _, headers in going_down[6:])


@pytest.mark.parametrize(("patient", "code"), [pytest.param(60, 0, marks=pytest.mark.slow), (2, 1)])
def test_an_answer_that_is_still_read_is_no_less_whole_at_the_end(tmp_path: Path, patient: int, code: int) -> None:
    with serving(tmp_path, EMBEDCODE_SERVE_DRAIN_SECONDS=str(patient)) as server, socket.socket() as line:
        # Few texts, which are computed once each, and more of an answer than sockets hold.
        body = json.dumps({"model": MODEL, "input": ["a", "b"] * 1000, "input_type": "query"})
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        line.settimeout(PATIENCE)
        line.connect(("127.0.0.1", server.port))
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall((head + body).encode())
        got = line.recv(1000)
        size = int(got.lower().split(b"content-length: ")[1].split()[0])
        server.process.send_signal(signal.SIGTERM)
        if code:
            assert server.process.wait(PATIENCE) == code
            return
        time.sleep(5)
        with suppress(ConnectionError):
            while block := line.recv(1 << 20):
                got += block
        assert len(got.partition(b"\r\n\r\n")[2]) == size
        assert server.process.wait(PATIENCE) == code


@pytest.mark.slow
def test_the_engine_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        engine = server.engine()
        server.process.kill()
        waits(lambda: not Path(f"/proc/{engine}").exists() or "Z" in Path(f"/proc/{engine}/stat").read_text().split())


# ---- a model with prompts ----------------------------------------------------------------------------------------


def test_a_model_with_prompts_wants_a_role_and_no_prompt_twice(tmp_path: Path) -> None:
    model = prompted(tmp_path / "model")
    name = "tiny/prompted"
    arguments = ("--model", str(model), "--accept-token-ids")
    with serving(tmp_path / "home", *arguments, EMBEDCODE_SERVE_MAX_TOKENS="256") as server:

        def embed(given: object, **fields: object) -> tuple[int, Any]:
            return server.ask("/v1/embeddings", {"model": name, "input": given, **fields})

        status, answer = embed("a")
        assert status == 400
        wanted = "The model expects an input_type from one of `passage` or `query` but none was provided."
        assert answer["message"].startswith(wanted)
        assert f"{name}-query" in answer["message"]
        encoder = embedcode.load(str(model))
        for role in Role:
            expected = encoder.encode(["how to log out"], role)[0]
            assert np.allclose(embed("how to log out", input_type=role)[1]["data"][0]["embedding"], expected, atol=1e-6)
            suffixed = embed("how to log out", model=f"{name}-{role}")[1]
            assert np.allclose(suffixed["data"][0]["embedding"], expected, atol=1e-6)
            assert suffixed["model"] == name
        cut = embed("how to log out", input_type="query", dimensions=64)[1]["data"][0]["embedding"]
        assert np.allclose(cut, encoder.encode(["how to log out"], Role.QUERY, dimensions=64)[0], atol=1e-6)
        assert np.isclose(np.linalg.norm(cut), 1, atol=1e-5)
        told = embed("log out", input_type="query", instruction="bug")[1]["data"][0]["embedding"]
        expected = encoder.encode(["log out"], Role.QUERY, INSTRUCTIONS["bug"])[0]
        assert np.allclose(told, expected, atol=1e-6)
        client = embedcode.load(f"http://127.0.0.1:{server.port}")
        assert np.allclose(client.encode(["log out"], Role.QUERY, "bug")[0], expected, atol=1e-6)
        with pytest.raises(ModelError, match="takes an instruction for a passage"):
            client.encode(["log out"], Role.PASSAGE, "bug")
        status, answer = embed("log out", input_type="query", instruction="find the code " * 120)
        assert (status, answer["error"]["param"]) == (400, "instruction")
        assert "no room for a text in 256 tokens: shorten it" in answer["message"]
        assert embed("log out", input_type="query", instruction="\ud800")[0] == 200
        twice = "Instruct: Find the code.\nQuery: how to log out"
        for role in Role:
            status, answer = embed(["fine", twice], input_type=role)
            assert (status, answer["detail"]["index"]) == (400, 1)
            assert "prompt" in answer["message"]
        assert server.metric("embedcode_doubled_prompts_total") == 2
        (tokens,) = encoder.tokenize(["log out"], Role.PASSAGE)
        ids = list(tokens.ids)  # type: ignore[union-attr]
        by_ids = embed([ids, ids[:-1]], input_type="passage")[1]
        assert np.allclose(by_ids["data"][0]["embedding"], encoder.encode(["log out"], Role.PASSAGE)[0], atol=1e-6)
        status, answer = embed([ids, [1_000_000]], input_type="passage")
        assert (status, answer["detail"]["index"]) == (400, 1)
        for more in ({}, {"instruction": "bug"}):  # without the prompt their vectors would be others
            status, answer = embed([ids], input_type="query", **more)
            assert (status, answer["error"]["param"]) == (400, "input")
            assert "cannot be put before token ids: send text" in answer["message"]


def test_a_text_that_brings_the_prompt_is_answered_and_marked_where_that_is_asked_for(tmp_path: Path) -> None:
    model = prompted(tmp_path / "model")
    with serving(tmp_path / "home", "--model", str(model), EMBEDCODE_SERVE_DOUBLE_PROMPTS="true") as server:
        given = ["log out", "Instruct: Find the code.\nQuery: log out"]
        body = {"model": "tiny/prompted", "input": given, "input_type": "query"}
        status, answer = server.ask("/v1/embeddings", body)
        assert (status, len(answer["data"])) == (200, 2)
        assert [receipt.get("prompt_twice") for receipt in answer["embedcode"]["inputs"]] == [None, True]
        assert server.metric("embedcode_doubled_prompts_total") == 1


def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    model = prompted(tmp_path / "model")
    (model / "model.onnx").write_bytes(b"no graph")
    with serving(tmp_path / "home", "--model", str(model), ready=False) as server:
        assert server.process.wait(PATIENCE) == 2
        last = server.log.read_text().splitlines()[-1]
        assert last.startswith("embedcode: ")
        assert "model.onnx" in last
        assert "Traceback" not in server.log.read_text()
