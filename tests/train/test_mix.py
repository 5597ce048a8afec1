"""What a recipe's data sets become: the pairs as they are, or asked as people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedcode.cli.train import described
from embedcode.data.overlap import Evaluations, Found
from embedcode.data.questions import asked
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.train import mix
from embedcode.train.recipe import read
from embedcode.train.run import Run, Step
from embedcode.types import Pair

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
    (folder / "base").mkdir(exist_ok=True)
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


def test_sets_of_the_same_files_share_what_takes_long_and_it_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """775,000 pairs at a millisecond each: 14 minutes for each set of the same files, without a word."""
    checked: list[str] = []
    find = Evaluations.find

    def counted(self: Evaluations, pair: Pair) -> Found | None:
        checked.append(pair.query)
        return find(self, pair)

    monkeypatch.setattr(Evaluations, "find", counted)
    path = recipe(tmp_path, STATED, {**UNASKED, "source": "pypi:django 5.2"}, UNASKED)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "data": [{"name": name, "files": ["pairs.jsonl"]} for name in ("a", "b")]}))
    told: list[tuple[str, int]] = []
    found = mix.load(read(path), lambda: Evaluations(()), told=lambda name, done: told.append((name, done)))
    assert [(one.size, one.forbidden) for one in found.sets] == [(2, 1), (2, 1)]
    assert found.pairs[:2] == found.pairs[2:]
    assert len(checked) == 3
    assert told == [("a", 0)] and described(Step(0, 0, what="checking a, pair")) == "checking a, pair 0"


def test_a_set_of_which_no_question_can_be_made_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data set asked"):
        mix.load(read(recipe(tmp_path, UNASKED)), lambda: Evaluations((), ()))


def test_a_question_that_a_benchmark_asks_is_left_out_though_its_docstring_is_not_there(tmp_path: Path) -> None:
    pair = Pair("Reads every block of the file.", ("def f(x):\n    return x",), language="python")
    question = asked(pair)
    assert question is not None
    benchmark = beir.Task("cosqa-dev", {"c": "unlike"}, {"q": question.query}, {"q": {"c": 1}})
    row = {"query": pair.query, "positives": list(pair.positives), "language": "python"}
    path = recipe(tmp_path, row, STATED)
    found = mix.load(read(path), lambda: Evaluations((benchmark,)))
    assert [one.size for one in found.sets] == [2, 1]
    assert question.query not in {one.query for one in found.pairs}


def test_a_negative_that_is_a_text_of_a_benchmark_is_left_out_alone(tmp_path: Path) -> None:
    """It would teach the model that the benchmark's answer is none. Of sets of the same files, each loses it."""
    benchmark = beir.Task("b", {"c": "def settle(orders): return sum(orders)"}, {"q": "total"}, {"q": {"c": 1}})
    path = recipe(tmp_path, {**STATED, "negatives": ["def other(): pass", benchmark.corpus["c"]]})
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "data": [{"name": name, "files": ["pairs.jsonl"]} for name in ("a", "b")]}))
    for _ in range(2):  # checked, and as it was kept
        found = mix.load(read(path), lambda: Evaluations((benchmark,)), tmp_path)
        assert [pair.negatives for pair in found.pairs] == [("def other(): pass",)] * 2
        assert [(one.size, one.forbidden, one.negatives) for one in found.sets] == [(1, 0, 1)] * 2


def test_pairs_under_other_licences_than_the_recipe_names_are_left_out_and_counted(tmp_path: Path) -> None:
    said = ["MIT", "Apache-2.0 AND MIT", "GPL-3.0-only", "MIT AND GPL-2.0-only", ""]
    rows = [{"query": f"question {i}", "positives": [f"answer {i}"], "licence": one} for i, one in enumerate(said)]
    path = recipe(tmp_path, *rows)
    values = json.loads(path.read_text())
    values["data"] = values["data"][:1]
    path.write_text(json.dumps(values))
    assert mix.load(read(path), lambda: Evaluations(())).sets[0].size == 5, "a recipe that names none takes any"
    path.write_text(json.dumps({**values, "licences": ["MIT", "Apache-2.0"]}))
    [found] = mix.load(read(path), lambda: Evaluations(())).sets
    assert (found.size, found.unlicensed) == (2, 3)
    path.write_text(json.dumps({**values, "licences": ["ISC"]}))
    with pytest.raises(UsageError, match=r"5 under a licence that `licences` does not name"):
        mix.load(read(path), lambda: Evaluations(()))


@pytest.mark.parametrize(("regime", "sizes"), [("in-domain", 2), ("out-of-domain", 0)])
def test_train_splits_of_coir_are_for_in_domain_recipes_only(tmp_path: Path, regime: str, sizes: int) -> None:
    rows = [{**STATED, "source": source} for source in ("cosqa", "codesearchnet")]
    path = recipe(tmp_path, *rows, {**STATED, "source": "pypi:django 5.2"})
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "regime": regime, "data": values["data"][:1]}))
    if not sizes:
        with pytest.raises(UsageError, match="has no pair that may be trained on"):
            mix.load(read(path), lambda: mix.forbidden(read(path), ()))
        return
    found = mix.load(read(path), lambda: mix.forbidden(read(path), ()))
    assert found.sets[0].size == sizes
    assert found.sets[0].forbidden == 1


class TestWhatPairsAreCheckedAgainst:
    def changed(self, path: Path, **values: object) -> Path:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return path

    def task(self, folder: Path, name: str, query: str) -> None:
        beir.write(beir.Task(name, {"c": "code"}, {"q": query}, {"q": {"c": 1}}), folder / "tasks" / name)

    def test_a_pattern_that_matches_nothing_is_no_check(self, tmp_path: Path) -> None:
        path = self.changed(recipe(tmp_path, STATED), base="packaged", never=["tasks/reported-*"])
        with pytest.raises(UsageError, match=r"tasks/reported-\* matches no folder"):
            Run(read(path), tmp_path / "out")

    def test_what_was_checked_against_other_tasks_is_not_gone_on_with(self, tmp_path: Path) -> None:
        self.task(tmp_path, "reported-a", "another question")
        path = self.changed(recipe(tmp_path, STATED), base="packaged", never=["tasks/reported-*"])
        Run(read(path), tmp_path / "out")
        Run(read(path), tmp_path / "out", resume=True)
        self.task(tmp_path, "reported-b", "one more question")
        with pytest.raises(UsageError, match=r"was checked against other tasks .* begin another run"):
            Run(read(path), tmp_path / "out", resume=True)

    def test_two_sets_of_one_name_are_refused(self, tmp_path: Path) -> None:
        path = recipe(tmp_path, STATED)
        self.changed(path, data=[{"name": "x", "files": ["pairs.jsonl"]}] * 2)
        with pytest.raises(UsageError, match="two data sets are called x"):
            Run(read(path), tmp_path / "out")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"lora": {"rank": 4}, "blend": 0.5}, "leave out lora"),
            ({"lora": {"rank": 4}, "choose": "average"}, "leave out lora"),
            ({"choose": "best"}, "set evaluate and evaluate_every"),
            ({"choose": "average", "keep": 1}, "keep is 1: raise it"),
        ],
    )
    def test_keys_that_do_not_go_together(self, tmp_path: Path, values: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Run(read(self.changed(recipe(tmp_path, STATED), **values)), tmp_path / "out")
