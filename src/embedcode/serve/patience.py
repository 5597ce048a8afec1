"""Patience: uvicorn's protocol with an end to it, for who opens a connection and sends, or reads, drop by drop.

It also tells of what is no HTTP, which no application hears of.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from embedcode.errors import UsageError
from embedcode.serve.body import WHOLE
from embedcode.serve.joined import Joined
from embedcode.serve.problem import ProblemError, respond

HEAD = 65_536
"""Bytes of a request's head, and that may come without one, or a piece of its body, being done: the parser keeps a
head, and what follows a body, as long as it comes."""
_WHOLE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
"""A whole URL in the place of a path, which some proxies send."""
_PORT = re.compile(rb":\d*\Z")
_LINE = re.compile(rb"[!#$%&'*+.^`|~\w-]+ [!-~]+ HTTP/1\.[01]\r\n", re.ASCII)
"""What a request begins with, of any method."""
_VERSIONS = ("Invalid HTTP version", "Pause on PRI/Upgrade")
"""What the parser says of another, and of HTTP/2 that was not offered first."""
TRIED = "0.54"
"""uvicorn's newest that this was tested with."""
PRIVATE = ("_start_asgi_task", "_unset_keepalive_if_required", "timeout_keep_alive_handler")
"""What is taken over of uvicorn's protocol and is no promise of it, beside what asyncio and httptools call."""
PIPELINED = 8
"""Requests of a connection that may wait for the one before them: each that is answered lets another 256 KB of what the
last of them brings in, which nobody has counted yet."""


def check() -> None:
    """UsageError where uvicorn's protocol is not the one that this adds to: none of it would be called."""
    if lacks := [name for name in PRIVATE if not hasattr(HttpToolsProtocol, name)]:
        said = f"uvicorn {uvicorn.__version__} has no {' and no '.join(lacks)}, by which slow callers are kept off"
        raise UsageError(f"{said}: install 'uvicorn<={TRIED}'")


class Patient(HttpToolsProtocol):
    head_seconds = 15.0
    """From the first byte that may be sent to the end of a request's headers."""
    read_seconds = 60.0
    """In which a caller has to read something of an answer that waits."""
    unreadable: Callable[[tuple[str, int] | None, Mapping[str, str], ProblemError], str] = staticmethod(
        lambda client, headers, problem: ""
    )
    """Is told who sent what is no request, its headers as far as they were read, and what is answered; gives its id."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._undone = 0
        self._size = 0
        """Of the head, so far."""
        self._in_head = True
        """One is awaited, or has begun."""
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joined(transport, self.loop))
        # An answer is sent when the system has all of it; over TLS up to a block of 256 KB may still wait in asyncio.
        transport.set_write_buffer_limits(high=1, low=0)
        self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        self._undone += len(data)
        try:
            self._feed(data)
            if self._undone > HEAD:
                raise _large()
        except ProblemError as problem:
            self._refuse(problem)
        except httptools.HttpParserError as error:
            self._refuse(_problem(error, data))
        at_work = self.cycle is not None and not self.cycle.response_complete
        awaited = self._in_head and not at_work
        if not awaited and self._head is not None:
            self._head.cancel()
            self._head = None
        elif awaited and self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def _feed(self, data: bytes) -> None:
        """Another protocol that is offered is passed over: Java's own client offers HTTP/2 with each connection's first
        request, and the parser takes a head with an offer for the last of HTTP/1.1."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if (method := self.parser.get_method()) == b"CONNECT":
                problem = _unread(405, "This server is no proxy, and answers no CONNECT.", "connect")
                problem.headers["Allow"] = "GET, HEAD, POST"
                raise problem from None
            lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
            lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            self._feed(b"\r\n".join([*lines, b"", data[offer.args[0] :]]))

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._in_head = True
        self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._size += len(url)
        if self._size >= HEAD:
            raise _unread(414, f"The path and query of a request are longer than {HEAD:,} bytes.", "target")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # and not behind the body, where it would change what is being answered
            super().on_header(name, value)
            self._size += len(name) + len(value) + len(": \r\n")
            if self._size > HEAD:  # of one that came at once too
                raise _large()

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()
        self._undone = 0
        self._check()
        self._in_head = False
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def _check(self) -> None:
        """ProblemError for a head that can be read, and not answered."""
        if (version := self.parser.get_http_version()) not in ("1.0", "1.1"):
            raise _unread(505, f"HTTP/{version} is not spoken here: send HTTP/1.1.", "version")
        if len(self.pipeline) == PIPELINED:
            raise _unread(400, f"More than {PIPELINED} requests were sent before the first was answered.", "pipeline")
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and version == "1.1":  # RFC 9112, 3.2
            said = f"several ({len(hosts)}) Host headers" if hosts else "no Host header"
            raise _unread(400, f"The request has {said}: send one.", "host")
        if whole := _WHOLE.fullmatch(self.url):
            # Its host is the one that counts (RFC 9112, 3.2.2), and only the header's is looked at from here on.
            if hosts and _PORT.sub(b"", whole[1]).lower() != _PORT.sub(b"", hosts[0]).lower():
                raise _unread(400, "The URL of the request and its Host header name two hosts: send one.", "host")
            if not hosts:
                self.headers.append((b"host", whole[1]))
            if not whole[2]:
                self.url += b"/"

    def on_body(self, body: bytes) -> None:
        self._undone = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._undone = 0
        if self.timeout_keep_alive_task is not None:  # it was refused before this body came, and is idle from here on
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        one = weakref.ref(cycle)  # or it would wait, with its scope, for the collector of circles
        cycle.scope["state"][WHOLE] = lambda: (known := one()) is not None and not known.more_body
        super()._start_asgi_task(cycle, app)

    def _refuse(self, problem: ProblemError) -> None:
        """What no application hears of, in the shape of all other errors; a half-sent answer would be made another."""
        read = self.headers or () if self._in_head else ()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in read}
        request_id = self.unreadable(self.client, headers, problem)
        if self._answering is not None and self._answering.response_started and not self._answering.response_complete:
            self.transport.abort()
            return
        answer = respond(problem, request_id)
        answer.headers["connection"] = "close"
        if request_id:
            answer.headers["x-request-id"] = request_id
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[problem.status] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:  # uvicorn tells the last request that has come, which may wait for this one
            self._answering.disconnected |= not self._answering.response_complete
            self._answering.message_event.set()
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _await_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.read_seconds, self._drop, left)

    def _drop(self, left: int) -> None:
        """Unless there is less than was left: writing resumes only when nearly all has been read."""
        if self.transport.get_write_buffer_size() < left:
            self._await_reader()
        else:  # closing or not: a connection that closes waits until all has been read
            self.transport.abort()


def _unread(status: int, said: str, reason: str) -> ProblemError:
    return ProblemError(status, said, code="not_http", reason=reason)


def _large() -> ProblemError:
    return _unread(431, f"A request's head, or what follows its body, is longer than {HEAD:,} bytes.", "head")


def _problem(error: httptools.HttpParserError, data: bytes) -> ProblemError:
    """Of what the parser stops at; what it says itself holds nothing of what came."""
    cause, reason = error.__context__, str(error)
    if isinstance(cause, ProblemError):
        return cause
    if cause is not None:  # of uvicorn's, which reads the path
        reason = "Invalid path"
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _LINE.match(data):
        return _unread(501, "No such method is known here: send GET or POST.", "method")
    if reason in _VERSIONS:
        return _unread(505, "Another version of HTTP is not spoken here: send HTTP/1.1.", "version")
    return _unread(400, f"What came is no request of HTTP/1.1 ({reason}).", reason)
