"""A checkpoint as the model of `embed`, `index`, `search` and `doctor`, from the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write
from layouts import LAYOUTS

from embedcode import Role, load

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(LAYOUTS["nv-embedcode"], tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "basket.py").write_text("def close(self, *, wait=True):\n    self._lock.release()\n")
    (root / "prices.py").write_text("def total(lines):\n    return sum(line.price for line in lines)\n")
    return root


def test_embed_asks_with_the_instruction_that_was_named(call: Run, tmp_path: Path, model: Path) -> None:
    command = (
        "embed",
        "--role",
        "query",
        "--text",
        "close",
        "--model",
        str(model),
        "--precision",
        "fp32",
        "-o",
        "q.npy",
    )
    assert call(*command, "--instruction", "bug").returncode == 0
    instruction = "Given a bug description, retrieve codes that need to be edited to resolve it"
    expected = load(str(model), precision="fp32").encode(["close"], Role.QUERY, instruction=instruction)
    np.testing.assert_allclose(np.load(tmp_path / "q.npy"), expected, atol=1e-6)


def test_a_search_uses_the_model_that_the_index_was_made_with(call: Run, repository: Path, model: Path) -> None:
    done = call("index", str(repository), "--model", str(model), "--wait", "--json")
    assert done.returncode == 0, done.stderr
    status = json.loads(call("status", str(repository), "--json").stdout)
    assert status["space"] == load(str(model)).space
    assert status["embedded"] == status["chunks"] > 0
    found = call("search", "close the basket", str(repository), "--mode", "dense", "--json", "--no-update")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["hits"]) == 2


def test_an_index_says_in_which_precision_its_vectors_are(call: Run, repository: Path, model: Path) -> None:
    done = call("index", str(repository), "--model", str(model), "--wait")
    assert b"computed in " in done.stderr
    assert b"computed in " not in call("index", str(repository), "--wait").stderr  # nothing was


def test_an_index_refuses_another_model_with_the_cure(call: Run, run: Run, repository: Path, model: Path) -> None:
    assert call("index", str(repository), "--wait").returncode == 0
    done = run("index", str(repository), "--model", str(model), "--wait")
    assert done.returncode == 2
    assert b"use the model it was made with" in done.stderr and b"embedcode clean" in done.stderr


@pytest.mark.slow
def test_the_doctor_says_what_a_checkpoint_is_computed_in_and_why(run: Run, model: Path) -> None:
    done = run("doctor", "--json", env={"EMBEDCODE_MODEL": str(model)})
    checks = {check["name"]: check["finding"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    assert "tokens/s a layer" in checks["precision"]
    assert model.name in checks["model"]


def test_embed_says_what_a_trial_chose_and_why(call: Run, model: Path) -> None:
    command = ("embed", "--role", "query", "--text", "close", "--model", str(model))
    assert b"computed in " in (chosen := call(*command)).stderr and b"tokens/s a layer" in chosen.stderr
    assert call(*command, "--precision", "fp32").stderr == b""


@pytest.mark.parametrize(
    ("name", "part"),
    [("missing", "missing is no folder and no name on the hub"), ("empty", "config.json is missing")],
)
def test_a_model_that_is_none(call: Run, tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / "empty").mkdir()
    done = call("embed", "--role", "query", "--text", "x", "--model", name)
    assert done.returncode == 2
    assert part in done.stderr.decode()
    assert b"Traceback" not in done.stderr
