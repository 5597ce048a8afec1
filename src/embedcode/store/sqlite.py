"""SqliteStore: the Store of one machine. One SQLite file is the truth; lexical and dense data are derived from it.

Knows no repository, no encoder and no ranking, and neither tantivy nor the matrix: those are `lexical.py` and
`dense.py`, imported when first asked for.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from embedcode.store.checks import check_query
from embedcode.store.contract import Meta, Pending, Scored
from embedcode.store.database import BATCH, Database, Snapshot, check_vector, pack, unpack
from embedcode.store.filter import matches
from embedcode.store.transaction import SqliteTransaction
from embedcode.types import Chunk, File, Filter

if TYPE_CHECKING:
    from embedcode.store.dense import Dense
    from embedcode.store.lexical import Lexical
    from embedcode.types import Floats

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""

_CHUNK = """SELECT c.id, f.repo, f.path, c.start_line, c.end_line, c.language, c.symbol, c.text
            FROM chunks c JOIN files f ON f.id = c.file"""
_FILE = "SELECT id, path, repo, language, content, size, mtime_ns, digest FROM files"


class SqliteStore:
    """Implements the Store contract over `folder`. Safe to use from several threads and processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._files: tuple[str, dict[int, File]] = ("", {})
        self._meta: tuple[str, Meta] | None = None
        self._admitted: tuple[str, Filter, list[int]] | None = None

    @classmethod
    def open(cls, folder: Path, dim: int, timeout: float = BUSY_SECONDS) -> Self:
        """Open or create the index in `folder` for vectors of `dim` numbers; `timeout` is in seconds, for writers."""
        return cls(Database(folder, dim, timeout))

    @property
    def replaced(self) -> bool:
        """Whether its file has been deleted since it was opened."""
        return self._database.replaced

    @cached_property
    def _lexical(self) -> Lexical:
        from embedcode.store.lexical import Lexical

        return Lexical(self._database.folder / "lexical", self._database)

    @cached_property
    def _dense(self) -> Dense:
        from embedcode.store.dense import Dense

        return Dense(self._database.folder / "dense", self._database)

    def begin(self) -> SqliteTransaction:
        return SqliteTransaction(self._database)

    def dense(self, vector: Floats, k: int, where: Filter | None = None) -> list[Scored]:
        """See the contract. Vectors are held as int8: a cosine is within .01 of the one of the vector put in."""
        check_query(vector, self._database.dim)
        files = self._within(where)
        if k < 1 or (files is not None and not files):
            return []
        return self._dense.view()[0].search(vector.astype("float32"), k, files)

    def lexical(self, terms: Mapping[str, float], k: int, where: Filter | None = None) -> list[Scored]:
        files = self._within(where)
        if k < 1 or (files is not None and not files):
            return []
        return self._lexical.view()[0].search(terms, k, files)

    def get(self, ids: Sequence[int]) -> list[Chunk | None]:
        with self._database.reading() as connection:
            found = {row[0]: _chunk(row) for row in _by(connection, f"{_CHUNK} WHERE c.id", ids)}
        return [found.get(id) for id in ids]

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Floats]:
        import numpy as np

        from embedcode.store.quantise import restore

        query = "SELECT c.id, v.scale, v.data FROM chunks c JOIN vectors v ON v.key = c.key WHERE c.id"
        with self._database.reading() as connection:
            found = {id: (scale, data) for id, scale, data in _by(connection, query, ids)}
            for scale, data in found.values():
                check_vector(scale, data, self._database.dim)
        places = [place for place, id in enumerate(ids) if id in found]
        data = b"".join(found[ids[place]][1] for place in places)
        scales = np.array([found[ids[place]][0] for place in places], np.float32)
        return places, restore(np.frombuffer(data, np.int8).reshape(-1, self._database.dim), scales)

    def files(self) -> dict[str, File]:
        return {file.path: file for file in self._present_files()[1].values()}

    def called(self, names: Collection[str], where: Filter | None = None) -> list[File]:
        by_length: dict[int, list[bytes]] = defaultdict(list)
        for name in names:
            end = b"/" + name.encode("utf-8", "surrogatepass")
            by_length[len(end)].append(end)
        # One comparison a length, not a name: 100,000 files take as long for one name as for fifty, some 40 ms. Bytes,
        # since a path that is not Unicode is a BLOB.
        ends = " OR ".join(
            f"substr(CAST('/' || path AS BLOB), -{length}) IN ({','.join('?' * len(some))})"
            for length, some in by_length.items()
        )
        with self._database.reading() as connection:
            rows = connection.execute(
                f"{_FILE} WHERE {ends or 0}", [end for some in by_length.values() for end in some]
            )
            files = [File(unpack(path), unpack(repo), *rest) for _, path, repo, *rest in rows]
        return sorted((file for file in files if not where or matches(where, file)), key=lambda file: file.path)

    def chunks_of(self, path: str) -> list[tuple[int, Chunk]]:
        with self._database.reading() as connection:
            rows = connection.execute(f"{_CHUNK} WHERE f.path = ? ORDER BY c.start_line, c.id", (pack(path),))
            return [(row[0], _chunk(row)) for row in rows]

    def pending(self, limit: int, after: int = 0) -> list[Pending]:
        """See the contract. Walks chunks by id: pass the last id as `after` instead of starting again at 0."""
        query = f"""{_CHUNK.replace("c.text", "c.text, c.key")} WHERE c.id > ?
                    AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.key = c.key)
                    AND NOT EXISTS (SELECT 1 FROM chunks d WHERE d.key = c.key AND d.id < c.id)
                    ORDER BY c.id LIMIT ?"""
        with self._database.reading() as connection:
            return [Pending(row[0], row[8], _chunk(row)) for row in connection.execute(query, (after, max(limit, 0)))]

    def lacking(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        query = """SELECT c.key FROM chunks c
                   WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.key = c.key) AND c.key"""
        with self._database.reading() as connection:
            return Counter(key for (key,) in _by(connection, query, keys))

    def meta(self) -> Meta:
        with self._database.reading() as connection:
            head = Snapshot(connection).head
            known = self._meta
            if known is None or known[0] != head.token:
                manifest = dict(connection.execute("SELECT name, value FROM manifest").fetchall())
                files, chunks, embedded = connection.execute(
                    """SELECT (SELECT COUNT(*) FROM files), (SELECT COUNT(*) FROM chunks),
                              (SELECT COUNT(*) FROM chunks c WHERE EXISTS
                                  (SELECT 1 FROM vectors v WHERE v.key = c.key))"""
                ).fetchone()
                self._meta = known = head.token, Meta(head.generation, manifest, files, chunks, embedded)
            return known[1]

    def refresh(self) -> None:
        self._lexical.view()

    def maintain(self, rebuild: bool = False) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM vectors WHERE NOT EXISTS (SELECT 1 FROM chunks c WHERE c.key = vectors.key)"
            )
            connection.execute("COMMIT")
        held = min(self._lexical.view(rebuild)[1], self._dense.view(rebuild)[1])
        with self._database.writing() as connection:
            connection.execute("DELETE FROM gone WHERE generation <= ?", (held,))
            connection.execute("DELETE FROM history WHERE generation < ?", (held,))
            connection.execute("COMMIT")
        self._database.checkpoint()

    def close(self) -> None:
        for derived in ("_lexical", "_dense"):
            if derived in self.__dict__:
                self.__dict__[derived].close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _within(self, where: Filter | None) -> Collection[int] | None:
        """Ids of the files a filter admits; None for all."""
        if not where:
            return None
        token, files = self._present_files()
        admitted = self._admitted  # hybrid search asks twice for the same
        if admitted is None or admitted[:2] != (token, where):
            self._admitted = admitted = token, where, [id for id, file in files.items() if matches(where, file)]
        return admitted[2]

    def _present_files(self) -> tuple[str, dict[int, File]]:
        """The token of the last commit, and its files by id."""
        with self._database.reading() as connection:
            token = Snapshot(connection).head.token
            present = self._files
            if present[0] != token:
                files = {
                    id: File(unpack(path), unpack(repo), *rest) for id, path, repo, *rest in connection.execute(_FILE)
                }
                self._files = present = token, files
            return present


def _by(connection: sqlite3.Connection, query: str, values: Sequence[int] | Sequence[bytes]) -> Iterator[Any]:
    """The rows of `query IN (values)`, in parts below SQLite's limit of variables."""
    for start in range(0, len(values), BATCH):
        part = values[start : start + BATCH]
        yield from connection.execute(f"{query} IN ({','.join('?' * len(part))})", part)


def _chunk(row: Sequence[Any]) -> Chunk:
    _, repo, path, start, end, language, symbol, text, *_ = row
    return Chunk(unpack(repo), unpack(path), start, end, language, unpack(symbol), unpack(text))
