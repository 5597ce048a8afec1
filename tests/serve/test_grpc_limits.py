"""gRPC in this process, without an engine: what a caller may take of the server before it is known who it is."""

from __future__ import annotations

import asyncio
import io
import json
import math
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from embedcode.engine.encoder import LocalEncoder
from embedcode.serve import grpc_api, keys, kserve
from embedcode.serve.answer import Answer
from embedcode.serve.answering import patience
from embedcode.serve.asked import Asked, Model
from embedcode.serve.body import Bodies
from embedcode.serve.embedder import Embedder
from embedcode.serve.grpc_api import GrpcServer
from embedcode.serve.guard import Guard
from embedcode.serve.journal import Journal
from embedcode.serve.limits import Limits
from embedcode.serve.metrics import Metrics
from embedcode.serve.options import Options
from embedcode.types import Role, Tokens

from . import doors

PATIENCE = 20.0


class Door(Embedder):
    """Without an engine: each text's vector is there at once."""

    def __init__(self, dim: int = 4) -> None:
        super().__init__(cast(LocalEncoder, doors.Words()), doors.LOAD, doors.model(dim), Limits(), Metrics())
        self.within: list[float] = []

    def check(self, asked: Asked, within: float) -> None:
        """There is no engine to be ready."""

    async def embed(self, asked: Asked, spend: Any = None, within: float = 0.0) -> Answer:
        self.within.append(within)
        count = len(asked.inputs)
        rows = np.ones((count, self.model.dim), np.float32)
        return Answer(rows, tuple(range(count)), (Tokens((1,), 1, 1),) * count)


def run(
    options: Options,
    asking: Callable[[Any], Awaitable[None]],
    given: keys.Keys | None = None,
    embedder: Embedder | None = None,
    log: Any = None,
) -> None:
    async def running() -> None:
        journal = Journal("info", True, log or io.StringIO())
        door = embedder or Door()
        guard = Guard(journal, door.metrics, frozenset(), frozenset(), given)
        server = GrpcServer(door, guard, options)
        address = await server.start()
        try:
            still = [("grpc.http2.bdp_probe", 0)]  # takes no more than 64 KB of what is not read
            async with grpc.aio.insecure_channel(address.removeprefix("grpc://"), options=still) as channel:
                await asyncio.wait_for(asking(channel), PATIENCE)
        finally:
            await server.stop(0)
            journal.close()

    asyncio.run(running())


async def never() -> AsyncIterator[bytes]:
    """A caller who sends nothing."""
    await asyncio.sleep(PATIENCE)
    yield b""


def silent(channel: Any) -> Any:
    """A call under way, whose message does not come."""
    return channel.stream_unary(f"/{kserve.SERVICE}/ModelInfer")(never())


async def code(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def infer(texts: int, *outputs: str, microseconds: int | None = None) -> bytes:
    request = kserve.message(
        "ModelInferRequest",
        model_name="m",
        inputs=[{"name": "text", "datatype": "BYTES", "shape": [texts, 1]}],
        outputs=[{"name": name} for name in outputs],
        raw_input_contents=[(struct.pack("<I", 1) + b"a") * texts],
    )
    if microseconds is not None:
        request.parameters["timeout"].int64_param = microseconds
    return bytes(request.SerializeToString())


async def refused(channel: Any, content: bytes) -> str:
    """What is said of a ModelInfer whose message is none."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(content)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


def test_who_has_no_key_is_refused_before_the_message_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    keys.add(path, "reader")

    async def asking(channel: Any) -> None:
        assert await code(silent(channel)) is grpc.StatusCode.UNAUTHENTICATED

    run(Options(grpc_port=0), asking, keys.Keys(path))


def test_a_message_that_does_not_come_is_not_waited_for() -> None:
    async def asking(channel: Any) -> None:
        assert await code(silent(channel)) is grpc.StatusCode.DEADLINE_EXCEEDED
        live = channel.unary_unary(f"/{kserve.SERVICE}/ServerLive")
        assert await live(b"") == kserve.message("ServerLiveResponse", live=True).SerializeToString()

    run(Options(grpc_port=0, body_seconds=0.3), asking)


def test_a_call_without_a_message_is_malformed() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for content in ():
            yield content

    async def asking(channel: Any) -> None:
        call = channel.stream_unary(f"/{kserve.SERVICE}/ModelInfer")(nothing())
        assert await code(call) is grpc.StatusCode.INVALID_ARGUMENT

    run(Options(grpc_port=0), asking)


def test_no_more_calls_are_under_way_than_there_may_be() -> None:
    door = Door()

    async def asking(channel: Any) -> None:
        waits = asyncio.ensure_future(code(silent(channel)))
        await asyncio.sleep(0.3)
        for _ in range(4):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await silent(channel)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
        for name in ("ServerReady", "ServerMetadata"):  # have room beside them
            await channel.unary_unary(f"/{kserve.SERVICE}/{name}")(b"")
        assert await waits is grpc.StatusCode.DEADLINE_EXCEEDED
        await channel.unary_unary(f"/{kserve.SERVICE}/ServerMetadata")(b"")  # and so has the next one

    run(Options(grpc_port=0, max_requests=1, body_seconds=2.0), asking, embedder=door)
    assert door.metrics.refused.labels("requests")._value.get() == 4


def test_who_sends_nothing_keeps_others_out_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_api, "READING", 2)
    monkeypatch.setattr(grpc_api, "HURRY_SECONDS", 0.5)

    async def asking(channel: Any) -> None:
        calls = [asyncio.ensure_future(code(silent(channel))) for _ in range(2)]
        await asyncio.sleep(0.1)
        since = time.monotonic()
        await channel.unary_unary(f"/{kserve.SERVICE}/ServerLive")(b"")
        assert time.monotonic() - since < 0.3  # who asks for health does not wait behind them
        await channel.unary_unary(f"/{kserve.SERVICE}/ServerMetadata")(b"")
        assert 0.2 < time.monotonic() - since < 5  # no third message is read beside two
        assert await asyncio.gather(*calls) == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2

    run(Options(grpc_port=0), asking)


def test_who_asks_for_health_and_sends_nothing_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_api, "PROBED", 2)
    monkeypatch.setattr(grpc_api, "HURRY_SECONDS", 1.0)

    async def asking(channel: Any) -> None:
        def call(name: str, messages: AsyncIterator[bytes]) -> Any:
            return channel.stream_unary(f"/{kserve.SERVICE}/{name}")(messages)

        async def slowly() -> AsyncIterator[bytes]:
            await asyncio.sleep(2.0)  # an upload that has its time, however many ask for health
            yield infer(1)

        upload = call("ModelInfer", slowly())
        calls = [asyncio.ensure_future(code(call("ModelReady", never()))) for _ in range(6)]
        await asyncio.sleep(0.2)
        for name in ("ServerLive", "ServerReady"):
            since = time.monotonic()
            await channel.unary_unary(f"/{kserve.SERVICE}/{name}")(b"")
            assert time.monotonic() - since < 0.5
        found = await asyncio.gather(*calls)
        assert set(found) == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await upload

    log = io.StringIO()
    run(Options(grpc_port=0), asking, log=log)
    levels = {
        entry["path"].rpartition("/")[2]: entry["level"] for entry in map(json.loads, log.getvalue().splitlines())
    }
    assert levels.keys() == {"ModelInfer"}  # what machines ask every few seconds is logged at debug


def test_the_queue_knows_how_long_a_caller_waits() -> None:
    door = Door()

    async def asking(channel: Any) -> None:
        call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
        await call(infer(1))
        await call(infer(1), timeout=5)
        await call(infer(1, microseconds=2_000_000), timeout=5)
        await call(infer(1, microseconds=0))

    run(Options(grpc_port=0), asking, embedder=door)
    forever, five, two, zero = door.within
    assert (forever, two, zero) == (math.inf, 2.0, math.inf)
    assert 4 < five < 5.1


def test_a_crowd_that_asks_for_health_without_a_message_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_api, "HURRY_SECONDS", 1.0)
    door = Door()

    async def asking(channel: Any) -> None:
        path = f"/{kserve.SERVICE}/ModelReady"
        crowd = [asyncio.ensure_future(code(channel.stream_unary(path)(never()))) for _ in range(100)]
        await asyncio.sleep(0.3)
        for name, content in (("ServerLive", b""), ("ServerReady", b""), ("ModelInfer", infer(1))):
            await channel.unary_unary(f"/{kserve.SERVICE}/{name}")(content)
        await asyncio.gather(*crowd)

    run(Options(grpc_port=0, max_requests=1), asking, embedder=door)
    assert b'embedcode_refused_requests_total{reason="requests"} 68.0' in door.metrics.text()


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    door = Door(dim=1000)

    async def asking(channel: Any) -> None:
        async def many() -> AsyncIterator[bytes]:
            yield infer(100)

        unread = channel.stream_stream(f"/{kserve.SERVICE}/ModelInfer")(many())
        await unread.initial_metadata()
        since = time.monotonic()
        while True:  # max_requests is 1: as long as it is kept nobody else is answered
            try:
                await channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(infer(1))
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.1)
        assert 0.5 < time.monotonic() - since < 4
        unread.cancel()

    run(Options(grpc_port=0, max_requests=1, read_seconds=1.0), asking, embedder=door)


def test_a_role_that_is_not_given() -> None:
    def asked(model: Model, texts: int) -> tuple[Role, Role]:
        request = kserve.message("ModelInferRequest").FromString(infer(texts))
        found = grpc_api.read(request, "m", model)
        return found.role, found.lane

    prompted = doors.model(query="query: ")
    assert asked(prompted, 1) == (Role.QUERY, Role.QUERY)
    assert asked(prompted, 3) == (Role.QUERY, Role.PASSAGE)  # NVIDIA's default, and bulk
    assert asked(replace(prompted, default_role=Role.PASSAGE), 1) == (Role.PASSAGE, Role.PASSAGE)
    assert asked(doors.model(), 3)[1] is Role.PASSAGE


def test_nodes_client_says_whole_seconds_of_what_it_waits() -> None:
    assert patience({"x-stainless-timeout": "1"}) == 2.0  # of 1.9 as well
    assert patience({"x-stainless-read-timeout": "1.9"}) == 1.9
    assert patience({"x-stainless-timeout": "nan", "x-envoy-expected-rq-timeout-ms": "soon"}) == math.inf


def test_the_address_of_a_caller_who_left_is_known() -> None:
    log = io.StringIO()

    async def asking(channel: Any) -> None:
        gone = silent(channel)
        await asyncio.sleep(0.2)
        gone.cancel()
        await asyncio.sleep(0.2)

    run(Options(grpc_port=0), asking, log=log)
    (entry,) = map(json.loads, log.getvalue().splitlines())
    assert (entry["status"], entry["client"]) == (499, "127.0.0.1")


def test_an_output_is_answered_once() -> None:
    async def asking(channel: Any) -> None:
        said = await refused(channel, infer(1, "embeddings", "truncated", "embeddings"))
        assert said == "The output embeddings is asked for twice: name it once."

    run(Options(grpc_port=0), asking)


def test_answers_that_nobody_reads_take_no_more_than_the_bound_and_the_next_ones_are_refused() -> None:
    door = Door(dim=1000)

    async def asking(channel: Any) -> None:
        async def many() -> AsyncIterator[bytes]:
            yield infer(100)

        path = f"/{kserve.SERVICE}/ModelInfer"
        unread = channel.stream_stream(path)(many())
        await unread.initial_metadata()  # it is answered, with 400 KB
        for _ in range(3):
            assert await code(channel.unary_unary(path)(infer(100))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert b'embedcode_refused_requests_total{reason="memory"} 3.0' in door.metrics.text()
        assert len(await unread.read()) > 400_000
        assert await unread.code() is grpc.StatusCode.OK
        assert len(await channel.unary_unary(path)(infer(100))) > 400_000

    # Of 2 MB, an answer wants 1.6 before it is computed, and has 400 KB while it is unread.
    run(Options(grpc_port=0, body_bytes=250_000), asking, embedder=door)


def test_at_its_end_a_server_takes_no_more_texts_and_still_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = Bodies(1_000_000)
    monkeypatch.setattr(grpc_api, "Bodies", lambda *_, **__: bodies)

    async def asking(channel: Any) -> None:
        ask = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
        assert await ask(infer(1))
        bodies.end()
        assert await code(ask(infer(1))) is grpc.StatusCode.UNAVAILABLE
        assert await channel.unary_unary(f"/{kserve.SERVICE}/ServerLive")(b"")
        await bodies.wait_empty()

    run(Options(grpc_port=0), asking)


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": [{}] * 150_000},
        {"inputs": [{"contents": {"bytes_contents": [b""] * 150_000}}]},
        {"inputs": [{"shape": [1] * 300_000}]},
        {"outputs": [{}] * 150_000},
        {"raw_input_contents": [b""] * 150_000},
    ],
    ids=["inputs", "texts", "shape", "outputs", "raw"],
)
def test_a_message_of_far_too_many_fields_is_refused_unparsed(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    content = kserve.message("ModelInferRequest", **fields).SerializeToString()
    monkeypatch.setattr(kserve, "parse", None)

    async def asking(channel: Any) -> None:
        said = await refused(channel, content)
        assert said == "The message has more fields than 2,048 inputs need: split the request."

    run(Options(grpc_port=0), asking)


def test_a_large_message_is_parsed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    parse = kserve.parse

    def noting(name: str, content: bytes) -> Any:
        threads.append(threading.current_thread())
        return parse(name, content)

    monkeypatch.setattr(kserve, "parse", noting)
    tensors: list[dict[str, Any]] = [
        {"name": name, "datatype": "BYTES", "shape": [2048, 1], "contents": {"bytes_contents": [content] * 2048}}
        for name, content in (("text", b"a" * 100), ("modality", b"text"))
    ]
    large = kserve.message("ModelInferRequest", model_name="m", inputs=tensors)

    async def asking(channel: Any) -> None:
        ask = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
        assert len(await ask(large.SerializeToString())) > 2048 * 16
        assert await ask(infer(1))
        for junk in (b"\xff" * 300_000, infer(1) + b"\x3a" + b"\xff" * 4 + bytes(300_000)):
            assert "the message is no ModelInferRequest" in await refused(channel, junk)

    run(Options(grpc_port=0), asking)
    assert [thread is threading.main_thread() for thread in threads[:2]] == [False, True]


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def test_a_connection_that_ends_with_its_answer_unread_holds_nothing_and_is_no_mistake_of_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path, log = f"/{kserve.SERVICE}/ModelInfer", io.StringIO()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "m",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    fields = [b"\0%c%s%c%s" % (len(k), k.encode(), len(v), v.encode()) for k, v in headers.items()]
    sent = infer(100)

    async def asking(channel: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, b"".join(fields)))
        writer.write(frame(0, 1, 1, struct.pack(">BI", 0, len(sent)) + sent))
        await reader.readexactly(60_000)  # of an answer of 400 KB
        writer.close()
        await asyncio.sleep(0.2)
        assert len(await channel.unary_unary(path)(sent)) > 400_000
        await asyncio.sleep(0.2)  # a thread of its own writes the log
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        assert [(line["event"], line["status"]) for line in lines] == [("request", 499), ("request", 200)]

    run(Options(grpc_port=port, body_bytes=250_000), asking, embedder=Door(dim=1000), log=log)


def test_the_space_of_vectors_and_prompts_that_came_along_are_in_the_trailer() -> None:
    class Doubled(Door):
        async def embed(self, *arguments: Any) -> Answer:
            return replace(await super().embed(*arguments), doubled=(0, 1))

    async def asking(channel: Any) -> None:
        call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(infer(2))
        await call
        told = dict(await call.trailing_metadata())
        assert (told["x-embedcode-space"], told["x-embedcode-prompt-twice"]) == (doors.FACTS.space, "2")

    run(Options(grpc_port=0), asking, embedder=Doubled())
