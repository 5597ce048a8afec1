"""The SQLite file: opening, checking, connections, and consistent snapshots of what changed since a point in history.

The file is the only truth; it is opened by several processes and threads at once. Knows the tables, but neither the
Store contract's operations (`sqlite.py`) nor what is derived from it (`derived.py`).
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from embedcode.errors import StoreError
from embedcode.files import make_private
from embedcode.store.faults import again, explained

FORMAT = 1
"""Version of the tables, kept in SQLite's user_version. Not the program's version."""

APPLICATION = 0x656D6263
"""SQLite's application_id of an index: "embc"."""

BATCH = 256
"""Rows fetched at once, so that memory stays bounded whatever the size of the index."""

# `mtime_ns` holds File.stamp, which once was no more than that.
# AUTOINCREMENT: ids only grow and are never used again, so "added since" is "id above the largest one then".
# Each commit writes a row of history with a random token. Derived data carry the token of the commit they hold; if
# the token is not in history they are of another store, of a future a restored backup does not know, or too old.
_SCHEMA = """
CREATE TABLE store (dim INTEGER NOT NULL);
CREATE TABLE history (
    generation INTEGER PRIMARY KEY, token TEXT NOT NULL, chunk INTEGER NOT NULL, vector INTEGER NOT NULL
);
CREATE TABLE manifest (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path NOT NULL UNIQUE, repo NOT NULL, language TEXT NOT NULL,
    content TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files (id), start_line INTEGER NOT NULL,
    end_line INTEGER NOT NULL, language TEXT NOT NULL, symbol NOT NULL, key BLOB NOT NULL, text NOT NULL
);
CREATE INDEX chunks_by_file ON chunks (file);
CREATE INDEX chunks_by_key ON chunks (key);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, scale REAL NOT NULL, data BLOB NOT NULL
);
CREATE TABLE gone (chunk INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in a store's history: a commit, and the largest ids at that time."""

    generation: int
    token: str
    chunk: int
    vector: int


ORIGIN = Mark(-1, "", 0, 0)
"""Before the first commit: what changed since is everything."""


class Snapshot:
    """One read transaction: everything read through it is of one commit, `head`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        row = connection.execute("SELECT * FROM history ORDER BY generation DESC LIMIT 1").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("it has no history")
        self.head = Mark(*row)

    def mark(self, generation: int, token: str) -> Mark | None:
        """The commit with this number and token, if this store has made it and still knows it."""
        row = self._connection.execute(
            "SELECT * FROM history WHERE generation = ? AND token = ?", (generation, token)
        ).fetchone()
        return Mark(*row) if row else None

    def gone(self, since: Mark) -> list[int]:
        """Ids of the chunks that were there at `since` and are not now."""
        query = "SELECT chunk FROM gone WHERE generation > ? AND chunk <= ?"
        return [chunk for (chunk,) in self._connection.execute(query, (since.generation, since.chunk))]

    def texts(self, since: Mark) -> Iterator[tuple[int, int, str, str, str]]:
        """(chunk id, file id, path, symbol, text) of the chunks added since, by id."""
        query = """SELECT c.id, c.file, f.path, c.symbol, c.text FROM chunks c JOIN files f ON f.id = c.file
                   WHERE c.id > ? ORDER BY c.id"""
        for chunk, file, path, symbol, text in _stream(self._connection.execute(query, (since.chunk,))):
            yield chunk, file, unpack(path), unpack(symbol), unpack(text)

    def vectors(self, since: Mark, dim: int) -> Iterator[list[tuple[int, int, float, bytes]]]:
        """Lists of (chunk id, file id, scale, int8 bytes) of chunks that were added, or got a vector, since."""
        # CROSS JOIN keeps SQLite to what is new as the outer loop; `?1 > 0` spares a rebuild the second half.
        query = """SELECT c.id, c.file, v.scale, v.data FROM chunks c CROSS JOIN vectors v ON v.key = c.key
                   WHERE c.id > ?1
                   UNION ALL
                   SELECT c.id, c.file, v.scale, v.data FROM vectors v CROSS JOIN chunks c ON c.key = v.key
                   WHERE ?1 > 0 AND v.id > ?2 AND c.id <= ?1"""
        cursor = self._connection.execute(query, (since.chunk, since.vector))
        while rows := cursor.fetchmany(BATCH):
            for _, _, scale, data in rows:
                check_vector(scale, data, dim)
            yield rows


class Database:
    """A pool of connections to `folder`/index.sqlite. Safe to use from several threads."""

    def __init__(self, folder: Path, dim: int, timeout: float) -> None:
        """Open or create the index of vectors with `dim` numbers; writers wait `timeout` seconds for each other."""
        self.folder = folder
        self.dim = dim
        self.path = folder / "index.sqlite"
        self._timeout = timeout
        self._idle: list[sqlite3.Connection] | None = []
        self._mutex = Lock()
        with explained(folder):
            make_private(folder)
            connection = self._connect()
            try:
                self._prepare(connection)
                self._identity = self._inode()
            except BaseException:
                connection.close()
                raise
        self._release(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        # NORMAL: a kill loses nothing; a power cut may lose the last commits, never the file's consistency, and what
        # was lost is indexed again by the next run.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            from filelock import FileLock, Timeout

            # Two processes that switch a new file to WAL at once would not wait for each other.
            try:
                with FileLock(self.folder / "create.lock", timeout=self._timeout):
                    self._create(connection)
            except Timeout as error:
                raise StoreError(
                    f"the index in {self.folder} is being created by another process: wait until it has finished"
                ) from error
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise sqlite3.DatabaseError("index.sqlite is not an index of embedcode")
        if version > FORMAT:
            raise StoreError(
                f"the index in {self.folder} was written by a newer embedcode (format {version}, this one reads "
                f"{FORMAT}): upgrade embedcode, or {again(self.folder)}"
            )
        if version < FORMAT:
            raise StoreError(
                f"the index in {self.folder} has the old format {version} (this embedcode reads {FORMAT}): "
                f"{again(self.folder)}"
            )
        row = connection.execute("SELECT dim FROM store").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("it does not say the length of its vectors")
        if row[0] != self.dim:
            raise StoreError(
                f"the index in {self.folder} holds vectors of {row[0]} numbers, this model gives {self.dim}: use the "
                f"model it was made with, or {again(self.folder)}"
            )

    def _create(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            return  # by another process just now, or not ours
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO store VALUES (?)", (self.dim,))
            connection.execute("INSERT INTO history VALUES (0, ?, 0, 0)", (secrets.token_hex(8),))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _inode(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    @property
    def replaced(self) -> bool:
        """Whether the file that was opened is no longer there."""
        try:
            return self._inode() != self._identity
        except FileNotFoundError:
            return True

    def _acquire(self) -> sqlite3.Connection:
        if self.replaced:
            raise StoreError(f"the index in {self.folder} was deleted or replaced while it was in use: run again")
        with self._mutex:
            if self._idle is None:
                raise StoreError(f"the index in {self.folder} is closed: open it again")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _release(self, connection: sqlite3.Connection) -> None:
        with self._mutex:
            if self._idle is not None:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _connection(self, begin: str) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction, which is rolled back unless the block has committed it."""
        with explained(self.folder):
            connection = self._acquire()
            try:
                connection.execute(begin)
                yield connection
            except BaseException:
                connection.close()  # rolls back, and drops a connection that may be broken
                raise
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._release(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: one consistent state of the file, which neither waits for a writer nor stops one."""
        with self._connection("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The write transaction of this file: there is one at a time, over all processes."""
        with self._connection("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self.reading() as connection:
            yield Snapshot(connection)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, as far as no reader holds it: the next time moves the rest.

        It waits for nobody, since it keeps all writers waiting meanwhile.
        """
        with explained(self.folder), closing(self._acquire()) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, None
        for connection in idle or ():
            connection.close()


def set_aside(folder: Path) -> Path:
    """Move a damaged file away, and delete its log, which SQLite would replay into the next one."""
    path = folder / "index.sqlite"
    with explained(folder):
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return path.replace(path.with_suffix(".damaged"))


def pack(text: str) -> str | bytes:
    """Text as SQLite can hold it: paths and texts that are not Unicode (lone surrogates) become a BLOB."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unpack(value: str | bytes) -> str:
    """What pack() was given. A damaged file may hold anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise sqlite3.DatabaseError("a text is missing")
    return value.decode("utf-8", "surrogatepass")


def check_vector(scale: object, data: object, dim: int) -> None:
    """Refuse what only a damaged file holds."""
    if not (isinstance(scale, float) and isinstance(data, bytes) and len(data) == dim):
        raise sqlite3.DatabaseError("a vector of the wrong length")


def _stream(cursor: sqlite3.Cursor) -> Iterator[tuple[int, int, str, str, str]]:
    while rows := cursor.fetchmany(BATCH):
        yield from rows


def remembered(folder: Path, name: str) -> str:
    """A value of the manifest of the index in `folder`, whatever its dimensions; "" where there is none to be read."""
    return str(_peek(folder, "SELECT value FROM manifest WHERE name = ?", name) or "")


def dimensions(folder: Path) -> int:
    """The length of the vectors in it; 0 where it cannot be read."""
    return int(_peek(folder, "SELECT dim FROM store") or 0)


def _peek(folder: Path, query: str, *values: str) -> str | int | None:
    try:
        with closing(sqlite3.connect(f"{(folder / 'index.sqlite').as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(query, values).fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None
