"""A run mines its negatives in rounds: by its base, then by the model of the round before, and once each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from embedcode.data import pairs
from embedcode.train.recipe import read
from embedcode.train.run import Run, Step


def test_a_run_mines_twice_and_a_resumed_one_not_again(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe("mined", evaluate=[], in_batch=False, negatives=2, mining={"rounds": 2, "share": 1.0, "kept": 4})
    out = tmp_path / "out"
    steps: list[Step] = []
    Run(read(path), out, tell=lambda line: None, progress=steps.append).go()
    said = [step.what for step in steps if step.what.startswith("embedding")]
    assert said == ["embedding queries,", "embedding passages,"] * 4, "two languages, two rounds"
    rounds = [list(pairs.read(out / f"round-{number}" / "negatives-one.jsonl.gz")) for number in (1, 2)]
    for rows in rounds:
        assert len(rows) == 96
        assert all(len(row.negatives) <= 4 and not {*row.positives} & {*row.negatives} for row in rows)
        assert any(row.negatives for row in rows)
    assert rounds[0] != rounds[1], "the second round is by the model of the first"
    told: list[str] = []
    times = [(out / f"round-{number}" / "negatives-one.jsonl.gz").stat().st_mtime_ns for number in (1, 2)]
    Run(read(path), out, resume=True, tell=told.append).go()
    assert times == [(out / f"round-{number}" / "negatives-one.jsonl.gz").stat().st_mtime_ns for number in (1, 2)]
    assert json.loads((out / "model" / "meta.json").read_text())["recipe"]["mining"]["rounds"] == 2


def test_pairs_with_too_few_negatives_are_told(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Without in-batch negatives a pair that has none trains nothing."""
    path = recipe("few", evaluate=[], in_batch=False, negatives=90, steps=1, mining={"rounds": 1, "share": 1.0})
    told: list[str] = []
    Run(read(path), tmp_path / "out", tell=told.append).go()
    assert any(line.startswith("128 of 128 pairs have fewer than 90 negatives") for line in told)
