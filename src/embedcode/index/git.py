"""Git, asked in a way that a stranger's repository cannot answer with programs of its own. The only place that runs it.

Knows no paths, commits or chunks: who asks reads the answer.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from embedcode.errors import UsageError

# A stranger's checkout must not run programs: fsmonitor and hooks are commands from its configuration.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")

# Set in hooks: they name a repository other than the one that is asked about.
_ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}


# A partial clone fetches what it lacks through a program of its configuration.
_ALONE = {"LC_ALL": "C", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}


def ask(
    root: Path, *arguments: str, configuration: Mapping[str, str] | None = None, needed_by: str = "this"
) -> str | None:
    """Its output, or None where it fails; UsageError where `needed_by` cannot have git here at all."""
    command, environment = _prepared(arguments, configuration)
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError(f"{needed_by} needs git, which was not found: install it or leave {needed_by} out.") from None
    if done.returncode == 128 and b"not a git repository" in done.stderr:
        raise UsageError(f"{needed_by} needs a git repository, and {root} is none: leave it out.")
    if b"dubious ownership" in done.stderr:
        raise UsageError(f"git refuses {root} because another user owns it: see `git config safe.directory`.")
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def blobs(root: Path, names: Iterable[str], most: int) -> Iterator[bytes | None]:
    """The content of each object (a hash, or `REVISION:path`), in order, by one process and not through filters.

    None for what is missing, no blob, or larger than `most` bytes.
    """
    command, environment = _prepared(("cat-file", "--batch"), None)
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            for name in names:
                if "\n" in name:
                    yield None
                    continue
                process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
                process.stdin.flush()
                yield _blob(process.stdout, most)
        except BrokenPipeError:
            raise UsageError(f"git cannot read the objects of {root}: run `git fsck` there.") from None
        finally:
            process.kill()


def _blob(answer: IO[bytes], most: int) -> bytes | None:
    head = answer.readline()
    if not head:
        raise BrokenPipeError
    fields = head.split()
    if len(fields) != 3 or not fields[2].isdigit():  # "NAME missing"
        return None
    size = left = int(fields[2])
    if fields[1] == b"blob" and size <= most:
        return answer.read(size + 1)[:size]
    while left > 0:
        block = answer.read(min(left, 1 << 20))
        if not block:
            raise BrokenPipeError
        left -= len(block)
    answer.read(1)
    return None


def _prepared(arguments: tuple[str, ...], configuration: Mapping[str, str] | None) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE} | _ALONE
    if configuration:  # by the environment, since `-c NAME=VALUE` ends a name that holds "=" too early
        environment["GIT_CONFIG_COUNT"] = str(len(configuration))
        for i, (name, value) in enumerate(configuration.items()):
            environment |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    return ["git", *_SAFE, *arguments], environment
