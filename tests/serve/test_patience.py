"""Who leaves an answer unread, or sends headers without end, in this process, with sockets of ours."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from embedcode.errors import UsageError
from embedcode.serve import patience
from embedcode.serve.patience import Patient


async def large(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(20_000_000)})


async def listening(app: Any, protocol: type[Patient] = Patient, **options: Any) -> asyncio.Server:
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options)
    config.load()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: protocol(config, ServerState(), {}), "127.0.0.1", 0)


def test_an_unread_answer_is_dropped_though_its_connection_is_closing() -> None:
    closing: list[bool] = []
    lost: list[Exception | None] = []

    class Noting(Patient):
        read_seconds = 0.3

        def _drop(self, left: int) -> None:
            closing.append(self.transport.is_closing())
            super()._drop(left)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)
            super().connection_lost(exc)

    async def run() -> None:
        # Keep-alive ends at once, and so before read_seconds.
        server = await listening(large, Noting, timeout_keep_alive=0)
        with socket.create_connection(server.sockets[0].getsockname()[:2]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(100):
                if lost:
                    break
                await asyncio.sleep(0.05)
        server.close()

    asyncio.run(run())
    assert closing == [True]
    assert len(lost) == 1


def test_who_reads_slowly_but_steadily_gets_the_whole_answer() -> None:
    class Hasty(Patient):
        read_seconds = 0.2

    async def run() -> int:
        server = await listening(large, Hasty)
        with socket.create_connection(server.sockets[0].getsockname()[:2]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.setblocking(False)
            loop, got, since = asyncio.get_running_loop(), 0, time.monotonic()
            while block := await loop.sock_recv(client, 1_000_000):
                got += len(block)
                await asyncio.sleep(0.03)
        assert time.monotonic() - since > 2 * Hasty.read_seconds
        server.close()
        return got

    assert asyncio.run(run()) > 20_000_000


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def sized(scope: Any, receive: Any, send: Any) -> None:
    """How many bytes the body has, once it is there."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    said = str(size).encode()
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def talk(with_server: Talk, app: Any = sized, **options: Any) -> None:
    async def run() -> None:
        server = await listening(app, **options)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        async with asyncio.timeout(20):
            await with_server(reader, writer)
        writer.close()
        server.close()

    asyncio.run(run())


async def answered(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head.split(b"\r\n")[0], await reader.readexactly(length)


async def to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, block: bytes) -> tuple[bytes, int]:
    """What comes back to `block` sent again and again, and how many bytes the other side took of them."""
    reading, sent = asyncio.ensure_future(reader.read()), 0
    try:
        while not reading.done() and sent < 50_000_000:
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(0)
            sent += len(block)
    except ConnectionError:
        pass
    try:
        return await reading, sent
    except ConnectionError:
        return b"", sent


@pytest.mark.parametrize(
    ("begun", "status"),
    [(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ", 431), (b"GET /", 414)],
    ids=["header", "path"],
)
def test_a_head_without_end_is_refused_and_not_kept(begun: bytes, status: int) -> None:
    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        said, sent = await to_the_end(reader, writer, b"a" * 8192)
        assert not said or said.startswith(b"HTTP/1.1 %d " % status)
        assert sent < 50_000_000

    talk(long)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n", 431), (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", 414)],
)
def test_a_head_that_comes_at_once_is_as_long_as_one_that_comes_in_pieces(sent: bytes, status: int) -> None:
    """One of 70,000 bytes was answered."""

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent % (b"a" * 60_000))
        assert (await answered(reader))[0] == b"HTTP/1.1 200 OK"
        writer.write(sent % (b"a" * 70_000))
        assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)

    talk(long)


def test_trailers_without_end_are_cut_off() -> None:
    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        said, sent = await to_the_end(reader, writer, b"X-More: " + b"a" * 1000 + b"\r\n")
        assert said == b""
        assert sent < 50_000_000

    talk(long)


def test_headers_of_a_common_size_are_read() -> None:
    async def two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cookie = b"a" * 12_000
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\nContent-Length: 3\r\n\r\nabc")
            assert await answered(reader) == (b"HTTP/1.1 200 OK", b"3")

    talk(two)


def test_a_body_in_many_small_chunks_is_read() -> None:
    async def small(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(300):
            writer.write(b"1\r\na\r\n" * 100)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert await answered(reader) == (b"HTTP/1.1 200 OK", b"30000")

    talk(small)


def test_requests_sent_at_once_are_answered_in_order() -> None:
    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies = [b"a" * size for size in (3, 70_000, 1)]
        for body in bodies:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        for body in bodies:
            assert await answered(reader) == (b"HTTP/1.1 200 OK", str(len(body)).encode())

    talk(at_once)


def test_an_offer_of_http_2_is_passed_over() -> None:
    """Java's own client makes it with each connection's first request."""

    async def offering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
        for headers in (offer, b"", b""):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + headers + b"Content-Length: 3\r\n\r\nabc")
            assert await answered(reader) == (b"HTTP/1.1 200 OK", b"3")

    talk(offering)


def test_trailers_do_not_become_headers_of_what_is_answered() -> None:
    got: list[list[tuple[bytes, bytes]]] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        await sized(scope, receive, send)
        got.append(scope["headers"])

    async def trailing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        writer.write(b"Authorization: Bearer other\r\n\r\n")
        assert await answered(reader) == (b"HTTP/1.1 200 OK", b"1")

    talk(trailing, noting)
    assert [name for name, _ in got[0]] == [b"host", b"transfer-encoding"]


POSTED = b"POST / HTTP/1.1\r\nHost: a\r\n"
LENGTH = b"Content-Length: %d\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "CONNECT"),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "CONNECT"),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP/2.0"),
        (b"GET /\r\n\r\n", 505, "HTTP/0.9"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "no request of HTTP/1.1"),
        (POSTED + LENGTH % 1 + LENGTH % 2 + b"\r\nab", 400, "Duplicate Content-Length"),
        (POSTED + LENGTH % -1 + b"\r\nab", 400, "in Content-Length"),
        (POSTED + LENGTH % 1 + CHUNKS + b"\r\n0\r\n\r\n", 400, "Transfer-Encoding can't be present"),
        (POSTED + b"Transfer-Encoding: gzip\r\n\r\nab", 400, "invalid `Transfer-Encoding`"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "several (2) Host headers"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "no Host header"),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "two hosts"),
        (b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "two hosts"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", 400, "header"),
    ],
)
def test_what_proxies_read_in_two_ways_or_nobody_is_refused_with_its_reason(
    sent: bytes, status: int, said: str
) -> None:
    async def unclear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status) and b"\r\nconnection: close" in head
        error = json.loads(body)["error"]
        assert error["code"] == "not_http" and said in error["message"]

    talk(unclear)


def test_requests_without_end_that_wait_for_one_are_refused() -> None:
    begun = 0

    async def never(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1
        while (await receive())["type"] != "http.disconnect":
            pass

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, sent = await to_the_end(reader, writer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        assert sent < 50_000_000

    talk(flood, never)
    assert begun == 1


def test_a_request_that_others_wait_for_is_told_that_its_caller_has_left() -> None:
    told = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await told.wait()

    talk(leaving, waiting)


def test_garbage_behind_a_request_does_not_land_in_its_answer() -> None:
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await go_on.wait()

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await reader.readuntil(b"\r\n\r\na")
        writer.write(b"\x00 garbage\r\n\r\n")
        with suppress(ConnectionError):
            got += await reader.read()
        go_on.set()
        assert b"400" not in got

    talk(garbage, slow)


def test_an_answer_comes_in_one_piece() -> None:
    """Head and body apart are twice the work to send, and to be woken by."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(10):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert (await reader.read(1000)).endswith(b"\r\n\r\n3")

    talk(one)


def test_a_uvicorn_that_has_no_place_for_it_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    patience.check()
    monkeypatch.setattr(patience, "PRIVATE", ("_gone_tomorrow",))
    with pytest.raises(UsageError, match=r"has no _gone_tomorrow, .* install 'uvicorn<="):
        patience.check()


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Before there is a body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def test_a_connection_whose_refused_body_comes_late_is_kept_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that had its next request on the way lost it, after 15 seconds in place of 120."""
    monkeypatch.setattr(Patient, "head_seconds", 0.1)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST % 6)
        assert (await answered(reader))[1] == b"no"
        for part in (b"abc", b"def"):
            await asyncio.sleep(0.3)
            writer.write(part)
        await asyncio.sleep(0.6)  # more than is left of a second from the first answer on
        writer.write(POST % 3 + b"abc")
        assert (await answered(reader))[1] == b"no"

    talk(late, refusing, timeout_keep_alive=1)


def test_a_refused_body_that_comes_drop_by_drop_holds_no_connection() -> None:
    async def drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST % 1000)
        await answered(reader)
        since = time.monotonic()
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"a")
                await asyncio.sleep(0.05)
        assert time.monotonic() - since < 3

    talk(drops, refusing, timeout_keep_alive=1)


def test_an_answer_that_takes_longer_than_connections_are_kept_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a request whose head began to come while the one before it was answered."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2 if scope["path"] == "/" else 1.3)
        await sized(scope, receive, send)

    async def halves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POST % 3 + b"abcPOST /slow HT")
        assert (await answered(reader))[1] == b"3"
        writer.write(b"TP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
        assert (await answered(reader))[1] == b"2"

    talk(halves, slow, timeout_keep_alive=1)
