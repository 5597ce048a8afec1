"""Embedder: a request for embeddings to its vectors: the one door to the engine, for HTTP, gRPC and search alike.

`await embedder.embed(asked)` has it tokenised, looks into the cache, computes each text once for all who wait for it,
and raises ProblemError for what cannot be answered. A caller that is cancelled leaves nothing behind.
Knows no protocol: it gets an Asked and gives an Answer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

from embedcode.engine.encoder import LocalEncoder
from embedcode.errors import UsageError
from embedcode.serve import fatal, recent
from embedcode.serve.answer import Answer
from embedcode.serve.asked import Asked, Model, PromptGuard
from embedcode.serve.engine import Engine
from embedcode.serve.fatal import Fatal
from embedcode.serve.lately import Meter
from embedcode.serve.limits import Limits
from embedcode.serve.metrics import Metrics
from embedcode.serve.problem import ProblemError, at, leaving, loading, overloaded, too_large
from embedcode.serve.queue import FullError, Lane, Late, Queue, State, Work
from embedcode.serve.recent import Recent
from embedcode.serve.telemetry import Telemetry
from embedcode.serve.tokenisers import Tokenisers
from embedcode.serve.worker import Item, Load
from embedcode.types import Floats, InputError, Role, Tokens, Truncate, digest

SLACK = 10
"""Times what would be computed in the time of a request, at the best rate there was, that one request may have. A
neighbour at the start made the rate 1,278 tokens/s on a machine that does 7,000, and what is refused by this is not
sent again; what is not done in time is, and finds what was done in the cache."""
PATIENCE = "patience"
"""Why a request is refused whose caller waits less long than the server would."""
SURE = 0.9
"""Of the tokens a request seems to have, those it is refused by before they are counted."""
WAIT_SECONDS = 0.5
"""Between two looks of who waits for it."""
RETURN_SECONDS = 60.0
"""How long that is waited for: who makes an index says then what keeps it from being made."""


class Stage(Enum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"


@dataclass(eq=False, slots=True)
class _Flight:
    """Work under way, and what comes of it: a vector, or why there is none."""

    work: Work
    outcome: asyncio.Future[Floats | ProblemError]
    since: float
    sent: float = 0.0
    """When the engine got it."""
    requests: tuple[Any, ...] = ()
    """Who waits for it, as telemetry knows them."""


class Embedder:
    def __init__(self, encoder: LocalEncoder, load: Load, model: Model, limits: Limits, metrics: Metrics) -> None:
        """`encoder` only tokenises here; the engine's process loads its own from `load`.

        UsageError where `limits.max_tokens` leaves no room for a text.
        """
        if limits.max_tokens is not None:
            for role in Role:
                encoder.tokenize([], role, None, Truncate.NONE, limits.max_tokens)
        self.model = model
        self.limits = limits
        self.metrics = metrics
        self.telemetry = Telemetry()
        self.queue = Queue(time.monotonic, load.budget, limits.batch_texts, limits.most_requests, limits.most_tokens)
        self.engine = Engine(load, encoder, model, metrics, self._told, self._work)
        self._encoder = encoder
        self._budget = load.budget
        self._recent = Recent(limits.cache_bytes)
        self._fatal = Fatal(time.monotonic)
        self._tokenisers = Tokenisers(encoder, PromptGuard(model.prompts), limits.max_tokens)
        self._flights: dict[bytes, _Flight] = {}
        self._sent: dict[int, _Flight] = {}
        self._at_hand: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._busy_since = 0.0
        self._dropped = 0
        self._hits = self._misses = 0
        self.meter = Meter()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.ready.set_function(lambda: self.ready)

    # ---- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.engine.start()
        self._tokenisers.start()

    @cached_property
    def space(self) -> str:
        return self._encoder.space

    @property
    def max_tokens(self) -> int:
        own = self._encoder.max_tokens
        return min(own, self.limits.max_tokens) if self.limits.max_tokens else own

    @property
    def stage(self) -> Stage:
        if self._draining:
            return Stage.DRAINING
        if self.engine.ready:
            return Stage.READY
        return Stage.RESTARTING if self.engine.facts else Stage.STARTING

    @property
    def ready(self) -> bool:
        return self.stage is Stage.READY

    def at_hand(self, lane: Lane) -> int:
        """Tokens that the engine has."""
        return self._at_hand[lane]

    @property
    def cache(self) -> dict[str, int]:
        """Its size, and the texts that were and were not in it."""
        return {"bytes": self._recent.bytes, "hits": self._hits, "misses": self._misses}

    async def drain(self) -> None:
        """Take no more passages, refuse those that wait, and finish the queries."""
        self._draining = True
        self._turn_away(Lane.PASSAGE)
        await self._idle.wait()

    def _turn_away(self, lane: Lane) -> None:
        for work in self.queue.clear(lane):
            if flight := self._flights.pop(work.key, None):
                flight.outcome.set_result(leaving())

    def stop(self) -> None:
        """Ends the engine; blocks for a moment."""
        self.engine.process.stop()
        self._tokenisers.stop()

    # ---- a request ---------------------------------------------------------------------------------------------

    def check(self, asked: Asked, within: float = math.inf) -> None:
        """ProblemError for a request that is refused by its lane and its length alone, before anything is done for it:
        at ten times the load nearly all are, and else a quarter of them is tokenised first."""
        self._check_ready(asked.lane)
        if asked.lane is Lane.PASSAGE:
            seconds = min(within, self.limits.timeout)
            try:
                least = int(SURE * self._tokenisers.guess(asked))
                self._check_size(least, seconds)
                self.queue.check(asked.lane, least, seconds, self._at_hand[asked.lane])
            except FullError as full:
                raise self.full(full, within) from None

    async def embed(self, asked: Asked, spend: Callable[[int], None] | None = None, within: float = math.inf) -> Answer:
        """ProblemError for a request that cannot be answered; with `asked.partial`, only where no input can.

        `spend` is told the tokens of a request before they are computed, and may raise FullError: a quota. It gets
        them back, as fewer than 0, where the server is at fault that there is no answer; not from who leaves, nor from
        who waits no longer than `within`, where that is less than the server's limit.
        """
        since, spent = asyncio.get_running_loop().time(), 0
        seconds = min(within, self.limits.timeout)

        def spending(tokens: int) -> None:
            nonlocal spent
            if spend is not None:
                spend(tokens)
                spent = tokens

        self._open(1)
        try:
            self.check(asked, seconds)
            async with self._within(seconds, asked.lane, PATIENCE if within < self.limits.timeout else "deadline"):
                return await self._embed(asked, since, since + seconds, spending)
        except ProblemError as error:
            problem = error
        except FullError as full:
            problem = self.full(full, within)
        except UsageError:
            said = f"instruction leaves no room for a text in {self.max_tokens} tokens: shorten it."
            problem = ProblemError(400, said, "instruction")
        except Exception:  # a mistake of ours
            if spent and spend is not None:
                spend(-spent)
            raise
        finally:
            self._open(-1)
        left = problem.code == "deadline" and problem.reason == PATIENCE
        if spent and problem.status != 400 and not left and spend is not None:
            spend(-spent)
        raise problem

    async def _embed(self, asked: Asked, since: float, until: float, spend: Callable[[int], None]) -> Answer:
        with self.telemetry.stage("tokenise"):
            entries, doubled = await self._tokenisers.tokenise(asked)
        self.metrics.doubled.inc(len(doubled))
        self.metrics.seconds.labels("tokenize").observe(asyncio.get_running_loop().time() - since)
        self._check_ready(asked.lane)
        errors = [entry for entry in entries if isinstance(entry, InputError)]
        if doubled and not self.limits.double_prompts:
            known = {error.index for error in errors}
            errors += [PromptGuard.error(index) for index, sure in doubled.items() if sure and index not in known]
        if errors and not asked.partial:
            first = min(errors, key=lambda error: error.index)
            raise ProblemError(400, first.message, "input", index=first.index)
        bad = {error.index for error in errors}
        good = {i: entry for i, entry in enumerate(entries) if isinstance(entry, Tokens) and i not in bad}
        cost = sum(entry.used for entry in good.values())
        self._tokenisers.learn(asked, cost)
        spend(cost)
        keys = {index: recent.key(entry, self.space) for index, entry in good.items()}
        late: Late | None = None
        if asked.late:
            late = asked.file
            keys = {0: digest("late", late[0], repr(late[1]), self.space)}
            good = {0: good[0]}
        found, cached = await self._vectors(asked.lane, keys, good, late, until, until - since)
        if late is not None:
            return self._late_answer(found[keys[0]], good[0], len(asked.texts))
        vectors = []
        for index, key in list(keys.items()):
            outcome = found[key]
            if isinstance(outcome, ProblemError):
                if not asked.partial or outcome.param != "input":
                    raise at(outcome, index)
                errors.append(InputError(index, at(outcome, index).message))
                del good[index]
            else:
                vectors.append(outcome)
        if not vectors:
            first = min(errors, key=lambda error: error.index)
            raise ProblemError(400, f"No input can be embedded; the first: {first.message}", "input", index=first.index)
        import numpy as np

        tokens = tuple(good.values())
        self.metrics.truncated.inc(sum(entry.truncated for entry in tokens))
        errors.sort(key=lambda error: error.index)
        return Answer(np.stack(vectors), tuple(good), tokens, tuple(errors), tuple(doubled), cached)

    def _late_answer(self, outcome: Floats | ProblemError, entry: Tokens, count: int) -> Answer:
        if isinstance(outcome, ProblemError):
            raise outcome
        # The file's tokens are counted once, with its first part.
        receipts = (entry, *(replace(entry, ids=(), original=0, used=0, prompt=0) for _ in range(count - 1)))
        return Answer(outcome, tuple(range(count)), receipts)

    async def compute(self, tokens: Sequence[Tokens], lane: Lane, seconds: float | None = None) -> Floats:
        """Vectors [n, dim] of texts of this process's own, such as an index it serves: refused as a request is where
        they would not be there within `seconds`; without those they wait for room, and for an engine that is started
        again. ProblemError, too, where a text has no vector, with its index, and while the engine is not there."""
        import numpy as np

        await self._when_ready(lane, seconds)
        good = dict(enumerate(tokens))
        keys = {index: recent.key(entry, self.space) for index, entry in good.items()}
        deadline = math.inf if seconds is None else asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with self._within(seconds, lane):
                    # A search of a slow model is refused for its time, and not for its size.
                    found, _ = await self._vectors(lane, keys, good, None, deadline, self.limits.timeout)
                break
            except FullError as full:
                if seconds is not None:
                    raise self.full(full) from None
                await asyncio.sleep(full.retry_after)
                await self._when_ready(lane, seconds)
        rows = []
        for index, key in keys.items():
            outcome = found[key]
            if isinstance(outcome, ProblemError):
                raise at(outcome, index)
            rows.append(outcome)
        return np.stack(rows)

    async def _when_ready(self, lane: Lane, seconds: float | None) -> None:
        until = time.monotonic() + RETURN_SECONDS
        while seconds is None and self.stage is Stage.RESTARTING and time.monotonic() < until:
            await asyncio.sleep(WAIT_SECONDS)
        self._check_ready(lane)

    async def _vectors(
        self, lane: Lane, keys: dict[int, bytes], good: dict[int, Tokens], late: Late | None, deadline: float,
        most: float,
    ) -> tuple[dict[bytes, Floats | ProblemError], int]:  # fmt: skip
        """The outcome for each key, and how many of them were in the cache; `most` seconds bound a request's size."""
        found: dict[bytes, Floats | ProblemError] = {}
        joined: dict[bytes, _Flight] = {}
        new: dict[bytes, Work] = {}
        for index, key in keys.items():
            if key in found or key in joined or key in new:
                continue
            if (hit := self._recent.get(key)) is not None:
                found[key] = hit
            elif (flight := self._flights.get(key)) is not None and flight.work.state is not State.OVER:
                joined[key] = flight
            elif key in self._fatal:
                found[key] = fatal.problem()
            else:
                new[key] = Work(key, good[index], lane, deadline, late)
        loop = asyncio.get_running_loop()
        cost = sum(work.cost for work in new.values())
        if deadline < math.inf:
            self._check_size(cost, most)
        self.queue.check(lane, cost, deadline - loop.time(), self._at_hand[lane])
        cached = sum(not isinstance(one, ProblemError) for one in found.values())  # of what is answered
        self._hits += cached
        self._misses += len(new)
        self.metrics.hits.inc(cached)
        self.metrics.misses.inc(len(new))
        self.metrics.shared.inc(len(keys) - len(found) - len(new))
        for flight in joined.values():
            self.queue.join(flight.work, lane, deadline)
        for key, work in new.items():
            self._flights[key] = joined[key] = _Flight(work, loop.create_future(), loop.time())
        self.queue.add(new.values())
        waited = list(joined.values())
        if (request := self.telemetry.here()) is not None:
            for flight in waited:
                flight.requests += (request,)
        self._pump()
        since = loop.time()
        try:
            if waiting := [flight.outcome for flight in waited if not flight.outcome.done()]:
                await asyncio.wait(waiting)
            for key, flight in joined.items():
                found[key] = flight.outcome.result()
            if joined:
                self.telemetry.waited("queue", since, max(since, *(flight.sent for flight in waited)))
        finally:
            self._leave(waited)
        return found, cached

    def _leave(self, flights: Sequence[_Flight]) -> None:
        """A caller has its answer, or has gone."""
        gone = []
        for flight in flights:
            if self.queue.leave(flight.work) and not flight.outcome.done():
                if self._flights.get(flight.work.key) is flight:
                    del self._flights[flight.work.key]
                if flight.work.state is State.SENT:
                    gone.append(flight.work.number)
        if gone:
            self.engine.process.forget(gone)
        self._count()

    # ---- refusals ----------------------------------------------------------------------------------------------

    def _check_ready(self, lane: Lane) -> None:
        if self.engine.over:
            raise leaving()
        if self.stage is Stage.READY or (self.stage is Stage.DRAINING and lane is Lane.QUERY):
            return
        if self.stage is Stage.DRAINING:
            raise leaving()
        self.metrics.refused.labels(self.stage.value).inc()
        raise loading(self.engine.wait)

    def full(self, full: FullError, within: float = math.inf) -> ProblemError:
        """`within` is how long the caller would wait: that its patience ends first is no overload."""
        if full.reason == "deadline" and within < self.limits.timeout:
            full.reason = PATIENCE
        self.metrics.refused.labels(full.reason).inc()
        return overloaded(full)

    def _check_size(self, cost: int, seconds: float) -> None:
        """What would not be done in time even by an engine with nothing else to do is no overload."""
        best = self.queue.rate.best
        if cost > SLACK * best * seconds:
            self.metrics.refused.labels("size").inc()
            raise too_large(cost, round(best), seconds)

    @asynccontextmanager
    async def _within(self, seconds: float | None, lane: Lane, reason: str = "deadline") -> AsyncIterator[None]:
        """ProblemError for what is not done by then."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            if self.stage is not Stage.DRAINING:
                self._check_ready(lane)  # an engine that is gone is no overload, and none of its caller's doing
            self.metrics.refused.labels(reason).inc()
            wait = max(1, min(600, round(self.queue.tokens(lane) / self.queue.rate.value)))
            said = f"Not done within {seconds:g} seconds: send less, or come back in {wait} seconds."
            raise ProblemError(429, said, code="deadline", retry_after=wait, reason=reason) from None

    # ---- the engine --------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send batches: the engine has one at work and one ready in each lane, or a suspect and nothing else."""
        if not self.engine.ready:
            return
        for lane in Lane:
            while self._may_send(lane) and (batch := self.queue.take(lane)):
                now = asyncio.get_running_loop().time()
                if not any(self._at_hand.values()):
                    self._busy_since = now
                items = []
                for work in batch:
                    flight = self._flights[work.key]
                    self._sent[work.number] = flight
                    flight.sent = now
                    items.append(Item(work.number, work.tokens, work.late))
                self.engine.process.send(lane, items)
                size = sum(work.cost for work in batch)
                self._at_hand[lane] += size
                self.metrics.batch_tokens.labels(lane.value).observe(size)
                self.metrics.seconds.labels("queue").observe(now - self._flights[batch[0].key].since)
        self._count()

    def _may_send(self, lane: Lane) -> bool:
        """A suspect comes before all else, or work that keeps coming would keep it waiting until nothing is at hand."""
        if len(self._sent) == 1 and next(iter(self._sent.values())).work.tries:
            return False
        if (held := self.queue.suspect()) is not None:
            return held is lane and not self._sent
        return self._at_hand[lane] <= self._budget

    def _work(self) -> tuple[int, float]:
        """Tokens that the engine has, and the seconds that they should take."""
        tokens = sum(self._at_hand.values())
        return tokens, self._encoder.streams * max(tokens, self._budget) / self.queue.rate.value

    def _told(self, what: str, rest: tuple[Any, ...]) -> None:
        match what:
            case "ready":
                if not self.queue.rate.seconds:  # else work has told it better
                    self.queue.rate.seed(rest[0].rate)
            case "rows":
                self._rows(*rest)
            case "bad":
                number, message, part = rest
                if flight := self._took(number):
                    self._land(flight, ProblemError(400, message, "input", index=part))
            case "gone":
                for number in rest[0]:
                    if self._took(number):
                        self.queue.dropped += 1
            case "died":
                self._take_back(rest[0])
        if self.engine.over:
            for lane in Lane:
                self._turn_away(lane)
        self._pump()

    def _rows(self, numbers: Sequence[int], rows: Floats, seconds: float, repaired: int, padding: float) -> None:
        self.metrics.seconds.labels("compute").observe(seconds)
        self.metrics.padding.set(padding)
        self.metrics.repaired.inc(repaired)
        saturated = sum(self._at_hand.values()) * 2 > self._budget
        size = 0
        requests: list[Any] = []
        for number, row in zip(numbers, rows, strict=True):
            if (flight := self._took(number)) is None:
                continue
            work = flight.work
            requests += flight.requests
            size += work.cost
            self.metrics.tokens.labels(work.lane.value).inc(work.cost)
            self.metrics.texts.labels(work.lane.value).inc()
            vector = row.copy()
            if work.late is None:
                self._recent.put(work.key, vector)
            self._land(flight, vector)
        self.meter.add(size)
        if requests:
            self.telemetry.batch(requests, seconds, texts=len(numbers), tokens=size, padding=round(padding, 4))
        now = asyncio.get_running_loop().time()
        if saturated:
            self.queue.rate.add(size, now - self._busy_since)
        self._busy_since = now

    def _took(self, number: int) -> _Flight | None:
        flight = self._sent.pop(number, None)
        if flight is not None:
            self._at_hand[flight.work.lane] -= flight.work.cost
        return flight

    def _land(self, flight: _Flight, outcome: Floats | ProblemError) -> None:
        flight.work.state = State.OVER
        if self._flights.get(flight.work.key) is flight:
            del self._flights[flight.work.key]
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)

    def _take_back(self, code: int | None) -> None:
        """What an engine had that died is tried again, and a text that kills it again and again is not."""
        sent = list(self._sent.values())
        self._sent.clear()
        self._at_hand = dict.fromkeys(Lane, 0)
        lost = self.queue.back([flight.work for flight in sent])
        self.engine.ended(code, texts=len(sent), refused=len(lost))
        for flight in sent:
            if flight.work in lost:
                self._fatal.add(flight.work.key)
                self._land(flight, fatal.problem())
        self._count()

    # ---- counts ------------------------------------------------------------------------------------------------

    def _open(self, change: int) -> None:
        self.queue.requests += change
        self.metrics.open_requests.set(self.queue.requests)
        if self.queue.requests:
            self._idle.clear()
        else:
            self._idle.set()

    def _count(self) -> None:
        for lane in Lane:
            self.metrics.queue_tokens.labels(lane.value).set(self.queue.tokens(lane))
            self.metrics.running_tokens.labels(lane.value).set(self._at_hand[lane])
        self.metrics.cache_bytes.set(self._recent.bytes)
        self.metrics.rate.set(self.queue.rate.value)
        self.metrics.dropped.inc(self.queue.dropped - self._dropped)
        self._dropped = self.queue.dropped
