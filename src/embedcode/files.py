"""Files and folders where other people are about: small files that a stranger may have put where we look, files that
are replaced while others read them, folders of ours that nobody else may look into, and where a checkout ends.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from embedcode.errors import UnwritableError, UsageError, why

_BINARY = getattr(os, "O_BINARY", 0)
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY
DEVICES = Path("/dev")
CURE = "free some space, or write elsewhere"
LIMIT = 1_000_000
"""Bytes; a settings or ignore file has a thousandth of it."""


def read_small(path: Path, limit: int = LIMIT) -> bytes:
    """The bytes of a regular file. FileNotFoundError as usual; UsageError when it is something else or above `limit`.

    A named pipe in the place of a settings or ignore file would block for ever, a link to a device fill the memory.
    """
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is not a regular file: remove it.")
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise UsageError(f"{path} is larger than {limit / 1e6:g} MB: shorten it.")
    return raw


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there. Path.is_dir() raises for a name that is too long and a place nobody may look into."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | Path) -> bool:
    """The same of a file."""
    return os.path.isfile(path)  # noqa: PTH113


def noted(path: Path) -> dict[str, Any]:
    """The JSON object in a file of ours; an empty one where it is missing or damaged, since what it notes can be found
    out again."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def stamp(path: Path) -> tuple[int, int, int]:
    """Differs from an earlier one where the file was written or replaced since; the same while there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner only: an index holds the text of the sources,
    which may lie in a folder that only their owner may read. Folders that are there keep their mode."""
    for place in (*reversed(folder.parents), folder):  # mkdir(parents=True) gives those above it the usual mode
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Write beside `path`, then take its place: nobody sees half a file, and an old one survives a failure.

    A new file keeps the mode of the old one; `mode`, less the umask, is that of one that was not there. UsageError
    where something else than a regular file would lose its place.
    """
    # /dev/stdout is a link, to a regular file where it was redirected to one; root would replace it for everyone.
    if path.absolute().parent == DEVICES or (path.exists() and not path.is_file()):
        raise UsageError(f"{path} is not a regular file: give the name of a file to write.")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.unlink(missing_ok=True)  # of a process that died; O_EXCL follows no link that was put there since
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        with os.fdopen(os.open(beside, flags, mode), "wb") as file:
            if path.exists():
                beside.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def save_json(path: Path, value: Any, cure: str = CURE) -> None:
    """What noted() reads, whole or not at all; UnwritableError as of writing()."""
    with writing(path, cure), replacing(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")


@contextmanager
def writing(path: Path, cure: str = CURE, kinds: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Inside, UnwritableError where the disk does not take `path`; `kinds` are what libraries raise for that too."""
    try:
        yield
    except kinds as error:
        raise unwritable(path, error, cure) from None


def unwritable(path: Path, error: Exception, cure: str = CURE) -> UnwritableError:
    """What to raise where a file or folder cannot be written."""
    return UnwritableError(f"{path} cannot be written ({why(error)}): {cure}.")


def everything(place: Path) -> set[Path]:
    """The folders that hold more than a repository: the file system's top, and the home folder where there is one."""
    try:
        return {Path(place.anchor), Path.home().resolve()}
    except RuntimeError:
        return {Path(place.anchor)}


def upwards(place: Path) -> Iterator[Path]:
    """A resolved path and what it lies in, short of everything()."""
    yield place
    top = everything(place)
    for folder in place.parents:
        if folder in top:
            return
        yield folder


def checkout(place: Path) -> Path | None:
    """The nearest folder with .git that holds a resolved path."""
    return next((folder for folder in upwards(place) if (folder / ".git").exists()), None)
