"""git's plumbing: commands that run no program of a stranger's repository, and the trees and blobs it holds.

The only place that runs git. Nothing here reads or writes a work tree or an index; nothing is fetched but by `clone`
and `fetch`, which say so.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from embedcode.errors import UsageError

# A stranger's checkout must not run programs: fsmonitor, hooks and what checks signatures are commands from its
# configuration.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "log.showSignature=false")

# Set in hooks: they name a repository other than the one that is asked about.
_ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}

# A partial clone fetches what it lacks through a program of its configuration.
_ALONE = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
_ONLINE = {"GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file", "GIT_TERMINAL_PROMPT": "0"}
# Else git waits for ever on a server that sends no more; one that counts its objects first says little, for minutes.
_STALLED = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "300"}

CLONE_SECONDS = 2 * 3600
"""That a clone may take by whatever protocol: 5 GB, as of the Linux kernel, come in an hour at 1.4 MB/s."""
_ASKED = 64
"""Blobs asked for before their answers are read: a pipe holds them, paths of 1,000 bytes too, so no side waits for the
other."""


def run(
    folder: Path,
    *arguments: str,
    configuration: Mapping[str, str] | None = None,
    given: bytes = b"",
    online: bool = False,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """git in a folder, in English; FileNotFoundError where there is no git, TimeoutExpired after `seconds`, when what
    git has started ends with it. `online` lets it ask other machines."""
    environment = _environment(online)
    if configuration:  # by the environment, since `-c NAME=VALUE` ends a name that holds "=" too early
        count = environment.get("GIT_CONFIG_COUNT", "")
        first = int(count) if count.isdecimal() else 0  # behind what the user has set so
        environment["GIT_CONFIG_COUNT"] = str(first + len(configuration))
        for i, (name, value) in enumerate(configuration.items(), first):
            environment |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    command = ["git", *_SAFE, *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, err = process.communicate(given, seconds)
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started, where the system tells: git ends alone, and the helper that it clones by
    would go on for as long as the server takes. Not by a group of its own, which a terminal's Ctrl-C does not reach."""
    ending = [process.pid]
    for one in ending:
        with suppress(OSError):
            ending += map(int, Path(f"/proc/{one}/task/{one}/children").read_text("ascii").split())
    process.kill()
    for one in ending[1:]:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def ask(
    root: Path, *arguments: str, configuration: Mapping[str, str] | None = None, needed_by: str = "this"
) -> str | None:
    """Its output, or None where it fails; UsageError where `needed_by` cannot have git here at all."""
    try:
        done = run(root, *arguments, configuration=configuration)
    except FileNotFoundError:
        raise UsageError(f"{needed_by} needs git, which was not found: install it or leave {needed_by} out.") from None
    if done.returncode == 128 and b"not a git repository" in done.stderr:
        raise UsageError(f"{needed_by} needs a git repository, and {root} is none: leave it out.")
    if b"dubious ownership" in done.stderr:
        raise UsageError(f"git refuses {root} because another user owns it: see `git config safe.directory`.")
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def blobs(root: Path, names: Iterable[str], most: int | None = None) -> Iterator[bytes | None]:
    """The content of each object (a hash, or `REVISION:path`), in order, by one process and not through filters.

    None for what is missing, no blob, or larger than `most` bytes.
    """
    command = ["git", *_SAFE, "cat-file", "--batch"]
    with subprocess.Popen(
        command,
        cwd=root,
        env=_environment(False),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        coming = iter(names)
        try:
            while part := list(islice(coming, _ASKED)):
                asked = "".join(f"{name.replace(chr(10), chr(0))}\n" for name in part)  # no object is called so
                process.stdin.write(asked.encode("utf-8", "surrogateescape"))
                process.stdin.flush()
                for _ in part:
                    yield _blob(process.stdout, most)
        except BrokenPipeError:
            raise UsageError(f"git cannot read the objects of {root}: run `git fsck` there.") from None
        finally:
            process.kill()


def _blob(answer: IO[bytes], most: int | None) -> bytes | None:
    head = answer.readline()
    if not head:
        raise BrokenPipeError
    fields = head.split()
    if len(fields) != 3 or not fields[2].isdigit():  # "NAME missing"
        return None
    size = left = int(fields[2])
    if fields[1] == b"blob" and (most is None or size <= most):
        return answer.read(size + 1)[:size]
    while left > 0:
        block = answer.read(min(left, 1 << 20))
        if not block:
            raise BrokenPipeError
        left -= len(block)
    answer.read(1)
    return None


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

    def same(self, commit: str, other: str, *paths: str) -> bool:
        """Whether two commits have the same files under paths, whose `*` stands for anything and case for nothing."""
        asked = ("--icase-pathspecs", "diff-tree", "-r", "--quiet", commit, other, "--", *paths)
        return run(self.folder, *asked).returncode == 0

    def blobs(self, names: Iterable[str], most: int | None = None) -> Iterator[bytes | None]:
        """The contents by name, as `blobs` gives them."""
        return blobs(self.folder, names, most)

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


def clone(url: str, folder: Path, whole: bool = False, seconds: float = CLONE_SECONDS) -> str:
    """A bare clone, without blobs where the server can leave them out unless `whole`; what git said against it, or that
    it took too long, "" if all is well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    some = () if whole else ("--filter=blob:none",)
    asked = ("clone", "--quiet", "--bare", *some, url, str(folder.absolute()))
    try:
        done = run(folder.parent, *asked, online=True, seconds=seconds)
    except subprocess.TimeoutExpired:
        return f"too slow: not done after {seconds:g} s"
    return said(done) if done.returncode else ""


def set_head(folder: Path, commit: str) -> str:
    """Let HEAD of a bare clone be a commit; what git said against it, "" if all is well."""
    done = run(folder, "update-ref", "--no-deref", "HEAD", commit)
    return said(done) if done.returncode else ""


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last line of git's complaint."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ").rstrip(".") if lines else f"exit code {done.returncode}"


def _environment(online: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return _STALLED | kept | {"LC_ALL": "C"} | (_ONLINE if online else _ALONE)
