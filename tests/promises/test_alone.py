"""Nothing leaves this computer, the base install is small, and a search loads only what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embedcode

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MAX_INSTALL_MB = 350

# Every process of Python started with this on its path notes, and refuses, what Python does with sockets; as it ends
# it also notes the sockets that native code left open.
WATCH = """
import atexit, os, sys
def note(what):
    with open(os.environ["WATCH_FILE"], "a") as file:
        file.write(what + chr(10))
def hook(event, arguments):
    if event.startswith("socket.") or event in ("urllib.Request", "http.client.connect"):
        note(event)
        raise RuntimeError(f"{event}: no network here")
def opened():
    if os.path.isdir("/proc/self/fd"):
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:") and int(name) > 2:
                note(f"{target} is open")
sys.addaudithook(hook)
atexit.register(opened)
"""


@pytest.fixture
def watched(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of a watched process, and the file of what it did."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    return {"PYTHONPATH": str(tmp_path / "watch"), "WATCH_FILE": str(tmp_path / "did")}, tmp_path / "did"


def test_index_and_search_open_no_socket(run: Run, tmp_path: Path, watched: tuple[dict[str, str], Path]) -> None:
    env, did = watched
    env["EMBEDCODE_THREADS"] = "2"
    root = tmp_path / "repository"
    for number in range(105):  # enough that other processes help to read
        (root / f"part{number}").mkdir(parents=True)
        (root / f"part{number}" / "step.py").write_text(f"step{number} = {number}\n")
    for arguments in (
        ["index", str(root), "--wait"],
        ["search", "step 7", str(root)],
        ["doctor"],
        ["embed", "--role", "query", "--text", "x"],
    ):
        done = run(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        assert not did.exists(), did.read_text()


def test_the_watch_sees_a_socket(watched: tuple[dict[str, str], Path]) -> None:
    env, did = watched
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True, check=False)
    assert done.returncode == 1
    assert did.read_text().startswith("socket.")


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of what `name` needs here, itself included."""
    seen: set[tuple[str, str]] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        for line in metadata.requires(name) or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                todo += [(wanted.name, inner) for inner in ("", *wanted.extras)]
    return {name for name, _ in seen}


def test_the_base_install_is_small() -> None:
    names = closure("embedcode") - {"embedcode"}
    assert {"onnxruntime", "numpy", "tantivy", "tree-sitter-python"} <= names
    assert not {"torch", "transformers", "sentence-transformers"} & names
    # Of an editable install only a link is listed: its own files are counted where they are.
    ours = [path for path in Path(embedcode.__file__).parent.rglob("*") if path.is_file()]
    theirs = [Path(str(file.locate())) for name in names for file in metadata.distribution(name).files or []]
    total = sum(path.stat().st_size for path in {*ours, *theirs} if path.is_file())
    assert 50e6 < total <= MAX_INSTALL_MB * 1e6, f"{total / 1e6:.0f} MB"


def loaded(code: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules a program has loaded when it ends."""
    code = f"import json, sys\ntry:\n    {code}\nfinally:\n    print(json.dumps(list(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    names = json.loads(done.stderr.splitlines()[-1])
    return {str(name).partition(".")[0] for name in names}


def test_importing_embedcode_costs_nothing() -> None:
    heavy = {
        "numpy",
        "sqlite3",
        "onnxruntime",
        "tokenizers",
        "tantivy",
        "tree_sitter",
        "typer",
        "rich",
        "asyncio",
        "ssl",
    }
    assert not heavy & loaded("import embedcode")
    assert not heavy & loaded("from embedcode import Query, Role, Truncate, Filter, Hit, Mode, Chunk")
    assert not heavy & loaded("import embedcode.cli")


@pytest.mark.parametrize(
    ("mode", "unneeded"),
    [("lexical", {"onnxruntime", "tokenizers", "numpy", "tree_sitter_python"}), ("hybrid", {"tree_sitter_python"})],
)
def test_a_warm_search_loads_only_what_it_needs(indexed: Path, home: Path, mode: str, unneeded: set[str]) -> None:
    arguments = ["embedcode", "search", "forget the session", str(indexed), "--mode", mode]
    code = f"sys.argv = {arguments!r}; from embedcode.cli import main; main()"
    modules = loaded(code, {"EMBEDCODE_HOME": str(home)})
    assert "tantivy" in modules
    assert unneeded & modules == set()
    assert not {"torch", "transformers", "requests", "urllib3", "http"} & modules
