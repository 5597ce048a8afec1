"""Give the chunks of a store their vectors: from the user's cache where it has them, else from the encoder.

Knows the Encoder and Store contracts; works in batches that are committed as they are done, so a kill loses one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedcode.errors import EncodeError
from embedcode.index.prepare import embedded_text
from embedcode.index.refused import Refused
from embedcode.index.report import Progress, Step
from embedcode.store.contract import Pending, Store
from embedcode.types import Encoder, InputError, Role, Tokens, Truncate

if TYPE_CHECKING:
    from embedcode.store.cache import VectorCache
    from embedcode.types import Floats

BATCH = 32
"""Chunks of one commit: about a second of work on two cores, which is what a kill can lose; a commit costs 3 ms. More
where the encoder is asked for more at a time (`bulk`)."""
LOOK_UP = 2_000
"""Chunks looked up at once, and written in one commit."""
SMALL_BATCH = 4
"""The same where a deadline is near."""


@dataclass
class Embedded:
    """What was done so far."""

    encoded: int = 0
    cached: int = 0
    tokens: int = 0
    refused: dict[bytes, Refused] = field(default_factory=dict)
    """Texts that have no vector, by key."""

    @property
    def failed(self) -> dict[str, str]:
        """The same by path."""
        return {one.path: one.reason for one in self.refused.values()}


@dataclass(frozen=True)
class _Batch:
    """Distinct keys, what is embedded for each, and a file that holds it."""

    keys: list[bytes]
    tokens: list[Tokens]
    paths: list[str]


def embed_all(store: Store, encoder: Encoder, cache: VectorCache, progress: Progress | None) -> Embedded:
    """Embed every chunk that lacks a vector; the next batch is prepared while one is computed."""

    def pending() -> Iterator[list[Pending]]:
        after = 0
        while batch := store.pending(max(BATCH, getattr(encoder, "bulk", 1)), after):
            after = batch[-1].id
            yield batch

    return _embed(store, encoder, cache, pending(), progress, None)


def take_cached(store: Store, cache: VectorCache, keys: Sequence[bytes]) -> None:
    """Give the chunks of these keys the vectors that the user's cache has for them; computes none. Not all that lack
    one: of 400,000 that are still to be embedded each update would take 5 s."""
    for start in range(0, len(keys), LOOK_UP):
        if cache.empty:
            return
        lacking = list(store.lacking(keys[start : start + LOOK_UP]))
        at, vectors = cache.get(lacking)
        if at:
            _write(store, [lacking[i] for i in at], vectors)


def embed_some(
    store: Store, encoder: Encoder, cache: VectorCache, chosen: Sequence[Pending], seconds: float
) -> Embedded:
    """Embed the chosen ones in their order, until `seconds` are over."""
    batches = (list(chosen[i : i + SMALL_BATCH]) for i in range(0, len(chosen), SMALL_BATCH))
    return _embed(store, encoder, cache, batches, None, time.monotonic() + seconds)


def _embed(
    store: Store,
    encoder: Encoder,
    cache: VectorCache,
    batches: Iterator[list[Pending]],
    progress: Progress | None,
    deadline: float | None,
) -> Embedded:
    done = Embedded()
    start = time.monotonic()
    meta = store.meta()
    before, total = meta.embedded, meta.chunks
    # One batch is computed while the one before is written and the one after is read, tokenised and looked up.
    ahead = ThreadPoolExecutor(1)
    waiting: deque[Future[tuple[_Batch, Floats]]] = deque()

    def tell() -> None:
        if progress is not None:
            now = min(total, before + done.encoded + done.cached)
            progress(Step("embed", now, total, now, done.tokens, time.monotonic() - start, before))

    def finish() -> None:
        batch, vectors = waiting[0].result()
        cache.put(batch.keys, vectors)
        _write(store, batch.keys, vectors)
        waiting.popleft()  # not before: an interrupt while it is computed would lose it
        done.encoded += len(batch.keys)
        done.tokens += sum(tokens.used for tokens in batch.tokens)
        tell()

    try:
        for pending in batches:
            batch = _prepare(store, encoder, cache, pending, done)
            if batch.keys:
                waiting.append(ahead.submit(_forward, encoder, batch, done))
            else:
                tell()
            while len(waiting) > 1 or (waiting and waiting[0].done()):
                finish()
            if deadline is not None and time.monotonic() > deadline:
                break
        while waiting:
            finish()
    except KeyboardInterrupt:
        progress = None  # which may raise something of its own, such as that there is more to do
        if (interrupt := getattr(encoder, "interrupt", None)) is not None:  # a server may take minutes
            for computed in waiting:
                computed.cancel()
            waiting.clear()
            interrupt()
        raise
    finally:  # also when interrupted: what is being computed is kept, which takes at most a batch's time
        while len(waiting) > 1 and waiting[-1].cancel():
            waiting.pop()
        try:
            while waiting:
                finish()
        finally:
            ahead.shutdown(cancel_futures=True)
    return done


def _prepare(store: Store, encoder: Encoder, cache: VectorCache, pending: list[Pending], done: Embedded) -> _Batch:
    """What of these is left to compute, after the cache; chunks that cannot be tokenised are noted."""
    at, vectors = cache.get([p.key for p in pending])
    if at:
        _write(store, [pending[i].key for i in at], vectors)
        done.cached += len(at)
    held = set(at)
    rest = [p for i, p in enumerate(pending) if i not in held]
    texts = [embedded_text(p.chunk) for p in rest]
    batch = _Batch([], [], [])
    for p, entry in zip(rest, encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END), strict=True):
        if isinstance(entry, InputError):
            done.refused[p.key] = Refused(p.chunk.path, entry.message)
        else:
            batch.keys.append(p.key)
            batch.tokens.append(entry)
            batch.paths.append(p.chunk.path)
    return batch


def _forward(encoder: Encoder, batch: _Batch, done: Embedded) -> tuple[_Batch, Floats]:
    """The batch with its vectors; a text that has none is noted and left out, and costs no other."""
    try:
        return batch, encoder.forward(batch.tokens)
    except EncodeError as error:
        import numpy as np

        if len(batch.keys) == 1:
            done.refused[batch.keys[0]] = Refused(batch.paths[0], str(error))
            return _Batch([], [], []), np.empty((0, encoder.dim), np.float32)
    half = len(batch.keys) // 2
    (one, first), (other, second) = (
        _forward(encoder, _Batch(batch.keys[part], batch.tokens[part], batch.paths[part]), done)
        for part in (slice(half), slice(half, None))
    )
    kept = _Batch(one.keys + other.keys, one.tokens + other.tokens, one.paths + other.paths)
    return kept, np.concatenate([first, second])


def _write(store: Store, keys: list[bytes], vectors: Floats) -> None:
    with store.begin() as transaction:
        transaction.put_vectors(keys, vectors)
        transaction.commit()
