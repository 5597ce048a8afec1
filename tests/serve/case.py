"""An embedder in this process, with an engine of ours that answers, waits or dies when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from threading import Event
from typing import Any, cast

import numpy as np

from embedcode.serve.asked import Asked
from embedcode.serve.limits import Limits
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Item, Load
from embedcode.types import Role, Tokens

from . import doors

KILLER = "kill"


class Words(doors.Words):
    """Waits where it is told to."""

    def __init__(self) -> None:
        self.marks: tuple[int, ...] = ()
        self.go_on = Event()
        self.go_on.set()

    def tokenize(self, texts: Sequence[str], role: Role, *_: Any) -> list[Tokens]:
        if role is Role.PASSAGE and texts != ["ready"]:
            self.go_on.wait(10)
        return super().tokenize([text + "".join(map(chr, self.marks)) for text in texts], role)


class Process(doors.Process):
    """Keeps what it is sent, until `answer`."""

    def __init__(self, load: Load, told: Callable[..., None]) -> None:
        super().__init__(load, told)
        self.sent: list[list[str]] = []
        self.has: list[Item] = []

    def send(self, lane: Lane, items: Sequence[Item]) -> None:
        self.sent.append([text(item) for item in items])
        self.has += items

    def answer(self, deadly: str = KILLER) -> None:
        """All that it has, or it dies of it."""
        items, self.has = self.has, []
        if any(text(item) == deadly for item in items):
            self.told("died", (-9,))
        else:
            rows = np.ones((len(items), 4), np.float32)
            self.told("rows", ([item.number for item in items], rows, 0.01, 0, 0.0))


def text(item: Item) -> str:
    return "".join(map(chr, item.tokens.ids))


class Case:
    def __init__(self, prompt: str = "", **limits: Any) -> None:
        self.words = Words()
        self.embedder = doors.embedder(self.words, Limits(**limits), doors.model(query=prompt, passage=prompt))
        self.engine = cast(Process, self.embedder.engine.process)

    def ask(self, *texts: str, lane: Lane = Lane.PASSAGE) -> asyncio.Task[Any]:
        return asyncio.create_task(self.embedder.embed(Asked("m", texts, Role(lane), lane)))

    async def until(self, done: Callable[[], object]) -> None:
        for _ in range(500):
            if done():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def running() -> None:
            self.embedder.start()
            try:
                await work
            finally:
                self.words.go_on.set()
                self.embedder.stop()

        asyncio.run(running())
