"""Mined negatives: near, below the share of the positive's score, and never an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedcode.data import pairs
from embedcode.engine.vectors import unit
from embedcode.train.mining import hardest
from embedcode.train.recipe import read
from embedcode.train.run import Run


@pytest.mark.parametrize("share", [0.95, 0.5, 1.0])
def test_hardest_is_what_the_rule_says(share: float) -> None:
    rng = np.random.default_rng(0)
    queries, documents = (unit(rng.normal(size=(size, 6)).astype(np.float32)) for size in (40, 90))
    positives = [[int(rng.integers(90))] if n % 3 else list(map(int, rng.integers(90, size=2))) for n in range(40)]
    barred = [list(map(int, rng.integers(90, size=2))) for _ in range(40)]
    found = hardest(queries, documents, positives, barred, share, 5)
    for number, row in enumerate(found):
        scores = [float(queries[number] @ document) for document in documents]
        lowest = min(scores[place] for place in positives[number])
        bound = min(share * lowest, lowest)
        others = [p for p in range(90) if p not in positives[number] and p not in barred[number] and scores[p] < bound]
        assert row == sorted(others, key=lambda place: -scores[place])[:5]


def test_a_run_mines_twice_and_a_resumed_one_not_again(recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = recipe("mined", evaluate=[], in_batch=False, negatives=2, mining={"rounds": 2, "share": 1.0, "kept": 4})
    out = tmp_path / "out"
    Run(read(path), out, tell=lambda line: None).go()
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
