"""A run improves what it is steered by, goes on after kill -9 as if nothing had been, and makes a model that loads."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch
from checkpoints import write
from layouts import LAYOUTS
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import embedcode
from embedcode.cli import main
from embedcode.engine import memory, processor
from embedcode.errors import EmbedcodeError, UsageError
from embedcode.files import replacing
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.train import averaging, base, loop, losses, mix, near, network, publish, run
from embedcode.train.base import PINNED
from embedcode.train.batches import Batch, Collator
from embedcode.train.plan import Plan
from embedcode.train.recipe import Lora, Recipe, read
from embedcode.train.run import Outcome, Run
from embedcode.types import Role

Recipes = Callable[..., Path]
TEXTS = ["where is redcat", "def zip_a(x): return x", "a much longer text, of many words, that is cut at its end " * 8]


def go(path: Path, out: Path, resume: bool = False) -> Outcome:
    return Run(read(path), out, resume, tell=lambda line: None).go()


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    values = {
        "name": "long", "base": "base", "query_tokens": 32, "passage_tokens": 32, "query_prompt": "query: ",
        "data": [{"name": "one", "files": ["one.jsonl"]}, {"name": "two", "files": ["two.jsonl"]}],
        "evaluate": ["toys"], "batch": 16, "negatives": 2, "steps": 60, "save_every": 30, "warmup": 5,
        "learning_rate": 0.003, "licence": "Apache-2.0", "evaluate_every": 30,
    }  # fmt: skip
    (world / "long.yaml").write_text(json.dumps(values))
    return go(world / "long.yaml", tmp_path_factory.mktemp("long") / "out")


def test_training_improves_the_task(trained: Outcome) -> None:
    before, after = (np.mean(list(values["toys"].values())) for values in (trained.before, trained.after))
    assert after > before + 0.2
    logged = [json.loads(line) for line in (trained.folder.parent / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in logged if "loss" in entry]
    assert losses[-1] < losses[0]
    assert {"before", "step 30", "step 60", "after"} <= {name for entry in logged for name in entry}


def test_the_encoder_and_sentence_transformers_give_the_same_vectors(trained: Outcome) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(trained.folder), device="cpu")
    ours = embedcode.load(str(trained.folder), threads=1, precision="fp32")
    for role, prompt in ((Role.QUERY, "query"), (Role.PASSAGE, "document")):
        expected = theirs.encode(TEXTS, prompt_name=prompt, normalize_embeddings=True)
        found = ours.encode(TEXTS, role, truncate=embedcode.Truncate.END)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(ours.encode(TEXTS, Role.QUERY, truncate=embedcode.Truncate.END), found, atol=1e-3)


def test_the_scores_are_those_of_the_finished_model(trained: Outcome, world: Path) -> None:
    from embedcode.evaluate import beir
    from embedcode.evaluate.metrics import mean, ndcg_at

    task = beir.load(world / "toys")
    encoder = embedcode.load(str(trained.folder), threads=1, precision="fp32")
    scores = encoder.encode(list(task.queries.values()), Role.QUERY) @ encoder.encode(
        list(task.corpus.values()), Role.PASSAGE
    ).T  # fmt: skip
    run = {
        query: dict(zip(task.corpus, map(float, row), strict=True))
        for query, row in zip(task.queries, scores, strict=True)
    }
    assert mean(ndcg_at(10, run, task.qrels)) == pytest.approx(mean(trained.after["toys"]), abs=1e-3)


def test_meta_and_card_say_what_it_is(trained: Outcome) -> None:
    meta = json.loads((trained.folder / "meta.json").read_text())
    assert meta["space"] == embedcode.load(str(trained.folder)).space
    assert [one["pairs"] for one in meta["data"]] == [96, 32]
    assert meta["data"][0]["licences"] == {"MIT": 96}
    assert [one["other_licences"] for one in meta["data"]] == [0, 0]
    sources = json.loads((trained.folder / "sources.json").read_text())
    assert sum(one["pairs"] for one in sources) == 96 + 32
    assert {one["licence"] for one in sources} == {licence for one in meta["data"] for licence in one["licences"]}
    assert meta["steps"] == 60 and meta["licence"] == "Apache-2.0"
    assert meta["compared with"] == ["toys"]
    card = (trained.folder / "README.md").read_text()
    for heading in ("Intended use", "Training data", "Figures", "Limits", "Explainability", "Bias", "Privacy"):
        assert f"\n## {heading}\n" in card
    assert "\n## Safety and security\n" in card
    assert f"| toys | {meta['ndcg@10']['before']['toys']:.4f} | {meta['ndcg@10']['after']['toys']:.4f} |" in card
    assert "{" not in card.replace("{recipe", "")


def test_a_task_that_can_give_no_figure_is_refused_before_anything_is_written(
    recipe: Recipes, world: Path, tmp_path: Path
) -> None:
    (world / "empty").mkdir()
    (world / "empty" / "queries.jsonl").write_text('{"_id": "q", "text": "who"}\n')
    for name in ("corpus.jsonl", "qrels.tsv"):
        (world / "empty" / name).write_text("")
    with pytest.raises(UsageError, match=r"empty judges no document as relevant and cannot steer: check its qrels"):
        go(recipe("unjudged", evaluate=["toys", "empty"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_of_one_draw_by_their_place_but_in_a_run_that_was_begun_before(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[list[int]] = []
    batch = Collator.batch

    def noted(self: Collator, numbers: list[int], place: list[int]) -> Batch:
        places.append(place)
        return batch(self, numbers, place)

    monkeypatch.setattr(Collator, "batch", noted)
    path = recipe("ones", batch=2, micro_batch=1, in_batch=False, steps=2, evaluate=[])
    go(path, tmp_path / "new")
    assert places == [[0], [1], [2], [3]]
    places.clear()
    Run(read(path), tmp_path / "old", tell=lambda line: None)
    plan = json.loads((tmp_path / "old" / "plan.json").read_text())
    (tmp_path / "old" / "plan.json").write_text(json.dumps({"recipe": plan["recipe"]}))
    go(path, tmp_path / "old", resume=True)
    assert places == [[]] * 4


def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, torch.Tensor]] = []

    def noted(self: object, *_: object, model: torch.nn.Module, **__: object) -> None:
        found.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})

    monkeypatch.setattr(loop.Watch, "on_pre_optimizer_step", noted, raising=False)
    values: dict[str, Any] = {"in_batch": False, "dropout": 0, "clip": 0, "steps": 1, "evaluate": []}
    for parts in (0, 2):
        go(recipe("parts", micro_batch=parts, **values), tmp_path / f"{parts}")
    whole, parted = found
    assert whole.keys() == parted.keys() and max(float(one.abs().max()) for one in whole.values()) > 1e-3
    for name, one in whole.items():
        torch.testing.assert_close(parted[name], one, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.slow
def test_a_killed_run_in_parts_goes_on_as_it_would_have(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: object, arguments: object, state: Any, *_: object, **__: object) -> None:
        if state.global_step == 2:
            raise Killed

    path = recipe(
        "inparts", batch=4, micro_batch=1, in_batch=False, negatives_temperature=2.0, steps=3, save_every=1,
        evaluate=[],
    )  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Watch, "on_step_end", kill)
        go(path, tmp_path / "killed")
    assert [one.name for one in loop.checkpoints(tmp_path / "killed" / "round-1")] == ["checkpoint-1"]
    go(path, tmp_path / "killed", resume=True)
    go(path, tmp_path / "whole")
    for name, one in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "killed")[name], one), name


def test_pairs_that_the_base_does_not_find_are_left_out_and_a_run_goes_on_with_those_it_chose(
    recipe: Recipes, world: Path, tmp_path: Path
) -> None:
    rows = (world / "one.jsonl").read_text()
    (world / "some.jsonl").write_text(rows)
    sets = [{"name": "some", "files": ["some.jsonl"], "most": 80, "top": 3, "limit": 10}]
    path = recipe("some", data=sets, negatives=1, mining={"rounds": 1})
    said: list[str] = []
    run = Run(read(path), tmp_path / "out", tell=said.append)
    assert len(run.mix.pairs) == 80
    before = set(run.mix.pairs)
    run.go()
    assert 0 < len(run.mix.pairs) <= 10
    assert set(run.mix.pairs) <= before
    assert any(f"{len(run.mix.pairs)} of 80 pairs" in line for line in said)
    (world / "some.jsonl").unlink()  # checking takes long: a run that goes on does not do it again
    again = Run(read(path), tmp_path / "out", resume=True, tell=said.append)
    again.go()
    assert again.mix.pairs == run.mix.pairs


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def train(path: Path, out: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "embedcode", "train", str(path), "--out", str(out), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options  # type: ignore[call-overload]
    )  # fmt: skip


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Dropout, drawn negatives and a LoRA adapter: all that could be drawn otherwise after the kill is in it.
    path = recipe(
        "killed", steps=12, save_every=4, negatives_temperature=2.0, evaluate=[],
        lora={"rank": 4, "targets": ["query", "value"]},
    )  # fmt: skip
    killed = train(path, tmp_path / "killed")
    deadline = time.monotonic() + 200
    while not loop.checkpoints(tmp_path / "killed" / "round-1"):
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    if (tmp_path / "killed" / "model").exists():
        pytest.skip("it had ended before the kill")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the killed one had: sums of more are others
    monkeypatch.setattr(sys, "argv", ["embedcode", "train", str(path), "--out", str(tmp_path / "killed"), "--resume"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "going on from step" in capsys.readouterr().err
    go(path, tmp_path / "whole")
    torch.set_num_threads(threads)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert first.keys() == second.keys()
    for name, one in first.items():
        torch.testing.assert_close(second[name], one, rtol=0, atol=0, msg=name)


def test_a_folder_with_a_run_is_not_taken_again_or_by_another_recipe(recipe: Recipes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = recipe("first", evaluate=[])
    go(path, out)
    before = weights(out)
    with pytest.raises(UsageError, match="go on with --resume"):
        go(path, out)
    with pytest.raises(UsageError, match=r"another learning_rate: 0\.003, not 0\.001"):
        go(recipe("first", evaluate=[], learning_rate=0.001), out, resume=True)
    one = {"name": "one", "files": ["one.jsonl"]}
    changed = [
        ([one, {"name": "two", "files": ["two.jsonl"], "limit": 9}], "limit of data two: 0, not 9"),
        ([one, one | {"name": "two"}], "files of data two: 'two.jsonl', not 'one.jsonl'"),
        ([one], r"data: \['one', 'two'\], not \['one'\]"),
    ]
    for data, message in changed:
        with pytest.raises(UsageError, match=f"another {message}. Go on"):
            go(recipe("first", evaluate=[], data=data), out, resume=True)
    with pytest.raises(UsageError, match=r"another share of mining: 0\.95, not 0\.5"):
        go(recipe("first", evaluate=[], mining={"share": 0.5}), out, resume=True)
    plan = json.loads((out / "plan.json").read_text())
    for new in ("licences", "clip"):  # as of a version that did not have them
        del plan["recipe"][new]
    del plan["recipe"]["mining"]["kept"]
    for one in plan["recipe"]["data"]:
        del one["ask"]
    (out / "plan.json").write_text(json.dumps(plan))
    go(recipe("first", evaluate=[]), out, resume=True)  # nothing is left to do but to write it again
    # As the recipes that ship say since: a pin, and that the mean is as the base has it.
    mended = replace(read(path), base=f"{read(path).base}{PINNED}{'0' * 64}", masks_prompt=False)
    Plan(mended, out, "fp32", resume=True, tell=lambda line: None)
    with pytest.raises(UsageError, match=r"another masks_prompt: None, not True"):
        Plan(replace(mended, masks_prompt=True), out, "fp32", resume=True, tell=lambda line: None)
    with pytest.raises(UsageError, match=r"another base: "):
        Plan(replace(mended, base="other"), out, "fp32", resume=True, tell=lambda line: None)
    with pytest.raises(UsageError, match=r"another clip: 1\.0, not 0\.5"):
        go(recipe("first", evaluate=[], clip=0.5), out, resume=True)
    assert all(torch.equal(one, before[name]) for name, one in weights(out).items())


def test_a_run_goes_on_from_the_base_that_it_was_begun_from(recipe: Recipes, world: Path, tmp_path: Path) -> None:
    """Adapters of one base fit another of its shape, and the scores of the one are no figures of the other."""
    place, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(world / "base", place)
    path = recipe("moved", base=str(place), steps=1, save_every=1)
    first = go(path, out)
    tensors = load_file(place / "model.safetensors")
    save_file({name: one * 1.5 for name, one in tensors.items()}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"was begun from other weights than .*base has now: put those back, or give"):
        Run(read(path), out, resume=True, tell=lambda line: None)
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps({name: one for name, one in plan.items() if name != "base"}))
    Run(read(path), out, resume=True, tell=lambda line: None)  # of a version that did not note it: it does from now on
    assert json.loads((out / "plan.json").read_text())["base"] != plan["base"]
    assert go(path, out, resume=True).before != first.before
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="was begun from other weights"):
        Run(read(path), out, resume=True, tell=lambda line: None)


@pytest.mark.parametrize("table", ["", "lora", "data"])
def test_a_run_of_a_version_whose_recipes_had_another_key_says_so(recipe: Recipes, tmp_path: Path, table: str) -> None:
    path = recipe("later", evaluate=[], lora={"rank": 4, "targets": ["query"]})
    Run(read(path), tmp_path, tell=lambda line: None)
    plan = json.loads((tmp_path / "plan.json").read_text())
    del plan["recipe"]["lora"]["dropout"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    Run(read(path), tmp_path, resume=True, tell=lambda line: None)
    whole = plan["recipe"]
    {"": whole, "lora": whole["lora"], "data": whole["data"][1]}[table]["warm_restarts"] = 0
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match=r"another version of embedcode began, with the key 'warm_restarts': go on"):
        Run(read(path), tmp_path, resume=True, tell=lambda line: None)


def test_figures_are_of_the_judgements_that_there_are_now(recipe: Recipes, world: Path, tmp_path: Path) -> None:
    task = world / "judged"
    shutil.copytree(world / "toys", task)
    path = recipe("judged", evaluate=["judged"], evaluate_every=1, choose="best", steps=1)
    first = go(path, tmp_path / "out")
    lines = (task / "qrels.tsv").read_text().splitlines()
    documents = [line.split("\t")[1] for line in lines]
    turned = zip(lines, documents[1:] + documents[:1], strict=True)
    (task / "qrels.tsv").write_text("".join(f"{line.split()[0]}\t{document}\t1\n" for line, document in turned))
    shutil.rmtree(tmp_path / "out" / "round-1" / "checkpoint-1")
    again, fresh = go(path, tmp_path / "out", resume=True), go(path, tmp_path / "fresh")
    assert again.before == fresh.before != first.before
    best = [json.loads((tmp_path / name / "round-1" / "best.json").read_text()) for name in ("out", "fresh")]
    assert best[0] == best[1], "the best score of before is of another task"


def test_sizes_that_were_trained_can_be_asked_for_and_those_of_the_base_no_more(
    recipe: Recipes, world: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(world / "base", base)
    published = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(published | {"matryoshka_dimensions": [16, 64]}))
    values = {"base": str(base), "evaluate": [], "steps": 1}
    cut = go(recipe("cut", dimensions=[32], **values), tmp_path / "cut").folder
    model = embedcode.load(str(cut), threads=1, precision="fp32")
    assert model.encode(TEXTS[:1], Role.QUERY, dimensions=32).shape == (1, 32)
    with pytest.raises(UsageError, match=r"does not declare dimensions 16"):
        model.encode(TEXTS[:1], Role.QUERY, dimensions=16)
    assert Checkpoint.read(go(recipe("uncut", **values), tmp_path / "uncut").folder).dimensions == ()


def test_a_run_that_diverges_ends_and_publishes_nothing(
    recipe: Recipes, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world / "base", broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] = torch.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"the loss is no number any more at step 1, .* lower learning_rate"):
        go(recipe("broken", base=str(broken), evaluate=[]), tmp_path / "loss")

    real = losses.contrastive

    def steep(*arguments: Any) -> torch.Tensor:
        found = real(*arguments)
        return found + (found * 0).sqrt()  # 0, with a gradient that is no number

    monkeypatch.setattr(losses, "contrastive", steep)
    with pytest.raises(UsageError, match=r"weights are no numbers any more at step 1, .* lower learning_rate"):
        go(recipe("steep", steps=1, evaluate=[]), tmp_path / "weights")
    for name in ("loss", "weights"):
        assert not (tmp_path / name / "model").exists()
        assert loop.checkpoints(tmp_path / name / "round-1") == []


def test_queries_are_brought_together_by_what_they_are_trained_with(recipe: Recipes, tmp_path: Path) -> None:
    sets = [{"name": name, "files": ["two.jsonl"], "group": "near"} for name in ("one", "two")]
    sets[1]["instruction"] = "find the colour"
    path = recipe("asked", data=sets, evaluate=[], steps=1, query_prompt="{instruction}: ", instruction="find")
    go(path, tmp_path)
    one, two = (np.load(tmp_path / f"near-{name}.npy") for name in ("one", "two"))
    assert one.shape == two.shape and not np.allclose(one, two, atol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": [{"name": "one", "files": ["one.jsonl"]}, {"name": "two", "files": ["tow.jsonl"]}]}, "put it there"),
        ({"evaluate": ["tosy"]}, "tosy/corpus.jsonl does not exist"),
        ({"base": "/no/bsae"}, "bsae is no folder"),
        ({"base": f"/{300 * 'x'}"}, "xx is no folder"),
    ],
)
def test_a_start_that_is_refused_leaves_the_folder_to_the_corrected_recipe(
    recipe: Recipes, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "pairs-mine.jsonl").write_text("of somebody else")
    with pytest.raises(EmbedcodeError, match=message):
        go(recipe("refused", **wrong), out)
    sets = [{"name": "one", "files": ["one.jsonl"], "limit": 20}, {"name": "two", "files": ["two.jsonl"]}]
    made = Run(read(recipe("refused", data=sets)), out, tell=lambda line: None)
    assert [one.size for one in made.mix.sets] == [20, 32]
    with pytest.raises(EmbedcodeError):
        go(recipe("refused", **wrong), out, resume=True)
    assert {file.name for file in out.iterdir()} >= {"plan.json", "pairs-one.json", "pairs-mine.jsonl"}


def test_a_full_disk_leaves_the_last_whole_checkpoint(recipe: Recipes, tmp_path: Path) -> None:
    path, out = recipe("full", steps=6, save_every=2, evaluate=[]), tmp_path / "out"
    go(recipe("full", steps=6, save_every=2, evaluate=[]), tmp_path / "size")
    size = max(file.stat().st_size for file in (tmp_path / "size").rglob("*") if file.is_file())

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, before[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot be written.*--resume"):
            go(path, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert loop.checkpoints(out / "round-1") == []
    assert not (out / "model").exists()
    assert not list(out.rglob(".part")), "half a checkpoint"
    go(path, out, resume=True)
    assert all(torch.equal(one, weights(out)[name]) for name, one in weights(tmp_path / "size").items())


def test_a_disk_that_fills_at_the_second_checkpoint_leaves_the_first(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = recipe("filling", steps=6, save_every=2, evaluate=[]), tmp_path / "out"
    go(recipe("filling", steps=6, save_every=2, evaluate=[]), tmp_path / "whole")
    written: list[Path] = []

    def filling(tensors: dict[str, torch.Tensor], place: Path) -> None:
        written.append(place)
        if len(written) == 2:
            place.write_bytes(b"half of it")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, place)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_file", filling)
        with pytest.raises(UsageError, match=r"step 4 cannot be written .*No space left.* checkpoint-2 is whole"):
            go(path, out)
    assert [place.name for place in loop.checkpoints(out / "round-1")] == ["checkpoint-2"]
    go(path, out, resume=True)
    assert all(torch.equal(one, weights(out)[name]) for name, one in weights(tmp_path / "whole").items())


def test_a_disk_that_fills_at_the_end_costs_the_model_only(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    path = recipe("last", steps=2, evaluate=[])
    with monkeypatch.context() as patch:
        patch.setattr(publish, "write", full)
        with pytest.raises(UsageError, match=r"model cannot be written .*no space left.*go on with --resume"):
            go(path, tmp_path / "out")
    go(path, tmp_path / "out", resume=True)
    assert weights(tmp_path / "out")


@pytest.mark.parametrize("name", ["plan.json", "before.json", "near-one.npy", "pairs-one.json"])
def test_a_disk_that_fills_at_a_small_file_is_one_sentence(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "out").mkdir()

    def filling(place: Path) -> AbstractContextManager[IO[bytes]]:
        if place.name == name and (place.exists() or name != "plan.json"):  # the plan is written again with its steps
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replacing(place)

    monkeypatch.setattr("embedcode.files.replacing", filling)
    monkeypatch.setattr(near, "replacing", filling)
    path = recipe("small", data=[{"name": "one", "files": ["one.jsonl"], "group": "near"}])
    with pytest.raises(UsageError, match=r"cannot be written \(no space left on device\): free some space"):
        go(path, tmp_path / "out")


def test_sizes_beyond_the_base_are_refused_before_pairs_are_read(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "load", lambda *_: pytest.fail("eight minutes, of the packaged model's pairs"))
    with pytest.raises(UsageError, match="4096 is more than the 64 that base has"):
        go(recipe("wide", dimensions=[32, 4096]), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert base.open_base(read(recipe("wide", dimensions=[32, 64])), tmp_path).dim == 64


def test_texts_longer_than_the_base_reads_are_refused(recipe: Recipes, tmp_path: Path) -> None:
    """They were cut shorter than recipe and card say."""
    with pytest.raises(UsageError, match=r"base reads 4,096 tokens, and passage_tokens is 5,000: lower it"):
        go(recipe("longest", passage_tokens=5000), tmp_path / "out")


def test_prompts_that_are_left_out_of_the_mean_stay_so(recipe: Recipes, tmp_path: Path) -> None:
    asked = read(recipe("masked", masks_prompt=True, query_prompt="please find this: ", steps=1, evaluate=[]))
    folder = Run(asked, tmp_path / "out", tell=lambda line: None).go().folder
    trained = base.as_trained(asked, Checkpoint.read(folder))
    tokens = run.texts(asked, trained).query(TEXTS[:2])
    masked, whole = (
        network.encode(network.untrained(replace(trained, masks_prompt=masks)), tokens) for masks in (True, False)
    )
    ours = embedcode.load(str(folder), threads=1, precision="fp32").encode(TEXTS[:2], Role.QUERY)
    np.testing.assert_allclose(ours, masked, atol=1e-5)
    assert not np.allclose(masked, whole, atol=1e-3)


def test_how_a_base_is_read_and_computed_is_said(
    recipe: Recipes, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored without its own prompts and pooling a base is worse than it is, and the gain is not one."""
    monkeypatch.setattr(processor, "features", frozenset)
    theirs = replace(
        Checkpoint.read(world / "base"), causal=True, pooling=Pooling.LAST, instruction="find",
        prompts={Role.QUERY: "Task: {instruction}\n", Role.PASSAGE: ""},
    )  # fmt: skip
    monkeypatch.setattr(base, "published", lambda *_: theirs)
    told: list[str] = []
    values: dict[str, Any] = {"steps": 1, "save_every": 1, "choose": "average", "precision": "bf16"}
    outcome = Run(read(recipe("reread", **values)), tmp_path / "out", tell=told.append).go()
    said = "both ways for causal, mean pooling for last, the query's prompt '' for 'Task: find\\n'"
    assert f"the base is scored as this recipe reads it, {said}: as published it may do better" in told
    assert "computed in fp32, since this processor would emulate bf16" in told
    assert "the mean is of one checkpoint: save_every leaves no more in so many steps" in told
    card = (outcome.folder / "README.md").read_text()
    assert f"The base is scored as this model reads it: {said}." in card
    assert "| precision | fp32 |" in card


def test_a_card_that_is_full_is_one_sentence(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop.Loop, "train", full)
    with pytest.raises(UsageError, match=r"no room for a step of 8 queries with 3 passages .*gradient_checkpointing"):
        go(recipe("full", evaluate=[]), tmp_path / "out")


def test_a_base_too_big_is_refused_before_it_is_loaded(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    monkeypatch.setattr(mix, "load", lambda *_: pytest.fail("eight minutes, of the packaged model's pairs"))
    with pytest.raises(UsageError, match=r"GB of memory to be trained and 0.0 GB are free: train adapters \(lora\)"):
        go(recipe("big", evaluate=[]), tmp_path / "big")
    with pytest.raises(UsageError, match="free: take a smaller base"):
        go(recipe("large", evaluate=[], lora={"rank": 4, "targets": ["query"]}), tmp_path / "large")


def test_what_the_base_has_no_place_for_is_refused_before_pairs_are_read(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside others that there are, a misspelt target was passed over in silence, and a map of three not trained."""
    monkeypatch.setattr(mix, "load", lambda *_: pytest.fail("a night of mining"))
    decoder(tmp_path / "decoder", torch.float32)
    values: dict[str, Any] = {"base": str(tmp_path / "decoder"), "evaluate": []}
    lora = {"targets": ["q_proj", "k_proj", "v_porj"]}
    with pytest.raises(UsageError, match="'v_porj' is no linear map of this network; did you mean 'v_proj'"):
        go(recipe("misspelt", lora=lora, dropout=0, **values), tmp_path / "misspelt")
    with pytest.raises(UsageError, match=r"dropout 0.1 does nothing: this network has none"):
        go(recipe("dropping", **values), tmp_path / "dropping")


def test_a_base_too_big_for_the_card_is_refused_whatever_the_machine_has(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (600_000_000, 80_000_000_000))
    with pytest.raises(UsageError, match=r"to be trained and 0.6 GB are free on the card: train adapters \(lora\)"):
        go(recipe("card", evaluate=[]), tmp_path / "card")


def decoder(folder: Path, dtype: torch.dtype) -> Checkpoint:
    """A tiny random Mistral whose weights are stored in `dtype`."""
    base.tiny(Recipe(folder.parent, "tiny", "none", network="mistral"), folder)
    file = folder / "model.safetensors"
    save_file({name: one.to(dtype) for name, one in load_file(file).items()}, file, {"format": "pt"})
    return Checkpoint.read(folder)


def test_a_base_in_bf16_stays_so_under_adapters_and_what_is_published_is_exact(tmp_path: Path) -> None:
    """7 B frozen weights in fp32 are 28 GB of a card; adapters in bf16 would lose every step of 1e-6."""
    checkpoint = decoder(tmp_path / "half", torch.bfloat16)
    model = network.trainable(checkpoint, Lora(4), 0.0, precision="bf16")
    types = {name: one.dtype for name, one in network.body(model).network.named_parameters()}
    assert {one for name, one in types.items() if ".lora_" in name} == {torch.float32}
    assert {one for name, one in types.items() if ".lora_" not in name} == {torch.bfloat16}
    for adapter in network.trained_weights(model).values():
        torch.nn.init.normal_(adapter, std=0.02)
    layer = network.body(model).network.layers[0].self_attn.q_proj
    delta = layer.lora_B.default.weight @ layer.lora_A.default.weight * layer.scaling["default"]
    stored = load_file(tmp_path / "half" / "model.safetensors")
    found = network.merged(model)
    assert {one.dtype for one in found.values()} == {torch.float32}
    torch.testing.assert_close(
        found["layers.0.self_attn.q_proj.weight"], stored["layers.0.self_attn.q_proj.weight"].float() + delta
    )
    assert torch.equal(found["embed_tokens.weight"], stored["embed_tokens.weight"].float())
    whole = network.trainable(
        checkpoint, None, 0.0, precision="bf16"
    )  # all of it is trained: by steps too small for bf16
    assert {one.dtype for one in whole.parameters()} == {torch.float32}
    fine = network.trainable(decoder(tmp_path / "fine", torch.float32), Lora(4), 0.0, precision="bf16")
    assert {one.dtype for one in fine.parameters()} == {torch.float32}, "bf16 would round what is stored in fp32"


def test_layers_that_are_computed_again_give_the_same_gradients(tmp_path: Path) -> None:
    checkpoint = decoder(tmp_path / "decoder", torch.float32)
    batch = {
        "input_ids": torch.arange(5, 17)[None],
        "position_ids": torch.tensor([[*range(7), *range(5)]]),
        "borders": [0, 7, 12],
    }
    gradients, passes = [], []
    for again in (False, True):
        torch.manual_seed(1)
        model = network.trainable(checkpoint, Lora(4), 0.0, checkpointing=again)
        for name, one in network.trained_weights(model).items():
            torch.nn.init.normal_(one, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        runs: list[int] = []
        network.body(model).network.layers[0].mlp.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        network.body(model)(batch)["sentence_embedding"].square().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
        passes.append(len(runs))
    assert passes == [1, 2]
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 28
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, msg=name)


def test_merging_adapters_adds_them_to_a_copy_and_never_writes_the_model(world: Path) -> None:
    """A card has no room for a second copy, and what is added and taken away is not the same to the bit."""
    model = network.trainable(Checkpoint.read(world / "base"), Lora(4, targets=("query", "value")), 0.0)
    built = network.body(model).network
    for adapter in network.trained_weights(model).values():
        torch.nn.init.normal_(adapter, std=0.02)
    before = {name: (one.clone(), one._version) for name, one in built.named_parameters()}
    found = network.merged(model)
    for name, one in built.named_parameters():
        assert torch.equal(one, before[name][0]) and one._version == before[name][1], name
    for layer in built.modules():
        if isinstance(layer, LoraLayer):
            layer.merge()  # as the library does
    expected = {name.replace(".base_layer.", "."): one for name, one in built.state_dict().items()}
    assert found.keys() == {name for name in expected if ".lora_" not in name}
    assert all(torch.equal(one, expected[name]) for name, one in found.items())
    base = load_file(world / "base" / "model.safetensors")
    assert sum(not torch.equal(one, base[name]) for name, one in found.items()) == 4, "two maps of two layers"


def test_a_round_begins_without_a_network_of_before_in_memory(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    real = network.network.build

    def build(*arguments: Any) -> Any:
        assert all(one() is None for one in made), "a card would hold both"
        built = real(*arguments)
        made.append(weakref.ref(built))
        return built

    monkeypatch.setattr(network.network, "build", build)
    go(recipe("rounds", negatives=1, mining={"rounds": 2}, evaluate=[]), tmp_path / "out")
    assert len(made) == 3, "one to mine with, then one a round"


@pytest.mark.slow
def test_minutes_are_those_of_all_rounds_together(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "seconds_a_step", lambda *_: 0.2)
    values = {"steps": 100, "minutes": 4 * 0.2 / 60 / run.SPARE + 1e-9, "negatives": 1, "evaluate": []}
    assert go(recipe("one", mining={"rounds": 1}, **values), tmp_path / "one").steps == 4
    assert go(recipe("two", mining={"rounds": 2}, **values), tmp_path / "two").steps == 2, "of each round"


def test_a_gradient_is_clipped_as_the_recipe_says(recipe: Recipes, world: Path, tmp_path: Path) -> None:
    """Adam's steps do not depend on the gradient's size, until its epsilon is larger."""
    base = load_file(world / "base" / "model.safetensors")

    def moved(name: str, **values: float) -> float:
        go(recipe(name, evaluate=[], **values), tmp_path / name)
        return max(float((one - base[name]).abs().max()) for name, one in weights(tmp_path / name).items())

    assert moved("clipped", clip=1e-12) < 1e-5 < 1e-4 < moved("free", clip=0)


def test_a_filter_that_leaves_nothing_says_so(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcode.data.filter.consistent", lambda *_, **__: SimpleNamespace(kept=[]))
    path = recipe("none", data=[{"name": "one", "files": ["one.jsonl"], "top": 3}])
    with pytest.raises(UsageError, match=r"data set one: the base finds none of its .* set top higher"):
        go(path, tmp_path / "out")


def test_only_so_many_checkpoints_are_kept_and_averaged(recipe: Recipes, tmp_path: Path) -> None:
    go(recipe("kept", steps=6, save_every=1, keep=3, choose="average", evaluate=[]), tmp_path / "out")
    kept = loop.checkpoints(tmp_path / "out" / "round-1")
    assert [path.name for path in kept] == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]
    parts = [load_file(path / loop.WEIGHTS) for path in kept]
    for name, one in weights(tmp_path / "out").items():
        mean = torch.stack([next(v for k, v in part.items() if k.endswith(name)) for part in parts]).mean(0)
        torch.testing.assert_close(one, mean, rtol=1e-6, atol=1e-7)


def test_a_kill_while_a_checkpoint_is_removed_changes_no_average(
    recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(folder: Path) -> None:
        raise Killed

    path = recipe("removed", steps=6, save_every=2, keep=2, choose="average", evaluate=[])
    go(path, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "_remove", kill)
        go(path, tmp_path / "killed")
    folder = tmp_path / "killed" / "round-1"
    assert len(loop.checkpoints(folder)) == 3
    (folder / ".checkpoint-1.gone").mkdir()  # as of a kill a moment later
    go(path, tmp_path / "killed", resume=True)
    assert sorted(one.name for one in folder.glob("*checkpoint*")) == ["checkpoint-4", "checkpoint-6"]
    for name, one in weights(tmp_path / "killed").items():
        assert torch.equal(one, weights(tmp_path / "whole")[name]), name


def test_blend_lies_between_base_and_tuned(recipe: Recipes, world: Path, tmp_path: Path) -> None:
    for name, share in (("tuned", 1.0), ("half", 0.5)):
        go(recipe(name, evaluate=[], blend=share), tmp_path / name)
    base = load_file(world / "base" / "model.safetensors")
    tuned, half = weights(tmp_path / "tuned"), weights(tmp_path / "half")
    for name, one in half.items():
        torch.testing.assert_close(one, (base[name] + tuned[name]) / 2, rtol=1e-5, atol=1e-7)


def test_averages_are_of_one_model() -> None:
    one = {"a": torch.tensor([1.0, 2.0])}
    assert torch.equal(averaging.average([one, {"a": torch.tensor([3.0, 6.0])}])["a"], torch.tensor([2.0, 4.0]))
    with pytest.raises(UsageError, match="different models"):
        averaging.average([one, {"b": torch.tensor([1.0])}])
    with pytest.raises(UsageError, match="no checkpoint"):
        averaging.average([])
    with pytest.raises(UsageError, match="another model: begin another run, by --out"):
        network.put_weights(torch.nn.Linear(2, 1), one)


def test_nothing_of_a_task_is_trained_on(recipe: Recipes, world: Path, tmp_path: Path) -> None:
    from embedcode.evaluate import beir

    corpus = beir.load(world / "toys").corpus
    rows = [
        {"query": "a fair question", "positives": ["def fair(x): return x"], "source": "fair 1.0"},
        {"query": "reformatted", "positives": [next(iter(corpus.values())).replace("y: y", "y :  y") + "  # copied"]},
        {"query": "Please find the REDCAT!", "positives": ["def other(x): return x"]},
        {"query": "by name", "positives": ["def by_name(x): return x"], "source": "django 5.1"},
        {"query": "held out", "positives": ["def held(x): return x"], "source": "debian:python-shapes 2-1"},
        {"query": "by repository", "positives": ["def by_repo(x): return x"], "source": "https://github.com/psf/requests.git"},
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held.toml").write_text('[reported]\npython = ["pypi:shapes"]\n')
    data = [{"name": "all", "files": [str(tmp_path / "pairs.jsonl")]}]
    path = recipe("barred", data=data, batch=1, held_out=str(tmp_path / "held.toml"))
    made = Run(read(path), tmp_path / "out", tell=lambda line: None)
    assert [pair.query for pair in made.mix.pairs] == ["a fair question"]
    assert made.mix.sets[0].forbidden == 5


def test_what_only_the_name_of_the_base_told_is_published(world: Path, tmp_path: Path) -> None:
    """Texts of F2LLM-v2 end with a token: trained on with it and loaded without, a model would pool another one."""
    place = write(LAYOUTS["f2llm"], tmp_path)
    values = {
        "name": "tuned", "base": str(place), "causal": True, "pooling": "last", "query_tokens": 128,
        "passage_tokens": 128,
        "data": [{"name": "one", "files": [str(world / "one.jsonl")]}], "batch": 4, "steps": 1, "warmup": 0,
        "learning_rate": 1e-9, "query_prompt": "Task: {instruction}\n", "instruction": "find it",
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    made = go(tmp_path / "r.yaml", tmp_path / "out")
    read = Checkpoint.read(made.folder)
    assert (read.prompts[Role.QUERY], read.instruction) == ("Task: {instruction}\n", "find it"), "another may be given"
    assert read.eos == Checkpoint.read(place).eos == "<|im_end|>"
    before, after = (embedcode.load(str(one), threads=1, precision="fp32") for one in (place, made.folder))
    np.testing.assert_allclose(after.encode(TEXTS[:2], Role.PASSAGE), before.encode(TEXTS[:2], Role.PASSAGE), atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("said", [{}, {"is_causal": False}, {"is_causal": True}, {"use_bidirectional_attention": True}])
def test_how_a_decoder_saw_is_published_whatever_its_base_says(
    said: dict[str, bool], causal: bool, tmp_path: Path
) -> None:
    """One trained with the mask was read without it, where its base's config.json said so."""
    file = decoder(tmp_path / "base", torch.float32).folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    trained = replace(Checkpoint.read(file.parent), causal=causal)
    file.write_text(json.dumps(publish._config(trained, ())))
    assert Checkpoint.read(file.parent).causal is causal


def test_a_decoder_is_made_bidirectional_and_stays_so(world: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    decoder(tmp_path / "decoder", torch.float32)
    values = {
        "name": "decoder", "base": str(tmp_path / "decoder"), "network": "mistral", "query_tokens": 32,
        "passage_tokens": 32, "data": [{"name": "one", "files": [str(world / "one.jsonl")]}], "batch": 4,
        "negatives": 3, "in_batch": False, "micro_batch": 2, "steps": 3, "warmup": 1, "learning_rate": 0.01,
        "lora": {"rank": 4}, "query_prompt": "Instruct: {instruction}\nQuery: ",
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    made = go(tmp_path / "r.yaml", tmp_path / "out")
    logged = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in logged if "loss" in one] == [3], "the last losses, though no ten steps are done"
    assert re.fullmatch("[0-9a-f]{8}", json.loads((made.folder / "meta.json").read_text())["made"]["files"])
    theirs = SentenceTransformer(str(made.folder), device="cpu")
    ours = embedcode.load(str(made.folder), threads=1, precision="fp32")
    assert ours.build  # loads as a checkpoint, not as an export
    expected = theirs.encode(TEXTS, prompt_name="query", normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode(TEXTS, Role.QUERY, truncate=embedcode.Truncate.END), expected, atol=1e-5)
    one = [theirs.encode(text, normalize_embeddings=True) for text in TEXTS]  # alone: no mask, the causal trap
    np.testing.assert_allclose(ours.encode(TEXTS, Role.PASSAGE, truncate=embedcode.Truncate.END), one, atol=1e-5)
    states = [
        theirs.encode(text, output_value="token_embeddings")[0].cpu().numpy() for text in ("def a(x): y", "def a(x): z")
    ]
    assert not np.allclose(states[0], states[1], atol=1e-4), "the first token does not see the last"
    before = load_file(tmp_path / "decoder" / "model.safetensors")
    after = load_file(made.folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert not torch.equal(before["layers.0.self_attn.q_proj.weight"], after["layers.0.self_attn.q_proj.weight"])
    assert torch.equal(before["embed_tokens.weight"], after["embed_tokens.weight"])
