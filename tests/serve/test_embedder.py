"""The door to the engine, in this process, with an engine of ours that answers, waits or dies when it is told to."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

import embedcode
from embedcode.errors import UsageError
from embedcode.serve import embedder as door
from embedcode.serve import engine
from embedcode.serve.asked import Asked
from embedcode.serve.fatal import MINUTES
from embedcode.serve.keys import Key
from embedcode.serve.limits import Limits
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import Lane
from embedcode.types import Role, Tokens

from . import doors
from .case import KILLER, Case, Process


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "EngineProcess", Process)
    monkeypatch.setattr(engine, "RESTART_SECONDS", (0.0,))


def test_a_limit_that_leaves_no_room_for_a_text_is_refused_before_any_engine_starts() -> None:
    with pytest.raises(UsageError, match=r"^max_tokens 2 leaves no room for a text: give at least 3\.$"):
        doors.embedder(embedcode.load(), Limits(max_tokens=2))


def test_one_request_may_be_under_way_where_one_may_be() -> None:
    case = Case(most_requests=1)

    async def work() -> None:
        first = case.ask("a")
        await case.until(lambda: case.engine.has)
        with pytest.raises(ProblemError) as caught:
            await case.ask("b")
        assert caught.value.reason == "requests"
        case.engine.answer()
        assert (await first).used == 1

    case.run(work())


def test_what_is_past_its_deadline_before_the_engine_took_it_is_gone_with_its_caller() -> None:
    case = Case(timeout=0.3)

    async def work() -> None:
        first = [case.ask(letter * 100) for letter in "ab"]  # the engine has enough to do
        await case.until(lambda: len(case.engine.has) == 2)
        late = case.ask("c" * 100)
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE))
        (waiting,) = (flight for flight in case.embedder._flights.values() if not flight.sent)
        waiting.work.deadline = 0.0
        case.engine.answer()  # and it finds the rest expired
        assert all(answer.used == 100 for answer in await asyncio.gather(*first))
        with pytest.raises(ProblemError) as caught:
            await late
        assert caught.value.reason == "deadline"
        assert case.embedder._flights == {}

    case.run(work())


@pytest.mark.parametrize(("prompt", "refused"), [("query: ", False), ("Find the code: ", True)])
def test_a_text_that_may_begin_so_by_itself_is_answered_and_marked(prompt: str, refused: bool) -> None:
    """A file of Grafana or dbt begins with `query: `, and whoever sends it sends the bare text."""
    case = Case(prompt)

    async def work() -> None:
        task = case.ask("a", f"{prompt}SELECT 1")
        await case.until(lambda: task.done() or case.engine.has)
        case.engine.answer()
        if refused:
            with pytest.raises(ProblemError, match="begins with this model's prompt"):
                await task
        else:
            assert (await task).doubled == (1,)
        assert b"embedcode_doubled_prompts_total 1.0" in case.embedder.metrics.text()

    case.run(work())


def test_what_has_no_room_by_its_length_is_refused_before_it_is_tokenised_and_what_has_is_not() -> None:
    case = Case(max_tokens=100, most_tokens=150)

    async def work() -> None:
        before = case.ask(*("w" * 100,) * 4000)  # a token each letter, as is learnt from it
        await case.until(lambda: case.engine.has)
        case.engine.answer()
        await before
        ahead = [case.ask(letter * 100) for letter in "ab"]
        await case.until(lambda: len(case.engine.has) == 2)
        ahead.append(case.ask("c" * 100))
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE) == 100)
        case.words.go_on.clear()  # what is tokenised now waits
        with pytest.raises(ProblemError) as caught:
            await asyncio.wait_for(case.ask("d" * 80), 5)
        assert (caught.value.status, caught.value.reason) == (429, "tokens")
        assert caught.value.retry_after
        ahead += [case.ask("e" * 40), case.ask("f" * 100, lane=Lane.QUERY)]
        case.words.go_on.set()
        while not all(one.done() for one in ahead):
            case.engine.answer()
            await asyncio.sleep(0.01)
        assert [(await one).used for one in ahead] == [100, 100, 100, 40, 100]

    case.run(work())


def test_texts_whose_tokens_are_mostly_marks_keep_no_long_one_out() -> None:
    case = Case(max_tokens=100, most_tokens=150)

    async def work() -> None:
        case.words.marks = (1, 2)
        for number in range(50):
            short = case.ask(*(chr(100 + 10 * number + place) for place in range(10)), lane=Lane.QUERY)
            await case.until(lambda: case.engine.has)
            case.engine.answer()
            await short
        case.words.marks = ()
        tasks = [case.ask(letter * 100) for letter in "ab"]
        await case.until(lambda: len(case.engine.has) == 2)
        tasks.append(case.ask("c" * 100))
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE) == 100)
        tasks.append(case.ask("d" * 40))
        await case.until(lambda: tasks[-1].done() or case.embedder.queue.tokens(Lane.PASSAGE) == 140)
        while not all(task.done() for task in tasks):
            case.engine.answer()
            await asyncio.sleep(0.01)
        assert [(await task).used for task in tasks] == [100, 100, 100, 40]

    case.run(work())


def test_a_request_that_is_too_large_for_any_time_costs_its_key_nothing() -> None:
    case, key = Case(timeout=10), Key("k", "", tokens_per_minute=100)

    async def work() -> None:
        huge = Asked("m", ("a" * 150_000,), Role.PASSAGE, Lane.PASSAGE)
        with pytest.raises(ProblemError) as caught:
            await case.embedder.embed(huge, lambda tokens: key.spend(tokens, 1.0))
        assert caught.value.status == 413
        key.spend(100, 1.0)  # the whole minute's

    case.run(work())


def test_a_machine_that_is_slow_for_a_while_refuses_nothing_for_good() -> None:
    """A neighbour made it 1,278 tokens/s in place of 7,000, and an ingest ended by a 413 that no client sends again."""
    case = Case(timeout=10)

    async def work() -> None:
        rate = case.embedder.queue.rate
        rate.seed(7000.0)
        rate.add(12_780, 300.0)
        assert rate.value < 100
        task = case.ask("a" * 70_000)
        await case.until(lambda: case.engine.has)
        case.engine.answer()
        await task

    case.run(work())


def test_a_request_that_is_far_too_large_by_its_length_is_not_tokenised_first() -> None:
    case = Case(timeout=10)

    async def work() -> None:
        case.words.go_on.clear()
        since = time.monotonic()
        with pytest.raises(ProblemError, match="never measured to compute more than 1,000 a second") as caught:
            await case.ask(*("a" * 4000 for _ in range(2000)))
        assert caught.value.status == 413 and "of less than 10,000 tokens" in caught.value.message
        assert time.monotonic() - since < 3
        case.words.go_on.set()

    case.run(work())


def test_what_would_come_after_its_caller_has_given_up_is_refused_at_once() -> None:
    case = Case()  # 1,000 tokens a second

    def impatient(text: str, within: float) -> asyncio.Task[Any]:
        return asyncio.create_task(case.embedder.embed(Asked("m", (text,), Role.QUERY, Lane.QUERY), None, within))

    async def work() -> None:
        others = [case.ask(letter * 100, lane=Lane.QUERY) for letter in "abcdef"]
        await case.until(lambda: case.embedder.queue.tokens(Lane.QUERY) >= 300)
        waiting = case.embedder.queue.tokens(Lane.QUERY)
        with pytest.raises(ProblemError, match="come back in 1 seconds") as caught:
            await impatient("x" * 100, waiting / 1000)
        assert (caught.value.code, caught.value.reason) == ("overloaded", "patience")
        patient = impatient("y" * 100, waiting / 1000 + 1)
        await case.until(lambda: case.embedder.queue.tokens(Lane.QUERY) == waiting + 100)
        with pytest.raises(ProblemError, match=r"Not done within 0\.2 seconds") as late:
            await impatient("a" * 100, 0.2)  # which is being computed
        assert (late.value.code, late.value.reason) == ("deadline", "patience")
        while not patient.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        await asyncio.gather(*others, patient)
        case.embedder.queue.rate.best = 1000.0  # whatever the answers above were measured at
        with pytest.raises(ProblemError, match=r"1,000 tokens, .* may take 0\.05 seconds for it: split it"):
            await impatient("z" * 1000, 0.05)  # nor can it be done by an engine with nothing else to do
        assert b'embedcode_refused_requests_total{reason="patience"} 2.0' in case.embedder.metrics.text()

    case.run(work())


def test_who_waits_for_less_than_is_computed_pays_for_it() -> None:
    """It had its tokens back, and could ask again at once: one key had the engine for ever, and paid nothing."""
    key, case = Key("k", "", tokens_per_minute=100), Case()

    async def work() -> None:
        asked = Asked("m", ("a" * 60,), Role.PASSAGE, Lane.PASSAGE)
        with pytest.raises(ProblemError, match=r"Not done within 0\.2 seconds"):
            await case.embedder.embed(asked, lambda tokens: key.spend(tokens, 1.0), 0.2)
        assert key.left == 40
        ahead = [case.ask(letter * 100) for letter in "bcdef"]
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE) >= 200)
        key.left = 100
        with pytest.raises(ProblemError, match="all the work it can take"):  # nothing is computed for it
            await case.embedder.embed(asked, lambda tokens: key.spend(tokens, 1.0), 0.1)
        assert key.left == 100
        while not all(one.done() for one in ahead):
            case.engine.answer()
            await asyncio.sleep(0.01)

    case.run(work())


def test_texts_of_the_servers_own_have_no_deadline_to_be_too_many_for() -> None:
    """As an index has them, of a slow model: nobody could split them."""
    case = Case(timeout=10)

    async def work() -> None:
        own = [Tokens((number,) * 500, 500, 500) for number in range(100)]
        rows = asyncio.create_task(case.embedder.compute(own, Lane.PASSAGE))
        while not rows.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        assert (await rows).shape == (100, 4)

    case.run(work())


def test_texts_of_the_servers_own_wait_for_an_engine_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of a served model stayed without the rest of its vectors until somebody searched it."""
    monkeypatch.setattr(door, "WAIT_SECONDS", 0.01)
    case = Case()

    async def work() -> None:
        own = [Tokens((1, 2), 2, 2)]
        case.embedder.engine.ready = False
        rows = asyncio.create_task(case.embedder.compute(own, Lane.PASSAGE))
        with pytest.raises(ProblemError, match="being loaded"):  # a search, which has its words, goes on without
            await case.embedder.compute(own, Lane.QUERY, 1.0)
        await asyncio.sleep(0.05)
        assert not rows.done()
        case.embedder.engine.ready = True
        while not rows.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        assert (await rows).shape == (1, 4)

    case.run(work())


def test_who_waited_for_an_engine_that_is_gone_is_told_of_that_and_pays_nothing() -> None:
    key, case = Key("k", "", tokens_per_minute=100), Case()

    async def work() -> None:
        asked = Asked("m", ("a" * 60,), Role.PASSAGE, Lane.PASSAGE)
        waiting = asyncio.create_task(case.embedder.embed(asked, lambda tokens: key.spend(tokens, 1.0), 0.3))
        await case.until(lambda: case.engine.has)
        case.embedder.engine.ready = False
        with pytest.raises(ProblemError, match="being loaded") as caught:
            await waiting
        assert (caught.value.status, key.left) == (503, 100)
        assert b'embedcode_refused_requests_total{reason="restarting"} 1.0' in case.embedder.metrics.text()

    case.run(work())


def test_what_the_server_is_at_fault_for_costs_a_key_nothing_and_who_leaves_pays() -> None:
    key = Key("k", "", tokens_per_minute=100)

    def ask(case: Case, text: str) -> asyncio.Task[Any]:
        asked = Asked("m", (text,), Role.PASSAGE, Lane.PASSAGE)
        return asyncio.create_task(case.embedder.embed(asked, lambda tokens: key.spend(tokens, 1.0)))

    async def refused(task: asyncio.Task[Any], status: int, code: str | None) -> None:
        with pytest.raises(ProblemError) as caught:
            await task
        assert (caught.value.status, caught.value.code) == (status, code)
        assert key.left == 100

    hasty, case = Case(timeout=0.3), Case()

    async def late() -> None:
        await refused(ask(hasty, "a" * 60), 429, "deadline")

    async def work() -> None:
        killer = ask(case, KILLER)
        while not killer.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        with pytest.raises(ProblemError, match="leave it out"):  # which is its own fault
            await killer
        assert key.left == 100 - len(KILLER)
        key.left = 100
        gone = ask(case, "a" * 60)
        await case.until(lambda: case.engine.has)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert key.left == 40
        key.left = 100
        case.engine.answer()
        ahead = [case.ask(letter * 100) for letter in "bc"]
        await case.until(lambda: len(case.engine.has) == 2)
        waiting = ask(case, "d" * 60)
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE))
        draining = asyncio.create_task(case.embedder.drain())
        await refused(waiting, 503, "draining")
        case.engine.answer()
        await asyncio.gather(draining, *ahead)

    hasty.run(late())
    case.run(work())


def test_bulk_requests_that_are_tokenised_hold_up_no_query() -> None:
    case = Case()

    async def work() -> None:
        case.words.go_on.clear()
        bulk = [case.ask(*(f"{number} {place}" for place in range(2048))) for number in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(ProblemError) as caught:
            await case.ask("one more")
        assert caught.value.reason == "tokenize"
        query = case.ask("query", lane=Lane.QUERY)
        await case.until(lambda: case.engine.has)
        case.engine.answer()
        assert (await asyncio.wait_for(query, 5)).used == 5
        for task in bulk:
            task.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)

    case.run(work())


def test_a_text_that_kills_the_engine_costs_nobody_else_an_answer() -> None:
    case = Case()

    async def work() -> None:
        good = [case.ask(name) for name in ("a", "b")]
        await case.until(lambda: len(case.engine.has) == 2)
        bad = case.ask(KILLER)
        query = case.ask("query", lane=Lane.QUERY)
        await case.until(lambda: len(case.engine.has) == 4)
        case.engine.sent.clear()
        case.engine.answer()
        await case.until(lambda: case.embedder.engine.restarts == 1 and case.engine.has)
        new = case.ask("new")
        await case.until(lambda: case.embedder.queue.tokens(Lane.PASSAGE) > 6)
        while not all(task.done() for task in (*good, bad, query, new)):
            await case.until(lambda: case.engine.has)
            case.engine.answer()
            await asyncio.sleep(0.01)
        assert [task.exception() for task in (*good, query, new)] == [None] * 4
        caught = bad.exception()
        assert isinstance(caught, ProblemError)
        assert (caught.status, caught.index) == (400, 0)
        wanted = (
            "The engine ended each time it computed this text: leave it out, or send it again in 10 minutes (input 0)."
        )
        assert caught.message == wanted
        # Each alone, and twice what it dies of again; what came later only when all of them are told apart.
        assert case.engine.sent == [["query"], ["a"], ["b"], [KILLER], [KILLER], ["new"]]

    case.run(work())


def test_a_text_that_kills_the_engine_is_told_by_its_place_and_the_others_are_answered_where_that_is_asked_for() -> (
    None
):
    case = Case()

    async def work() -> None:
        partial = Asked("m", ("a", KILLER, "b"), Role.PASSAGE, Lane.PASSAGE, partial=True)
        task = asyncio.create_task(case.embedder.embed(partial))
        while not task.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        answer = await task
        assert answer.places == (0, 2)
        assert [error.index for error in answer.errors] == [1]
        assert "(input 1)" in answer.errors[0].message

    case.run(work())


def test_what_a_dead_engine_had_is_counted_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as another one is loaded: metrics say what /v1/status says."""
    monkeypatch.setattr(engine, "RESTART_SECONDS", (20.0,))
    case = Case()

    async def work() -> None:
        task = case.ask("a" * 50)
        await case.until(lambda: case.engine.has)
        case.engine.told("died", (-9,))
        metrics = case.embedder.metrics.text()
        assert b'embedcode_engine_tokens{lane="passage"} 0.0' in metrics
        assert b'embedcode_queue_tokens{lane="passage"} 50.0' in metrics
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    case.run(work())


def test_texts_are_counted_as_cached_computed_or_shared_and_each_once() -> None:
    """By which an alert divides those that are cut, which are counted however they are answered."""
    case = Case()

    async def work() -> None:
        for texts in (["a", "b", "a"], ["b", "c"]):
            asked = [case.ask(*texts), case.ask(*texts)]
            await case.until(lambda: case.engine.has)
            case.engine.answer()
            await asyncio.gather(*asked)

    case.run(work())
    metrics = case.embedder.metrics
    found = [counter._value.get() for counter in (metrics.hits, metrics.misses, metrics.shared)]
    assert found == [2, 3, 5]


def test_a_text_that_kills_the_engine_does_so_once_however_often_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients repeat what was refused, and an ingest comes again. But the engine may have died of something else."""
    case = Case()

    async def answer(*texts: str, partial: bool = False, lane: Lane = Lane.PASSAGE) -> Any:
        task = asyncio.create_task(case.embedder.embed(Asked("m", texts, Role(lane), lane, partial=partial)))
        while not task.done():
            case.engine.answer()
            await asyncio.sleep(0.01)
        return task.exception() or task.result()

    async def work() -> None:
        assert (await answer(KILLER, partial=True)).status == 400
        deaths = case.embedder.engine.restarts
        again = await answer("a", KILLER)
        assert (again.status, again.index) == (400, 1)
        assert (await answer(KILLER, lane=Lane.QUERY)).status == 400
        answered = await answer("a", KILLER, "b", partial=True)
        assert (answered.places, answered.cached) == ((0, 2), 1)
        with pytest.raises(ProblemError) as caught:
            await case.embedder.compute([Tokens(tuple(map(ord, KILLER)), 4, 4)], Lane.PASSAGE)
        assert caught.value.index == 0
        assert case.embedder.engine.restarts == deaths
        later = time.monotonic() + 60 * MINUTES
        monkeypatch.setattr(case.embedder._fatal, "_clock", lambda: later)
        monkeypatch.setattr(case.engine, "answer", lambda: Process.answer(case.engine, "another"))
        assert (await answer(KILLER)).used == len(KILLER)

    case.run(work())


def test_rows_that_were_repaired_are_counted() -> None:
    case = Case()

    async def work() -> None:
        task = case.ask("a", "b")
        await case.until(lambda: case.engine.has)
        numbers = [item.number for item in case.engine.has]
        case.engine.told("rows", (numbers, np.ones((2, 4), np.float32), 0.01, 2, 0.0))
        await task
        assert b"embedcode_repaired_rows_total 2.0" in case.embedder.metrics.text()

    case.run(work())


def test_a_part_of_a_file_without_a_token_is_told_by_its_place() -> None:
    case = Case()

    async def work() -> None:
        task = asyncio.create_task(case.embedder.embed(Asked("m", ("a", " "), Role.PASSAGE, Lane.PASSAGE, late=True)))
        await case.until(lambda: case.engine.has)
        case.engine.told("bad", (case.engine.has[0].number, "Input 1 is the span 1:2, which has no token.", 1))
        with pytest.raises(ProblemError) as caught:
            await task
        assert (caught.value.status, caught.value.index) == (400, 1)

    case.run(work())


def test_a_mistake_of_the_server_costs_a_key_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    key, case = Key("k", "", tokens_per_minute=100), Case()

    async def work() -> None:
        monkeypatch.setattr(case.embedder, "_pump", None)  # by which its tokens are counted already
        asked = Asked("m", ("a" * 60,), Role.PASSAGE, Lane.PASSAGE)
        with pytest.raises(TypeError):
            await case.embedder.embed(asked, lambda tokens: key.spend(tokens, 1.0))
        assert key.left == 100

    case.run(work())
