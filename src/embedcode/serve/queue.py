"""Queue: which texts wait for the engine, in two lanes, and which are computed next. Admission by tokens.

Queries are interactive, passages are bulk. A request is taken as a whole or refused as a whole, with the seconds after
which there will be room, from the rate at which the engine was measured to work. Work that nobody waits for is never
handed out. Pure: no thread, no event loop, and the clock is given. Knows no HTTP and no engine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from embedcode.types import Role, Tokens

Lane = Role
"""QUERY is interactive and goes first, PASSAGE is bulk; neither starves (Turn)."""

QUEUE_SECONDS = 10.0
"""Work that a lane may hold, at the measured rate: who comes later would rather be told to come back."""
LEAST_TOKENS = 16_384
"""That a lane may hold however slow the engine is."""
EQUAL = 0.1
"""Of a lane's room, what a smaller request needs too: else only small ones find some in an overload (500 tokens in the
mean, of 875 that were asked), each costs the server as much, and those of average size are hardly ever answered."""
HALF = 0.5
"""And the most that any needs: a larger one comes in while the lane is half empty, one at a time. If it needed all of
its size, one that is larger than the room would be refused for ever as long as others keep coming."""
TOKEN = 40
"""Bytes of a token that waits: a number of Python's, and its place in a tuple."""
MEMORY_SECONDS = 30.0
"""After so long at work a measurement of the rate counts for 1/e."""
OVERTAKEN = 2
"""Batches' worth of tokens by which queries may overtake a passage that waits, then it is its turn."""
SUSPECT_TRIES = 3
"""How often a text is tried that was being computed when the engine died; from the second time on alone."""


Late = tuple[str, tuple[tuple[int, int], ...]]
"""A file, and the parts of it that each get a vector, as (first, last + 1) in characters."""


class State(Enum):
    WAITING = "waiting"
    SENT = "sent"
    OVER = "over"


@dataclass(eq=False, slots=True)
class Work:
    """One text to compute, for everybody who waits for it."""

    key: bytes
    tokens: Tokens
    lane: Lane
    deadline: float
    late: Late | None = None
    callers: int = 1
    state: State = State.WAITING
    tries: int = 0
    number: int = 0

    @property
    def cost(self) -> int:
        return self.tokens.used


class FullError(Exception):
    """There is no room for a request now."""

    def __init__(self, seconds: float, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.retry_after = max(1, min(math.ceil(seconds), 600))
        """Whole seconds, as the header takes them."""
        self.reason = reason
        self.cure = cure
        """What else to do than to come back, as a sentence."""


@dataclass(slots=True)
class Rate:
    """Tokens a second of an engine that has all the work it can take; seeded with what was measured at its start."""

    tokens: float = 0.0
    seconds: float = 0.0
    best: float = 1000.0
    """That there was; as `value`, where none was measured."""

    def seed(self, rate: float) -> None:
        self.seconds = 2.0
        self.tokens = rate * self.seconds
        self.best = self.value

    def add(self, tokens: int, seconds: float) -> None:
        fade = math.exp(-seconds / MEMORY_SECONDS)
        self.tokens = self.tokens * fade + tokens
        self.seconds = self.seconds * fade + seconds
        self.best = max(self.best, self.value)

    @property
    def value(self) -> float:
        """At least 1, so that it can be divided by."""
        return max(1.0, self.tokens / self.seconds) if self.seconds else 1000.0


@dataclass(slots=True)
class Turn:
    """Whose turn it is where both lanes have work at hand: queries, until they have overtaken by `most` tokens."""

    most: int
    overtaken: int = 0

    def choose(self, query: bool, passage: bool) -> Lane | None:
        if query and passage:
            return Lane.QUERY if self.overtaken < self.most else Lane.PASSAGE
        return Lane.QUERY if query else Lane.PASSAGE if passage else None

    def took(self, lane: Lane, tokens: int, other_waits: bool) -> None:
        self.overtaken = self.overtaken + tokens if lane is Lane.QUERY and other_waits else 0


@dataclass(slots=True)
class Queue:
    clock: Callable[[], float]
    budget: int
    """Tokens of a batch."""
    most_texts: int = 256
    """Of a batch."""
    most_requests: int = 1024
    most_tokens: int = 0
    """That a lane may hold; 0 is QUEUE_SECONDS at the measured rate."""
    rate: Rate = field(default_factory=Rate)
    requests: int = 0
    """Under way, from their admission to their answer."""
    dropped: int = 0
    """Texts that nobody waited for any more before they were computed."""
    _lanes: dict[Lane, deque[Work]] = field(default_factory=lambda: {lane: deque() for lane in Lane})
    _tokens: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    _last: int = 0

    def tokens(self, lane: Lane) -> int:
        """Waiting in a lane."""
        return self._tokens[lane]

    def room(self) -> int:
        """Tokens that a lane may hold. A request of more than half of them comes on top where it is half empty."""
        return self.most_tokens or max(LEAST_TOKENS, int(QUEUE_SECONDS * self.rate.value))

    def check(self, lane: Lane, cost: int, seconds: float, at_hand: int = 0) -> None:
        """FullError where a request of `cost` new tokens has no room, or would not be done within `seconds`, behind
        what waits and half of what the engine has `at_hand` of this lane.

        A lane that is empty takes any request that is too large to be done in time, or it could never be answered.
        """
        if self.requests > self.most_requests:  # the one that asks is among them
            ahead = sum(self._tokens.values()) / self.most_requests
            raise FullError(ahead / self.rate.value, "requests")
        waiting = self._tokens[lane]
        if not cost or (not waiting and (not at_hand or cost > self.rate.value * seconds)):
            return
        room = self.room()
        half = int(HALF * room)
        said = f"The request has at least {cost:,} tokens, and those of more than {half:,} wait for a half-empty queue"
        cure = f"{said}: split it." if cost > half else ""
        over = waiting + min(max(cost, int(EQUAL * room)), half) - room
        if over > 0:
            raise FullError(over / self.rate.value, "tokens", cure)
        late = (waiting + at_hand // 2 + cost) / self.rate.value - seconds
        if late > 0:
            raise FullError(late, "deadline", cure)

    def add(self, works: Iterable[Work]) -> None:
        for work in works:
            self._last += 1
            work.number = self._last
            self._lanes[work.lane].append(work)
            self._tokens[work.lane] += work.cost

    def join(self, work: Work, lane: Lane, deadline: float) -> None:
        """One more caller waits for `work`; a query takes a passage that still waits into its own lane."""
        work.callers += 1
        work.deadline = max(work.deadline, deadline)
        if work.state is State.WAITING and lane is Lane.QUERY and work.lane is Lane.PASSAGE:
            self._lanes[work.lane].remove(work)
            self._tokens[work.lane] -= work.cost
            work.lane = lane
            self._lanes[lane].append(work)
            self._tokens[lane] += work.cost

    def leave(self, work: Work) -> bool:
        """A caller has gone; whether it was the last one. Then the work is over, unless it is being computed, and what
        is left in the line holds no text: callers who come and leave would fill the memory behind a slow one."""
        work.callers -= 1
        if work.callers > 0:
            return False
        if work.state is State.WAITING:
            self._over(work)
            self.dropped += 1
            work.tokens, work.late = replace(work.tokens, ids=()), None
        return True

    def take(self, lane: Lane) -> list[Work]:
        """The next batch of a lane, to be sent to the engine; empty where nothing waits."""
        batch: list[Work] = []
        size = 0
        line = self._lanes[lane]
        while len(batch) < self.most_texts and (work := self._first(lane)) is not None:
            if batch and (size + work.cost > self.budget or work.tries):
                break
            line.popleft()
            self._tokens[lane] -= work.cost
            work.state = State.SENT
            batch.append(work)
            size += work.cost
            if work.tries:
                break
        return batch

    def suspect(self) -> Lane | None:
        """The lane whose next text an engine had when it died: nothing is to be computed beside that one, or what it is
        to blame for would count against others."""
        return next((lane for lane in Lane if (work := self._first(lane)) is not None and work.tries), None)

    def back(self, works: Sequence[Work]) -> list[Work]:
        """What a dead engine had, to the front, in order; gives those that have been tried too often."""
        lost = []
        for work in sorted(works, key=lambda one: -one.number):
            if work.state is State.OVER:
                continue
            work.tries += 1
            if work.callers <= 0:
                work.state = State.OVER
                self.dropped += 1
            elif work.tries >= SUSPECT_TRIES:
                work.state = State.OVER
                lost.append(work)
            else:
                work.state = State.WAITING
                self._lanes[work.lane].appendleft(work)
                self._tokens[work.lane] += work.cost
        return lost

    def clear(self, lane: Lane) -> list[Work]:
        """All that waits in a lane, which is refused."""
        waiting = [work for work in self._lanes[lane] if work.state is State.WAITING]
        for work in waiting:
            self._over(work)
        self._lanes[lane].clear()
        return waiting

    def _first(self, lane: Lane) -> Work | None:
        """The next that somebody waits for."""
        line = self._lanes[lane]
        while line:
            work = line[0]
            if work.state is State.WAITING and work.deadline > self.clock():
                return work
            line.popleft()
            if work.state is State.WAITING:
                self._over(work)
                self.dropped += 1
        return None

    def _over(self, work: Work) -> None:
        work.state = State.OVER
        self._tokens[work.lane] -= work.cost
