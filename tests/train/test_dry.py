"""A dry run prints what a recipe will do, and trains three steps of it, from the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode.cli import main
from embedcode.errors import UsageError
from embedcode.train.dry import dry
from embedcode.train.recipe import read
from embedcode.train.run import Run

ROOT = Path(__file__).parents[2]
HALF = {"name": "one", "files": ["one.jsonl"], "weight": 0.5}


def embedcode(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcode", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250, check=False)


def test_the_7b_recipe_is_checked_without_its_data_and_its_base(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["embedcode", "train", "--dry-run", str(ROOT / "recipes" / "nv_embedcode_7b.yaml")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    told, said = capsys.readouterr()
    assert (ended.value.code or 0, said) == (0, "")
    assert re.search(r"issues +177,000 pairs +33.1% of a batch", told)
    assert "8,344 of 64 queries" in told
    assert "batch 1: 21 issues, 11 issue-summaries" in told
    # One positive and seven negatives for each of 64 queries, and nothing else is compared.
    assert "first batch: 64 queries, 512 documents, 512 comparisons" in told
    losses = re.search(r"3 steps on a tiny random mistral: loss ([\d., ]+)", told)
    assert losses and len(losses[1].split(", ")) == 3


def test_json_says_the_same(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe("dry", in_batch=False, symmetric=False)
    monkeypatch.setattr(sys, "argv", ["embedcode", "train", "--dry-run", "--json", str(path)])
    with pytest.raises(SystemExit) as ended:  # here, where torch is loaded: a process of its own takes 18 s
        main()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert [name for name, *_ in found["sets"]] == ["one", "two"]
    assert all(sum(counts.values()) == 8 for counts in found["batches"])
    assert found["batches"][0] == {"one": 6, "two": 2}
    assert len(found["losses"]) == 3


def test_data_that_is_here_is_read(recipe: Callable[..., Path], world: Path) -> None:
    told: list[str] = []
    report = dry(read(recipe("read")), told.append)
    assert [(name, size, here) for name, size, here, _ in report.sets] == [("one", 96, True), ("two", 32, True)]
    assert not any("not here" in line for line in told)


def test_pairs_whose_negatives_mining_has_yet_to_find_are_compared_in_the_three_steps(
    recipe: Callable[..., Path], world: Path
) -> None:
    rows = [json.loads(line) | {"negatives": []} for line in (world / "one.jsonl").read_text().splitlines()]
    rows[1::2] = [row | {"query": "one question with many answers"} for row in rows[1::2]]
    (world / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = recipe("bare", data=[{"name": "bare", "files": ["bare.jsonl"]}], in_batch=False, mining={"rounds": 1})
    told: list[str] = []
    report = dry(read(path), told.append)
    assert report.queries == 8 and report.compared == 8 * (1 + 2), "each with two that do not answer it"
    assert all(loss > 0 for loss in report.losses)
    assert any(line.endswith("(48 negatives of these steps are lent by other pairs: mining has yet to find them)")
               for line in told)  # fmt: skip


def test_pairs_without_negatives_that_nothing_will_mine_are_refused(
    recipe: Callable[..., Path], world: Path, tmp_path: Path
) -> None:
    """They were trained on for nothing: a loss of 0, the base as it was, and a card of seven hard negatives."""
    rows = [json.loads(line) for line in (world / "one.jsonl").read_text().splitlines()]
    (world / "none.jsonl").write_text("".join(json.dumps(row | {"negatives": []}) + "\n" for row in rows))
    (world / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:8]))
    values: dict[str, object] = {"in_batch": False, "evaluate": [], "steps": 1}
    path = recipe("nothing", data=[{"name": "x", "files": ["none.jsonl"]}], **values)
    for go in (lambda: dry(read(path), print), Run(read(path), tmp_path / "a", tell=lambda line: None).go):
        with pytest.raises(UsageError, match=r"no pair has a negative, and without in_batch nothing is compared: set"):
            go()
    path = recipe("some", data=[{"name": "x", "files": ["none.jsonl", "some.jsonl"]}], **values)
    told: list[str] = []
    dry(read(path), told.append)
    said = "96 of 104 pairs have fewer than 2 negatives, 96 of them none: they teach nothing"
    assert said in told
    outcome = Run(read(path), tmp_path / "b", tell=told.append).go()
    assert told.count(said) == 2
    assert f"2 hard negatives ({said}), nothing of the batch" in (outcome.folder / "README.md").read_text()


def test_a_file_that_is_not_there_is_no_part_of_a_data_set(
    recipe: Callable[..., Path], world: Path, tmp_path: Path
) -> None:
    """A misspelt one went in silence, and a run with half of its data."""
    (world / "deep" / "er").mkdir(parents=True)
    shutil.copy(world / "two.jsonl", world / "deep" / "er" / "two.jsonl")
    path = recipe("lost", data=[{"name": "x", "files": ["one.jsonl", "deep/*/two.jsonl", "onne.jsonl", "no/*.gz"]}])
    assert len(read(path).places(read(path).data[0])) == 2
    told: list[str] = []
    dry(read(path), told.append)
    assert f"data set x: onne.jsonl, no/*.gz is not in {world}; a run refuses that" in told
    with pytest.raises(UsageError, match=r"data set x: onne\.jsonl, no/\*\.gz is not in .*: put it there"):
        Run(read(path), tmp_path / "out", tell=lambda line: None)


def test_no_set_is_larger_than_its_limit(recipe: Callable[..., Path]) -> None:
    asked: dict[str, object] = {"top": 3, "limit": 40}  # the base decides which, and is not here
    sets = [{"name": "one", "files": ["one.jsonl"], **asked}, {"name": "x", "files": ["x.jsonl"], "pairs": 90, **asked}]
    report = dry(read(recipe("limited", data=sets, steps=0)), lambda line: None)
    assert [size for _, size, *_ in report.sets] == [40, 40]
    assert report.steps == 80 / 8


def test_a_warm_up_that_leaves_no_step_to_decay_is_told(recipe: Callable[..., Path]) -> None:
    told: list[str] = []
    dry(read(recipe("warm", warmup=100, steps=12)), told.append)
    assert any("warmup 100 takes all of 12 steps" in line and "set it below 12" in line for line in told)
    assert any("12 warm-up steps, no decay" in line for line in told)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"in_batch": False, "negatives": 0}, "nothing is compared"),
        ({"batch": 8, "micro_batch": 3, "in_batch": False}, "must divide"),
        ({"micro_batch": 4}, "in_batch needs the whole batch"),
        ({"in_batch": False, "symmetric": True}, "symmetric compares queries across a batch"),
        ({"data": []}, "has no data"),
        ({"data": [HALF, {"name": "two", "files": ["none.jsonl"]}]}, "data set two has no weight and others have"),
        ({"data": [HALF | {"name": "a/b"}]}, "data set 'a/b' cannot be part of a file's name: call it without /"),
        ({"data": [HALF | {"name": "a" * 201}]}, "in up to 200 bytes"),
        ({"evaluate": ["toys", "others/toys"]}, "two tasks of evaluate are called toys"),
        ({"mining": {"rounds": 1}, "negatives": 0}, "negatives is 0: set negatives"),
        ({"mining": {"rounds": 1, "kept": 2}, "negatives": 3}, "kept 2 is fewer than the 3 negatives"),
        ({"negatives_temperature": 2.0, "mining": {"rounds": 1}}, "kept 0 holds no more than the 2 negatives"),
        ({"negatives_temperature": 2.0, "negatives": 0}, "temperature draws negatives, and negatives is 0"),
        ({"mining": {"share": 0.9}}, "mining.rounds is 0: set it, or leave them out"),
        ({"mining": {"kept": 8}}, "mining.rounds is 0: set it, or leave them out"),
        ({"data": [HALF | {"group": "source"}], "in_batch": False}, "data set one: group makes a batch's other"),
        ({"steps": 3, "epochs": 2}, "epochs 2 counts for nothing beside steps 3: leave one out"),
        ({"masks_prompt": True}, "there is no prompt or no mean: leave it out"),
        ({"masks_prompt": True, "query_prompt": "q: ", "pooling": "cls"}, "there is no prompt or no mean"),
        ({"instruction": "find"}, "which query_prompt has not: write it there"),
        ({"data": [HALF | {"instruction": "find"}]}, "which query_prompt has not: write it there"),
        ({"evaluate": [], "evaluate_every": 5}, "evaluate_every has no task to score: set evaluate"),
        ({"steps": 0, "epochs": 0}, "is no training: set one of them"),
        ({"max_tokens": 31}, "max_tokens 31 is below query_tokens 32: raise it, or lower that"),
        ({"max_tokens": 32, "passage_tokens": 64}, "max_tokens 32 is below passage_tokens 64"),
        ({"lora": {"targets": ["none"]}}, "'none' is no linear map of this network; it has dense, key, query, value"),
        ({"lora": {"targets": ["query", "vlaue"]}}, "'vlaue' is no linear map of this network; did you mean 'value'"),
        ({"lora": {"targets": []}}, "lora names no targets: give the linear maps that get an adapter, or leave it"),
        ({"network": "mistral", "lora": None}, "dropout 0.1 does nothing: this network has none"),
    ],
)
def test_values_that_do_not_go_together(recipe: Callable[..., Path], values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dry(read(recipe("odd", **values)), lambda line: None)


def test_a_misspelt_key_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: a\nbase: b\nbach: 3\n")
    done = embedcode("train", "r.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "embedcode: r.yaml: unknown key 'bach'; did you mean 'batch'?\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


def test_protection_that_names_nothing_is_said(recipe: Callable[..., Path]) -> None:
    told: list[str] = []
    dry(read(recipe("guarded", never=["tasks/none-*", "tasks/forgotten", "toys"])), told.append)
    assert any(line.startswith("never: tasks/none-*, tasks/forgotten matches no folder in ") for line in told)
