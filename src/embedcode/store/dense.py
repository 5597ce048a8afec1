"""Dense search: an exact scan of an int8 matrix that lies in memory-mapped files derived from the SQLite file.

All files only grow, so a reader keeps a valid prefix whatever a writer appends, and a checksum of the old part carries
on over the new one. Knows no text, no path and no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcode.store.contract import Scored
from embedcode.store.database import Database, Mark, Snapshot
from embedcode.store.derived import Derived, Stamp, UnusableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.types import Floats

BLOCK_BYTES = 1 << 20
"""Float32 bytes converted at once in a scan, so that they stay in the processor's cache and the product on one thread.

30,000 x 384 on two cores that others use too: 4 to 8 ms; from 2 MiB on, where BLAS starts threads, 17 to 340 ms. A
float32 copy of the whole matrix was no faster (8 to 16 ms) and is four times the memory.
"""

DECIMALS = 6
"""Cosines are rounded to this, far below the error of int8, so that equal vectors tie wherever their rows lie."""

_TYPES: dict[str, np.dtype[Any]] = {
    "vectors": np.dtype("i1"),
    "scales": np.dtype("<f4"),
    "chunks": np.dtype("<i8"),
    "files": np.dtype("<i8"),
    "gone": np.dtype("<i8"),
}


class Matrix:
    """Vectors in memory-mapped files: int8 [n, dim], float32 scales [n], chunk and file ids [n], and dead chunks."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._vectors = arrays["vectors"]
        self._scales = arrays["scales"]
        self._chunks = arrays["chunks"]
        self._files = arrays["files"]
        self._alive = np.isin(self._chunks, arrays["gone"], invert=True)

    def search(self, vector: Floats, k: int, files: Collection[int] | None) -> list[Scored]:
        """The k rows with the highest cosine to a unit vector [dim], limited to file ids; ties by chunk id."""
        wanted = self._alive
        if files is not None:
            wanted = wanted & np.isin(self._files, np.fromiter(files, np.int64, len(files)))
        chunks: NDArray[np.int64] = np.empty(0, np.int64)
        scores: Floats = np.empty(0, np.float32)
        for rows, found in self._scan(vector, wanted):
            chunks = np.concatenate([chunks, self._chunks[rows]])
            scores = np.concatenate([scores, found.round(DECIMALS)])
            if len(scores) > k:
                best = np.flatnonzero(scores >= np.partition(scores, -k)[-k])  # all that tie with the k-th
                chunks, scores = chunks[best], scores[best]
        order = np.lexsort((chunks, -scores))[:k]
        return [Scored(int(chunks[i]), float(scores[i])) for i in order]

    def _scan(self, vector: Floats, wanted: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Cosines of the wanted rows, in blocks."""
        count, dim = self._vectors.shape
        step = max(1, BLOCK_BYTES // (4 * dim))
        buffer = np.empty((step, dim), np.float32)
        for start in range(0, count, step):
            rows = start + np.flatnonzero(wanted[start : start + step])
            if len(rows):
                block = buffer[: len(rows)]
                whole = len(rows) == min(step, count - start)
                block[...] = self._vectors[start : start + len(rows)] if whole else self._vectors[rows]
                yield rows, (block @ vector) * self._scales[rows]


class Dense(Derived[Matrix]):
    """The dense side of a database."""

    FORMAT = 1

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder, database)
        self._dim = database.dim

    def load(self, folder: Path, stamp: Stamp) -> Matrix:
        arrays: dict[str, NDArray[Any]] = {}
        for name, kind in _TYPES.items():
            size = (stamp.files or {}).get(name, (0, 0))[0]
            rows = size // kind.itemsize
            if not rows:
                arrays[name] = np.empty(0, kind)
                continue
            try:
                arrays[name] = np.memmap(folder / name, kind, "r", shape=(rows,))
            except (FileNotFoundError, ValueError) as error:
                raise UnusableError(f"{name} is missing or too short") from error
        arrays["vectors"] = arrays["vectors"].reshape(-1, self._dim)
        if any(len(arrays[name]) != stamp.rows for name in ("vectors", "scales", "chunks", "files")):
            raise UnusableError("its files are of different lengths")
        return Matrix(arrays)

    def grow(self, folder: Path, stamp: Stamp, snapshot: Snapshot, since: Mark) -> Stamp:
        written = {name: _Appended(folder / name, *(stamp.files or {}).get(name, (0, 0))) for name in _TYPES}
        rows = stamp.rows
        try:
            gone = snapshot.gone(since)
            written["gone"].write(np.array(gone, _TYPES["gone"]).tobytes())
            for batch in snapshot.vectors(since, self._dim):
                chunks, files, scales, vectors = zip(*batch, strict=True)
                written["vectors"].write(b"".join(vectors))
                written["scales"].write(np.array(scales, _TYPES["scales"]).tobytes())
                written["chunks"].write(np.array(chunks, _TYPES["chunks"]).tobytes())
                written["files"].write(np.array(files, _TYPES["files"]).tobytes())
                rows += len(batch)
        finally:
            sums = {name: file.close() for name, file in written.items()}
        return replace(stamp, rows=rows, dead=stamp.dead + len(gone), files=sums)


class _Appended:
    """A file that is cut to what its stamp knows, then appended to, with its checksum kept along."""

    def __init__(self, path: Path, size: int, crc: int) -> None:
        self._file = path.open("ab")
        self._file.truncate(size)
        self._size = size
        self._crc = crc

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)

    def close(self) -> tuple[int, int]:
        """(bytes, CRC-32) of the file."""
        self._file.close()
        return self._size, self._crc
