"""The queue by itself, with a clock of ours: what is taken, in which order, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedcode.serve.problem import overloaded
from embedcode.serve.queue import (
    LEAST_TOKENS,
    QUEUE_SECONDS,
    SUSPECT_TRIES,
    FullError,
    Lane,
    Queue,
    Rate,
    State,
    Turn,
    Work,
)
from embedcode.types import Tokens


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def work(cost: int = 10, lane: Lane = Lane.PASSAGE, deadline: float = 1000.0) -> Work:
    return Work(b"", Tokens((1,) * cost, cost, cost), lane, deadline)


def queue(**options: int) -> Queue:
    return Queue(Clock(), **{"budget": 100, **options})  # type: ignore[arg-type]


def test_batches_hold_whole_texts_up_to_the_budget_in_order() -> None:
    line = queue(most_texts=3)
    works = [work(cost) for cost in (40, 40, 40, 500, 5, 5, 5, 5)]
    line.add(works)
    batches = []
    while batch := line.take(Lane.PASSAGE):
        batches.append([one.cost for one in batch])
    assert batches == [[40, 40], [40], [500], [5, 5, 5], [5]]
    assert line.tokens(Lane.PASSAGE) == 0


def test_a_request_without_room_is_refused_with_the_seconds_until_there_is() -> None:
    line = queue(most_tokens=1000)
    line.rate.seed(50.0)
    line.add([work(900)])
    line.check(Lane.PASSAGE, 100, 120)
    with pytest.raises(FullError) as full:
        line.check(Lane.PASSAGE, 400, 120)
    assert full.value.retry_after == 6  # 300 tokens have to go first, at 50 a second
    line.check(Lane.QUERY, 400, 120)  # the other lane has room
    with pytest.raises(FullError) as full:
        line.check(Lane.PASSAGE, 100, 10)  # would be done after 20 seconds
    assert full.value.reason == "deadline"


def test_small_requests_leave_room_for_others() -> None:
    """Or in an overload they alone were answered, one after the other, and none of average size."""
    line = queue(most_tokens=1000)
    line.rate.seed(10.0)
    line.add([work(900)])
    line.check(Lane.PASSAGE, 1, 120)
    line.check(Lane.PASSAGE, 100, 120)
    line.add([work(10)])
    for small in (1, 90, 100):
        with pytest.raises(FullError) as full:
            line.check(Lane.PASSAGE, small, 120)
        assert (full.value.reason, full.value.retry_after) == ("tokens", 1)


def test_an_empty_lane_takes_a_request_of_any_size() -> None:
    line = queue(most_tokens=100)
    line.check(Lane.PASSAGE, 10_000, 120)


def test_what_the_engine_has_comes_before_a_request_too() -> None:
    line = queue()
    line.rate.seed(50.0)
    line.check(Lane.PASSAGE, 300, 5.0)
    with pytest.raises(FullError) as full:
        line.check(Lane.PASSAGE, 200, 5.0, at_hand=400)  # 4 seconds, behind 4 that are left of 8
    assert (full.value.reason, full.value.retry_after) == ("deadline", 3)
    line.check(Lane.PASSAGE, 200, 9.0, at_hand=400)
    line.check(Lane.PASSAGE, 10_000, 5.0, at_hand=400)  # in no time: then it is now or never


def test_the_room_follows_the_measured_rate() -> None:
    line = queue()
    line.rate.seed(10.0)
    assert line.room() == LEAST_TOKENS
    line.rate.seed(100_000.0)
    assert line.room() == int(QUEUE_SECONDS * 100_000)


def test_more_requests_than_there_may_be_are_refused() -> None:
    line = queue(most_requests=2)
    line.requests = 2  # the one that asks is among them
    line.check(Lane.QUERY, 1, 120)
    line.requests = 3
    with pytest.raises(FullError) as full:
        line.check(Lane.QUERY, 1, 120)
    assert full.value.retry_after >= 1


def test_what_a_caller_who_leaves_leaves_in_the_line_holds_no_text() -> None:
    line, gone = queue(), work(500)
    gone.late = ("a file", ((0, 6),))
    line.add([work(), gone])
    assert line.leave(gone)
    assert (gone.tokens.ids, gone.late) == ((), None)
    assert line.tokens(Lane.PASSAGE) == 10


def test_what_nobody_waits_for_is_never_handed_out() -> None:
    line = queue()
    first, second = work(), work()
    line.add([first, second])
    line.join(first, Lane.PASSAGE, 1000)
    assert not line.leave(first)  # one of two
    assert line.leave(second)
    assert line.take(Lane.PASSAGE) == [first]
    assert line.dropped == 1


def test_what_is_past_its_deadline_is_never_handed_out() -> None:
    line = queue()
    late, fine = work(deadline=50), work(deadline=150)
    line.add([late, fine])
    assert line.take(Lane.PASSAGE) == [fine]
    assert late.state is State.OVER


def test_a_query_takes_a_waiting_passage_into_its_lane() -> None:
    line = queue()
    one = work(10)
    line.add([work(20), one])
    line.join(one, Lane.QUERY, 1000)
    assert (line.tokens(Lane.QUERY), line.tokens(Lane.PASSAGE)) == (10, 20)
    assert line.take(Lane.QUERY) == [one]
    assert one not in line.take(Lane.PASSAGE)


def test_what_a_dead_engine_had_comes_first_again_alone_and_not_for_ever() -> None:
    line = queue()
    works = [work(), work(), work()]
    line.add(works)
    assert line.suspect() is None
    batch = line.take(Lane.PASSAGE)
    assert batch == works
    line.add([work()])
    assert line.back(batch) == []
    assert [one.tries for one in works] == [1] * 3
    bad = works[0]
    for tries in range(2, SUSPECT_TRIES + 1):
        assert line.suspect() is Lane.PASSAGE
        assert line.take(Lane.PASSAGE) == [bad]
        assert line.back([bad]) == ([bad] if tries == SUSPECT_TRIES else [])
    assert [one.tries for one in works] == [SUSPECT_TRIES, 1, 1]
    assert [line.take(Lane.PASSAGE) for _ in works[1:]] == [[one] for one in works[1:]]
    assert line.suspect() is None
    assert line.tokens(Lane.PASSAGE) == 10


def test_the_last_caller_is_the_last_whatever_became_of_the_work() -> None:
    line = queue()
    late = work(deadline=50)
    line.add([late])
    assert line.take(Lane.PASSAGE) == []
    assert line.leave(late)
    assert line.dropped == 1


def test_the_rate_is_of_the_last_half_minute() -> None:
    rate = Rate()
    rate.seed(1000)
    for _ in range(120):
        rate.add(100, 1.0)
    assert rate.value == pytest.approx(100, rel=0.1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=200), st.integers(1, 1000))
def test_queries_overtake_a_waiting_passage_by_a_bounded_number_of_tokens(
    steps: list[tuple[bool, int]], most: int
) -> None:
    turn, overtaken = Turn(most), 0
    for passage, tokens in steps:
        lane = turn.choose(True, passage)
        assert lane is not None
        if lane is Lane.PASSAGE:
            assert passage
            overtaken = 0
        else:
            overtaken = overtaken + tokens if passage else 0
        assert overtaken < most + tokens
        turn.took(lane, tokens, passage)


class Life(RuleBasedStateMachine):
    """Whatever happens, the count of waiting tokens is that of the waiting works, and none is handed out twice."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue(most_texts=4)
        self.works: list[Work] = []
        self.out: list[Work] = []

    @rule(cost=st.integers(1, 250), lane=st.sampled_from(Lane), life=st.integers(1, 50))
    def comes(self, cost: int, lane: Lane, life: int) -> None:
        one = work(cost, lane, self.queue.clock() + life)
        self.works.append(one)
        self.queue.add([one])

    @precondition(lambda self: self.works)
    @rule(data=st.data(), lane=st.sampled_from(Lane))
    def another_waits(self, data: st.DataObject, lane: Lane) -> None:
        one = data.draw(st.sampled_from(self.works))
        if one.state is not State.OVER:
            self.queue.join(one, lane, self.queue.clock() + 10)

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.works))
        if one.callers:
            self.queue.leave(one)

    @rule(seconds=st.integers(1, 20))
    def passes(self, seconds: int) -> None:
        self.queue.clock.now += seconds  # type: ignore[attr-defined]

    @rule(lane=st.sampled_from(Lane))
    def taken(self, lane: Lane) -> None:
        batch = self.queue.take(lane)
        assert all(one.callers > 0 and one.deadline > self.queue.clock() and one.lane is lane for one in batch)
        assert not set(batch) & set(self.out)
        assert len(batch) <= 1 or sum(one.cost for one in batch) <= self.queue.budget
        self.out += batch

    @rule()
    def dies(self) -> None:
        self.queue.back(self.out)
        self.out = []

    @invariant()
    def adds_up(self) -> None:
        for lane in Lane:
            waiting = [one for one in self.works if one.lane is lane and one.state is State.WAITING]
            assert self.queue.tokens(lane) == sum(one.cost for one in waiting)
            assert math.isfinite(self.queue.tokens(lane))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_request_larger_than_a_lane_comes_in_while_it_is_half_empty_and_is_told_to_be_split() -> None:
    """It had to find the lane empty, which others who keep coming never leave it, and was told to wait a second."""
    line = queue(most_tokens=1000)
    line.rate.seed(10.0)
    line.add([work(500)])
    for cost in (700, 5000):
        line.check(Lane.PASSAGE, cost, 1000)
    line.add([work(1)])
    said = "The request has at least 5,000 tokens, and those of more than 500 wait for a half-empty queue: split it."
    for more, seconds in ((0, 1), (300, 31), (5000, 531)):  # until half of the room is free; the last is such a one
        line.add([work(more)])
        with pytest.raises(FullError) as full:
            line.check(Lane.PASSAGE, 5000, 1000)
        assert (full.value.reason, full.value.retry_after) == ("tokens", seconds)
        assert overloaded(full.value).message.endswith(f"come back in {seconds} seconds. {said}")
    with pytest.raises(FullError) as full:
        line.check(Lane.PASSAGE, 500, 1000)
    assert full.value.cure == ""
