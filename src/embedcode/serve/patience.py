"""Patience: uvicorn's protocol with an end to it, for who opens a connection and sends, or reads, drop by drop.

It also tells of what is no HTTP, which no application hears of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Patient(H11Protocol):
    head_seconds = 15.0
    """From the first byte that may be sent to the end of a request's headers."""
    read_seconds = 60.0
    """In which a caller has to read something of an answer that waits."""
    unreadable: Callable[[tuple[str, int] | None], None] = staticmethod(lambda client: None)
    """Is told who sent what is no request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # An answer is sent when the system has all of it; over TLS up to a block of 256 KB may still wait in asyncio.
        transport.set_write_buffer_limits(high=1, low=0)
        self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        at_work = self.cycle is not None and not self.cycle.response_complete
        if at_work and self._head is not None:
            self._head.cancel()
            self._head = None
        elif not at_work and self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def send_400_response(self, msg: str) -> None:
        self.unreadable(self.client)
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
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
