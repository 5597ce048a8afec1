"""Which paths changed since a git revision; git itself is the reference."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode import Filter, Index, Query
from embedcode.errors import UsageError
from embedcode.index.changes import changed_since

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]
Git = Callable[..., str]


@pytest.fixture
def history(tmp_path: Path, write: Write, git: Git) -> Path:
    """main: two commits, the first tagged v1; branch `work` forks at v1 and adds one commit."""
    root = write(tmp_path / "repository", {"a.py": "a = 1\n", "b.py": "b = 1\n", "gone.py": "gone = 1\n"})
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    git(root, "tag", "v1")
    git(root, "branch", "work")
    write(root, {"b.py": "b = 22\n"})
    git(root, "commit", "-qam", "second")
    return root


def test_since_a_tag_a_branch_and_a_hash(history: Path, git: Git) -> None:
    for revision in (
        "v1",
        "work",
        "HEAD~1",
        git(history, "rev-parse", "v1").strip(),
        git(history, "rev-parse", "v1")[:8],
    ):
        assert changed_since(history, revision) == {"b.py"}
    assert changed_since(history, "HEAD") == frozenset()


def test_what_main_did_meanwhile_is_not_a_change_of_the_branch(history: Path, write: Write, git: Git) -> None:
    git(history, "checkout", "-q", "work")
    write(history, {"a.py": "a = 22\n"})
    git(history, "commit", "-qam", "third")
    assert changed_since(history, "main") == {"a.py"}


def test_the_work_tree_counts(history: Path, write: Write, git: Git) -> None:
    write(
        history,
        {"a.py": "a = 333\n", "new.py": "new = 1\n", "staged.py": "s = 1\n", ".gitignore": "*.tmp\n", "x.tmp": ""},
    )
    git(history, "add", "staged.py")
    (history / "gone.py").unlink()
    assert changed_since(history, "HEAD") == {"a.py", "new.py", "staged.py", ".gitignore", "gone.py"}


@pytest.mark.parametrize("format", ["sha1", "sha256"])
def test_a_copied_or_touched_checkout_has_not_changed(tmp_path: Path, write: Write, git: Git, format: str) -> None:
    """git itself tells by reading every file; its plumbing only looks at time stamps."""
    root = write(tmp_path / "repository", {"a.py": "a = 1\n", "b.py": "b = 1\n", "empty.py": "", "tool": "#!/bin/sh\n"})
    (root / "tool").chmod(0o755)
    (root / "link.py").symlink_to("a.py")
    git(root, "init", "-q", f"--object-format={format}")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True, copy_function=shutil.copyfile)
    (copy / "tool").chmod(0o755)
    for path in root.glob("*.py"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    for checkout in (root, copy):
        assert changed_since(checkout, "HEAD") == frozenset()
        (checkout / "b.py").write_text("b = 2\n")
        (checkout / "link.py").unlink()
        (checkout / "link.py").symlink_to("b.py")
        (checkout / "tool").chmod(0o644)
        assert changed_since(checkout, "HEAD") == {"b.py", "link.py", "tool"}
        assert changed_since(checkout, "HEAD") == set(git(checkout, "diff", "--name-only", "HEAD").split())


def test_a_change_that_was_staged_and_taken_back(history: Path, write: Write, git: Git) -> None:
    write(history, {"a.py": "a = 333\n"})
    git(history, "add", "a.py")
    write(history, {"a.py": "a = 1\n"})
    assert changed_since(history, "HEAD") == set(git(history, "diff", "--name-only", "HEAD").split()) == set()


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_file_is_a_change(history: Path) -> None:
    (history / "a.py").unlink()
    os.mkfifo(history / "a.py")
    assert "a.py" in changed_since(history, "HEAD")


def test_a_rename_gives_both_names(history: Path, git: Git) -> None:
    git(history, "mv", "a.py", "renamed.py")
    assert changed_since(history, "HEAD") == {"a.py", "renamed.py"}


@pytest.mark.parametrize(
    "name", ["with space.py", "größe/日本語.py", 'quo"te.py', "tab\there.py", "new\nline.py", "-dash.py"]
)
def test_odd_names(history: Path, write: Write, git: Git, name: str) -> None:
    write(history, {name: "odd = 1\n"})
    assert changed_since(history, "HEAD") == {name}
    git(history, "add", ".")
    git(history, "commit", "-qm", "odd")
    assert changed_since(history, "HEAD~1") == {name}


def test_paths_are_relative_to_the_indexed_folder(history: Path, write: Write) -> None:
    write(history, {"inner/deep/c.py": "c = 1\n", "outer.py": "o = 1\n"})
    assert changed_since(history / "inner", "HEAD") == {"deep/c.py"}


@pytest.mark.parametrize(
    "revision",
    [
        "no-such-branch",
        "--output=x",
        "--help",
        "-h",
        "",
        " ",
        "HEAD..v1",
        "v1 v1",
        ":/first\n",
        "a.py",
        "HEAD:a.py",
        "@{99}",
    ],
)
def test_what_is_no_revision(history: Path, revision: str) -> None:
    with pytest.raises(UsageError, match=r"is not a commit in .*: give a branch, tag or hash that `git log` knows"):
        changed_since(history, revision)
    assert sorted(path.name for path in history.iterdir()) == [".git", "a.py", "b.py", "gone.py"]


def test_a_repository_without_a_commit(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(UsageError, match="is not a commit"):
        changed_since(tmp_path, "HEAD")


def test_no_git_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match=r"^since needs a git repository, and .* is none: leave it out"):
        changed_since(tmp_path, "HEAD")


def test_no_git(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match=r"^since needs git, which was not found: install it or leave since out"):
        changed_since(history, "HEAD")


def test_git_in_another_language(history: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match=r"^since needs a git repository"):
        changed_since(tmp_path / "plain", "HEAD")


def test_the_repository_that_is_asked_and_no_other(
    history: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git sets these in hooks, where a search may well be run on another repository."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert changed_since(history, "v1") == {"b.py"}


@pytest.mark.parametrize(
    "setting",
    [
        ("core.fsmonitor", "{}"),
        ("diff.external", "{}"),
        ("core.pager", "{}"),
        ("core.hooksPath", "{}"),
        ("core.sshCommand", "{}"),
    ],
)
def test_a_stranger_s_configuration_runs_no_program(
    history: Path, git: Git, tmp_path: Path, setting: tuple[str, str]
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/trace\n")
    program.chmod(0o755)
    git(history, "config", setting[0], setting[1].format(program))
    (history / "a.py").write_text("a = 4444\n")
    assert changed_since(history, "v1") == {"a.py", "b.py"}
    assert not (tmp_path / "trace").exists()


def test_a_stranger_s_filter_runs_no_program(history: Path, write: Write, git: Git, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/trace\ncat\n")
    program.chmod(0o755)
    git(history, "config", "filter.strange.clean", str(program))
    write(history, {".gitattributes": "*.py filter=strange\n"})
    (history / "a.py").write_text("a = 4\n")
    assert changed_since(history, "v1") == {"a.py", "b.py", ".gitattributes"}
    assert not (tmp_path / "trace").exists()


def test_what_the_user_has_set_in_the_environment_holds(
    history: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(history, "config", "filter.x.clean", "cat")  # which is blanked, by the environment too
    (history / "a.py").chmod(0o755)
    assert changed_since(history, "HEAD") == {"a.py"}
    for name, value in (("COUNT", "1"), ("KEY_0", "core.fileMode"), ("VALUE_0", "false")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert changed_since(history, "HEAD") == frozenset()


@pytest.fixture
def around(tmp_path: Path, history: Path, write: Write, git: Git) -> Path:
    """A repository with `history` at v1 as the submodule libs/sub, and a clone of it that is nobody's, tagged v1."""
    root = write(tmp_path / "around", {"top.py": "top = 1\n"})
    git(root, "init", "-q")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(history), "libs/sub")
    git(root / "libs" / "sub", "checkout", "-q", "v1")
    git(root, "clone", "-q", str(history), "clone")
    git(root, "add", "top.py", "libs/sub", ".gitmodules")
    git(root, "commit", "-qm", "first")
    git(root, "tag", "v1")
    return root


def test_what_changed_in_submodules_and_other_repositories_below(
    around: Path, write: Write, git: Git, opened: Open
) -> None:
    index = opened(around)

    def since(revision: str) -> frozenset[str]:
        index.update(vectors=False)
        return index.since(revision)

    assert since("v1") == frozenset()
    write(around, {"libs/sub/new.py": "n = 1\n", "clone/a.py": "a = 3\n", "clone/own.py": "o = 1\n"})
    assert since("v1") == {"libs/sub/new.py", "clone/a.py", "clone/own.py"}
    git(around / "libs" / "sub", "checkout", "-q", "main")  # which changes b.py
    assert since("v1") == {"libs/sub/new.py", "libs/sub/b.py", "clone/a.py", "clone/own.py"}
    git(around, "commit", "-qam", "second")
    assert since("v1") == {"libs/sub/new.py", "libs/sub/b.py", "clone/a.py", "clone/own.py"}
    assert since("HEAD") == {"libs/sub/new.py", "clone/a.py", "clone/own.py"}
    hits = index.search(Query("b", where=Filter(only=since("v1"))))
    assert "libs/sub/b.py" in {hit.chunk.path for hit in hits}


def test_a_submodule_that_is_new_or_has_lost_its_repository_has_changed_whole(
    around: Path, history: Path, git: Git, opened: Open
) -> None:
    git(around, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(history), "late")
    git(around, "commit", "-qm", "late")
    (around / "clone" / ".git").rename(around / "clone" / "git")
    (around / "clone" / ".git").write_text("gitdir: ../nowhere\n")
    index = opened(around)
    index.update(vectors=False)
    changed = index.since("v1")
    assert {"late/a.py", "late/b.py", "clone/a.py", "clone/b.py", ".gitmodules"} <= changed
    assert not {path for path in changed if path.startswith("libs/")} | ({"top.py"} & changed)


def test_a_stranger_s_submodule_runs_no_program(around: Path, git: Git, tmp_path: Path, opened: Open) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/trace\ncat\n")
    program.chmod(0o755)
    for setting in ("core.fsmonitor", "diff.external", "filter.strange.clean"):
        git(around / "libs" / "sub", "config", setting, str(program))
    (around / "libs" / "sub" / ".gitattributes").write_text("*.py filter=strange\n")
    (around / "libs" / "sub" / "a.py").write_text("a = 4\n")
    index = opened(around)
    index.update(vectors=False)
    assert "libs/sub/a.py" in index.since("v1")
    assert not (tmp_path / "trace").exists()


def test_a_search_limited_to_what_changed(history: Path, opened: Open, write: Write) -> None:
    write(history, {"new.py": "def brand_new():\n    return a\n"})
    index = opened(history)
    index.update(vectors=False)
    where = Filter(only=index.since("v1"))
    assert {hit.chunk.path for hit in index.search(Query("a b gone brand new", where=where))} == {"b.py", "new.py"}
