"""Paths changed since a git revision, asked of git itself."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedcode.errors import UsageError
from embedcode.files import OPEN_FLAGS
from embedcode.index import git

_SUBMODULE = "160000"
"""The mode under which git records the commit of another repository."""


def changed_since(root: Path, revision: str, files: Iterable[str] = (), name: str = "since") -> frozenset[str]:
    """Relative paths changed since `revision` forked from HEAD: commits, the work tree, untracked files.

    `files` tell which repositories lie below: in a submodule that was moved, what differs from the commit that it had;
    in any other, what is not committed; and all of one that is new, or in which git cannot say.
    UsageError when there is no git, no repository or no such revision: it names the option as `name`.
    """
    start = commit(root, revision, name)
    base = (git.ask(root, "merge-base", start, "HEAD", needed_by=name) or start).strip()
    changed = _different(root, base, files, name)
    if changed is None:
        raise UsageError(f"git cannot compare {root} with {revision!r}: run `git fsck` there, or leave {name} out.")
    return frozenset(changed)


def commit(root: Path, revision: str, name: str = "since") -> str:
    """The hash of a revision; UsageError as changed_since()."""
    wanted = f"{revision}^{{commit}}"
    # No argument of a program can hold a NUL, which a request over HTTP can.
    verify = ("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    found = None if "\0" in wanted else git.ask(root, *verify, needed_by=name)
    if found is None:
        raise UsageError(
            f"{name} {revision!r} is not a commit in {root}: give a branch, tag or hash that `git log` knows."
        )
    return found.strip()


def _different(root: Path, base: str, files: Iterable[str], name: str) -> set[str] | None:
    """Paths that differ from the commit `base`; None where git cannot tell."""
    # Not `git diff`, which compares the content of files that were only touched, and runs filter programs for it: here
    # such files are compared below. And without a look at the files of submodules, where git would run `git status`.
    options = ("--raw", "--no-abbrev", "-z", "--no-renames", "--ignore-submodules=dirty", "--relative")
    filters = _no_filters(root, name)
    changed = git.ask(root, "diff-index", *options, base, configuration=filters, needed_by=name)
    new = git.ask(root, "ls-files", "--others", "--exclude-standard", "-z", needed_by=name)
    if changed is None or new is None:
        return None
    fields = changed.split("\0")
    entries = {path: entry.lstrip(":").split(" ") for entry, path in zip(fields[::2], fields[1::2], strict=False)}
    submodules = {path for path, entry in entries.items() if _SUBMODULE in entry[:2]}
    different = {p for p, entry in entries.items() if p not in submodules and not _only_touched(root / p, entry)}
    different.update(path for path in new.split("\0") if path and not path.endswith("/"))
    for place, inside in _repositories(root, files).items():
        old = entries[place][2] if place in submodules else "HEAD"
        try:
            found = _different(root / place, old, inside, name)
        except UsageError:  # as of a submodule without its repository
            found = None
        different.update(f"{place}/{path}" for path in (inside if found is None else found))
    return different


def _repositories(root: Path, files: Iterable[str]) -> dict[str, list[str]]:
    """The outermost repositories below `root` that hold some of `files`, with these as they are named there."""
    found: dict[str, list[str]] = {}
    known: dict[str, str] = {"": ""}  # the repository of each folder

    def repository(folder: str) -> str:
        if folder not in known:
            above = repository(folder.rpartition("/")[0])
            known[folder] = above or (folder if os.path.lexists(root / folder / ".git") else "")
        return known[folder]

    for path in files:
        if place := repository(path.rpartition("/")[0]):
            found.setdefault(place, []).append(path[len(place) + 1 :])
    return found


def _only_touched(path: Path, entry: Sequence[str]) -> bool:
    """Whether a file of the work tree, which git takes for changed by its time stamps, has the content it had.

    `entry` are the fields of a line of `git diff-index --raw`, where the new hash is 0 for what git did not look into.
    Bytes are compared: where git converts line ends or filters, a file that was touched counts as changed.
    """
    old_mode, mode, old_hash, new_hash, _ = entry
    if old_mode != mode or int(new_hash, 16):
        return False
    try:
        return _blob_hash(path, "sha256" if len(old_hash) == 64 else "sha1") == old_hash
    except OSError:
        return False


def _blob_hash(path: Path, algorithm: str) -> str:
    """The name git gives to the content of a file, or to the target of a symbolic link."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    if path.is_symlink():
        target = os.fsencode(path.readlink())
        hasher.update(b"blob %d\0" % len(target) + target)
        return hasher.hexdigest()
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return ""
        hasher.update(b"blob %d\0" % status.st_size)
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def _no_filters(root: Path, name: str) -> dict[str, str]:
    """Blanks every filter program that the repository's configuration names: git runs them on the content of a file
    that was written in the second of the last commit, to tell whether it has changed."""
    command = ("config", "--name-only", "-z", "--get-regexp", r"^filter\.")
    programs = (git.ask(root, *command, needed_by=name) or "").split("\0")
    return {program: "" for program in programs if program}
