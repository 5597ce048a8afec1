"""Growing: a file of vectors that is written block by block, and gone on with after an interrupt.

Beside the file that was asked for lies a hidden part until all rows are in; then it takes the place of an old one.
Knows no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from embedcode.errors import UsageError
from embedcode.files import noted

if TYPE_CHECKING:
    from numpy.typing import NDArray


LEAST = 128
"""Bytes of a part that holds no row: a header."""


def begun(path: Path, key: str) -> str:
    """The `build` that an unfinished part of `path` with the same `key` is of; "" where there is none."""
    part, note = _beside(path)
    known = noted(note)
    return str(known.get("build", "")) if known.get("key") == key and part.exists() else ""


class Growing:
    """`rows` vectors to come in `path`, .npy or .jsonl; `done` of them are there from an earlier run."""

    def __init__(self, path: Path, rows: int, file: IO[bytes], dim: int, dtype: str) -> None:
        self._path = path
        self.rows = rows
        self.done = 0
        self._json = path.suffix == ".jsonl"
        self._file = file
        self._header = b"" if self._json else _header(rows, dim, dtype)
        self._row = 0 if self._json else dim * int(dtype[-1])
        self._find_done()

    @classmethod
    @contextmanager
    def at(cls, path: Path, rows: int, key: str, build: str, dim: int, dtype: str) -> Iterator[Self]:
        """Goes on with a part of the same `key` and `build`, which name all that the vectors depend on: what is asked
        for, and what computes it.

        The part becomes the file when the block ends well with all rows written, and stays otherwise. UsageError for a
        part of another, which may be hours of work.
        """
        part, note = _beside(path)
        wanted = {"key": key, "build": build}
        with _writing(path):  # and not around what is computed in between, whose errors are others
            if noted(note) != wanted:
                if part.exists() and part.stat().st_size > LEAST:
                    raise UsageError(
                        f"{path} was begun with other texts, options or model: give those again, or remove {part} to "
                        "begin again"
                    )
                part.unlink(missing_ok=True)
                note.write_text(json.dumps(wanted), "utf-8")
            part.touch()
            file = part.open("r+b")
        try:
            with _writing(path):
                grown = cls(path, rows, file, dim, dtype)
            yield grown
        finally:
            with _writing(path), file:
                file.flush()
                os.fsync(file.fileno())
        if grown.done == rows:
            with _writing(path):
                part.replace(path)
                note.unlink()

    def write(self, vectors: NDArray[Any], told: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; JSON lines have what is `told` of each beside it."""
        if self._json:
            raw = "".join(f"{line}\n" for line in json_lines(vectors, told, self.done)).encode()
        else:
            raw = vectors.tobytes()
        with _writing(self._path):
            self._file.write(raw)
            self._file.flush()
        self.done += len(vectors)

    def _find_done(self) -> None:
        """Count whole rows, and cut off what an interrupt left of another."""
        file = self._file
        if self._json:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.done, end = self.done + 1, end + len(line)
        else:
            size = file.seek(0, os.SEEK_END)
            if size < len(self._header):
                file.seek(0)
                file.write(self._header)
            self.done = max(0, size - len(self._header)) // self._row
            end = len(self._header) + self.done * self._row
        file.truncate(end)
        file.seek(end)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What keeps a file from being written, such as a full disk, is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _beside(path: Path) -> tuple[Path, Path]:
    """The part, and the note of what it is of."""
    return path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")


def json_lines(vectors: NDArray[Any], told: Sequence[Mapping[str, Any]], first: int) -> Iterator[str]:
    """One object a vector, numbered from `first`."""
    for number, (row, more) in enumerate(zip(vectors, told, strict=True), first):
        head = json.dumps({"index": number, **more})
        # str() of a float32 is the shortest decimal that reads back as the same float32.
        yield f'{head[:-1]}, "embedding": [{", ".join(map(str, row))}]}}'


def _header(rows: int, dim: int, dtype: str) -> bytes:
    from io import BytesIO

    from numpy.lib import format as npy

    buffer = BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": (rows, dim)})
    return buffer.getvalue()
