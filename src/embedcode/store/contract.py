"""The Store contract: where chunks and vectors live. Backends implement it and nothing else.

A store knows no repository, no encoder and no ranking. `tests/conformance/` runs one suite over all of them;
`MemoryStore` is the reference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from embedcode.types import Chunk, File, Filter, Floats


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate: the chunk's id in this store, and its score under one signal (higher is better)."""

    id: int
    score: float


@dataclass(frozen=True, slots=True)
class Pending:
    """A distinct vector key that has no vector yet, with one chunk that needs it."""

    id: int
    key: bytes
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Meta:
    """A consistent snapshot of a store. `generation` grows by one with every commit that changed something."""

    generation: int
    manifest: Mapping[str, str]
    files: int
    chunks: int
    embedded: int
    """Chunks whose vector is in."""


class Transaction(Protocol):
    """All or nothing: leaving the `with` block without commit() changes nothing."""

    def upsert(self, file: File, chunks: Sequence[Chunk], keys: Sequence[bytes]) -> None:
        """Replace all that is held of `file.path`; keys[i] is the 16-byte vector key of chunks[i]."""
        ...

    def delete(self, paths: Iterable[str]) -> None: ...

    def touch(self, file: File) -> None:
        """Record a new size and stamp of a file whose content did not change; its chunks stay."""
        ...

    def put_vectors(self, keys: Sequence[bytes], vectors: Floats) -> None:
        """Unit vectors [n, dim] by key; a key that is already there is left alone."""
        ...

    def set_manifest(self, values: Mapping[str, str]) -> None:
        """Merge values into the manifest."""
        ...

    def commit(self) -> int:
        """Make it durable; returns the new generation."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Searchable(Protocol):
    """What a search asks of a store."""

    def dense(self, vector: Floats, k: int, where: Filter | None = None) -> list[Scored]:
        """The k chunks with the highest cosine to a unit vector [dim], exact, best first; ties by id."""
        ...

    def lexical(self, terms: Mapping[str, float], k: int, where: Filter | None = None) -> list[Scored]:
        """The k best chunks by weighted BM25 over path, symbol and body terms; weights multiply a term's score."""
        ...

    def get(self, ids: Sequence[int]) -> list[Chunk | None]:
        """Chunks by id, in order; None where an id is gone."""
        ...

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Floats]:
        """The positions in `ids` that have a vector, and those vectors [m, dim]."""
        ...

    def called(self, names: Collection[str], where: Filter | None = None) -> list[File]:
        """The files of these names, whatever folders they lie in, by path."""
        ...

    def chunks_of(self, path: str) -> list[tuple[int, Chunk]]:
        """The chunks of one file with their ids, in line order."""
        ...


class Store(Searchable, Protocol):
    def begin(self) -> Transaction: ...

    def files(self) -> dict[str, File]: ...

    def pending(self, limit: int, after: int = 0) -> list[Pending]:
        """Up to `limit` keys without a vector whose id is above `after`, by id."""
        ...

    def lacking(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """How many chunks have each of these keys; none of a key that has a vector, or no chunk."""
        ...

    def meta(self) -> Meta: ...

    def refresh(self) -> None:
        """Bring what lexical search needs up to the last commit now, rather than at the next search."""
        ...

    def maintain(self, rebuild: bool = False) -> None:
        """Bring derived data up to date and drop what nothing refers to; `rebuild` makes derived data anew."""
        ...

    def close(self) -> None: ...
