"""A small world to train in: pairs that a tiny network can learn, a task to steer by, a base, and a recipe of them."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    f"{a}{b}" for a in ("red", "blue", "old", "new", "big", "dry", "hot", "low") for b in ("cat", "sun", "key", "map")
]
CODES = [f"def {a}_{b}(x): return x" for a in ("zip", "run", "put", "get", "cut", "add", "pop", "log") for b in "abcd"]
"""A query's answer is the code in its word's place: nothing but training tells."""


def pair(number: int, rng: random.Random) -> dict[str, Any]:
    fill = " ".join(rng.sample(["the", "a", "of", "in", "on"], 2))
    wrong = [code for place, code in enumerate(CODES) if place != number]
    return {
        "query": f"{fill} {WORDS[number]}",
        "positives": [CODES[number]],
        "negatives": rng.sample(wrong, 4),
        "task": "toy",
        "language": "python",
        "source": "toy 1.0",
        "licence": "MIT",
    }


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage() -> Iterator[None]:
    """Each run collects what is left of the one before it, three times, and went through all that libraries hold: half
    of the time of these tests."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one.jsonl, two.jsonl, a task `toys`, and a tiny random checkpoint `base`."""
    from embedcode.train import base
    from embedcode.train.recipe import Recipe

    folder = tmp_path_factory.mktemp("world")
    rng = random.Random(0)
    for name, count in (("one", 96), ("two", 32)):
        rows = [pair(number % len(WORDS), rng) for number in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = folder / "toys"
    task.mkdir()
    # Texts of its own, or all of the data would be left out of training as a copy of them.
    documents = [f"{code.split()[1].partition('(')[0]} = lambda y: y" for code in CODES]
    (task / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(documents))
    )
    (task / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"please find the {word}"}) + "\n" for n, word in enumerate(WORDS))
    )
    (task / "qrels.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(len(WORDS))))
    base.tiny(Recipe(folder, "tiny", "none", network="bert", query_tokens=32, passage_tokens=32), folder / "base")
    (folder / "base" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    return folder


@pytest.fixture
def recipe(world: Path) -> Callable[..., Path]:
    """recipe("name", steps=3, ...): the file of a recipe in that world."""

    def recipe(name: str = "toy", **values: Any) -> Path:
        chosen = {
            "name": name, "base": "base", "network": "bert", "query_tokens": 32, "passage_tokens": 32,
            "data": [{"name": "one", "files": ["one.jsonl"]}, {"name": "two", "files": ["two.jsonl"]}],
            "evaluate": ["toys"], "batch": 8, "negatives": 2, "steps": 3, "save_every": 2, "warmup": 1,
            "learning_rate": 0.003, "dropout": 0.1, **values,
        }  # fmt: skip
        path = world / f"{name}.yaml"
        path.write_text(json.dumps(chosen))  # JSON is YAML
        return path

    return recipe
