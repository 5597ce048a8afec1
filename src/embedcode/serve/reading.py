"""Reading: so many messages of gRPC at a time, each for a while. Knows no message.

grpcio tells the size of one when it holds all of it, so their number bounds what they take. Who sends nothing would
keep the others out: it has a share of the turns, and little time while somebody waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import chain

from embedcode.serve.problem import ProblemError


@dataclass(slots=True)
class _Peer:
    turns: asyncio.Semaphore
    line: int = 0
    """Calls that wait for their turn."""
    coming: set[asyncio.Timeout] = field(default_factory=set)
    """Until when each message that is being read must have come."""


class Reading:
    def __init__(self, slots: int, seconds: float, hurry: float) -> None:
        """A message has `seconds` from its call on, and `hurry` while another waits for its turn. Half of the `slots`
        are for the calls of one address."""
        self._share = max(1, slots // 2)
        self._turns = asyncio.Semaphore(slots)
        self._seconds = seconds
        self._hurry = hurry
        self._peers: dict[str, _Peer] = {}

    async def message(self, messages: AsyncIterator[bytes], address: str) -> bytes:
        """The one of a call. ProblemError for one that does not come; StopAsyncIteration where there is none."""
        peer = self._peers.setdefault(address, _Peer(asyncio.Semaphore(self._share)))
        peer.line += 1
        turn = False
        try:
            async with asyncio.timeout(self._seconds) as ending:
                self._keep_moving()
                async with peer.turns, self._turns:
                    turn = True
                    peer.line -= 1
                    peer.coming.add(ending)
                    try:
                        self._keep_moving()
                        return await anext(messages)
                    finally:
                        peer.coming.remove(ending)
        except TimeoutError:
            if not turn:
                said = "The server reads all the messages that it has memory for: come back in a second."
                raise ProblemError(429, said, code="overloaded", retry_after=1, reason="memory") from None
            hurried = f", or {self._hurry:g} while many are read" if self._hurry < self._seconds else ""
            said = f"The message did not come within {self._seconds:g} seconds{hurried}: send it again."
            raise ProblemError(408, said) from None
        finally:
            peer.line -= not turn
            if not peer.line and not peer.coming:
                del self._peers[address]

    def _keep_moving(self) -> None:
        """Hurry those whose turn somebody waits for."""
        peers = self._peers.values()
        full = self._turns.locked() and any(peer.line for peer in peers)
        soon = asyncio.get_running_loop().time() + self._hurry
        for ending in chain.from_iterable(peer.coming for peer in peers if full or (peer.line and peer.turns.locked())):
            if not ending.expired():
                ending.reschedule(min(ending.when() or soon, soon))
