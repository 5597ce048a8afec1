"""Mix: the pairs of a recipe's data sets in one row, less those that may not be trained on.

What those are data/overlap.py says: sources that never.toml or the recipe's list of held-out ones names, and what is a
copy, or nearly, of a text of the tasks that the recipe evaluates on. Knows no network.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from embedcode.data import holdout, pairs
from embedcode.data.overlap import Evaluations, Report, allowed
from embedcode.errors import UsageError
from embedcode.evaluate import beir
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


def forbidden(recipe: Recipe, tasks: Sequence[beir.Task]) -> Evaluations:
    """What may not be trained on by a recipe."""
    held = holdout.load(recipe.path(recipe.held_out)).entries() if recipe.held_out else ()
    return Evaluations(tasks, held)


def load(recipe: Recipe, evaluations: Evaluations) -> Mix:
    """The pairs of all data sets. Raises UsageError for a set without files, or of which nothing is left."""
    shared: dict[str, str] = {}  # negatives are documents of the same sources: each is held once
    rows: list[Pair] = []
    sets: list[Set] = []
    for data in recipe.data:
        places = recipe.places(data)
        if not places:
            raise UsageError(
                f"data set {data.name}: none of {', '.join(data.files)} is in {recipe.folder}: put it there."
            )
        start, report, bad = len(rows), Report(), pairs.Bad()
        lawful = allowed(pairs.read_all(places, bad), evaluations, report)
        own = [_interned(pair, shared) for pair in lawful]
        if data.limit and len(own) > data.limit:
            own = random.Random(f"{recipe.seed} {data.name}").sample(own, data.limit)
        if not own:
            raise UsageError(
                f"data set {data.name} has no pair that may be trained on ({report.forbidden} are in the tasks "
                "that are evaluated, or of a source that is never trained on): give other files."
            )
        rows += own
        counted = [_counts(getattr(pair, name) for pair in own) for name in ("licence", "language")]
        sets.append(Set(data, start, len(rows), 0.0, report.forbidden, bad.lines, *counted))
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


def _interned(pair: Pair, shared: dict[str, str]) -> Pair:
    positives = tuple(shared.setdefault(text, text) for text in pair.positives)
    return replace(pair, positives=positives, negatives=tuple(shared.setdefault(text, text) for text in pair.negatives))


def _counts(values: Iterable[str]) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for value in values:
        found[value or "unknown"] = found.get(value or "unknown", 0) + 1
    return tuple(sorted(found.items(), key=lambda one: (-one[1], one[0])))
