"""Worker: what runs in the engine's own process: texts come in by a pipe, vectors go out. Knows no HTTP and no request.

Where the encoder is fastest with one text a run, each of its threads takes the next text as it becomes free, so that a
query waits for one text and not for a batch; else a batch is one pass, and the next lies ready beside it.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import Any

from embedcode import __version__
from embedcode.engine.encoder import PROBE, LocalEncoder
from embedcode.errors import EmbedcodeError, EncodeError
from embedcode.serve.queue import OVERTAKEN, Lane, Late, Turn
from embedcode.types import Role, Tokens, Truncate

WARM_SECONDS = 1.0
"""How long the rate is measured, after one pass that loads and warms everything."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to load, and how."""

    model: str
    precision: str
    device: str
    stream: bool
    threads: int
    home: Path
    budget: int
    """Tokens of a batch."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine says of itself once it is ready."""

    dim: int
    space: str
    build: str
    rate: float
    """Tokens a second, measured on texts of code."""
    seconds: float
    """From the start of the process to here."""
    cosine: float | None
    """Of the golden text's vector to the stored one, where there is one."""
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Item:
    number: int
    tokens: Tokens
    late: Late | None


def run(pipe: Connection, load: Load) -> None:
    """The process. Ends when the other end of the pipe is closed, whatever it does then."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the whole group's; the server says when it is over
        signal.signal(number, signal.SIG_IGN)
    try:
        worker = Worker(pipe, load)
        Thread(target=worker.receive, daemon=True).start()
        worker.start()
    except EmbedcodeError as error:
        pipe.send(("unusable", str(error)))
    except (BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:  # while it loads: there is no text yet that its message could hold
        what = " ".join(f"{_place(error)}: {error}".split())
        name = load.model or "the packaged model"
        pipe.send(("unusable", f"{name} cannot be loaded ({what}): put right what that names, or report it."))


class Worker:
    def __init__(self, pipe: Connection, load: Load) -> None:
        from embedcode.engine import load as encoder

        self._since = time.monotonic()
        self._pipe = pipe
        self._load = load
        found = encoder(load.model, load.threads, load.precision, load.device, load.stream)
        assert isinstance(found, LocalEncoder)
        self._encoder = found
        self._waiting: dict[Lane, deque[list[Item]]] = {lane: deque() for lane in Lane}
        self._wanted: set[int] = set()
        """Numbers of what waits here and is still waited for there."""
        self._turn = Turn(OVERTAKEN * load.budget)
        self._more = Condition()
        self._sending = Lock()
        self._repaired = 0
        """Rows that the server has been told of."""

    def receive(self) -> None:
        """Take in what comes, while others compute. Runs in a thread of its own."""
        try:
            while True:
                what, *rest = self._pipe.recv()
                if what == "stop":
                    os._exit(0)
                with self._more:
                    if what == "batch":
                        lane, items = rest
                        self._wanted.update(item.number for item in items)
                        groups = [[item] for item in items] if self._encoder.streams > 1 else [items]
                        self._waiting[lane].extend(groups)
                    else:
                        self._wanted.difference_update(rest[0])
                    self._more.notify_all()
        except (EOFError, OSError):
            os._exit(0)

    def start(self) -> None:
        """Load, compare with the golden vector, say so, and work for ever."""
        from embedcode.serve.golden import compare

        cosine = compare(self._encoder, self._load.home)
        rate = self._measure()
        encoder = self._encoder
        seconds = time.monotonic() - self._since
        self._send("ready", Facts(encoder.dim, encoder.space, encoder.build, rate, seconds, cosine))
        threads = [Thread(target=self._work, daemon=True) for _ in range(encoder.streams - 1)]
        for thread in threads:
            thread.start()
        self._work()

    def _measure(self) -> float:
        """Tokens a second with all the work there can be."""
        entries = self._encoder.tokenize([PROBE * 4], Role.PASSAGE, truncate=Truncate.END)
        text = next(entry for entry in entries if isinstance(entry, Tokens))
        batch = [text] * max(1, self._load.budget // text.used)
        self._encoder.forward(batch)
        done, since = 0, time.monotonic()
        while (passed := time.monotonic() - since) < WARM_SECONDS:
            self._encoder.forward(batch)
            done += text.used * len(batch)
        return done / passed if done else text.used * len(batch) / WARM_SECONDS

    def _work(self) -> None:
        try:
            while True:
                if group := self._next():
                    self._compute(group)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except BaseException as error:  # this process is of no use any more: another one takes its place
            self._send("broken", _place(error))  # without its message, which may hold what was sent
            os._exit(1)

    def _next(self) -> list[Item]:
        """Waits for work; without those that nobody waits for any more."""
        query, passage = self._waiting[Lane.QUERY], self._waiting[Lane.PASSAGE]
        with self._more:
            while (lane := self._turn.choose(bool(query), bool(passage))) is None:
                self._more.wait()
            group = self._waiting[lane].popleft()
            gone = [item.number for item in group if item.number not in self._wanted]
            left = [item for item in group if item.number in self._wanted]
            self._wanted.difference_update(item.number for item in left)
            self._turn.took(lane, sum(item.tokens.used for item in left), bool(passage))
        if gone:
            self._send("gone", gone)
        return left

    def _compute(self, items: Sequence[Item]) -> None:
        plain = [item for item in items if item.late is None]
        since = time.monotonic()
        for item in items:
            if item.late is not None:
                try:
                    rows: Any = self._encoder.late(*item.late)
                except EmbedcodeError as error:
                    self._send("bad", item.number, str(error), error.index if isinstance(error, EncodeError) else None)
                else:
                    self._send_rows([item], [rows], since)
        while plain:
            try:
                vectors = self._encoder.forward([item.tokens for item in plain])
            except EncodeError as error:
                self._send("bad", plain[error.index].number, str(error), None)
                plain = [*plain[: error.index], *plain[error.index + 1 :]]
            else:
                self._send_rows(plain, vectors, since)
                return

    def _send_rows(self, items: Sequence[Item], rows: Any, since: float) -> None:
        seconds = time.monotonic() - since
        numbers = [item.number for item in items]
        with self._sending:  # or another thread's rows would tell of the same ones
            repaired = self._encoder.repaired
            self._pipe.send(("rows", numbers, rows, seconds, repaired - self._repaired, self._encoder.padding))
            self._repaired = repaired

    def _send(self, *message: object) -> None:
        with self._sending:
            self._pipe.send(message)


def _place(error: BaseException) -> str:
    """Its type, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
