"""git's plumbing: commands that run no program of a stranger's repository, and the trees and blobs it holds.

The only place that runs git. Nothing here reads or writes a work tree or an index; nothing is fetched but by `clone`
and `fetch`, which say so.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcode.errors import UsageError

# A stranger's checkout must not run programs: fsmonitor and hooks are commands from its configuration.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")

# Set in hooks: they name a repository other than the one that is asked about.
_ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}

# A partial clone fetches what it lacks through a program of its configuration.
_ALONE = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
_ONLINE = {"GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file", "GIT_TERMINAL_PROMPT": "0"}

_ASKED = 256
"""Blobs asked for before their answers are read: 11 kB, which a pipe holds, so neither side waits for the other."""


def run(
    folder: Path,
    *arguments: str,
    configuration: Mapping[str, str] | None = None,
    given: bytes = b"",
    online: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """git in a folder, in English; FileNotFoundError where there is no git. `online` lets it ask other machines."""
    environment = _environment(online)
    if configuration:  # by the environment, since `-c NAME=VALUE` ends a name that holds "=" too early
        environment["GIT_CONFIG_COUNT"] = str(len(configuration))
        for i, (name, value) in enumerate(configuration.items()):
            environment |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    command = ["git", *_SAFE, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of a tree: its path with forward slashes, stray bytes spelled out, and the name of its content."""

    path: str
    blob: str


class Repository:
    """The objects of one clone, bare or not."""

    def __init__(self, folder: Path) -> None:
        """UsageError where `folder` is no repository, or git refuses it."""
        self.folder = folder
        self._ask("rev-parse", "--git-dir")

    @property
    def shallow(self) -> bool:
        """Whether its history is cut off."""
        return self._ask("rev-parse", "--is-shallow-repository").strip() == b"true"

    @property
    def partial(self) -> bool:
        """Whether it was cloned without some of its blobs."""
        return run(self.folder, "config", "--get-regexp", r"^remote\..*\.promisor$").returncode == 0

    def lacks(self, commits: Sequence[str]) -> list[str]:
        """Those of the commits, by their whole names, that are not here."""
        there = (run(self.folder, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0 for commit in commits)
        return [commit for commit, found in zip(commits, there, strict=True) if not found]

    def missing(self, commits: Sequence[str]) -> list[str]:
        """The blobs of the trees of commits that a partial clone was made without."""
        # Not `cat-file --batch-check`, which stops at the first one: git 2.39 cannot be kept from asking for it.
        given = "".join(f"{commit}\n" for commit in commits).encode()
        listed = self._ask("rev-list", "--objects", "--no-walk", "--missing=print", "--stdin", given=given)
        return [line[1:].decode("ascii") for line in listed.splitlines() if line.startswith(b"?")]

    def files(self, commit: str) -> list[Entry]:
        """The regular files of a commit's tree: no symbolic links, no submodules. UsageError where it is not here."""
        raw = self._ask("ls-tree", "-r", "-z", "--full-tree", f"{commit}^{{tree}}")
        found = []
        for line in raw.split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, _, blob = about.split(b" ")
            if mode.startswith(b"100"):
                found.append(Entry(path.decode("utf-8", "backslashreplace"), blob.decode("ascii")))
        return found

    def blobs(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """The contents by name, in order, from one process; None for one that is not here.

        In a partial clone that is a UsageError.
        """
        command = ["git", *_SAFE, "cat-file", "--batch"]
        with subprocess.Popen(
            command, cwd=self.folder, env=_environment(False), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                for start in range(0, len(names), _ASKED):
                    part = names[start : start + _ASKED]
                    process.stdin.write("".join(f"{name}\n" for name in part).encode())
                    process.stdin.flush()
                    for _ in part:
                        head = process.stdout.readline().split()
                        if not head:
                            raise UsageError(f"git cannot read {self.folder}: run `git fsck` there.")
                        yield None if head[-1] == b"missing" else process.stdout.read(int(head[-1]) + 1)[:-1]
            finally:
                process.stdin.close()
                process.terminate()

    def fetch(self, names: Sequence[str]) -> str:
        """Ask the remote that it was cloned from for objects by name; what git said against it, "" if all is well."""
        command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--stdin")
        given = "".join(f"{name}\n" for name in names).encode()
        noop = {"fetch.negotiationAlgorithm": "noop"}  # as git itself asks for what a partial clone lacks
        done = run(self.folder, *command, "--filter=blob:none", "origin", configuration=noop, given=given, online=True)
        return said(done) if done.returncode else ""

    def _ask(self, *arguments: str, given: bytes = b"") -> bytes:
        try:
            done = run(self.folder, *arguments, given=given)
        except (FileNotFoundError, NotADirectoryError):
            cure = "install git" if self.folder.is_dir() else "check the path"
            raise UsageError(f"git cannot be run in {self.folder}: {cure}.") from None
        if done.returncode:
            raise UsageError(f"git cannot read {self.folder} ({said(done)}): check that it is a whole clone.")
        return done.stdout


def clone(url: str, folder: Path) -> str:
    """A bare clone without blobs, where the server can leave them out; what git said against it, "" if all is well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = ("clone", "--quiet", "--bare", "--filter=blob:none", url, str(folder.absolute()))
    done = run(folder.parent, *command, online=True)
    return said(done) if done.returncode else ""


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last line of git's complaint."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ").rstrip(".") if lines else f"exit code {done.returncode}"


def _environment(online: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return kept | {"LC_ALL": "C"} | (_ONLINE if online else _ALONE)
