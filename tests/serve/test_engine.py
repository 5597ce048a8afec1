"""The life of the engine, whose process is one of ours: it is loaded, hangs, dies, and comes back as another one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from embedcode.serve import engine, silence
from embedcode.serve.problem import ProblemError

from . import doors
from .case import Case, Process, Words


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "EngineProcess", Process)
    monkeypatch.setattr(engine, "RESTART_SECONDS", (0.0,))


def test_who_comes_while_an_engine_is_not_started_yet_is_told_to_come_back_when_it_has_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "RESTART_SECONDS", (20.0,))
    case, noted = Case(), dict[str, Any]()

    async def work() -> None:
        case.embedder.engine.note = lambda event, level="info", **fields: noted.update(fields, event=event)
        case.engine.told("died", (-9,))
        with pytest.raises(ProblemError) as caught:
            await case.ask("a")
        assert (caught.value.status, caught.value.retry_after) == (503, 21)  # it loads within a second
        assert (noted["event"], noted["code"], noted["restarts"], noted["next_seconds"]) == ("engine ended", -9, 1, 20)
        assert "pid" in noted and "memory ran out" in noted["trouble"]

    case.run(work())


@pytest.mark.parametrize(("builds", "streams", "silent"), [(False, 1, True), (True, 1, False), (False, 50, False)])
def test_an_engine_that_may_take_long_is_not_held_to_hang(
    monkeypatch: pytest.MonkeyPatch, builds: bool, streams: int, silent: bool
) -> None:
    """The rate is 1,000 tokens a second, and a batch 100."""
    monkeypatch.setattr(silence, "HANG_SECONDS", 0.2)
    monkeypatch.setattr(silence, "HANG_TIMES", 1)
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Words, "builds", builds)
    monkeypatch.setattr(Words, "streams", streams)
    case = Case()

    async def work() -> None:
        killed: list[int] = []
        monkeypatch.setattr(case.engine, "kill", lambda: killed.append(1), raising=False)
        task = case.ask("a")
        await asyncio.sleep(1)
        assert bool(killed) is silent
        case.engine.answer()
        await task

    case.run(work())


@pytest.mark.parametrize("other", [{"space": "t"}, {"dim": 5}, {"version": "0"}])
def test_an_engine_that_comes_back_with_another_model_is_never_ready_and_ends_the_server(other: dict[str, Any]) -> None:
    """Its folder was replaced under the server, which told and kept its vectors as those of the old space."""
    case = Case()

    async def work() -> None:
        ended = case.embedder.engine.unusable
        assert ended is not None
        waiting = case.ask("a")
        await case.until(lambda: case.engine.has)
        case.engine.facts = replace(doors.FACTS, **other)
        case.engine.answer(deadly="a")
        said = await asyncio.wait_for(ended, 5)
        assert said.endswith(" changed since this server was started: start it anew.")
        assert (case.embedder.ready, case.embedder.engine.facts) == (False, doors.FACTS)
        with pytest.raises(ProblemError) as caught:
            await waiting  # for an engine that does not come
        assert (caught.value.status, caught.value.code) == (503, "draining")

    case.run(work())


def test_another_build_that_gives_other_vectors_is_ready_and_said() -> None:
    case = Case()
    noted: list[tuple[str, Any]] = []
    case.embedder.engine.note = lambda event, level="info", **fields: noted.append((event, fields.get("golden_cosine")))

    async def work() -> None:
        for cosine in (None, 0.99, 0.95):
            case.engine.told("ready", (replace(doors.FACTS, cosine=cosine),))
            assert case.embedder.ready

    case.run(work())
    assert [one for one in noted if one[0] == "other vectors"] == [("other vectors", 0.95)]


@pytest.mark.parametrize(
    ("moves", "most", "killed"),
    [
        (itertools.repeat(7), 60.0, True),
        (itertools.count(), 60.0, False),
        (itertools.repeat(None), 60.0, False),
        (itertools.count(), 0.1, True),
    ],
)
def test_an_engine_that_does_nothing_or_never_ends_as_it_loads_is_killed_and_one_that_takes_its_time_is_not(
    monkeypatch: pytest.MonkeyPatch, moves: Iterator[int | None], most: float, killed: bool
) -> None:
    """The server answered 503 for ever, and said that it lives. Where nothing is known it has half an hour."""
    monkeypatch.setattr(silence, "FIRST_SECONDS", most)
    for name in ("LOAD_SECONDS", "HANG_SECONDS"):
        monkeypatch.setattr(silence, name, 0.1)
    monkeypatch.setattr(silence, "HANG_TIMES", 1)
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.02)
    kills: list[int] = []
    for name, does in (
        ("start", lambda _: None), ("kill", lambda _: kills.append(1)), ("moved", property(lambda _: next(moves)))
    ):  # fmt: skip
        monkeypatch.setattr(Process, name, does)
    case = Case()
    case.run(case.until(lambda: kills) if killed else asyncio.sleep(0.5))
    assert bool(kills) is killed
