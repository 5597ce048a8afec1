"""Worktrees that lie in a checkout of the same repository: the same code again, which is searched once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode.index.walk import WORKTREE, Found, Skipped, walk

Write = Callable[[Path, dict[str, str]], Path]
Git = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path, write: Write, git: Git) -> Path:
    root = write(tmp_path / "repository", {"a.py": "a = 1\n", "lib/b.py": "b = 1\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    return root


def found(root: Path) -> set[str]:
    return {one.path for one in walk(root) if isinstance(one, Found)}


def left_out(root: Path) -> dict[str, str]:
    return {
        one.path: one.reason for one in walk(root) if isinstance(one, Skipped) and one.reason != "version control data"
    }


def test_a_worktree_in_its_repository_is_left_out_and_said(repository: Path, git: Git) -> None:
    git(repository, "worktree", "add", "-q", str(repository / ".claude" / "worktrees" / "x"))
    assert found(repository) == {"a.py", "lib/b.py"}
    assert left_out(repository) == {".claude/worktrees/x/": WORKTREE}
    assert found(repository / ".claude" / "worktrees" / "x") == {"a.py", "lib/b.py"}


def test_a_worktree_in_a_worktree(repository: Path, git: Git) -> None:
    outer = repository.parent / "outer"
    git(repository, "worktree", "add", "-q", str(outer))
    git(repository, "worktree", "add", "-q", str(outer / "inner"))
    assert found(outer) == {"a.py", "lib/b.py"}


def test_it_can_be_taken_back(repository: Path, write: Write, git: Git) -> None:
    git(repository, "worktree", "add", "-q", str(repository / "wt"))
    write(repository, {".embedcodeignore": "!/wt/\n"})
    assert {"a.py", "wt/a.py", "wt/lib/b.py"} <= found(repository)


def test_other_repositories_and_their_worktrees_stay(repository: Path, write: Write, git: Git) -> None:
    root = write(repository.parent / "other", {"c.py": "c = 1\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "sub")
    git(repository, "worktree", "add", "-q", str(root / "wt"))
    assert {"c.py", "sub/a.py", "wt/a.py"} <= found(root)
    git(root / "sub", "worktree", "add", "-q", str(root / "sub" / "again"))
    assert left_out(root) == {"sub/again/": WORKTREE}


def test_worktrees_around_a_bare_repository_are_all_there_is(repository: Path, git: Git) -> None:
    root = repository.parent / "around"
    root.mkdir()
    git(root, "clone", "-q", "--bare", str(repository), ".bare")
    (root / ".git").write_text("gitdir: ./.bare\n")
    git(root, "worktree", "add", "-q", str(root / "one"))
    git(root, "worktree", "add", "-q", str(root / "one" / "two"))
    assert {"one/a.py", "one/lib/b.py"} <= found(root)
    assert left_out(root)["one/two/"] == left_out(root / "one")["two/"] == WORKTREE


@pytest.mark.parametrize("leads", ["a\0b", "x" * 5000, "../repository/.git/../.git", "", "loop"])
def test_a_git_file_that_leads_nowhere_costs_nothing(repository: Path, write: Write, leads: str) -> None:
    (repository / "lib" / "loop").symlink_to("loop")
    (repository / "lib" / ".git").write_text(f"gitdir: {leads}\n")
    assert found(repository) == {"a.py", "lib/b.py"}
    assert found(repository / "lib") == {"b.py"}
