"""gRPC in this process, without an engine: what a caller may take of the server before it is known who it is."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from embedcode.engine.encoder import LocalEncoder
from embedcode.serve import grpc_api, keys, kserve
from embedcode.serve.asked import Model
from embedcode.serve.embedder import Embedder, Limits
from embedcode.serve.grpc_api import GrpcServer
from embedcode.serve.guard import Guard
from embedcode.serve.journal import Journal
from embedcode.serve.metrics import Metrics
from embedcode.serve.options import Options
from embedcode.serve.worker import Load
from embedcode.types import Role

PATIENCE = 20.0


def run(options: Options, asking: Callable[[Any], Awaitable[None]], given: keys.Keys | None = None) -> None:
    async def running() -> None:
        model = Model("m", 4, (), dict.fromkeys(Role, ""))
        load = Load("m", "auto", "cpu", False, 1, Path("/nowhere"), 100)
        embedder = Embedder(cast(LocalEncoder, None), load, model, Limits(), Metrics())
        guard = Guard(Journal("error", True, io.StringIO()), Metrics(), frozenset(), frozenset(), given)
        server = GrpcServer(embedder, guard)
        address = await server.start(options)
        try:
            async with grpc.aio.insecure_channel(address.removeprefix("grpc://")) as channel:
                await asyncio.wait_for(asking(channel), PATIENCE)
        finally:
            await server.stop(0)

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


def test_no_more_calls_are_under_way_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_api, "SPARE_CALLS", 1)

    async def asking(channel: Any) -> None:
        calls = [asyncio.ensure_future(code(silent(channel))) for _ in range(5)]
        done, waiting = await asyncio.wait(calls, timeout=1.0)
        assert [task.result() for task in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
        assert len(waiting) == 2
        await asyncio.gather(*waiting)

    run(Options(grpc_port=0, max_requests=1, body_seconds=3.0), asking)
