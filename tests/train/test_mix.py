"""What a recipe's data sets become: the pairs as they are, or asked as people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedcode.data.overlap import Evaluations
from embedcode.errors import UsageError
from embedcode.train import mix
from embedcode.train.recipe import read

STATED = {
    "query": "Reads the file in blocks.",
    "positives": ["def read_blocks(f):\n    return f"],
    "language": "python",
}
UNASKED = {"query": "See `x::y`.", "positives": ["lambda a: a"], "language": "python"}


def recipe(folder: Path, *rows: dict[str, object]) -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "asked", "base": "base", "steps": 1, "licence": "MIT",
        "data": [{"name": "stated", "files": ["pairs.jsonl"]},
                 {"name": "asked", "files": ["pairs.jsonl"], "ask": True}],
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(values))
    return folder / "recipe.yaml"


def test_a_set_that_asks_has_questions_of_the_same_pairs(tmp_path: Path) -> None:
    found = mix.load(read(recipe(tmp_path, STATED, UNASKED)), lambda: Evaluations((), ()))
    stated, asked = found.sets
    assert (stated.size, asked.size) == (2, 1)
    question = found.pairs[asked.start]
    assert question.task == "question"
    assert question.query != STATED["query"]
    assert "read" in question.query


def test_a_set_of_which_no_question_can_be_made_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data set asked"):
        mix.load(read(recipe(tmp_path, UNASKED)), lambda: Evaluations((), ()))
