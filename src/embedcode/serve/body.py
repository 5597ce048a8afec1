"""Body: what a request brings, held to a size and a time: of one request, and of all that are there at a time.

Knows no route, and nothing of what a body holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from embedcode.serve.problem import ProblemError

SECONDS = 60.0
"""In which a body must have come: who sends it drop by drop holds a connection, and no more than that."""
HELD = 16
"""Times the largest body that may be held at a time, of all requests."""
GONE = 499
"""Status, in logs and metrics, of a caller who left."""

Holding = Callable[[int], None]


class Bodies:
    """Those that are being read or answered: many large ones must not take all the memory."""

    def __init__(self, most: int, seconds: float = SECONDS) -> None:
        """`most` bytes and `seconds` of one."""
        self._most = most
        self._seconds = seconds
        self._bytes = 0

    @contextmanager
    def open(self) -> Iterator[Holding]:
        """Inside, what is called with each piece of the body; ProblemError 429 where there is no room."""
        mine = 0

        def holding(size: int) -> None:
            nonlocal mine
            if self._bytes + size > HELD * self._most:
                raise ProblemError(
                    429,
                    "The server holds all the requests it has memory for: come back in a second.",
                    code="overloaded",
                    retry_after=1,
                    reason="memory",
                )
            mine += size
            self._bytes += size

        try:
            yield holding
        finally:
            self._bytes -= mine

    async def read(self, request: Request, holding: Holding, most: int | None = None) -> bytes:
        """ProblemError 413 above `most` bytes, of which no more are held, and 408 for one that does not come."""
        most = self._most if most is None else min(most, self._most)
        too_large = ProblemError(
            413, f"The body is larger than {most:,} bytes: send less in one request.", code="too_large"
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
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
