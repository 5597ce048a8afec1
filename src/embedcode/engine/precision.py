"""Precision: which of fp32, bf16 and int8 a checkpoint is computed in here, by a trial of its own first layer.

Speed differs by processor (bf16 without its instructions is slower than fp32, int8 without VNNI hardly faster), so it
is measured and not looked up. A trial takes a second or two for a 7B model; its result is kept in the home folder.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcode.engine import memory
from embedcode.errors import ModelError
from embedcode.files import make_private
from embedcode.model.checkpoint import Checkpoint
from embedcode.settings import PRECISIONS
from embedcode.types import Tokens

LEAST_COSINE = 0.99
"""Of the layer's states to fp32's, mean over tokens."""
TIMES, ENOUGH = 5, 0.5
"""A layer is timed so often, the best counts, or until so many seconds are spent: other processes slow single ones."""
WORTH = 1.15
"""A lower precision is chosen for at least so many times the speed of the next higher one."""


@dataclass(frozen=True, slots=True)
class Choice:
    precision: str
    reason: str


def choose(
    checkpoint: Checkpoint, sample: Sequence[Tokens], states: Callable[[Any, Sequence[Tokens]], Any], home: Path
) -> Choice:
    """The precision for a checkpoint on this processor; `states` runs a network over a sample of its texts."""
    import torch

    kept = home / "precision.json"
    key = f"{checkpoint.space} {platform.processor() or platform.machine()} {_processor()} torch {torch.__version__}"
    known = _read(kept)
    if key in known:
        return Choice(**known[key])
    choice, all_fit = _measured(checkpoint, sample, states)
    if not all_fit:
        return choice  # memory may be free next time
    try:
        make_private(home)
        kept.write_text(json.dumps(known | {key: asdict(choice)}, indent=1), "utf-8")
    except OSError:
        pass  # measured again next time
    return choice


def _measured(
    checkpoint: Checkpoint, sample: Sequence[Tokens], states: Callable[[Any, Sequence[Tokens]], Any]
) -> tuple[Choice, bool]:
    """The choice, and whether it was one among all: every precision would fit in memory."""
    import torch

    from embedcode.engine import network

    free = memory.available()
    exact = None
    best, speed, told, all_fit = "", 0.0, [], True
    count = sum(entry.used for entry in sample)
    for precision in PRECISIONS:
        trial = network.build(checkpoint, precision, torch.device("cpu"), layers=1)
        found = states(trial, sample).float()  # warms up
        rate = count / _seconds(lambda trial=trial: states(trial, sample))  # type: ignore[misc]
        exact = found if exact is None else exact
        cosine = float(torch.nn.functional.cosine_similarity(found, exact).mean())
        told.append(f"{precision} {rate:,.0f} tokens/s a layer at cosine {cosine:.4f}")
        fits = memory.needed(checkpoint, precision) <= free
        all_fit = all_fit and fits
        if not fits:
            told[-1] += ", does not fit in memory"
        if fits and cosine >= LEAST_COSINE and rate >= speed * (WORTH if best else 0):
            best, speed = precision, rate
    if not best:
        memory.check(checkpoint, "int8")
        raise ModelError(f"{checkpoint.name} is computed well in no precision ({'; '.join(told)}): report this.")
    return Choice(best, "; ".join(told)), all_fit


def _seconds(work: Callable[[], object]) -> float:
    """The least that it takes."""
    spent: list[float] = []
    while len(spent) < TIMES and sum(spent) < ENOUGH:
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _processor() -> str:
    """What tells one x86 generation from another, since a home folder may be shared by machines."""
    from embedcode.types import digest

    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return digest(*[row for row in rows if row.startswith(("model name", "flags"))][:2]).hex()[:8]
