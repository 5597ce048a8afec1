"""Files and folders where other people are about: small files that a stranger may have put where we look, and folders
of ours that nobody else may look into.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from embedcode.errors import UsageError

OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
LIMIT = 1_000_000
"""Bytes; a settings or ignore file has a thousandth of it."""


def read_small(path: Path) -> bytes:
    """The bytes of a regular file. FileNotFoundError as usual; UsageError when it is something else or above LIMIT.

    A named pipe in the place of a settings or ignore file would block for ever, a link to a device fill the memory.
    """
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is not a regular file: remove it.")
        raw = file.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise UsageError(f"{path} is larger than {LIMIT / 1e6:g} MB: shorten it.")
    return raw


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner only: an index holds the text of the sources,
    which may lie in a folder that only their owner may read. Folders that are there keep their mode."""
    for place in (*reversed(folder.parents), folder):  # mkdir(parents=True) gives those above it the usual mode
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)
