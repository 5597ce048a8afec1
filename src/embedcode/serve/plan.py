"""Plan: what a server with these options would take and give on this machine, measured by starting its engine.

Refuses what would not fit before anything is loaded. Answers nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedcode.engine import memory
from embedcode.engine.encoder import LocalEncoder
from embedcode.engine.graph import GraphEncoder
from embedcode.engine.samples import samples
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import ModelError
from embedcode.serve.asked import Asked
from embedcode.serve.body import HELD
from embedcode.serve.embedder import Embedder
from embedcode.serve.options import OWN, Options
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import HALF, LEAST_TOKENS, QUEUE_SECONDS, TOKEN, Lane
from embedcode.types import Role, Truncate

PATIENCE = 3600.0
"""Seconds that one request may take here: a slow model is to be measured too, whatever the server would wait."""
SECONDS = 10.0
"""Of work that the rate is measured over."""
QUERIES = 20
REQUESTS = 3
"""Under way at a time: two of passages and a query."""
FULL_SECONDS = 0.05
"""Until passages that found no room are sent again."""


@dataclass(frozen=True, slots=True)
class Plan:
    model: str
    build: str
    threads: int
    load_seconds: float
    memory_needed: int
    """Bytes, as estimated before it was loaded."""
    memory_free: int
    engine_peak: int
    """Bytes, as measured with the longest texts in full batches."""
    server_peak: int
    tokens_per_second: float
    """Of passages of code, with all the work there can be."""
    query_ms: float
    """Median, with nothing else to do."""
    query_beside_ms: float
    """95 % of the queries took at most this while passages were computed."""
    batch_tokens: int
    queue_tokens: int
    """That a lane may hold."""
    request_tokens: int
    """That a request should have at most: a larger one has to find a lane half empty."""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def check(encoder: LocalEncoder, options: Options) -> int:
    """Bytes that the model and all that the server may hold beside it need; ModelError where they are not free."""
    model = _needed(encoder)
    fronts = 1 if options.grpc_port is None else 2
    beside = {
        "cache_mb": options.cache_mb * 1_000_000,
        "body_bytes": HELD * fronts * options.body_bytes,
        "max_queue_tokens": int(TOKEN * len(Lane) * (1 + HALF) * (options.max_queue_tokens or LEAST_TOKENS)),
    }
    need, free = model + sum(beside.values()), memory.available()
    streams = isinstance(encoder, TorchEncoder) and encoder.streams_layers  # so that the model need not fit
    if (need - model if streams else need) > free:
        parts = ", ".join(f"{size / 1e9:.1f} GB for {name}" for name, size in beside.items())
        raise ModelError(
            f"{encoder.conditions.name} needs {model / 1e9:.1f} GB of memory, and the server {parts}: "
            f"{need / 1e9:.1f} GB in all, and {free / 1e9:.1f} GB are free: lower "
            f"{OWN}{max(beside, key=lambda name: beside[name]).upper()}, or stop something else."
        )
    return need


def _needed(encoder: LocalEncoder) -> int:
    """By the model, of the machine's memory; ModelError where that is not free."""
    if isinstance(encoder, TorchEncoder):
        if encoder.may_take_card:  # weights pass by one at a time; the engine looks at what it takes as it loads
            return memory.BASE
        precisions = [encoder.asked] if encoder.asked else list(memory.NUMBER)
        need = min(memory.needed(encoder.checkpoint, precision) for precision in precisions)
        if not encoder.streams_layers:
            memory.check(encoder.checkpoint, min(precisions, key=lambda one: memory.NUMBER[one]))
        return need
    assert isinstance(encoder, GraphEncoder)
    memory.check_graph(encoder.spec)
    return memory.needed_by_graph(encoder.spec)


def make(embedder: Embedder, threads: int, need: int) -> Plan:
    """Takes half a minute, and longer for a large model. ModelError for a model that cannot be loaded or measured."""
    embedder.limits = replace(embedder.limits, timeout=PATIENCE)
    embedder.queue.most_requests = max(embedder.queue.most_requests, REQUESTS)
    try:
        return asyncio.run(_measure(embedder, threads, need))
    except ProblemError as problem:
        said = problem.message.rstrip(".")
        raise ModelError(
            f"{embedder.model.name} could not be measured ({said}): free memory, or serve a smaller model."
        ) from problem


async def _measure(embedder: Embedder, threads: int, need: int) -> Plan:
    free, engine = memory.available(), embedder.engine
    embedder.start()
    assert engine.unusable is not None
    try:
        while not embedder.ready or engine.restarts:
            if engine.unusable.done():
                raise ModelError(engine.unusable.result())
            if engine.restarts:  # a server would try again for ever
                raise ModelError(
                    f"the engine ended while it loaded {embedder.model.name} ({engine.trouble or 'killed'}): free "
                    "memory, or serve a smaller model."
                )
            await asyncio.sleep(0.02)
        facts = engine.facts
        assert facts is not None
        number = 0

        def texts(count: int) -> tuple[str, ...]:
            """No two alike: the cache must not answer."""
            nonlocal number
            found = []
            base = samples(64)
            for _ in range(count):
                number += 1
                found.append(f"# {number}\n{base[number % len(base)]}")
            return tuple(found)

        longest = tuple(f"{number} " + "x = y + 1\n" * embedder.max_tokens for number in range(4))
        await embedder.embed(_asked(embedder, longest, Lane.PASSAGE))
        idle = await _queries(embedder, texts, lambda: False)
        done = 0
        since = time.monotonic()
        working = asyncio.create_task(_saturate(embedder, texts, since + SECONDS))
        beside = await _queries(embedder, texts, working.done)
        done = await working
        seconds = time.monotonic() - since
        room = embedder.queue.most_tokens or max(LEAST_TOKENS, int(QUEUE_SECONDS * done / seconds))
        return Plan(
            model=embedder.model.name,
            build=facts.build,
            threads=threads,
            load_seconds=round(facts.seconds, 2),
            memory_needed=need,
            memory_free=free,
            engine_peak=memory.peak_of(engine.process.pid),
            server_peak=memory.peak_of("self"),
            tokens_per_second=round(done / seconds, 1),
            query_ms=round(1000 * idle[len(idle) // 2], 1),
            query_beside_ms=round(1000 * beside[len(beside) * 95 // 100], 1),
            batch_tokens=embedder.queue.budget,
            queue_tokens=room,
            request_tokens=int(HALF * room),
        )
    finally:
        await asyncio.to_thread(embedder.stop)


async def _queries(
    embedder: Embedder, texts: Callable[[int], tuple[str, ...]], over: Callable[[], bool]
) -> list[float]:
    """Seconds of queries one after the other, sorted; at least one."""
    found: list[float] = []
    while len(found) < QUERIES and not (found and over()):
        (text,) = texts(1)
        since = time.monotonic()
        await embedder.embed(_asked(embedder, (f"{len(found)} {text[:60]}",), Lane.QUERY))
        found.append(time.monotonic() - since)
        await asyncio.sleep(0.05)
    return sorted(found)


async def _saturate(embedder: Embedder, texts: Callable[[int], tuple[str, ...]], until: float) -> int:
    """Two requests at a time; the tokens that were computed."""

    async def one() -> int:
        done = 0
        while time.monotonic() < until:
            try:
                done += (await embedder.embed(_asked(embedder, texts(16), Lane.PASSAGE))).used
            except ProblemError as problem:
                if problem.reason != "tokens":  # a lane may hold as few as max_queue_tokens says
                    raise
                await asyncio.sleep(FULL_SECONDS)
        return done

    return sum(await asyncio.gather(one(), one()))


def _asked(embedder: Embedder, texts: tuple[str, ...], lane: Lane) -> Asked:
    return Asked(embedder.model.name, texts, Role(lane), lane, truncate=Truncate.END)
