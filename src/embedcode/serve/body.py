"""Body: what a request brings and gets, held to a size and a time: of one request, and of all that are there at a time.

Knows no route, and nothing of what a body holds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from embedcode.serve.problem import ProblemError, leaving

SECONDS = 60.0
"""In which a body must have come: who sends it drop by drop holds a connection, and no more than that."""
HELD = 16
"""Times the largest body that may be held at a time, of all requests and their answers."""
BLOCK = 256_000
"""Bytes of an answer that are sent at a time."""
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
"""What a page of any site may send anywhere, and curl -d and urllib do where no type is given. text/plain is read, as
fetch() sends what is given no type."""
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"';\s]+)""")
GONE = 499
"""Status, in logs and metrics, of a caller who left."""
WHOLE = "whole"
"""In the state of a request, what says whether all of its body has come; where nobody knows it, it may not have."""

Holding = Callable[[int], None]


class Bodies:
    """Those that are being read or answered: many large ones must not take all the memory."""

    def __init__(self, most: int, seconds: float = SECONDS) -> None:
        """`most` bytes and `seconds` of one."""
        self._most = most
        self._seconds = seconds
        self._bytes = 0
        self._open = 0
        self._ending = False
        self._empty = asyncio.Event()
        self._empty.set()

    def end(self) -> None:
        """Take no more of them."""
        self._ending = True

    async def wait_empty(self) -> None:
        """Until each that was taken is answered, and its caller has read the answer."""
        await self._empty.wait()

    def check(self) -> None:
        """ProblemError where no more are taken."""
        if self._ending:
            raise leaving()

    @contextmanager
    def open(self) -> Iterator[Holding]:
        """Inside, what is called with the size of each piece that is held, or less than 0 of what no longer is;
        ProblemError where there is no room. Who is alone is always taken, or a large answer could never be given."""
        mine = 0

        def holding(size: int) -> None:
            nonlocal mine
            if self._bytes > mine and self._bytes + size > HELD * self._most:
                raise ProblemError(
                    429,
                    "The server holds all the requests it has memory for: come back in a second.",
                    code="overloaded",
                    retry_after=1,
                    reason="memory",
                )
            mine += size
            self._bytes += size

        self._open += 1
        self._empty.clear()
        try:
            yield holding
        finally:
            self._bytes -= mine
            self._open -= 1
            if not self._open:
                self._empty.set()

    async def read(self, request: Request, holding: Holding, most: int | None = None) -> bytes:
        """ProblemError 413 above `most` bytes, of which no more are held, 408 for one that does not come, 503 where no
        more are taken."""
        self.check()
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            said = f"Content-Encoding {coding[:40]!r} is not read here: send the body as it is."
            raise ProblemError(415, said, code="content_encoding")
        _check_type(request.headers.get("content-type", "").lower())
        most = self._most if most is None else min(most, self._most)
        too_large = ProblemError(
            413, f"The body is larger than {most:,} bytes: send less in one request.", code="too_large"
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            # Of a body that is there no clock is needed, which is a tenth of what a refusal takes.
            come = request.scope.get("state", {}).get(WHOLE, bool)()
            async with nullcontext() if come else asyncio.timeout(self._seconds):
                async for block in request.stream():
                    body += block
                    if len(body) > most:
                        raise too_large
                    holding(len(block))
        except TimeoutError:
            raise ProblemError(408, f"The body did not come within {self._seconds:g} seconds: send it again.") from None
        except ClientDisconnect:
            raise ProblemError(GONE, "The caller has gone.") from None
        return bytes(body)


def _check_type(given: str) -> None:
    """ProblemError 415 for a body that says it is a form, or of another coding than JSON's."""
    kind = given.partition(";")[0].strip()
    charset = found[1] if (found := _CHARSET.search(given)) else "utf-8"
    if kind in FORMS:
        said = (
            f"Content-Type {kind} is no JSON: send Content-Type: application/json (curl -H, since -d alone says this)."
        )
        raise ProblemError(415, said, code="content_type")
    if charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise ProblemError(415, f"charset {charset[:40]!r} is not read here: send JSON in UTF-8.", code="content_type")


class Held:
    """An endpoint, as ASGI has it, whose bytes count until the caller has read the answer.

    uvicorn takes a last piece of any size at once: 500 callers that read nothing had 10 MB each there, uncounted. With
    a piece still to come it waits until what was sent is read.
    """

    def __init__(self, bodies: Bodies, endpoint: Callable[[Request, Holding], Awaitable[Response]]) -> None:
        self._bodies = bodies
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._bodies.open() as holding:
            answer = await self._endpoint(Request(scope, receive), holding)
            content = answer.body
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
            for start in range(0, len(content), BLOCK):
                block = bytes(content[start : start + BLOCK])
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
