"""Vectors of many texts, computed once and kept on disk, so that a run that was killed goes on where it was.

One folder for each way of embedding (space, build, role, prompt, limit): `keys` has the 16 bytes of each text's hash,
`vectors` the rows, float32, `cut` the hashes of texts that were too long. All only grow, keys last, and what a killed
process left over is cut off. Equal texts have one row. Knows no metric and no task. These are not the vectors of an
index (store/cache.py): those are int8.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedcode.errors import EmbedcodeError, EncodeError, ModelError, StoreError, UsageError
from embedcode.files import make_private
from embedcode.types import Encoder, Role, Tokens, Truncate, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.types import Floats

BLOCK = 256
"""Texts embedded between two writes: what a kill costs. Encoders work in blocks of the same size, and count an error's
place from the start of theirs."""
KEY = 16
"""Bytes."""
UNIT = 1e-3
"""How far a length may be from 1."""
UNCOUNTED = "not known"
"""How many texts were cut, where a server does it, or an earlier version did."""
AROUND = 256
"""Tokens that prompt, instruction and ends may take: a text of fewer bytes than a model reads tokens, less these, is
not cut, and not tokenised a second time to see that."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far long work is."""

    what: str
    """What is done, such as `embedding documents`."""
    done: int
    total: int
    left: float | None
    """Seconds, where a rate is known."""


Progress = Callable[[Moment], None]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Unit vectors [n, dim] of texts, in their order, on disk."""

    ids: Sequence[str]
    rows: NDArray[np.int64]
    """Of each text, in `file`."""
    file: NDArray[np.float32]
    """Memory-mapped."""
    folder: Path
    """Where they lie."""
    kept: int
    """Texts whose vector was there from an earlier run."""
    cut: int | None
    """Texts that were cut at their end; None where nobody counted, as of a server."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Texts without a vector by id, and why; `ids` does not have them."""

    def __len__(self) -> int:
        return len(self.ids)

    def block(self, start: int, stop: int) -> Floats:
        """float32 [stop - start, dim]. StoreError names a row that the disk does not hold as it was written."""
        found: Floats = self.file[self.rows[start:stop]]
        if (bad := _unusable(found)) is not None:
            raise StoreError(
                f"the kept vector of {self.ids[start + bad]!r} is damaged: delete the folder {self.folder} and run it "
                "again"
            )
        return found


def embed(
    encoder: Encoder,
    texts: Mapping[str, str],
    role: Role,
    home: Path,
    *,
    what: str,
    instruction: str | None = None,
    optional: bool = False,
    progress: Progress = lambda moment: None,
) -> Vectors:
    """The vectors of texts by id; `what` names one in messages, such as "document".

    A text that is too long is cut at its end. One that has no vector is an EmbedcodeError naming it, and what was
    embedded before stays on disk; `optional` leaves it out instead (`Vectors.failed`), and with it all that comes
    after where it is the model or its server that fails.
    """
    kept = _Kept(home, encoder, role, instruction)
    keys = {id: digest(text) for id, text in texts.items()}
    known = sum(key in kept.rows for key in keys.values())
    todo: dict[bytes, str] = {}
    for id, key in keys.items():
        if key not in kept.rows:
            todo.setdefault(key, id)
    failed: dict[str, str] = {}
    order = list(todo.values())
    sizes = [len(texts[id]) + 20 for id in order]
    begun, whole, done = time.monotonic(), sum(sizes), 0
    for start in range(0, len(order), BLOCK):
        part = order[start : start + BLOCK]
        try:
            found, problems = _block(encoder, part, texts, role, what, instruction, optional)
        except EmbedcodeError as error:
            if not optional:
                raise
            failed |= dict.fromkeys(order[start:], str(error))
            break
        failed |= problems
        new = {keys[id]: texts[id] for id in part if id not in problems}
        kept.append(list(new), found, set() if kept.cut is None else _cut(encoder, new, role, instruction))
        done += sum(sizes[start : start + BLOCK])
        seconds = time.monotonic() - begun
        progress(
            Moment(
                f"embedding {what}s", start + len(part), len(order), seconds / done * (whole - done) if done else None
            )
        )
    lost = {keys[id]: why for id, why in failed.items()}
    ids = [id for id, key in keys.items() if key not in lost]
    rows = np.array([kept.rows[keys[id]] for id in ids], np.int64)
    failures = {id: lost[key] for id, key in keys.items() if key in lost}
    cut = None if kept.cut is None else sum(keys[id] in kept.cut for id in ids)
    return Vectors(ids, rows, kept.mapped(), kept.folder, known, cut, failures)


def _block(
    encoder: Encoder,
    ids: Sequence[str],
    texts: Mapping[str, str],
    role: Role,
    what: str,
    instruction: str | None,
    optional: bool,
) -> tuple[Floats, dict[str, str]]:
    """The vectors of those texts that have one, in order, and why the others have none (only where `optional`)."""
    left, failed = list(ids), dict[str, str]()
    while left:
        try:
            found = encoder.encode([texts[id] for id in left], role, instruction, Truncate.END)
        except EncodeError as error:
            at, why = error.index, str(error)
        except ModelError as error:
            raise ModelError(f"{what}s {left[0]!r} to {left[-1]!r}: {error}") from None
        else:
            if found.shape != (len(left), encoder.dim):
                raise ModelError(
                    f"{what}s {left[0]!r} to {left[-1]!r}: the model gives vectors of shape {found.shape}, "
                    f"and not {(len(left), encoder.dim)}: nothing can be compared with them"
                )
            bad = _unusable(found)
            if bad is None:
                return found, failed
            at, why = bad, "the model gives it a vector that is not finite or not of length 1"
        message = f"{what} {left[at]!r}, number {list(texts).index(left[at]) + 1} of {len(texts)}: {why}"
        if not optional:
            raise EncodeError(message, at)
        failed[left.pop(at)] = message
    return np.empty((0, encoder.dim), np.float32), failed


def _cut(encoder: Encoder, texts: Mapping[bytes, str], role: Role, instruction: str | None) -> set[bytes]:
    """The keys of those that are longer than the encoder reads."""
    least = encoder.max_tokens - AROUND
    long = [key for key, text in texts.items() if len(text.encode("utf-8", "replace")) > least]
    entries = encoder.tokenize([texts[key] for key in long], role, instruction, Truncate.END)
    return {key for key, entry in zip(long, entries, strict=True) if isinstance(entry, Tokens) and entry.truncated}


def _unusable(vectors: Floats) -> int | None:
    """The first row that is not finite or not of length 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        bad = np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT))
    return int(bad[0]) if len(bad) else None


class _Kept:
    """The files of one way of embedding."""

    def __init__(self, home: Path, encoder: Encoder, role: Role, instruction: str | None) -> None:
        seen = getattr(encoder, "seen", "")  # first: a server is asked what it serves now
        conditions = getattr(encoder, "conditions", None)
        way = {
            "space": encoder.space,
            "build": encoder.build,
            "role": str(role),
            "prompt": conditions.prompts.get(role, "") if conditions else "",
            "instruction": conditions.instruction if instruction is None and conditions else instruction,
            "max_tokens": encoder.max_tokens,
            "dim": encoder.dim,
            **({"seen": seen} if seen else {}),
        }
        self._dim = encoder.dim
        described = json.dumps(way, indent=1, sort_keys=True)
        self.folder = home / "evaluate" / digest(described).hex()
        self._keys, self._vectors, self._cut = (self.folder / name for name in ("keys", "vectors", "cut"))
        with self._writing():
            (self.folder / "meta.json").write_text(described, "utf-8")
            count = min(self._size(self._keys) // KEY, self._size(self._vectors) // self._row)
            for path, size in ((self._keys, KEY), (self._vectors, self._row)):
                with path.open("ab") as file:
                    file.truncate(count * size)
            if not count:
                self._cut.touch()
            self.rows = {key: at for at, key in enumerate(_split(self._keys))}
            # Not of a folder that is older than the file, nor of a server, which does not show its tokenizer.
            counted = self._cut.exists() and getattr(encoder, "tokenizer", None) is not None
            self.cut = set(_split(self._cut)) if counted else None
            """Texts that were too long; None where nobody counts them."""

    def append(self, keys: Sequence[bytes], vectors: Floats, cut: Set[bytes]) -> None:
        if not keys:
            return
        with self._writing():  # another process may have written since
            first = self._size(self._keys) // KEY
            with self._vectors.open("r+b") as file:
                file.truncate(first * self._row)
                file.seek(0, 2)
                file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            for path, some in ((self._cut, cut), (self._keys, keys)):
                if some:
                    with path.open("ab") as file:
                        file.truncate(file.tell() // KEY * KEY)  # half a key would shift all that follow
                        file.write(b"".join(some))
        if self.cut is not None:
            self.cut |= cut
        self.rows |= {key: first + at for at, key in enumerate(keys)}

    def mapped(self) -> NDArray[np.float32]:
        count = self._size(self._keys) // KEY
        if not count:
            return np.empty((0, self._dim), np.float32)
        return np.memmap(self._vectors, "<f4", "r", shape=(count, self._dim))

    @property
    def _row(self) -> int:
        return 4 * self._dim

    @staticmethod
    def _size(path: Path) -> int:
        return path.stat().st_size if path.exists() else 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The folder for this process alone; UsageError where the disk does not take what is written."""
        from filelock import FileLock

        try:
            make_private(self.folder)
            with FileLock(self.folder / "lock", timeout=600):
                yield
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UsageError(f"{self.folder} cannot be written ({why}): free some space, or take another.") from None


def _split(file: Path) -> list[bytes]:
    """The keys of a file; what a killed process left of one is none."""
    raw = file.read_bytes()
    return [raw[at : at + KEY] for at in range(0, len(raw) - KEY + 1, KEY)]
