"""SqliteTransaction: what changes a SqliteStore. Knows the tables of `database.py`, and nothing that is derived."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from embedcode.store.checks import check_vectors
from embedcode.store.database import Database, Snapshot, pack
from embedcode.store.faults import explained
from embedcode.types import Chunk, File

if TYPE_CHECKING:
    from embedcode.types import Floats


class SqliteTransaction:
    """Implements the Transaction contract with SQLite's own: an error or a killed process undoes it.

    The `with` block holds the one write lock of the store, so prepare what is to be written before it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scope: AbstractContextManager[sqlite3.Connection] | None = None
        self._connection: sqlite3.Connection | None = None

    def upsert(self, file: File, chunks: Sequence[Chunk], keys: Sequence[bytes]) -> None:
        """See the contract. A chunk whose content is as before keeps its id, even if it has moved in the file."""
        if any((chunk.path, chunk.repo) != (file.path, file.repo) for chunk in chunks):
            raise ValueError(f"a chunk given for {file.path} is of another file")
        with self._writing() as connection:
            owner = _upsert_file(connection, file)
            held: dict[tuple[object, ...], list[tuple[int, int, int]]] = {}
            for id, start, end, *content in connection.execute(
                """SELECT id, start_line, end_line, language, symbol, key, text FROM chunks WHERE file = ?
                   ORDER BY start_line DESC, id DESC""",
                (owner,),
            ):
                held.setdefault(tuple(content), []).append((id, start, end))
            for chunk, key in zip(chunks, keys, strict=True):
                content = [chunk.language, pack(chunk.symbol), key, pack(chunk.text)]
                lines = (chunk.start_line, chunk.end_line)
                if same := held.get(tuple(content)):
                    id, *before = same.pop()
                    if tuple(before) != lines:
                        connection.execute("UPDATE chunks SET start_line = ?, end_line = ? WHERE id = ?", (*lines, id))
                else:
                    connection.execute(
                        """INSERT INTO chunks (file, start_line, end_line, language, symbol, key, text)
                           VALUES (?, ?, ?, ?, ?, ?, ?)""",
                        (owner, *lines, *content),
                    )
            self._drop(connection, [id for rest in held.values() for id, _, _ in rest])

    def delete(self, paths: Iterable[str]) -> None:
        with self._writing() as connection:
            for path in paths:
                row = connection.execute("SELECT id FROM files WHERE path = ?", (pack(path),)).fetchone()
                if row is not None:
                    ids = connection.execute("SELECT id FROM chunks WHERE file = ?", row).fetchall()
                    self._drop(connection, [id for (id,) in ids])
                    connection.execute("DELETE FROM files WHERE id = ?", row)

    def touch(self, file: File) -> None:
        """See the contract. Does nothing where another process has recorded another content meanwhile."""
        with self._writing() as connection:
            connection.execute(
                """UPDATE files SET size = ?1, mtime_ns = ?2
                   WHERE path = ?3 AND digest = ?4 AND (size, mtime_ns) IS NOT (?1, ?2)""",
                (file.size, file.stamp, pack(file.path), file.digest),
            )

    def put_vectors(self, keys: Sequence[bytes], vectors: Floats) -> None:
        from embedcode.store.quantise import quantise

        check_vectors(vectors, len(keys), self._database.dim)
        quantised, scales = quantise(vectors)
        rows = zip(keys, scales.tolist(), map(bytes, quantised), strict=True)
        with self._writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO vectors (key, scale, data) VALUES (?, ?, ?)", rows)

    def set_manifest(self, values: Mapping[str, str]) -> None:
        with self._writing() as connection:
            connection.executemany(
                """INSERT INTO manifest VALUES (?, ?)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value""",
                values.items(),
            )

    def commit(self) -> int:
        """See the contract. If nothing has changed the generation stays."""
        with self._writing() as connection:
            if connection.total_changes > self._changes_before:
                self._generation += 1
                connection.execute(
                    """INSERT INTO history VALUES (?, ?,
                           COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'chunks'), 0),
                           COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'vectors'), 0))""",
                    (self._generation, secrets.token_hex(8)),
                )
                connection.execute("COMMIT")
        self._connection = None
        return self._generation

    def __enter__(self) -> Self:
        self._scope = self._database.writing()
        self._connection = self._scope.__enter__()
        try:
            with self._writing() as connection:
                self._generation = Snapshot(connection).head.generation
                self._changes_before = connection.total_changes
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection = None
        if self._scope is not None:
            # The scope is not told of the caller's error: that is none of the index's.
            self._scope.__exit__(None, None, None)
            self._scope = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise RuntimeError("the transaction has not begun or is over")
        with explained(self._database.folder):
            yield self._connection

    def _drop(self, connection: sqlite3.Connection, ids: Sequence[int]) -> None:
        connection.executemany("INSERT INTO gone VALUES (?, ?)", [(id, self._generation + 1) for id in ids])
        connection.executemany("DELETE FROM chunks WHERE id = ?", [(id,) for id in ids])


def _upsert_file(connection: sqlite3.Connection, file: File) -> int:
    """Write a file's row where it differs; returns its id, which a path keeps until it is deleted."""
    path = pack(file.path)
    connection.execute(
        """INSERT INTO files (path, repo, language, content, size, mtime_ns, digest) VALUES (?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (path) DO UPDATE SET repo = excluded.repo, language = excluded.language,
               content = excluded.content, size = excluded.size, mtime_ns = excluded.mtime_ns, digest = excluded.digest
           WHERE (repo, language, content, size, mtime_ns, digest) IS NOT
               (excluded.repo, excluded.language, excluded.content, excluded.size, excluded.mtime_ns, excluded.digest)
        """,
        (path, pack(file.repo), file.language, file.content, file.size, file.stamp, file.digest),
    )
    row: tuple[int] = connection.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
    return row[0]
