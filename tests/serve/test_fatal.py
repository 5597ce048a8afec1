"""Texts that the engine died of: how many are remembered, and for how long."""

from __future__ import annotations

from embedcode.serve.fatal import MINUTES, MOST, Fatal


def test_a_text_is_refused_for_ten_minutes_and_then_tried_again() -> None:
    now = 5.0
    found = Fatal(lambda: now)
    assert b"a" not in found
    found.add(b"a")
    now += 60 * MINUTES - 1
    assert b"a" in found
    now += 2
    assert b"a" not in found
    found.add(b"a")
    assert b"a" in found


def test_the_latest_of_many_are_remembered() -> None:
    found = Fatal(lambda: 0.0)
    keys = [str(number).encode() for number in range(MOST + 10)]
    for key in keys[:MOST]:
        found.add(key)
    for key in (keys[0], *keys[MOST:]):  # the first again
        found.add(key)
    assert sum(key in found for key in keys) == MOST
    assert all(key in found for key in (keys[0], *keys[-5:]))
