"""What the engine's process says, in this one, with an encoder of ours."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import numpy as np
import pytest

from embedcode import engine
from embedcode.engine.encoder import LocalEncoder
from embedcode.serve.worker import Item, Load, Worker
from embedcode.types import Floats, Tokens

LOAD = Load("m", "auto", "cpu", False, 1, Path("/nowhere"), 100)
TOKENS = Tokens((1,), 1, 1)


class Encoder(LocalEncoder):
    space = build = ""

    def __init__(self) -> None:
        pass

    def checks(self) -> list[Any]:
        return []

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        return np.ones((len(tokens), 4), np.float32)


class Pipe:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

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
