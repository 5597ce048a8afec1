"""Issues to the files that mend them: a system ranks all files of a commit, each by its best unit.

A system sees the history of a repository, whose distinct units are indexed or embedded once, and answers for each
issue on its own commit. Knows no instances' file, no clones and no metric.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedcode.evaluate.bm25 import K1, B
from embedcode.evaluate.cut import Cutting, Field, Words
from embedcode.evaluate.history import Commit, History
from embedcode.evaluate.instances import Instance
from embedcode.evaluate.postings import in_a_byte
from embedcode.evaluate.vectors import UNCOUNTED, Progress, Vectors, embed
from embedcode.search.search import Signals, search
from embedcode.store import fields
from embedcode.store.contract import Scored
from embedcode.types import Chunk, Encoder, File, Filter, Role, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.types import Floats

KEPT = 100
"""Files kept of each ranking."""
HITS = 50
"""Chunks asked of the product's search: its first page has 10, and a file needs one."""
BLOCK = 4_096
"""Units whose vectors are held at once: 67 MB of a 7B model's."""

SEARCHED: tuple[Field, ...] = ("path", "symbol", "body")

Ranking = Mapping[str, float]
"""Files by score."""
Answer = tuple[Instance, Ranking | str]
"""An instance with its ranking, or with why it has none."""


class System(Protocol):
    """What ranks files."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Of a unit, those whose terms it wants."""
        ...

    @property
    def words(self) -> Words: ...

    @property
    def texts(self) -> bool:
        """Whether it embeds."""
        ...

    @property
    def kept(self) -> Mapping[str, int]:
        """Vectors that were there from an earlier run, so far."""
        ...

    @property
    def cut(self) -> Mapping[str, int | str]:
        """Texts that a model read the beginning of only, so far."""
        ...

    def rankings(self, history: History, instances: Sequence[Instance]) -> Iterator[Answer]:
        """The files of each instance's commit that it finds, at most KEPT."""
        ...


def cutting(system: System, base: Cutting) -> Cutting:
    """A protocol's cutting with what the system wants of a unit."""
    return replace(base, fields=system.fields, words=system.words, texts=system.texts)


@dataclass(frozen=True, slots=True)
class Bm25:
    """The baseline, over whole files or chunks. The figures are those of evaluate/bm25.py over one commit."""

    words: Words
    paths: bool = False
    """Whether a unit's path gives terms too."""
    texts = False
    kept = MappingProxyType[str, int]({})
    cut = MappingProxyType[str, int | str]({})

    @property
    def fields(self) -> tuple[Field, ...]:
        return ("text",) if self.paths else ("body",)

    def rankings(self, history: History, instances: Sequence[Instance]) -> Iterator[Answer]:
        postings = history.postings[self.fields[0]]
        for one in instances:
            commit = history.commits[one.commit]
            scores = postings.score(self.words.counts(one.issue), history.present(commit), K1, B)
            yield one, _by_best(history, commit, scores, least=0.0)


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder, and the folder that keeps what it has computed."""

    encoder: Encoder
    home: Path
    instruction: str | None = None
    progress: Progress = lambda moment: None
    kept: dict[str, int] = field(default_factory=lambda: {"chunks": 0, "issues": 0})
    """Vectors that were there from an earlier run, so far."""
    cut: dict[str, int | str] = field(default_factory=lambda: {"chunks": 0, "issues": 0})
    """Texts that it read the beginning of only, so far."""
    _seen: set[bytes] = field(default_factory=set)
    """Chunks of repositories before: repositories share some, whose vectors are then of this run."""

    def cosines(
        self, history: History, instances: Sequence[Instance]
    ) -> tuple[NDArray[np.float32], dict[str, int], Mapping[str, str]]:
        """[units, columns], the column of each instance by id, and why others have none.

        EmbedcodeError names the chunk that has no vector; those before it are kept. Vectors are held a block at a time.
        """
        issues = {one.id: one.issue for one in instances}
        queries = embed(
            self.encoder, issues, Role.QUERY, self.home,
            what="issue", instruction=self.instruction, optional=True, progress=self.progress,
        )  # fmt: skip
        self._count("issues", queries)
        if not len(queries):  # nobody asks for the chunks
            return np.empty((history.units, 0), np.float32), {}, queries.failed
        texts = {
            f"{history.paths[path]} #{unit}": text
            for unit, (path, text) in enumerate(zip(history.path, history.texts, strict=True))
        }
        what = f"chunk of {history.repo}"
        units = embed(self.encoder, texts, Role.PASSAGE, self.home, what=what, progress=self.progress)
        keys = [digest(text) for text in texts.values()]
        self.kept["chunks"] += units.kept - sum(key in self._seen for key in keys)
        self.kept["issues"] += queries.kept
        self._count("chunks", units)
        self._seen.update(keys)
        asked = queries.block(0, len(queries))
        found = np.empty((len(units), len(queries)), np.float32)
        for start in range(0, len(units), BLOCK):
            found[start : start + BLOCK] = units.block(start, start + BLOCK) @ asked.T
        return found, {id: column for column, id in enumerate(queries.ids)}, queries.failed

    def _count(self, name: str, some: Vectors) -> None:
        so_far = self.cut[name]
        self.cut[name] = UNCOUNTED if some.cut is None or isinstance(so_far, str) else so_far + some.cut


@dataclass(frozen=True, slots=True)
class Dense:
    """A model alone: files by the cosine of their best unit."""

    model: Model
    fields = ()
    words = Words()
    texts = True

    @property
    def kept(self) -> Mapping[str, int]:
        return self.model.kept

    @property
    def cut(self) -> Mapping[str, int | str]:
        return self.model.cut

    def rankings(self, history: History, instances: Sequence[Instance]) -> Iterator[Answer]:
        cosines, columns, failed = self.model.cosines(history, instances)
        for one in instances:
            if one.id in failed:
                yield one, failed[one.id]
            else:
                yield one, _by_best(history, history.commits[one.commit], cosines[:, columns[one.id]])


@dataclass(frozen=True, slots=True)
class Searched:
    """The product's search, by words alone or, with a model, by words and vectors; with all its rules."""

    model: Model | None = None
    words = Words()

    @property
    def fields(self) -> tuple[Field, ...]:
        return SEARCHED

    @property
    def texts(self) -> bool:
        return self.model is not None

    @property
    def kept(self) -> Mapping[str, int]:
        return self.model.kept if self.model else {}

    @property
    def cut(self) -> Mapping[str, int | str]:
        return self.model.cut if self.model else {}

    def rankings(self, history: History, instances: Sequence[Instance]) -> Iterator[Answer]:
        cosines, columns, failed = self.model.cosines(history, instances) if self.model else (None, {}, {})
        for one in instances:
            if one.id in failed:
                yield one, failed[one.id]
                continue
            own = None if cosines is None else cosines[:, columns[one.id]]
            store = _CommitStore(history, history.commits[one.commit], own)
            vector = None if cosines is None else np.ones(1, np.float32)
            ranking: dict[str, float] = {}
            for hit in search(store, Signals(one.issue, vector, one.issue), HITS):
                ranking.setdefault(hit.chunk.path, hit.score)
            yield one, ranking


class _CommitStore:
    """Implements Searchable for one issue on one commit; ids are places in the commit, from 1.

    Its vectors have one dimension, the cosine to this issue: a query's vector is [1].
    """

    def __init__(self, history: History, commit: Commit, cosines: NDArray[np.float32] | None) -> None:
        self._history = history
        self._commit = commit
        self._cosines = None if cosines is None else cosines[commit.units]

    def lexical(self, terms: Mapping[str, float], k: int, where: Filter | None = None) -> list[Scored]:
        present = self._history.present(self._commit)
        scores = np.zeros(self._history.units)
        for name in SEARCHED:
            postings, boost = self._history.postings[name], fields.BOOSTS[name]
            weights = {term: boost * weight * (fields.K1 + 1) for term, weight in terms.items()}
            scores += postings.score(weights, present, fields.K1, fields.B, in_a_byte(postings.lengths))
        return _first(scores[self._commit.units].astype(np.float32), k, least=0.0)

    def dense(self, vector: Floats, k: int, where: Filter | None = None) -> list[Scored]:
        return [] if self._cosines is None else _first(self._cosines, k)

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Floats]:
        if self._cosines is None:
            return [], np.empty((0, 1), np.float32)
        return list(range(len(ids))), self._cosines[np.array(ids, np.int64) - 1, None]

    def get(self, ids: Sequence[int]) -> list[Chunk | None]:
        return [self._chunk(id - 1) for id in ids]

    def called(self, names: Collection[str], where: Filter | None = None) -> list[File]:
        history = self._history
        return sorted(
            (
                File(path, history.repo, history.languages[place], "code", 0, 0, b"")
                for place in np.unique(self._paths)
                if (path := history.paths[place]).rpartition("/")[2] in names
            ),
            key=lambda file: file.path,
        )

    def chunks_of(self, path: str) -> list[tuple[int, Chunk]]:
        places = np.flatnonzero(self._paths == self._history.paths.index(path))
        return sorted(((int(p) + 1, self._chunk(int(p))) for p in places), key=lambda one: one[1].start_line)

    @cached_property
    def _paths(self) -> NDArray[np.int32]:
        """[places]: the path of each unit, by its number in the history."""
        return np.asarray(self._history.path, np.int32)[self._commit.units]

    def _chunk(self, place: int) -> Chunk:
        history, unit, start = self._history, int(self._commit.units[place]), int(self._commit.starts[place])
        path = history.path[unit]
        end = start + history.lines[unit] - 1
        # The rules read no text.
        return Chunk(
            history.repo, history.paths[path], start, end, history.languages[path], history.symbols[unit], text=""
        )


def _first(scores: NDArray[np.float32], k: int, least: float = -np.inf) -> list[Scored]:
    """The k best above `least`, best first, equal scores in order."""
    if len(scores) > k:
        border = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= border)
    else:
        places = np.arange(len(scores))
    best = places[np.argsort(-scores[places], kind="stable")][:k]
    return [Scored(int(place) + 1, float(scores[place])) for place in best if scores[place] > least]


def _by_best(history: History, commit: Commit, scores: NDArray[np.floating], least: float = -np.inf) -> Ranking:
    """The KEPT best files with a score above `least`, each with that of its best unit."""
    units = np.unique(commit.units)
    paths = np.asarray(history.path, np.int32)[units]
    best = np.full(len(history.paths), -np.inf)
    np.maximum.at(best, paths, scores[units])
    found = np.unique(paths)
    found = found[best[found] > least]
    order = found[np.argsort(-best[found], kind="stable")][:KEPT]
    return {history.paths[path]: float(best[path]) for path in order}
