"""Mix: the pairs of a recipe's data sets in one row, less those that may not be trained on.

Names in data/never.toml stop a source; content stops the rest: a pair whose code is in a task that the recipe
evaluates on, or whose query is one of that task's, is left out and counted. Knows no network.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from embedcode.data import never, pairs
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.evaluate.beir import Task
from embedcode.train.recipe import Data, Recipe
from embedcode.types import Pair, digest


@dataclass(frozen=True, slots=True)
class Set:
    """A data set as it is trained on: rows [start, stop) of the mix, and what became of its files."""

    data: Data
    start: int
    stop: int
    share: float
    """Of a batch."""
    forbidden: int = 0
    """Pairs left out, since a task has them or never.toml names their source."""
    bad: int = 0
    """Lines that are no pair."""
    licences: tuple[tuple[str, int], ...] = ()
    languages: tuple[tuple[str, int], ...] = ()

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Mix:
    sets: tuple[Set, ...]
    pairs: Sequence[Pair]
    answers: dict[bytes, frozenset[bytes]] = field(default_factory=dict, repr=False)
    """Of each query that several pairs share or that has several positives: all its positives. By `key`."""

    def set_of(self, row: int) -> Set:
        return next(one for one in self.sets if one.start <= row < one.stop)


def key(text: str) -> bytes:
    """16 bytes that two texts share which differ in white space only."""
    return digest(" ".join(text.split()))


def load(recipe: Recipe, tasks: Sequence[Task] = ()) -> Mix:
    """The pairs of all data sets. Raises UsageError for a set without files, or of which nothing is left."""
    barrier = Barrier(tasks)
    shared: dict[str, str] = {}  # negatives are documents of the same sources: each is held once
    rows: list[Pair] = []
    sets: list[Set] = []
    for data in recipe.data:
        places = recipe.places(data)
        if not places:
            raise UsageError(
                f"data set {data.name}: none of {', '.join(data.files)} is in {recipe.folder}: put it there."
            )
        start, before, bad = len(rows), barrier.stopped, pairs.Bad()
        own = [_interned(pair, shared) for pair in pairs.read_all(places, bad) if barrier.lets(pair)]
        if data.limit and len(own) > data.limit:
            own = random.Random(f"{recipe.seed} {data.name}").sample(own, data.limit)
        if not own:
            raise UsageError(
                f"data set {data.name} has no pair that may be trained on ({barrier.stopped - before} are in the tasks "
                "that are evaluated, or of a source in never.toml): give other files."
            )
        rows += own
        counted = [_counts(getattr(pair, name) for pair in own) for name in ("licence", "language")]
        sets.append(Set(data, start, len(rows), 0.0, barrier.stopped - before, bad.lines, *counted))
    return Mix(tuple(_shared(sets)), rows, answers(rows))


def _shared(sets: Sequence[Set]) -> list[Set]:
    weights = [one.data.weight or float(one.size) for one in sets]
    mixed = [bool(one.data.weight) for one in sets]
    if any(mixed) and not all(mixed):
        odd = next(one.data.name for one, has in zip(sets, mixed, strict=True) if not has)
        raise UsageError(f"data set {odd} has no weight and others have: give all of them one, or none.")
    return [replace(one, share=weight / sum(weights)) for one, weight in zip(sets, weights, strict=True)]


def answers(rows: Iterable[Pair]) -> dict[bytes, frozenset[bytes]]:
    """Query to its positives, of queries with more than one."""
    found: dict[bytes, set[bytes]] = {}
    for pair in rows:
        found.setdefault(key(pair.query), set()).update(map(key, pair.positives))
    return {query: frozenset(all_) for query, all_ in found.items() if len(all_) > 1}


class Barrier:
    """What may not be trained on: documents and queries of tasks, by content, and sources by name."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.stopped = 0
        self._code = never.Blocklist.of(text for task in tasks for text in task.corpus.values())
        self._queries = frozenset(_plain(text) for task in tasks for text in task.queries.values())
        self._names = never.load()
        self._sources: dict[str, bool] = {}

    def lets(self, pair: Pair) -> bool:
        """Whether a pair may be trained on; counts those that may not."""
        fine = (
            self._is_allowed(pair.source)
            and _plain(pair.query) not in self._queries
            and not any(map(self._code.contains, pair.positives))
        )
        self.stopped += not fine
        return fine

    def _is_allowed(self, source: str) -> bool:
        if source not in self._sources:
            # "package 1.2", "pypi:package==1.2" and "owner/name@commit" are how miners write a source.
            bare = re.sub(r"^(?:pypi|npm|debian|github):", "", source.strip())
            bare = re.split(r"==|@(?!.*/)|\s", bare, maxsplit=1)[0] or source
            self._sources[source] = not source or (self._names.find(source) or self._names.find(bare)) is None
        return self._sources[source]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def tasks(recipe: Recipe) -> tuple[list[Task], list[Task]]:
    """(those that steer, those that only stop pairs)."""
    return (
        [beir.load(recipe.path(place)) for place in recipe.evaluate],
        [beir.load(recipe.path(place)) for place in recipe.never],
    )


def _interned(pair: Pair, shared: dict[str, str]) -> Pair:
    positives = tuple(shared.setdefault(text, text) for text in pair.positives)
    return replace(pair, positives=positives, negatives=tuple(shared.setdefault(text, text) for text in pair.negatives))


def _counts(values: Iterable[str]) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for value in values:
        found[value or "unknown"] = found.get(value or "unknown", 0) + 1
    return tuple(sorted(found.items(), key=lambda one: (-one[1], one[0])))
