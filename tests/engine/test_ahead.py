"""Tensors are fetched before they are wanted, each once in a pass and never too many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from embedcode.engine import ahead
from embedcode.engine.ahead import Ahead
from embedcode.model.weights import Entry

SIZES = [40, 30, 30, 200, 10, 10]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """What was fetched, at once and not in a thread."""
    found: list[Entry] = []

    class AtOnce:
        def __init__(self, target: Callable[[list[Entry]], None], args: tuple[list[Entry]], daemon: bool) -> None:
            self.start = lambda: target(*args)

    monkeypatch.setattr(ahead, "Thread", AtOnce)
    monkeypatch.setattr(ahead, "_fetch", found.extend)
    monkeypatch.setattr(ahead, "AHEAD", 60)
    return found


def test_each_is_fetched_once_in_a_pass_and_never_too_far_ahead(fetched: list[Entry]) -> None:
    starts = accumulate(SIZES, initial=0)
    order = [Entry(Path("model"), "I8", (size,), start) for size, start in zip(SIZES, starts, strict=False)]
    reading = Ahead([*order[:3], *order[2:]], 0)  # one that two weights are parts of is one
    for _ in range(2):
        fetched.clear()
        for place, entry in enumerate(order):
            reading.wanted(entry)
            reading.wanted(entry)
            assert entry in fetched
            assert sum(other.size for other in fetched[place + 1 :]) <= 60
        assert fetched == order
    fetched.clear()
    Ahead(order, sum(SIZES)).wanted(order[0])  # there is room for all
    assert fetched == order


def test_what_is_fetched_lies_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(1 << 20))
    ahead._fetch([Entry(file, "I8", (1 << 19,), 1 << 19)])
    with pytest.raises(FileNotFoundError):
        ahead._fetch([Entry(tmp_path / "none", "I8", (1,), 0)])
