"""What SQLite and the file system can report, said as one sentence with the cure: the only place that maps them.

Knows no table and no query.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from embedcode.errors import DamagedError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_WAL_WRITE_LOCK = 120
"""The byte of the -shm file that a writer locks (SQLite's walformat, "WAL Locks")."""


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system become StoreErrors that name the index in `folder`.

    What finds nonsense in the file raises sqlite3.DatabaseError itself, as SQLite would.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        raise _of_sqlite(error, folder) from error
    except UnicodeDecodeError as error:
        raise _damaged(folder, "text that is not UTF-8") from error
    except OSError as error:
        raise _of_system(error, folder) from error


def full(folder: Path) -> StoreError:
    return StoreError(f"no space left for the index in {folder}: free some and run again, what was finished is kept")


def _of_sqlite(error: sqlite3.Error, folder: Path) -> StoreError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"the index in {folder} is being written by {_writer(folder)}: wait until it has finished or stop it"
        )
    if code == sqlite3.SQLITE_FULL:
        return full(folder)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _unwritable(folder, str(error))
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"the index in {folder} cannot be read or written ({error}): check that the disk is neither full nor "
            f"failing and run again"
        )
    certain = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return _damaged(folder, str(error), DamagedError if certain else StoreError)


def _damaged(folder: Path, reason: str, kind: type[StoreError] = StoreError) -> StoreError:
    # SQLite may quote the text it could not decode.
    reason = reason.partition(" with text ")[0].partition("\n")[0]
    return kind(f"the index in {folder} is damaged ({reason}): {again(folder)}")


def again(folder: Path) -> str:
    """The cure where an index has to be made anew."""
    root = noted_root(folder)
    return f"run `embedcode clean {quote(root) if root else 'PATH'}` and index again"


def noted_root(folder: Path) -> str:
    """The root of an index, which its folder's name tells by a hash alone; "" where no update has noted it."""
    try:
        return os.fsdecode((folder / "root").read_bytes())
    except OSError:
        return ""


def _of_system(error: OSError, folder: Path) -> StoreError:
    if error.errno in _FULL:
        return full(folder)
    if error.errno in _READ_ONLY:
        return _unwritable(folder, error.strerror or str(error))
    return StoreError(f"the index in {folder} cannot be used ({error}): check the folder and run again")


def _unwritable(folder: Path, reason: str) -> StoreError:
    return StoreError(f"the index in {folder} cannot be opened for writing ({reason}): make the folder writable")


def _writer(folder: Path) -> str:
    """The process that holds the write lock, as Linux lists it; elsewhere "another process"."""
    try:
        inode = (folder / "index.sqlite-shm").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] != ["POSIX"] or fields[3] != "WRITE" or not fields[5].endswith(f":{inode}"):
                continue
            first, last = int(fields[6]), float(fields[7].replace("EOF", "inf"))
            if first <= _WAL_WRITE_LOCK <= last:
                return "another thread of this process" if int(fields[4]) == os.getpid() else f"process {fields[4]}"
    except (OSError, ValueError, IndexError):
        pass
    return "another process"
