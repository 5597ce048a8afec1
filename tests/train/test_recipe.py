"""Recipes: what is misspelt or of the wrong kind is refused with the cure; the published one says what was."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from embedcode.errors import UsageError
from embedcode.train.recipe import Data, Lora, Mining, Recipe, read

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
LEAST = "name: a\nbase: b\n"


def written(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 1e-6", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("folder: /", "unknown key 'folder'"),
        ("batch: many", "batch = 'many' must be a whole number of queries from 1"),
        ("batch: 0", "batch = 0 must be a whole number of queries from 1"),
        ("batch: true", "batch = True must be a whole number"),
        ("batch: 6.5", "batch = 6.5 must be a whole number"),
        ("learning_rate: 3", "learning_rate = 3 must be a number from 1e-12 to 1"),
        ("learning_rate: .nan", "learning_rate = nan must be a number"),
        ("precision: fp16", "precision = 'fp16' must be one of fp32, bf16"),
        ("in_batch: 1", "in_batch = 1 must be true or false"),
        ("name: [a]", "the key 'name' twice"),
        ("epochs: .inf", "epochs = inf must be a number"),
        (f"minutes: 1{'0' * 400}", "must be a number of minutes"),
        ("dimensions: [64, 0]", "dimensions, entry 2 = 0 must be a whole number from 1"),
        ("lora: {ranks: 4}", "lora: unknown key 'ranks'; did you mean 'rank'?"),
        ("lora: 4", "lora = 4 must be a table"),
        ("lora: {dropout: 1}", "lora: dropout = 1 must be a number from 0 to 0.99"),
        ("data: x", "data = 'x' must be a list"),
        ("data: [{name: x}]", "data, entry 1 lacks 'files'"),
        ("data: [{name: x, files: [3]}]", "data, entry 1: files, entry 1 = 3 must be text"),
        ("mining: {share: 95}", "mining: share = 95 must be a number of the positive's score from 0 to 1"),
        *((line, "is not valid YAML") for line in ("a: [", "[a, b]: 1", "{seed}: 1", "seed: !!int x")),
        *((f"notes: {value}", "is not valid YAML") for value in ("2024-99-99", "!!bool x", "!!timestamp x")),
    ],
)
def test_what_is_wrong_is_said_with_key_value_and_cure(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, f"{LEAST}{line}\n")
    with pytest.raises(UsageError) as error:
        read(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("- a", "is no recipe"), ("", "is no recipe"), ("name: a", "lacks 'base'")]
)
def test_what_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(written(tmp_path, text))
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read(tmp_path / "raw.yaml")


def test_numbers_are_read_as_yaml_writes_them(tmp_path: Path) -> None:
    got = read(written(tmp_path, f"{LEAST}learning_rate: 1e-6\nlora: {{alpha: 8}}\n"))
    assert got.learning_rate == 1e-6
    assert got.lora is not None and got.lora.alpha == 8.0 and got.lora.rank == 16


def test_inheritance_joins_tables_and_replaces_the_rest(tmp_path: Path) -> None:
    written(
        tmp_path, f"{LEAST}batch: 8\nmining: {{rounds: 2, share: .9}}\nlora: {{rank: 4}}\nevaluate: [x, y]\n", "p.yaml"
    )
    child = read(written(tmp_path, "inherits: p.yaml\nname: c\nmining: {rounds: 1}\nlora: null\nevaluate: [z]\n"))
    assert (child.name, child.base, child.batch) == ("c", "b", 8)
    assert (child.mining.rounds, child.mining.share) == (1, 0.9)
    assert child.lora is None
    assert child.evaluate == ("z",)


def test_a_circle_of_inheritance_ends(tmp_path: Path) -> None:
    written(tmp_path, "inherits: r.yaml\n", "p.yaml")
    with pytest.raises(UsageError, match="end the circle"):
        read(written(tmp_path, "inherits: p.yaml\n"))
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="another folder"):
        read(written(tmp_path / "sub", "inherits: ../p.yaml\n"))


def test_a_pattern_means_no_file_that_a_writer_has_beside_its_output(tmp_path: Path) -> None:
    """`data synthesize` keeps a journal there, and a writer that was killed leaves half a file."""
    for name in ("one.jsonl", "two.jsonl.gz", "one.jsonl.journal", ".one.jsonl.77.part", "x.jsonl.part"):
        written(tmp_path, "", name)
    got = read(written(tmp_path, f"{LEAST}data: [{{name: x, files: ['*.jsonl*']}}]\n"))
    assert [path.name for path in got.places(got.data[0])] == ["one.jsonl", "two.jsonl.gz"]


def test_the_7b_recipe_is_the_published_one() -> None:
    got = read(ROOT / "recipes" / "nv_embedcode_7b.yaml")
    assert got.lora is not None
    assert (got.lora.rank, got.lora.alpha, got.lora.dropout) == (16, 32, 0.1)
    assert (got.learning_rate, got.warmup, got.precision, got.weight_decay) == (1e-6, 200, "bf16", 0)
    assert (got.batch, got.negatives, got.in_batch, got.mining.rounds, got.mining.share) == (64, 7, False, 2, 0.95)
    assert (got.query_tokens, got.passage_tokens, got.causal, got.pooling) == (512, 512, False, "mean")
    assert (got.query_prompt, got.passage_prompt) == ("Instruct: {instruction}\nQuery: ", "")
    assert got.regime == "in-domain"
    assert {one.name: one.pairs for one in got.data} == {
        "issues": 177_000, "issue-summaries": 92_000, "apps": 5_000, "cosqa": 20_000, "synthetic-text2sql": 100_000,
        "codetransocean": 1_000, "stackoverflow-qa": 14_000, "codefeedback": 125_000,
    }  # fmt: skip


def test_the_small_one_overrides_only_what_size_demands() -> None:
    path = ROOT / "recipes" / "nv_embedcode_smollm.yaml"
    small, large = read(path), read(ROOT / "recipes" / "nv_embedcode_7b.yaml")
    assert (small.batch, small.negatives, small.learning_rate, small.warmup, small.steps) == (4, 3, 1e-4, 20, 300)
    assert (small.query_tokens, small.passage_tokens) == (128, 128)
    assert small.lora == large.lora
    assert small.evaluate, "or nobody sees whether it has become better"
    own = set(yaml.safe_load(path.read_text()))
    assert own.isdisjoint(
        {"causal", "pooling", "query_prompt", "lora", "in_batch", "precision", "weight_decay", "temperature"}
    )


def test_the_small_ones_commands_leave_the_default_models_list_alone() -> None:
    """`hold-out` goes on with a list that is there: in the folder of the recipes it refused Python."""
    head = (ROOT / "recipes" / "nv_embedcode_smollm.yaml").read_text().partition("inherits:")[0]
    written = re.findall(r"-o (\S+)", head)
    assert len(written) == 3 and "held_out.toml" not in written
    assert f"--held-out {written[1]}" in head


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    from embedcode.train.recipe import check, check_idle

    check(read(path))
    check_idle(read(path))


def test_the_default_names_each_benchmark_that_it_is_reported_on() -> None:
    """A pattern matches what default.sh makes itself, and whoever forgot a benchmark trained on it unguarded."""
    head = (ROOT / "recipes" / "default.sh").read_text().partition("set -euo")[0]
    said = re.search(r"NAME is(.*?)questions/", head, re.DOTALL)
    assert said
    names = set(re.findall(r"[a-z0-9][\w-]+", said[1].replace(" and", " ").replace("tasks", "")))
    assert {"mbpp", "nl2bash"} < names
    assert {f"tasks/reported-{name}" for name in names} <= set(read(ROOT / "recipes" / "default.yaml").never)


def test_an_in_domain_recipe_has_no_licence_to_be_released_under() -> None:
    for path in SHIPPED:
        got = read(path)
        assert got.regime == "out-of-domain" or not got.licence


def test_every_key_with_a_unit_is_on_the_page() -> None:
    page = (ROOT / "docs" / "train.md").read_text("utf-8")
    units = {one: one.metadata["unit"] for one in fields(Recipe) if "unit" in one.metadata}
    for one, unit in units.items():
        assert f"| `{one.name}` | {unit} | {one.default:g} |" in page
    assert len(units) > 10


def test_every_key_is_on_the_page() -> None:
    spans = re.findall("`([^`\n]+)`", (ROOT / "docs" / "train.md").read_text("utf-8"))
    words = set(re.findall(r"\w+", " ".join(spans)))
    own = [one.name for kind in (Recipe, Data, Lora, Mining) for one in fields(kind) if one.name != "folder"]
    assert [name for name in own if name not in words] == []
