"""Messages of gRPC that are read at a time: whose turn it is, and how long it lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from embedcode.serve.problem import ProblemError
from embedcode.serve.reading import Reading


async def never() -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield b""


async def after(seconds: float) -> AsyncIterator[bytes]:
    await asyncio.sleep(seconds)
    yield b"text"


async def status(reading: Reading, messages: AsyncIterator[bytes], address: str) -> int:
    try:
        await reading.message(messages, address)
    except ProblemError as problem:
        return problem.status
    return 200


def test_a_crowd_that_sends_nothing_holds_up_nobody_at_another_address() -> None:
    async def asking() -> None:
        reading = Reading(4, 5.0, 1.0)
        crowd = [asyncio.ensure_future(status(reading, never(), "10.0.0.1")) for _ in range(40)]
        await asyncio.sleep(0.05)
        since = time.monotonic()
        assert await asyncio.gather(*(status(reading, after(0.0), "10.0.0.2") for _ in range(10))) == [200] * 10
        assert time.monotonic() - since < 0.5
        for call in crowd:
            call.cancel()

    asyncio.run(asking())


def test_who_takes_its_time_has_it_while_nobody_waits() -> None:
    async def asking() -> list[int]:
        reading = Reading(4, 5.0, 0.2)
        return await asyncio.gather(status(reading, after(0.5), "10.0.0.1"), status(reading, after(0.0), "10.0.0.2"))

    assert asyncio.run(asking()) == [200, 200]


def test_uploads_that_take_all_turns_have_their_time_while_nobody_waits() -> None:
    async def asking() -> list[int]:
        reading = Reading(4, 5.0, 0.2)
        uploads = [status(reading, after(0.6), f"10.0.0.{place}") for place in (1, 1, 2, 2)]
        return await asyncio.gather(*uploads)

    assert asyncio.run(asking()) == [200] * 4


def test_all_addresses_hurry_where_all_turns_are_taken_and_one_where_its_own_are() -> None:
    async def asking() -> None:
        reading = Reading(4, 5.0, 0.3)
        slow = asyncio.ensure_future(status(reading, after(0.8), "10.0.0.1"))
        silent = [status(reading, never(), "10.0.0.2") for _ in range(2)]
        waiting = status(reading, after(0.0), "10.0.0.2")  # for a turn of its address, not of all
        assert await asyncio.gather(*silent, waiting) == [408, 408, 200]
        assert await slow == 200
        everyone = [status(reading, never(), f"10.0.0.{place}") for place in (1, 1, 2, 2)]
        since = time.monotonic()
        assert await asyncio.gather(*everyone, status(reading, after(0.0), "10.0.0.3")) == [408] * 4 + [200]
        assert time.monotonic() - since < 2

    asyncio.run(asking())


def test_who_had_no_turn_is_told_of_the_overload_and_not_that_its_message_did_not_come() -> None:
    async def asking() -> list[int]:
        reading = Reading(2, 0.3, 0.3)
        calls = [status(reading, never(), "10.0.0.1"), status(reading, after(0.0), "10.0.0.1")]
        return await asyncio.gather(*calls)

    assert asyncio.run(asking()) == [408, 429]


@pytest.mark.parametrize("address", ["10.0.0.1", ""])
def test_nothing_is_kept_of_who_has_left(address: str) -> None:
    async def asking() -> None:
        reading = Reading(2, 0.1, 0.1)
        await asyncio.gather(*(status(reading, never(), address) for _ in range(5)))
        assert not reading._peers

    asyncio.run(asking())
