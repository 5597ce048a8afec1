"""A stranger's repository must not run programs, hang or fill the memory through what it puts where we look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode import Index, settings
from embedcode.errors import UsageError
from embedcode.files import LIMIT
from embedcode.index import build
from embedcode.index.changes import changed_since
from embedcode.index.chunk import chunk
from embedcode.index.languages import language_of
from embedcode.index.prepare import RACY_NS, Job, Prepared, lost, prepare
from embedcode.index.walk import Found, walk
from embedcode.index.workers import CRASHED
from repositories import git


@pytest.mark.parametrize("name", ["x", "a=b"])
def test_since_runs_no_filter_of_the_repository(tmp_path: Path, name: str) -> None:
    root, witness = tmp_path / "r", tmp_path / "witness"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.py").write_text("a = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    with (root / ".git" / "config").open("a") as file:
        file.write(f'[filter "{name}"]\n clean = "touch {witness}; cat"\n smudge = cat\n required = true\n')
    (root / ".git" / "info" / "attributes").write_text(f"* filter={name}\n")
    (root / "a.py").write_text("a = 2\n")
    if name == "x":  # plain `git diff` runs it
        git(root, "diff", "--name-only", "HEAD")
        assert witness.exists()
        witness.unlink()
        os.utime(root / "a.py", (1, 1))
    assert changed_since(root, "HEAD") == {"a.py"}
    assert not witness.exists()


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_settings_or_ignore_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / settings.REPOSITORY_FILE)
    with pytest.raises(UsageError, match=r"not a regular file: remove it"):
        settings.load(root=tmp_path)
    (tmp_path / "r" / ".git" / "info").mkdir(parents=True)
    os.mkfifo(tmp_path / "r" / ".git" / "info" / "exclude")
    with pytest.raises(UsageError, match=r"exclude is not a regular file"):
        list(walk(tmp_path / "r"))


def test_settings_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / settings.REPOSITORY_FILE).symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="not a regular file"):
        settings.load(root=tmp_path)
    (tmp_path / settings.REPOSITORY_FILE).unlink()
    (tmp_path / settings.REPOSITORY_FILE).write_text("#" * (LIMIT + 1))
    with pytest.raises(UsageError, match="larger than 1 MB"):
        settings.load(root=tmp_path)


def test_a_repository_may_not_choose_the_model(tmp_path: Path) -> None:
    (tmp_path / settings.REPOSITORY_FILE).write_text('model = "/tmp/mine"\n')
    with pytest.raises(UsageError, match="may not be set by a repository"):
        settings.load(root=tmp_path)


def test_a_folder_named_like_an_ignore_file_is_no_rule(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").mkdir()
    (tmp_path / "a.py").write_text("a = 1\n")
    assert [item.path for item in walk(tmp_path) if isinstance(item, Found)] == ["a.py"]


def test_a_repository_that_looks_like_this_package_is_only_read(tmp_path: Path) -> None:
    """Python puts the current folder first on its path; the helper processes must not import from there."""
    root, witness = tmp_path / "r", tmp_path / "witness"
    (root / "embedcode").mkdir(parents=True)
    for name in ("embedcode/__init__.py", "pickle.py", "queue.py"):
        (root / name).write_text(f"open({str(witness)!r}, 'w')\n")
    for number in range(120):  # enough that worker processes help to read
        (root / f"part_{number}.py").write_text(f"def part_{number}():\n    return {number}\n")
    environment = os.environ | {"EMBEDCODE_HOME": str(tmp_path / "home")}
    code = "from embedcode.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "search", "part_7", ".", "--mode", "lexical", "--json"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hits"][0]["path"] == "part_7.py"
    assert not witness.exists()


def test_since_fetches_nothing_for_a_partial_clone(tmp_path: Path) -> None:
    root, witness = tmp_path / "r", tmp_path / "witness"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.py").write_text("a = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    tree = subprocess.run(
        ["git", "rev-parse", "HEAD^{tree}"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
    (root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with (root / ".git" / "config").open("a") as file:
        file.write("[core]\n repositoryformatversion = 1\n[extensions]\n partialClone = origin\n")
        file.write(f'[remote "origin"]\n url = {root}\n promisor = true\n uploadpack = "touch {witness};"\n')
    with pytest.raises(UsageError, match="git fsck"):
        changed_since(root, "HEAD")
    assert not witness.exists()


@pytest.mark.parametrize("setting", ["threads = 4", 'log_level = "debug"', "max_file_bytes = 100000000000"])
def test_a_repository_may_not_take_the_machine(tmp_path: Path, setting: str) -> None:
    (tmp_path / settings.REPOSITORY_FILE).write_text(setting)
    with pytest.raises(UsageError):
        settings.load(root=tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("line", ["# a" + " " * 200_000 + "x", "# " + "[" * 200_000, "[" * 200_000 + "\n==="])
def test_headings_made_to_be_slow_are_not(line: str) -> None:
    language = language_of("a.md")
    assert language is not None
    start = time.process_time()
    assert chunk("a.md", f"{line}\ntext\n", language)
    assert time.process_time() - start < 2


@pytest.mark.timeout(30)
def test_a_notebook_of_many_cells_is_cut_in_time(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": [f"# Part {n}\n", "text\n"], "metadata": {}} for n in range(3000)]
    language = language_of("a.ipynb")
    assert language is not None
    start = time.process_time()
    chunks = chunk("a.ipynb", json.dumps({"cells": cells, "nbformat": 4}, indent=1), language)
    assert time.process_time() - start < 5
    assert chunks[-2].symbol == "Part 2999"


def test_a_file_that_crashes_the_parser_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later one with few changes would lose the process itself."""
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    root = tmp_path / "r"
    root.mkdir()
    for number in range(2):
        (root / f"part_{number}.py").write_text(f"part_{number} = 1\n")
    time.sleep(2 * RACY_NS / 1e9)  # one just written is read twice

    def crash_on_0(job: Job, cutting: Callable[[], None]) -> Prepared:
        tried.append(job.found.path)
        return lost(job, CRASHED) if job.found.path == "part_0.py" else prepare(job, cutting)

    tried: list[str] = []
    monkeypatch.setattr(build, "prepare", crash_on_0)
    with Index.open(root) as index:
        assert dict(index.update(vectors=False).failed) == {"part_0.py": "the parser crashed on it"}
        assert sorted(tried) == ["part_0.py", "part_1.py"]
        assert dict(index.update(vectors=False).skipped) == {"part_0.py": "the parser crashed on it"}
        assert len(tried) == 2
        (root / "part_0.py").write_text("part_0 = 12345\n")
        index.update(vectors=False)
        assert tried[2:] == ["part_0.py"]


def test_taking_a_file_back_and_letting_it_go_again_both_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    root = tmp_path / "r"
    root.mkdir()
    (root / "a.py").write_text("a = 1\n")
    (root / "gen.py").write_text("# Code generated by a tool. DO NOT EDIT.\ngenerated_word = 1\n")
    with Index.open(root) as index:
        for rule, expected in (("", {"a.py"}), ("!/gen.py\n", {"a.py", "gen.py"}), ("", {"a.py"})):
            (root / ".embedcodeignore").write_text(rule)
            index.update(vectors=False)
            assert index.store.files().keys() - {".embedcodeignore"} == expected


def test_a_folder_within_an_index_without_git_uses_that_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    (tmp_path / "r" / "inner").mkdir(parents=True)
    (tmp_path / "r" / "inner" / "a.py").write_text("a = 1\n")
    with Index.open(tmp_path / "r") as index:
        index.update(vectors=False)
    with Index.open(tmp_path / "r" / "inner") as index:
        assert (index.root, index.scope) == (tmp_path / "r", "inner")


def test_a_folder_that_was_refused_is_no_root_of_what_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(build, "MANY_FILES", 1)
    (tmp_path / "r" / "inner").mkdir(parents=True)
    for name in ("inner/a.py", "b.py"):
        (tmp_path / "r" / name).write_text("a = 1\n")
    with Index.open(tmp_path / "r") as index, pytest.raises(UsageError, match="more than 1 files"):
        index.update(vectors=False)
    with Index.open(tmp_path / "r" / "inner") as index:
        assert (index.root, index.update(vectors=False).files) == (tmp_path / "r" / "inner", 1)


def test_status_of_what_was_never_indexed_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    with Index.open(tmp_path) as index:
        status = index.status()
        assert (status.files, status.updated, status.running) == (0, 0.0, None)
        assert not index.stop_background()
    assert not (tmp_path / "home").exists()
