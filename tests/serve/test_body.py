"""What requests and their answers may hold of the memory, in this process, with sockets of ours."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from embedcode.serve import embeddings_api
from embedcode.serve.answer import Answer
from embedcode.serve.asked import Asked
from embedcode.serve.body import HELD, Bodies
from embedcode.serve.embedder import Embedder
from embedcode.serve.guard import Guard
from embedcode.serve.journal import Journal
from embedcode.serve.metrics import Metrics
from embedcode.serve.patience import Patient
from embedcode.serve.problem import ProblemError
from embedcode.serve.server import application
from embedcode.types import Tokens

from . import doors

DIM, TEXTS = 384, 256
HELD_BYTES = 1_600_000
"""For one answer of TEXTS, and not for two."""


class Door:
    """An embedder without an engine."""

    model = doors.model(DIM)
    space = "s"
    computed = 0

    def __init__(self) -> None:
        self.metrics = Metrics()

    def check(self, asked: Asked, _: float) -> None: ...

    async def embed(self, asked: Asked, *_: Any) -> Answer:
        self.computed += 1
        count = len(asked.inputs)
        rows = np.random.default_rng(0).standard_normal((count, DIM), np.float32)
        return Answer(rows, tuple(range(count)), (Tokens((1,), 1, 1),) * count)


class Reader:
    """A connection, and how much of its answers is read is for the test to say."""

    def __init__(self, port: int) -> None:
        self.line = socket.socket()
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.line.setblocking(False)
        self.port = port

    async def ask(self, texts: int) -> int:
        """The status of its answer, of which no more is read."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.line, ("127.0.0.1", self.port))
        body = json.dumps({"model": "m", "input": ["a"] * texts, "input_type": "query"}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(self.line, head.encode() + body)
        self.begun = await loop.sock_recv(self.line, 700)
        return int(self.begun.split()[1])

    async def rest(self) -> bytes:
        """The body, to its end."""
        head, _, body = self.begun.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split()[0])
        while len(body) < size:
            body += await asyncio.get_running_loop().sock_recv(self.line, 1 << 16)
        return body


@contextmanager
def readers(port: int, count: int) -> Iterator[list[Reader]]:
    found = [Reader(port) for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            one.line.close()


def run(door: Door, bodies: Bodies, asking: Callable[[int], Awaitable[None]], overload: int = 429) -> None:
    async def running() -> None:
        journal = Journal("error", True, io.StringIO())
        guard = Guard(journal, door.metrics, frozenset(), frozenset(), overload=overload)
        app = application([embeddings_api.route(cast(Embedder, door), bodies)], guard)
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Patient(config, ServerState(), {}), "127.0.0.1", 0)
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or the system takes it all
        async with asyncio.timeout(20):
            await asking(server.sockets[0].getsockname()[1])
        server.close()

    asyncio.run(running())


@pytest.mark.parametrize("overload", [429, 503])
def test_answers_that_nobody_reads_take_no_more_than_the_bound_and_the_next_ones_are_refused(overload: int) -> None:
    door = Door()

    async def asking(port: int) -> None:
        with readers(port, 6) as (first, *others, last):
            assert await first.ask(TEXTS) == 200
            assert [await one.ask(TEXTS) for one in others] == [overload] * 4
            said = others[0].begun.lower()
            assert b"retry-after: 1" in said
            assert door.computed == 1
            assert b'embedcode_refused_requests_total{reason="memory"} 4.0' in door.metrics.text()
            assert len(json.loads(await first.rest())["data"]) == TEXTS
            assert await last.ask(TEXTS) == 200

    run(door, Bodies(HELD_BYTES // HELD), asking, overload)


def test_callers_who_leave_with_their_answers_unread_hold_nothing_any_more() -> None:
    door = Door()

    async def asking(port: int) -> None:
        while door.computed < 3:  # one that comes before the server has seen that the last one has gone is refused
            with readers(port, 1) as (one,):
                await one.ask(TEXTS)

    run(door, Bodies(HELD_BYTES // HELD), asking)


def test_an_answer_above_the_bound_is_given_where_nothing_else_is_held() -> None:
    door = Door()

    async def asking(port: int) -> None:
        with readers(port, 1) as (one,):
            assert await one.ask(TEXTS) == 200
            assert len(json.loads(await one.rest())["data"]) == TEXTS

    run(door, Bodies(10_000), asking)


def test_who_is_not_alone_gets_no_more_than_the_bound() -> None:
    bodies = Bodies(10)
    with bodies.open() as first, bodies.open() as second:
        first(HELD * 10 - 1)
        second(1)
        with pytest.raises(ProblemError, match="memory"):
            second(1)
        first(-1)
        second(1)
