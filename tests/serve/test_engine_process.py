"""An engine that cannot be loaded, or not be started, since the machine has no more files, processes or threads."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest

from embedcode import settings
from embedcode.serve import engine_process, server, silence
from embedcode.serve.asked import Asked
from embedcode.serve.embedder import Embedder
from embedcode.serve.engine_process import EngineProcess
from embedcode.serve.metrics import Metrics
from embedcode.serve.options import Options
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Load
from embedcode.types import Role

from .doors import LOAD
from .serving import PATIENCE

NONE = replace(LOAD, model="none")


def told(load: Load = NONE) -> list[tuple[str, tuple[Any, ...]]]:
    """What a start comes to."""
    found: list[tuple[str, tuple[Any, ...]]] = []

    async def run() -> None:
        died = asyncio.Event()

        def hear(what: str, rest: tuple[Any, ...]) -> None:
            found.append((what, rest))
            if what == "died":
                died.set()

        EngineProcess(load, hear).start()
        await asyncio.wait_for(died.wait(), PATIENCE)

    asyncio.run(run())
    return found


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN])
def test_a_process_that_cannot_be_started_has_died(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def start(_: object) -> None:
        raise OSError(number, "no more")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    assert told() == [("broken", (f"its process cannot be started ([Errno {number}] no more)",)), ("died", (None,))]


def test_an_engine_whose_words_cannot_be_read_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of another version, that was installed under the server: nobody was told, and it answered 503 for ever."""

    def recv(_: object) -> None:
        raise AttributeError("no Facts")

    monkeypatch.setattr(Connection, "recv", recv)
    first, *_, last = told()
    assert first == ("broken", ("what it says cannot be read (AttributeError)",))
    assert last[0] == "died"


def test_what_is_stopped_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a timer that is left of its last death: nobody would end that engine, and the server would wait for it."""
    monkeypatch.setattr(engine_process, "Thread", None)

    async def run() -> None:
        engine = EngineProcess(NONE, lambda what, rest: None)
        engine.stop()
        engine.start()

    asyncio.run(run())


def test_a_pipe_that_cannot_be_had_is_an_engine_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe(_: object) -> None:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(type(multiprocessing.get_context("spawn")), "Pipe", pipe)
    assert told()[-1] == ("died", (None,))


def test_a_thread_that_cannot_be_had_is_an_engine_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMore:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine_process, "Thread", NoMore)
    assert told()[-1] == ("died", (None,))


def test_whatever_goes_wrong_while_it_loads_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    unusable, died = told(replace(NONE, model=cast(str, None), precision=""))
    assert unusable[0] == "unusable"
    assert re.fullmatch(r".* cannot be loaded \(TypeError at __init__\.py:\d+: .*", unusable[1][0])
    assert died == ("died", (0,))
    assert capfd.readouterr().err == ""


def noted_while(asking: Callable[[Embedder, list[str]], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Events of an embedder that looks often whether its engine hangs, which `asking` gets when it is ready."""
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(silence, "HANG_TIMES", 5)
    configured = settings.load({"threads": 1})
    embedder = server.embedder(Options(), configured, server.local(configured), Metrics())
    noted: list[str] = []
    embedder.engine.note = lambda event, level="info", **fields: noted.append(event)

    async def run() -> None:
        embedder.start()
        try:
            async with asyncio.timeout(PATIENCE):
                await ready(embedder)
                await asking(embedder, noted)
        finally:
            await asyncio.to_thread(embedder.stop)

    asyncio.run(run())
    return noted


async def ready(embedder: Embedder) -> None:
    while not embedder.ready:
        await asyncio.sleep(0.02)


def test_an_engine_that_hangs_as_it_loads_is_another_one_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def asking(embedder: Embedder, noted: list[str]) -> None:
        monkeypatch.setattr(silence, "HANG_SECONDS", 0.5)
        assert embedder.engine.facts is not None
        embedder.engine.facts = replace(embedder.engine.facts, seconds=0.0)  # so that the stopped one is late soon
        first = embedder.engine.process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        while embedder.engine.process.pid == first or embedder.ready:
            await asyncio.sleep(0)
        second = embedder.engine.process.pid
        assert second is not None
        os.kill(second, signal.SIGSTOP)
        while "engine hangs" not in noted:
            await asyncio.sleep(0.02)
        monkeypatch.setattr(silence, "HANG_SECONDS", 60.0)
        await ready(embedder)
        assert embedder.engine.process.pid not in (first, second)

    expected = ["engine ended", "engine hangs", "engine ended", "engine started again"]
    assert noted_while(asking, monkeypatch) == expected


def test_an_engine_that_hangs_is_another_one_soon_and_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "HANG_SECONDS", 0.5)

    async def asking(embedder: Embedder, _: list[str]) -> None:
        assert embedder.engine.process.pid is not None
        os.kill(embedder.engine.process.pid, signal.SIGSTOP)
        answer = await embedder.embed(Asked("m", ("def logout(): ...",), Role.QUERY, Lane.QUERY))
        assert answer.vectors.shape == (1, embedder.model.dim)

    assert noted_while(asking, monkeypatch) == ["engine hangs", "engine ended", "engine started again"]


def test_an_engine_that_computes_or_reads_is_seen_to() -> None:
    engine = EngineProcess(NONE, lambda what, rest: None)
    assert engine.moved is None
    engine._process = multiprocessing.current_process()
    before, end = engine.moved, time.process_time() + 0.05
    assert before is not None
    while time.process_time() < end:
        pass
    assert (engine.moved or 0) > before
