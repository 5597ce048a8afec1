"""`recipes/default.sh` at a small size: from packages and a repository to an exported model, ended once and gone on."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from embedcode.data import pairs
from embedcode.evaluate import beir
from embedcode.model.spec import Spec
from embedcode.train.recipe import read
from repositories import git

ROOT = Path(__file__).parents[2]
LICENCE = (ROOT / "LICENSE").read_text("utf-8")
FIRST, SECOND = ("ba", "ko", "mi", "tu", "re", "sol", "fen", "gar"), ("lan", "dor", "wick", "sim", "pel")
SOUNDS = [one + other for one in FIRST for other in SECOND]


def function(rng: random.Random, number: int) -> str:
    one, other, third, fourth = rng.sample(SOUNDS, 4)
    names = rng.sample(SOUNDS, 5)
    body = "".join(f"    {name} = {rng.choice(SOUNDS)}({one}, {rng.randrange(999)})\n" for name in names)
    says = f'    """Measures the {one} of every {other} between {third} and {fourth}."""\n'
    return f"def {one}_{other}_{number}({one}, {third}):\n{says}{body}    return {fourth}\n"


def package(path: Path, name: str, count: int) -> None:
    rng = random.Random(name)
    with zipfile.ZipFile(path / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/m.py", "\n\n".join(function(rng, number) for number in range(count)))
        archive.writestr(f"{name}-1.0.dist-info/licenses/LICENSE", LICENCE)


@pytest.fixture
def world_of_packages(tmp_path: Path, world: Path) -> dict[str, str]:
    """The environment of a script: `pip` has six packages, github.com one repository, and all is small."""
    shelf, programs, hub = tmp_path / "shelf", tmp_path / "programs", tmp_path / "hub" / "acme" / "tool"
    for folder in (shelf, programs, hub):
        folder.mkdir(parents=True)
    names = [f"package{number}" for number in range(6)]
    for name in names:
        package(shelf, name, 40)
    (programs / "pip").write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = --dest ] && to="$2"; shift; done\n'
        f'exec cp {shelf}/"${{1%%=*}}"-* "$to"\n'
    )
    (programs / "pip").chmod(0o755)
    git(hub, "init", "-q", "-b", "main")
    (hub / "LICENSE").write_text(LICENCE)
    rng = random.Random("commits")
    texts = [function(rng, number) for number in range(20)]
    for number in range(20):
        texts[number] = texts[number].replace("    return", f"    {rng.choice(SOUNDS)} += 1\n    return")
        (hub / "m.py").write_text("\n\n".join(texts))
        git(hub, "add", ".")
        message = f"Count {rng.choice(SOUNDS)} before {SOUNDS[number]} returns"
        git(hub, "commit", "-qm", message)
    (tmp_path / "gitconfig").write_text(f'[url "{tmp_path}/hub/"]\n\tinsteadOf = https://github.com/\n')
    listed = "".join(f'"{name}", ' for name in names)
    (tmp_path / "sources.toml").write_text(f'[pypi]\nMIT = [{listed}]\n[github]\nMIT = ["acme/tool"]\n')
    (tmp_path / "held_out.toml").write_text(
        '[reported]\npython = ["pypi:package0"]\n[validation]\npython = ["pypi:package1"]\n'
    )
    recipe = {
        "name": "small", "base": str(world / "base"), "query_tokens": 32, "passage_tokens": 64, "batch": 8,
        "data": [
            {"name": "docstrings", "files": ["pairs/docstrings.jsonl.gz"], "weight": 0.7, "most": 120},
            {"name": "commits", "files": ["pairs/commits.jsonl.gz"], "weight": 0.2},
            {"name": "sql", "files": ["pairs/wikisql.jsonl.gz"], "weight": 0.1},
        ],
        "held_out": "held_out.toml", "never": ["tasks/reported-*"], "evaluate": ["tasks/validation-*"],
        "negatives": 1, "mining": {"rounds": 1}, "steps": 4, "save_every": 2, "warmup": 1, "licence": "Apache-2.0",
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    questions = tmp_path / "work" / "questions"
    questions.mkdir(parents=True)
    rows = [{"query": f"How many {word}?", "doc": f"SELECT COUNT({word})"} for word in SOUNDS]
    with gzip.open(questions / "wikisql.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + '{"query": "no answer"}\n')
    return os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "SOURCES": str(tmp_path / "sources.toml"), "HELD_OUT": str(tmp_path / "held_out.toml"),
        "RECIPE": str(tmp_path / "recipe.yaml"), "COMMITS": "100",
    }  # fmt: skip


def test_what_the_recipe_lacks_is_said_before_anything_is_collected(tmp_path: Path) -> None:
    """A recipe's parent stayed behind, and it and a forgotten benchmark were found after a night of mining."""
    programs, work = tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    (programs / "embedcode").write_text("#!/bin/sh\necho asked to $1 $2 >&2\nexit 3\n")
    (programs / "embedcode").chmod(0o755)
    (tmp_path / "parent.yaml").write_text((ROOT / "recipes" / "default.yaml").read_text("utf-8"))
    (tmp_path / "child.yaml").write_text("inherits: parent.yaml\nsteps: 9\n")
    environment = os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin", "RECIPE": str(tmp_path / "child.yaml"),
    }  # fmt: skip

    def started() -> str:
        command = [str(ROOT / "recipes" / "default.sh"), str(work)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr

    said = started()
    names = ["conala", *(f"reported-{one}" for one in ("mbpp", "nl2bash", "codetrans-java-cs")), "cosqa-dev"]
    assert all(f"tasks/{name}, " in said for name in names)
    assert "pairs/wikisql*.jsonl*, pairs/tldr*.jsonl*, which child.yaml names, is not in" in said
    assert "docstrings" not in said and "tasks/validation-python" not in said and "asked to" not in said
    for name in [*names, "reported-humaneval", "reported-concode-java-dev", "reported-so-title2code-csharp"]:
        (work / "tasks" / name).mkdir()
    (work / "questions").mkdir()
    for name in ("wikisql", "tldr"):
        (work / "questions" / f"{name}.jsonl.gz").touch()
    assert started().splitlines()[:2] == ["collect", "asked to data collect"]
    assert read(work / "child.yaml").steps == 9


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_from_sources_to_the_exported_model(world_of_packages: dict[str, str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    command = [str(ROOT / "recipes" / "default.sh"), "work"]

    started = subprocess.Popen(command, cwd=tmp_path, env=world_of_packages, start_new_session=True)
    end = time.monotonic() + 600
    while not (work / "pairs" / "docstrings.jsonl.gz").exists():
        assert started.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    merged = (work / "merged.jsonl.gz").stat()

    done = subprocess.run(command, cwd=tmp_path, env=world_of_packages, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (work / "merged.jsonl.gz").stat().st_mtime_ns == merged.st_mtime_ns, "what is done is not done again"

    kept = list(pairs.read(work / "pairs" / "docstrings.jsonl.gz"))
    assert len(kept) > 120 and {pair.language for pair in kept} == {"python"}
    assert len(list(pairs.read(work / "run" / "pairs-docstrings.jsonl.gz"))) == 120
    assert not {pair.source for pair in kept} & {"pypi:package0 1.0", "pypi:package1 1.0"}
    commits = list(pairs.read(work / "pairs" / "commits.jsonl.gz"))
    assert len(commits) >= 20 and {pair.task for pair in commits} == {"commit", "commit-chunk"}
    assert sum(1 for _ in pairs.read(work / "pairs" / "wikisql.jsonl.gz")) == len(SOUNDS)
    assert len(beir.load(work / "tasks" / "reported-python").corpus) == 40

    spec = Spec.read(work / "exported")
    assert spec.precision == "int8"
    meta = json.loads((work / "run" / "model" / "meta.json").read_text())
    assert meta["recipe"]["name"] == "small"
    again = subprocess.run(command, cwd=tmp_path, env=world_of_packages, capture_output=True, text=True, check=True)
    assert again.stderr.split() == ["work/exported"], "nothing is left to do"
