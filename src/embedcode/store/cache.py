"""VectorCache: one user's vectors by content, shared by all checkouts, so that no string is embedded twice.

One SQLite file per space under the user's home. It is a cache: when it cannot be used, work goes on without it, and a
damaged one is replaced by an empty one.
Knows no chunk and no index; a key is hash(the exact string given to the tokenizer, space).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedcode.files import make_private
from embedcode.store.quantise import quantise, restore

if TYPE_CHECKING:
    from filelock import FileLock

    from embedcode.types import Floats

_log = logging.getLogger("embedcode")
_BATCH = 500
"""Keys of one query, below SQLite's limit of variables."""


class VectorCache:
    def __init__(self, path: Path, dim: int) -> None:
        self.path = path
        self._dim = dim
        self._inode = 0
        self._connection: sqlite3.Connection | None = None
        self._connection = self._open()

    @property
    def empty(self) -> bool:
        """Whether it holds nothing, or cannot be used."""
        try:
            return self._connection is None or not self._connection.execute("SELECT 1 FROM vectors LIMIT 1").fetchone()
        except sqlite3.Error as error:
            self._lose(error)
            return True

    def get(self, keys: Sequence[bytes]) -> tuple[list[int], Floats]:
        """The positions in `keys` that are held, and their vectors float32 [m, dim]."""
        found: dict[bytes, tuple[float, bytes]] = {}
        if self._connection is not None:
            try:
                for start in range(0, len(keys), _BATCH):
                    part = keys[start : start + _BATCH]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, scale, data FROM vectors WHERE key IN ({marks})"
                    found |= {key: (scale, data) for key, scale, data in self._connection.execute(query, part)}
            except sqlite3.Error as error:
                self._lose(error)
        at = [i for i, key in enumerate(keys) if key in found and len(found[key][1]) == self._dim]
        data = np.frombuffer(b"".join(found[keys[i]][1] for i in at), np.int8).reshape(-1, self._dim)
        return at, restore(data, np.array([found[keys[i]][0] for i in at], np.float32))

    def put(self, keys: Sequence[bytes], vectors: Floats) -> None:
        if self._connection is None:
            return
        data, scales = quantise(vectors)
        rows = [(key, float(scale), row.tobytes()) for key, scale, row in zip(keys, scales, data, strict=True)]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._lose(error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection | None:
        for _ in range(2):
            connection = None
            try:
                make_private(self.path.parent)
                connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
                self._inode = self.path.stat().st_ino
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    # Two processes that switch a new file to WAL at once would not wait for each other.
                    with self._lock():
                        connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS vectors"
                    " (key BLOB PRIMARY KEY, scale REAL NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
                )
                return connection
            except (sqlite3.Error, OSError) as error:
                if connection is not None:
                    connection.close()
                if not self._set_aside(error):
                    self._lose(error)
                    break
        return None

    def _lose(self, error: Exception) -> None:
        """Go on without the cache; the next run has a new one if this one is damaged."""
        _log.warning("the vector cache %s is not used (%s); work goes on without it", self.path, error)
        self.close()
        self._set_aside(error)

    def _set_aside(self, error: Exception) -> bool:
        """Move a damaged file away, and its log, which SQLite would replay into the next one. False if it cannot be, or
        is only locked, full or not writable."""
        if isinstance(error, OSError | sqlite3.OperationalError):
            return False
        try:
            with self._lock():
                if self.path.stat().st_ino == self._inode:  # else another process was first
                    for suffix in ("-wal", "-shm"):
                        self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                    self.path.replace(self.path.with_suffix(".damaged"))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _lock(self) -> FileLock:
        """For what SQLite's own locks do not cover; OSError where it cannot be had."""
        from filelock import FileLock

        return FileLock(self.path.with_suffix(".lock"), timeout=10)
