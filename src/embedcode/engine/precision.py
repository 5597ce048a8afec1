"""Precision: which of fp32, bf16 and int8 a checkpoint is computed in here, by a trial of its own first layer.

Speed differs by processor (bf16 without its instructions is slower than fp32, int8 without VNNI hardly faster), so it
is measured and not looked up. A trial takes a second or two for a 7B model; its result is kept in the home folder.
Decoders have their few large activations behind the first layer: of all that is not too large int8 is compared whole.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcode.engine import memory, processor
from embedcode.errors import ModelError, UsageError
from embedcode.files import make_private, noted, replacing
from embedcode.model.checkpoint import Checkpoint
from embedcode.settings import PRECISIONS
from embedcode.types import Tokens

LEAST_COSINE = 0.99
"""Of states or vectors to fp32's, in the mean."""
WHOLE = 1_000_000_000
"""Weights up to which int8 is compared by the vectors of the whole network: to read and convert them takes some
seconds, of a 7B minutes."""
TIMES, ENOUGH = 5, 0.5
"""A layer is timed so often, the best counts, or until so many seconds are spent: other processes slow single ones."""
WORTH = 1.15
"""A lower precision is chosen for at least so many times the speed of the next higher one."""


@dataclass(frozen=True, slots=True)
class Choice:
    precision: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trial:
    """Of a first layer: tokens a second, and the cosine of its states to fp32's, or of the network's vectors."""

    precision: str
    rate: float
    cosine: float


def choose(
    checkpoint: Checkpoint,
    sample: Sequence[Tokens],
    states: Callable[[Any, Sequence[Tokens]], Any],
    whole: Callable[[], float],
    home: Path,
) -> Choice:
    """The precision for a checkpoint on this processor; `states` runs a network over a sample of its texts, `whole` is
    the cosine of its vectors in int8 to those in fp32.

    What was measured is kept, so that another run chooses alike; what fits in memory is looked at each time. ModelError
    where nothing fits, before anything is built.
    """
    import torch

    _check(checkpoint)
    kept = home / "precision.json"
    place = f"{platform.machine()} {processor.identity()} {torch.get_num_threads()} threads"
    compared = whole if _compared_whole(checkpoint) else None
    part = "whole" if compared else "layer"  # where there is no room now there may be another time
    key = f"trials {checkpoint.space} {place} {part} torch {torch.__version__}"
    known = noted(kept)
    if key not in known:
        known[key] = [asdict(trial) for trial in _measured(checkpoint, sample, states, compared)]
        with suppress(OSError, UsageError):  # measured again next time
            make_private(home)
            with replacing(kept) as file:
                file.write(json.dumps(known, indent=1).encode())
    return _best(checkpoint, [Trial(**one) for one in known[key]])


def _measured(
    checkpoint: Checkpoint,
    sample: Sequence[Tokens],
    states: Callable[[Any, Sequence[Tokens]], Any],
    whole: Callable[[], float] | None,
) -> list[Trial]:
    import torch

    from embedcode.engine import network

    exact = None
    found = []
    count = sum(entry.used for entry in sample)
    for precision in PRECISIONS:
        layer = network.build(checkpoint, precision, torch.device("cpu"), layers=1)
        given = states(layer, sample).float()  # warms up
        rate = count / _seconds(lambda layer=layer: states(layer, sample))  # type: ignore[misc]
        exact = given if exact is None else exact
        cosine = float(torch.nn.functional.cosine_similarity(given, exact).mean())
        del layer  # or the next one would be built beside it
        if precision == "int8" and cosine >= LEAST_COSINE and whole is not None:
            cosine = whole()
        found.append(Trial(precision, rate, cosine))
    return found


def _compared_whole(checkpoint: Checkpoint) -> bool:
    fits = memory.streamed(checkpoint, "fp32", memory.PACK) <= memory.available()
    return fits and checkpoint.weights.count <= WHOLE


def _best(checkpoint: Checkpoint, trials: Sequence[Trial]) -> Choice:
    free = memory.available()
    best: Trial | None = None
    told = []
    for trial in trials:
        told.append(f"{trial.precision} {trial.rate:,.0f} tokens/s a layer at cosine {trial.cosine:.4f}")
        fits = memory.needed(checkpoint, trial.precision) <= free
        if not fits:
            told[-1] += ", does not fit in memory"
        if fits and trial.cosine >= LEAST_COSINE and (best is None or trial.rate >= WORTH * best.rate):
            best = trial
    if best is None:
        _check(checkpoint)  # a trial leaves less than there was
        raise ModelError(f"{checkpoint.name} is computed well in no precision ({'; '.join(told)}): report this.")
    return Choice(best.precision, "; ".join(told))


def _check(checkpoint: Checkpoint) -> None:
    """ModelError where the precision that needs least does not fit."""
    memory.check(checkpoint, min(PRECISIONS, key=lambda precision: memory.needed(checkpoint, precision)))


def _seconds(work: Callable[[], object]) -> float:
    """The least that it takes."""
    spent: list[float] = []
    while len(spent) < TIMES and sum(spent) < ENOUGH:
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)
