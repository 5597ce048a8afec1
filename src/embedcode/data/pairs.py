"""Pairs in JSON lines: one object a line, gzipped where the name ends in .gz. docs/data.md documents the format.

A line that is no pair is named, counted and skipped, since one broken line of a million must not end a night's run.
Knows no miner and no training loop.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, cast

from embedcode import files
from embedcode.errors import UsageError, why
from embedcode.types import Pair

EXAMPLES = 5
"""Bad lines that are told one by one; the rest are only counted."""
LONGEST_LINE = 16 << 20
"""Bytes: what is longer is no pair, and is not parsed."""
UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a file raises that is not there, cut short or damaged."""


_FIELDS = tuple(one.name for one in fields(Pair))
_LISTS = ("positives", "negatives")
_SHOWN = 60
"""Characters of a bad value in a message."""


@dataclass(slots=True)
class Bad:
    """What was skipped while reading: how many lines, and the first of them with the reason."""

    lines: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        self.lines += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(message)


def read(path: Path, bad: Bad | None = None) -> Iterator[Pair]:
    """The pairs of a file, in order, streamed; `bad` collects the lines that are none ("FILE, line 7: why").

    Raises UsageError for a file that cannot be read, and, at its end, for one whose lines are all bad.
    """
    bad = Bad() if bad is None else bad
    found, before = 0, bad.lines
    try:
        for pair in rows(path, parse, bad):
            found += 1
            yield pair
    except UNREADABLE as error:
        raise UsageError(f"{path} cannot be read ({why(error)}): give a file of pairs in JSON lines.") from None
    if not found and bad.lines > before:
        raise UsageError(f"{path} holds no pair: {bad.examples[0]}")


def rows(path: Path, parsed: Callable[[bytes], Pair], bad: Bad) -> Iterator[Pair]:
    """The pairs that `parsed` makes of a file's lines; those for which it raises ValueError go to `bad`.

    One of UNREADABLE where the file cannot be read.
    """
    with open_text(path) as file:
        for number, raw in enumerate(_lines(file), 1):
            if not raw.strip():
                continue
            try:
                if len(raw) > LONGEST_LINE:
                    raise ValueError(f"more than {LONGEST_LINE >> 20} MB on one line")
                pair = parsed(raw)
            except ValueError as error:
                bad.add(f"{path}, line {number}: {error}")
                continue
            yield pair


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Those of a file; of one longer than LONGEST_LINE, as a small gzipped file may hold, no more than shows it."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def read_all(paths: Iterable[Path], bad: Bad | None = None) -> Iterator[Pair]:
    """The pairs of several files, one after the other."""
    for path in paths:
        yield from read(path, bad)


def parse(line: bytes) -> Pair:
    """The pair of a line; ValueError with one clause that says what is wrong."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("not an object")
    values: dict[str, Any] = {}
    for name, value in row.items():
        if name not in _FIELDS:
            near = get_close_matches(name, _FIELDS, n=1)
            raise ValueError(f"unknown field {name[:_SHOWN]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
                raise ValueError(f"{name!r} must be a list of texts, not {shown(value)}")
            values[name] = tuple(value)
        elif not isinstance(value, str):
            raise ValueError(f"{name!r} must be text, not {shown(value)}")
        else:
            values[name] = value
    if not values.get("query", "").strip():
        raise ValueError("no 'query'")
    if not values.get("positives"):
        raise ValueError("no 'positives'")
    return Pair(**values)


def line(pair: Pair) -> bytes:
    """A pair as its line, with the line break; what is empty is left out."""
    row = {name: value for name in _FIELDS if (value := getattr(pair, name))}
    # Code may hold lone surrogates, which are no UTF-8; escaped they are JSON all the same.
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"


def write(path: Path, pairs: Iterable[Pair]) -> int:
    """Write a file, whole or not at all; the number of pairs. UsageError where the disk does not take it."""
    count = 0
    with writing(path) as put:
        for pair in pairs:
            put(pair)
            count += 1
    return count


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Pair], None]]:
    """`with writing(path) as put: put(pair)`: a file of pairs, as saving() writes one."""
    with saving(path) as save:
        # gzip's format without its time stamp, so that equal pairs give equal files.
        zipped = zlib.compressobj(6, wbits=31) if _zipped(path) else None
        yield lambda pair: save(zipped.compress(line(pair)) if zipped else line(pair))
        if zipped:
            save(zipped.flush())


@contextmanager
def saving(path: Path) -> Iterator[Callable[[bytes], None]]:
    """`with saving(path) as save: save(raw)`: the file takes its place when the block ends well, and not otherwise.

    A place that cannot be written is told before the block begins. UsageError where the disk does not take it; what the
    block itself raises passes through.
    """
    inner: OSError | None = None
    try:
        with files.replacing(path) as file:

            def save(raw: bytes) -> None:
                with files.writing(path):
                    file.write(raw)

            try:
                yield save
            except OSError as error:
                inner = error
                raise
    except OSError as error:
        if error is inner:
            raise
        raise files.unwritable(path, error) from None


def open_text(path: Path) -> IO[bytes]:
    """A file, or what a gzipped one holds, by its lines."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if _zipped(path) else path.open("rb")


def _zipped(path: Path) -> bool:
    return path.suffix == ".gz"


def shown(value: object) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
