"""Answering: what becomes of a request for embeddings, whatever protocol it came by: room, quota, engine, metrics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from embedcode.serve.answer import Answer
from embedcode.serve.asked import Asked
from embedcode.serve.body import Holding
from embedcode.serve.embedder import Embedder
from embedcode.serve.keys import Key
from embedcode.serve.queue import TOKEN

LARGE_ANSWER = 20_000
"""Numbers, from which on an answer is written beside the event loop."""
NUMBER = 16
"""Bytes of a number in an answer, at most: there is room for all of them, and for ids that came, before any is
computed."""

WAITS = {"x-stainless-read-timeout": 1.0, "x-stainless-timeout": 1.0, "x-envoy-expected-rq-timeout-ms": 0.001}
"""Headers by which OpenAI's clients in Python and in Node, and Envoy, say how long they wait for an answer, and their
units in seconds."""
CUT = ("x-stainless-timeout",)
"""Those that say it in whole seconds, without the rest."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """What a protocol knows of a request before it has read what is asked."""

    since: float
    """When it came, by the clock of the event loop."""
    key: Key | None
    """By which it was let in."""
    holding: Holding
    note: dict[str, Any]
    """Of its line in the journal; what is learnt is written into it."""
    patience: float = math.inf
    """Seconds that its caller waits for an answer, where that is known."""


def patience(headers: Mapping[str, str]) -> float:
    """Seconds by a request's headers; what is no time says nothing, since no caller wrote it by hand."""
    shortest = math.inf
    for name, unit in WAITS.items():
        with suppress(ValueError):
            if (seconds := unit * float(headers.get(name, "")) + (name in CUT)) > 0:  # and not NaN
                shortest = min(shortest, seconds)
    return shortest


async def answered(
    embedder: Embedder,
    asked: Asked,
    call: Call,
    write: Callable[[Answer], T],
    wait: Callable[[Awaitable[Answer]], Awaitable[Answer]] = lambda work: work,
) -> tuple[T, dict[str, str]]:
    """What `write` makes of the answer, and remarks on it, by the names of headers. ProblemError where there is none.

    `wait` gives what it is given, or raises and ends the work.
    """
    loop, key = asyncio.get_running_loop(), call.key
    call.note.update(asked.note)
    embedder.check(asked, call.patience)  # which embed() does too, and this before there are tasks and room for it
    spend = (lambda tokens: key.spend(tokens, loop.time())) if key is not None else None
    room = NUMBER * embedder.model.dim * len(asked.inputs) + TOKEN * sum(map(len, asked.ids))
    call.holding(room)
    answer = await wait(embedder.embed(asked, spend, call.patience))
    written = loop.time()
    if answer.vectors.size > LARGE_ANSWER:
        content = await asyncio.to_thread(write, answer)
    else:
        content = write(answer)
    call.holding(-room)  # all of the content is counted from here on
    call.note.update(tokens=answer.used, truncated=answer.truncated, cached=answer.cached)
    counts = {
        "x-embedcode-truncated": answer.truncated,
        "x-embedcode-prompt-twice": len(answer.doubled),
        "x-embedcode-errors": len(answer.errors),
    }
    now = loop.time()
    embedder.metrics.seconds.labels("respond").observe(now - written)
    embedder.metrics.seconds.labels("total").observe(now - call.since)
    embedder.metrics.latency.labels(asked.lane.value).observe(now - call.since)
    told = {header: str(count) for header, count in counts.items() if count}
    return content, {"x-embedcode-space": embedder.space} | told
