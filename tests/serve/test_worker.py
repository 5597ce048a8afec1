"""What the engine's process says, in this one, with an encoder of ours."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, cast

import numpy as np
import pytest

from embedcode import engine
from embedcode.engine.encoder import LocalEncoder
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Item, Worker
from embedcode.types import Floats, Tokens

from .doors import LOAD

TOKENS = Tokens((1,), 1, 1)


class Encoder(LocalEncoder):
    space = build = ""

    def __init__(self) -> None:
        pass

    @property
    def _on_card(self) -> bool:
        return False

    def checks(self) -> list[Any]:
        return []

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        return np.ones((len(tokens), 4), np.float32)

    def _states_of(self, entry: Tokens, exact: bool) -> Floats:
        raise AssertionError

    def _pooled(self, states: Floats, skipped: int) -> Floats:
        raise AssertionError


class Pipe:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.coming: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.read = Semaphore(0)

    def recv(self) -> tuple[Any, ...]:
        """The last one has been taken in when the next is asked for."""
        self.read.release()
        return self.coming.get()

    def take(self, *messages: tuple[Any, ...]) -> None:
        for message in messages:
            assert self.read.acquire(timeout=10)
            self.coming.put(message)
        assert self.read.acquire(timeout=10)
        self.read.release()

    def send(self, message: tuple[Any, ...]) -> None:
        self.sent.append(message)


def worker(monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> tuple[Worker, Pipe]:
    monkeypatch.setattr(engine, "load", lambda *_: encoder)
    pipe = Pipe()
    return Worker(cast(Connection, pipe), LOAD), pipe


def test_each_repair_is_told_once_whichever_thread_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, second = Event(), Event()

    class Repairing(Encoder):
        rows = 0

        def forward(self, tokens: Sequence[Tokens]) -> Floats:
            self.rows += 1
            return super().forward(tokens)

        @property
        def repaired(self) -> int:  # type: ignore[override]
            found = self.rows
            if found == 1:  # the first thread has its count, and comes to send it after the second, if it can
                counted.set()
                second.wait(0.2)
            return found

    one, pipe = worker(monkeypatch, Repairing())
    first = Thread(target=one._compute, args=[[Item(1, TOKENS, None)]])
    first.start()
    assert counted.wait(10)
    one._compute([Item(2, TOKENS, None)])
    second.set()
    first.join()
    assert [message[4] for message in pipe.sent] == [1, 1]


def test_what_nobody_waits_for_is_not_computed_and_what_came_too_late_to_be_left_out_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder()
    encoder.repaired = 0
    one, pipe = worker(monkeypatch, encoder)
    Thread(target=one.receive, daemon=True).start()
    items = [Item(number, TOKENS, None) for number in range(5)]
    pipe.take(("batch", Lane.PASSAGE, items[:2]), ("batch", Lane.PASSAGE, items[2:]), ("gone", [1, 4]))
    assert [item.number for item in one._next()] == [0]
    pipe.take(("gone", [0]))  # while it is computed
    left = one._next()
    one._compute(left)
    assert [message[:2] for message in pipe.sent] == [("gone", [1]), ("gone", [4]), ("rows", [2, 3])]
    assert one._wanted == set()  # and there is nothing else that grows
