"""MemoryStore: the Store contract in plain Python and numpy, for clarity: the reference for the others, and for tests.

Nothing is kept when the process ends, and every search computes everything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from embedcode.store.checks import check_query, check_vectors
from embedcode.store.contract import Meta, Pending, Scored
from embedcode.store.fields import BOOSTS, K1, B
from embedcode.store.filter import matches
from embedcode.store.terms import searchable, split
from embedcode.types import Chunk, File, Filter

if TYPE_CHECKING:
    from embedcode.types import Floats


@dataclass
class _State:
    files: dict[str, File] = field(default_factory=dict)
    chunks: dict[int, tuple[Chunk, bytes]] = field(default_factory=dict)
    """By id: the chunk and the key of its vector."""
    vectors: dict[bytes, Floats] = field(default_factory=dict)
    manifest: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    last: int = 0
    """The largest id ever given."""

    def copy(self) -> _State:
        copies = (dict(self.files), dict(self.chunks), dict(self.vectors), dict(self.manifest))
        return _State(*copies, self.generation, self.last)


class MemoryStore:
    """Implements the Store contract."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._state = _State()
        self._writing = RLock()

    def begin(self) -> MemoryTransaction:
        return MemoryTransaction(self)

    def dense(self, vector: Floats, k: int, where: Filter | None = None) -> list[Scored]:
        check_query(vector, self._dim)
        state = self._state
        scored = [
            Scored(id, float(state.vectors[key] @ vector))
            for id, (chunk, key) in state.chunks.items()
            if key in state.vectors and _admits(where, state, chunk)
        ]
        return _best(scored, k)

    def lexical(self, terms: Mapping[str, float], k: int, where: Filter | None = None) -> list[Scored]:
        state = self._state
        scores: Counter[int] = Counter()
        for name, boost in BOOSTS.items():
            documents = {id: Counter(split(_field(chunk, name))) for id, (chunk, _) in state.chunks.items()}
            mean = sum(document.total() for document in documents.values()) / max(1, len(documents))
            for term, weight in terms.items():
                if not (weight > 0 and math.isfinite(weight)):
                    continue
                found = [id for id, document in documents.items() if document[term]]
                idf = math.log(1 + (len(documents) - len(found) + 0.5) / (len(found) + 0.5))
                for id in found:
                    norm = K1 * (1 - B + B * documents[id].total() / mean)
                    count = documents[id][term]
                    scores[id] += boost * weight * idf * count * (K1 + 1) / (count + norm)  # type: ignore[assignment]
        found_ids = [Scored(id, score) for id, score in scores.items() if _admits(where, state, state.chunks[id][0])]
        return _best(found_ids, k)

    def get(self, ids: Sequence[int]) -> list[Chunk | None]:
        state = self._state
        return [state.chunks[id][0] if id in state.chunks else None for id in ids]

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Floats]:
        state = self._state
        places = [i for i, id in enumerate(ids) if id in state.chunks and state.chunks[id][1] in state.vectors]
        rows = [state.vectors[state.chunks[ids[place]][1]] for place in places]
        return places, np.array(rows, np.float32).reshape(-1, self._dim)

    def files(self) -> dict[str, File]:
        return dict(self._state.files)

    def called(self, names: Collection[str], where: Filter | None = None) -> list[File]:
        files = (file for _, file in sorted(self._state.files.items()) if not where or matches(where, file))
        return [file for file in files if file.path.rpartition("/")[2] in names]

    def chunks_of(self, path: str) -> list[tuple[int, Chunk]]:
        found = [(id, chunk) for id, (chunk, _) in self._state.chunks.items() if chunk.path == path]
        return sorted(found, key=lambda pair: (pair[1].start_line, pair[0]))

    def pending(self, limit: int, after: int = 0) -> list[Pending]:
        state = self._state
        first: dict[bytes, Pending] = {}
        for id, (chunk, key) in sorted(state.chunks.items()):
            if key not in state.vectors:
                first.setdefault(key, Pending(id, key, chunk))
        return [pending for pending in first.values() if pending.id > after][: max(limit, 0)]

    def lacking(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        state = self._state
        wanted = set(keys) - state.vectors.keys()
        return Counter(key for _, key in state.chunks.values() if key in wanted)

    def meta(self) -> Meta:
        state = self._state
        embedded = sum(key in state.vectors for _, key in state.chunks.values())
        return Meta(state.generation, dict(state.manifest), len(state.files), len(state.chunks), embedded)

    def refresh(self) -> None:
        """Nothing is derived here."""

    def maintain(self, rebuild: bool = False) -> None:
        """Drop vectors that no chunk refers to; nothing is derived here, so there is nothing to rebuild."""
        with self._writing:
            used = {key for _, key in self._state.chunks.values()}
            kept = {key: vector for key, vector in self._state.vectors.items() if key in used}
            self._state = replace(self._state, vectors=kept)

    def close(self) -> None:
        """There is nothing to close."""


class MemoryTransaction:
    """Implements the Transaction contract on a copy, which commit() puts in place."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._state = _State()
        self._changed = False

    def upsert(self, file: File, chunks: Sequence[Chunk], keys: Sequence[bytes]) -> None:
        if any((chunk.path, chunk.repo) != (file.path, file.repo) for chunk in chunks):
            raise ValueError(f"a chunk given for {file.path} is of another file")
        state = self._state
        before = [(id, pair) for id, pair in state.chunks.items() if pair[0].path == file.path]
        pairs = list(zip(chunks, keys, strict=True))
        if state.files.get(file.path) == file and [pair for _, pair in before] == pairs:
            return
        self.delete([file.path])
        state.files[file.path] = file
        state.chunks.update(enumerate(pairs, state.last + 1))
        state.last += len(pairs)
        self._changed = True

    def delete(self, paths: Iterable[str]) -> None:
        state = self._state
        for path in paths:
            if state.files.pop(path, None) is not None:
                state.chunks = {id: pair for id, pair in state.chunks.items() if pair[0].path != path}
                self._changed = True

    def touch(self, file: File) -> None:
        held = self._state.files.get(file.path)
        if held is not None and held.digest == file.digest:
            touched = replace(held, size=file.size, stamp=file.stamp)
            self._state.files[file.path] = touched
            self._changed |= touched != held

    def put_vectors(self, keys: Sequence[bytes], vectors: Floats) -> None:
        check_vectors(vectors, len(keys), self._store._dim)
        for key, vector in zip(keys, vectors, strict=True):
            if key not in self._state.vectors:
                self._state.vectors[key] = vector.astype(np.float32)
                self._changed = True

    def set_manifest(self, values: Mapping[str, str]) -> None:
        merged = {**self._state.manifest, **values}
        self._changed |= merged != self._state.manifest
        self._state.manifest = merged

    def commit(self) -> int:
        self._state.generation += self._changed
        self._store._state = self._state
        self._state = self._state.copy()
        self._changed = False
        return self._store._state.generation

    def __enter__(self) -> Self:
        self._store._writing.acquire()
        self._state = self._store._state.copy()
        self._changed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store._writing.release()


def _admits(where: Filter | None, state: _State, chunk: Chunk) -> bool:
    return not where or matches(where, state.files[chunk.path])


def _field(chunk: Chunk, name: str) -> str:
    return {"path": chunk.path, "symbol": chunk.symbol, "body": searchable(chunk.text)}[name]


def _best(scored: list[Scored], k: int) -> list[Scored]:
    return sorted(scored, key=lambda one: (-one.score, one.id))[: max(k, 0)]
