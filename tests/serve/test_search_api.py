"""Search beside an engine that has too much to do, or does not answer, in this process."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from embedcode import Index, load
from embedcode.engine.encoder import LocalEncoder
from embedcode.errors import BusyError
from embedcode.serve import engine, inner, search_api
from embedcode.serve.body import HELD, Bodies
from embedcode.serve.embedder import Embedder
from embedcode.serve.guard import Guard
from embedcode.serve.indexes import Indexes
from embedcode.serve.inner import InnerEncoder
from embedcode.serve.journal import Journal
from embedcode.serve.kept import Kept
from embedcode.serve.limits import Limits
from embedcode.serve.metrics import Metrics
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import Lane
from embedcode.serve.server import application
from embedcode.types import Tokens

from . import doors
from .asgi import answered, ask

WAITING = 200
"""Tokens that a lane may hold."""


class Process(doors.Process):
    def start(self) -> None:
        packaged = cast(LocalEncoder, load())
        facts = replace(doors.FACTS, dim=packaged.dim, space=packaged.space, build=packaged.build, rate=1e6)
        self.told("ready", (facts,))

    def forget(self, numbers: Sequence[int]) -> None:
        self.told("gone", (numbers,))


def served(kept: Any, bodies: Bodies | None = None) -> Any:
    routes = search_api.routes(Indexes({"shop": kept}), bodies or Bodies(1_000_000))
    guard = Guard(Journal("error", True, io.StringIO()), Metrics(), frozenset(), frozenset())
    return application(list(routes), guard)


@dataclass
class Shop:
    app: Any
    embedder: Embedder
    loop: asyncio.AbstractEventLoop
    bodies: Bodies

    def occupy(self, *sizes: int) -> None:
        """The lane of queries, by texts of so many tokens."""
        for number, size in enumerate(sizes):
            tokens = Tokens((number,) * size, size, size)
            asyncio.run_coroutine_threadsafe(self.embedder.compute([tokens], Lane.QUERY), self.loop)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(engine, "EngineProcess", Process)
    root = tmp_path / "shop"
    (root / ".git").mkdir(parents=True)
    (root / "a.py").write_text("def forget_visitor(session):\n    session.flush()\n")
    local = cast(LocalEncoder, load())
    with Index.open(root, local) as index:
        index.update()
    made = doors.embedder(local, Limits(most_tokens=WAITING), doors.model(local.dim))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> None:
        made.start()

    async def stop() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    kept = Kept(root, InnerEncoder(made, local, loop))
    bodies = Bodies(1_000_000)
    yield Shop(served(kept, bodies), made, loop, bodies)
    kept.index.close()
    asyncio.run_coroutine_threadsafe(stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    made.stop()


def test_an_answer_counts_beside_what_others_hold(shop: Shop) -> None:
    """A file of a repository may be as large as any answer of vectors."""
    with shop.bodies.open() as other:
        other(HELD * 1_000_000 - 100)
        status, headers, said = ask(shop.app, "/v1/search/status")
        assert (status, headers["retry-after"], said["error"]["code"]) == (429, "1", "overloaded")
    for _ in range(2):
        assert ask(shop.app, "/v1/search/status")[0] == 200
    assert shop.bodies._bytes == 0


def test_a_search_whose_query_has_no_room_is_told_when_to_come_back(shop: Shop) -> None:
    shop.occupy(101, 100, 99)  # the first is the engine's, the others wait
    for body in ({"query": "log a visitor out"}, {"query": "log a visitor out", "mode": "dense"}):
        status, headers, answer = ask(shop.app, "/v1/search", body)
        assert (status, answer["error"]["code"]) == (429, "overloaded"), answer
        assert headers["retry-after"] == "1"
        assert answer["message"] == "The server has all the work it can take: come back in 1 seconds."
    assert ask(shop.app, "/v1/search", {"query": "visitor", "mode": "lexical"})[0] == 200


def test_a_search_whose_query_the_engine_does_not_reach_ends_and_leaves_nothing_behind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inner, "QUERY_SECONDS", 0.3)
    status, headers, answer = ask(shop.app, "/v1/search", {"query": "log a visitor out"})
    assert (status, headers["retry-after"], answer["error"]["code"]) == (429, "1", "deadline")
    assert answer["message"] == "Not done within 0.3 seconds: send less, or come back in 1 seconds."
    assert shop.embedder._flights == {}
    assert shop.embedder.at_hand(Lane.QUERY) == 0


def test_a_query_without_a_vector_is_none_of_our_mistakes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any) -> Any:
        raise ProblemError(400, "Input 0 has no finite vector.", "input", index=0)

    monkeypatch.setattr(shop.embedder, "compute", refused)
    status, _, answer = ask(shop.app, "/v1/search", {"query": "visitor", "mode": "dense"})
    assert (status, answer["error"]["param"]) == (400, "query")
    status, _, answer = ask(shop.app, "/v1/search", {"query": "visitor"})
    assert (status, len(answer["hits"]), answer["by_words"]) == (200, 1, True)
    assert any("by words alone" in note and "no finite vector" in note for note in answer["notes"])


class Slow:
    """A repository that says how it is when it is told to go on."""

    reading = None

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = threading.Event()

    def status(self) -> Any:
        self.asked += 1
        self.go_on.wait(10)
        raise BusyError("it is busy.")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Slow, Any]]:
    """One that one may ask at a time."""
    monkeypatch.setattr(search_api, "AT_WORK", 1)
    kept = Slow()
    yield kept, served(kept)
    kept.go_on.set()


def test_where_others_are_at_work_a_search_is_refused_in_time(
    slow: tuple[Slow, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_api, "ANSWER_SECONDS", 0.1)
    kept, app = slow

    async def both() -> list[tuple[int, dict[str, str], Any]]:
        first = asyncio.create_task(answered(app, "/v1/search/status"))
        await asyncio.sleep(0)
        second = await answered(app, "/v1/search/status")
        kept.go_on.set()
        return [await first, second, await answered(app, "/v1/search/status")]

    first, second, third = asyncio.run(both())
    assert (first[0], second[0], third[0]) == (503, 429, 503)
    assert second[1]["retry-after"] == "2"
    assert second[2]["error"]["code"] == "overloaded"
    assert kept.asked == 2


def test_who_has_gone_before_its_turn_is_not_searched_for(slow: tuple[Slow, Any]) -> None:
    kept, app = slow

    async def both() -> tuple[int, int]:
        first = asyncio.create_task(answered(app, "/v1/search/status"))
        second = asyncio.create_task(answered(app, "/v1/search/status", gone=True))
        while not kept.asked:
            await asyncio.sleep(0.01)
        kept.go_on.set()
        return (await first)[0], (await second)[0]

    assert asyncio.run(both()) == (503, 499)
    assert kept.asked == 1
