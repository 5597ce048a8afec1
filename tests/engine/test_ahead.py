"""Tensors are fetched before they are wanted, each once in a pass and never too many."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
from checkpoints import write
from layouts import LAYOUTS

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


def test_what_cannot_be_fetched_is_nothing_that_ends_a_start(tmp_path: Path) -> None:
    ahead._fetch([Entry(tmp_path / "none", "I8", (1,), 0)])


@pytest.mark.slow
def test_reading_begins_before_torch_is_loaded(tmp_path: Path) -> None:
    folder = write(LAYOUTS["minilm"], tmp_path / "model")
    script = (
        "import sys\n"
        "from embedcode import Role, load\n"
        "from embedcode.engine.ahead import Ahead\n"
        "wanted, seen = Ahead.wanted, []\n"
        "Ahead.wanted = lambda self, entry: seen.append('torch' in sys.modules) or wanted(self, entry)\n"
        "load(sys.argv[1], precision='fp32', threads=1).encode(['x'], Role.QUERY)\n"
        "assert (seen[0], seen[-1]) == (False, True), seen\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
