"""Data that can be made anew from the SQLite file: kept, checked, caught up and rebuilt in a folder of their own.

The folder holds sub-folders with data and one `stamp.json`, written last and atomically, that names the sub-folder in
use, the commit it holds and the size and checksum of each file. Whoever finds that the stamp is not of the present
commit, or that a file is not as the stamp says, takes the lock, catches up or rebuilds, and writes a new stamp; a
reader that still has the old files open goes on with them. Nothing is synced to the disk: what a power cut loses fails
its checksum. Knows neither vectors nor terms: `dense.py` and `lexical.py` fill it.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Generic, TypeVar

from embedcode.errors import StoreError
from embedcode.files import make_private
from embedcode.store.database import ORIGIN, Database, Mark, Snapshot
from embedcode.store.faults import explained

LOCK_SECONDS = 600.0
"""How long to wait for another process that is rebuilding the same data."""

REPLACE_TRIES = 5
REPLACE_PAUSE = 0.02
"""Seconds between them."""

DEAD_SHARE = 0.1
"""Share of deleted rows above which data are rebuilt: they cost time, and lexical statistics still count them."""

View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a sub-folder holds: a commit, its rows, how many of them are dead, and (size, CRC-32) of each file."""

    format: int
    folder: str
    generation: int = ORIGIN.generation
    token: str = ORIGIN.token
    rows: int = 0
    dead: int = 0
    files: dict[str, tuple[int, int]] | None = None


class UnusableError(Exception):
    """Derived data are missing, damaged or being replaced: they must be made anew. Never leaves this room."""


class Derived(ABC, Generic[View]):
    """One kind of derived data of a database, in `folder`."""

    FORMAT: int

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database
        self._mutex = Lock()
        self._open: tuple[Stamp, View] | None = None

    @abstractmethod
    def load(self, folder: Path, stamp: Stamp) -> View:
        """Open verified data for reading; raises UnusableError."""

    @abstractmethod
    def grow(self, folder: Path, stamp: Stamp, snapshot: Snapshot, since: Mark) -> Stamp:
        """Bring the data that `stamp` describes from `since` to the snapshot; returns their new rows, dead and files.

        A new folder is empty and `since` is ORIGIN. All files are written and closed when this returns.
        """

    def view(self, rebuild: bool = False) -> tuple[View, int]:
        """Data that hold at least the last commit before this call, and the generation they hold."""
        with self._mutex, explained(self._database.folder):
            opened = None if rebuild else self._present()
            if opened is None:
                opened = self._catch_up(rebuild)
            self._open = opened
            stamp, view = opened
            return view, stamp.generation

    def close(self) -> None:
        self._open = None

    def _present(self) -> tuple[Stamp, View] | None:
        """What is open, or what another process has written, if it is of the present commit."""
        with self._database.snapshot() as snapshot:
            token = snapshot.head.token
        if self._open is not None and self._open[0].token == token:
            return self._open
        stamp = self._read_stamp()
        if stamp is None or stamp.token != token:
            return None
        try:
            return self._load(stamp)
        except UnusableError:
            return None

    def _load(self, stamp: Stamp) -> tuple[Stamp, View]:
        """Data verified and opened, or what is open already where that is the same; raises UnusableError."""
        if self._open is not None and (self._open[0].folder, self._open[0].files) == (stamp.folder, stamp.files):
            return stamp, self._open[1]
        folder = self._folder / stamp.folder
        verify(folder, stamp)
        return stamp, self.load(folder, stamp)

    def _catch_up(self, rebuild: bool) -> tuple[Stamp, View]:
        from filelock import FileLock, Timeout

        make_private(self._folder)
        try:
            with FileLock(self._folder / "lock", timeout=LOCK_SECONDS), self._database.snapshot() as snapshot:
                return (None if rebuild else self._extend(snapshot)) or self._rebuild(snapshot)
        except Timeout as error:
            raise StoreError(
                f"{self._folder} has been locked by another process for {LOCK_SECONDS:.0f} s: wait until it has "
                f"finished or stop it"
            ) from error

    def _extend(self, snapshot: Snapshot) -> tuple[Stamp, View] | None:
        """Catch up from the stamped commit; None where that cannot be done."""
        stamp = self._read_stamp()
        since = snapshot.mark(stamp.generation, stamp.token) if stamp else None
        if stamp is None or since is None or stamp.dead > DEAD_SHARE * stamp.rows:
            return None
        try:
            opened = self._load(stamp)
            if since == snapshot.head:
                return opened
            grown = self._finish(self.grow(self._folder / stamp.folder, stamp, snapshot, since), snapshot)
            # Not verified: the checksums are of what was just written.
            return grown, opened[1] if grown.files == stamp.files else self.load(self._folder / stamp.folder, grown)
        except UnusableError:
            return None

    def _rebuild(self, snapshot: Snapshot) -> tuple[Stamp, View]:
        stamp = Stamp(self.FORMAT, f"{snapshot.head.generation}-{token_hex(4)}")
        folder = self._folder / stamp.folder
        make_private(folder)
        try:
            stamp = self._finish(self.grow(folder, stamp, snapshot, ORIGIN), snapshot)
            opened = stamp, self.load(folder, stamp)
        except UnusableError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreError(f"{folder} cannot be read back ({error}): check the disk and run again") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for other in self._folder.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)  # a process that has it open keeps it until it lets go
        return opened

    def _finish(self, stamp: Stamp, snapshot: Snapshot) -> Stamp:
        stamp = replace(stamp, generation=snapshot.head.generation, token=snapshot.head.token)
        temporary = self._folder / "stamp.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(stamp), file)
        for left in reversed(range(REPLACE_TRIES)):
            try:
                temporary.replace(self._folder / "stamp.json")
                break
            except PermissionError:  # on Windows, while another process reads it
                if not left:
                    raise
                time.sleep(REPLACE_PAUSE)
        return stamp

    def _read_stamp(self) -> Stamp | None:
        """The stamp, or None if there is none that this version can use."""
        try:
            values = json.loads((self._folder / "stamp.json").read_text(encoding="utf-8"))
            stamp = Stamp(**values)
            files = {str(name): (int(size), int(crc)) for name, (size, crc) in (stamp.files or {}).items()}
            numbers = (stamp.generation, stamp.rows, stamp.dead)
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None
        sound = stamp.format == self.FORMAT and all(isinstance(number, int) for number in numbers)
        if not (sound and isinstance(stamp.folder, str) and isinstance(stamp.token, str)):
            return None
        return replace(stamp, files=files)


def verify(folder: Path, stamp: Stamp) -> None:
    """Raise UnusableError unless each file begins with the bytes the stamp says. Reads 1 GB in about half a second."""
    for name, (size, crc) in (stamp.files or {}).items():
        try:
            if checksum(folder / name, size) != (size, crc):
                raise UnusableError(f"{name} is not as it was written")
        except FileNotFoundError as error:
            raise UnusableError(f"{name} is missing") from error


def checksum(path: Path, size: int | None = None) -> tuple[int, int]:
    """(bytes, CRC-32) of the first `size` bytes of a file, or of all."""
    crc = done = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20 if size is None else min(1 << 20, size - done)):
            crc = zlib.crc32(block, crc)
            done += len(block)
    return done, crc


def checksums(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    return {name: checksum(folder / name) for name in names}
