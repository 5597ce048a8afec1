"""Paths changed since a git revision, asked of git itself. The only place that runs git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from embedcode.errors import UsageError

# A stranger's checkout must not run programs: fsmonitor and hooks are commands from its configuration.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")

# Set in hooks: they name a repository other than the one that is asked about.
_ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}


# A partial clone fetches what it lacks through a program of its configuration.
_ALONE = {"LC_ALL": "C", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}


def changed_since(root: Path, revision: str) -> frozenset[str]:
    """Relative paths changed since `revision` forked from HEAD: commits, the work tree, untracked files.

    UsageError when there is no git, no repository or no such revision.
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found is None:
        raise UsageError(
            f"--since {revision!r} is not a commit in {root}: give a branch, tag or hash that `git log` knows."
        )
    commit = found.strip()
    base = (_git(root, "merge-base", commit, "HEAD") or commit).strip()
    # Not `git diff`, which compares the content of files that were only touched; and without a look into submodules,
    # where git would run `git status`.
    options = ("--name-only", "-z", "--no-renames", "--ignore-submodules=all", "--relative")
    changed = _git(root, "diff-index", *options, base, configuration=_no_filters(root))
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    if changed is None or new is None:
        raise UsageError(f"git cannot compare {root} with {revision!r}: run `git fsck` there, or leave --since out.")
    return frozenset(path for path in (changed + new).split("\0") if path)


def _no_filters(root: Path) -> dict[str, str]:
    """Blanks every filter program that the repository's configuration names: git runs them on the content of a file
    that was written in the second of the last commit, to tell whether it has changed."""
    names = (_git(root, "config", "--name-only", "-z", "--get-regexp", r"^filter\.") or "").split("\0")
    return {name: "" for name in names if name}


def _git(root: Path, *arguments: str, configuration: Mapping[str, str] | None = None) -> str | None:
    """Its output, or None where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE} | _ALONE
    if configuration:  # by the environment, since `-c NAME=VALUE` ends a name that holds "=" too early
        environment["GIT_CONFIG_COUNT"] = str(len(configuration))
        for i, (name, value) in enumerate(configuration.items()):
            environment |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    try:
        command = ["git", *_SAFE, *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("--since needs git, which was not found: install it or leave --since out.") from None
    if done.returncode == 128 and b"not a git repository" in done.stderr:
        raise UsageError(f"--since needs a git repository, and {root} is none: leave it out.")
    if b"dubious ownership" in done.stderr:
        raise UsageError(f"git refuses {root} because another user owns it: see `git config safe.directory`.")
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None
