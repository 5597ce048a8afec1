"""Mix: the pairs of a recipe's data sets in one row, less those that may not be trained on.

What those are data/overlap.py says: sources that never.toml or the recipe's list of held-out ones names, and what is a
copy, or nearly, of a text of the tasks that the recipe evaluates on; and those under a licence that the recipe does not
name, where it names any. Knows no network.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcode.data import filter as consistency
from embedcode.data import holdout, licences, never, pairs, questions
from embedcode.data.overlap import Evaluations, Report, allowed, without
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.files import save_json
from embedcode.train.recipe import Data, Recipe
from embedcode.types import Pair, digest

Verdicts = dict[tuple[Path, ...], list[tuple[int, ...] | None]]
"""Of the pairs in files, which negatives of each may not be trained on, or None where it may not itself: several sets
may draw from the same ones."""
TOLD = 100
"""Pairs between two words on how far checking is: 0.1 s."""


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
    unlicensed: int = 0
    """Pairs left out, since the recipe does not name their licence."""
    negatives: int = 0
    """Left out of pairs that stay, since a task has them."""
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
    near: NDArray[np.int64] | None = field(default=None, repr=False)
    """The group of each pair that near.py has given one, else -1."""

    def set_of(self, row: int) -> Set:
        return next(one for one in self.sets if one.start <= row < one.stop)


def key(text: str) -> bytes:
    """16 bytes that two texts share which differ in white space only."""
    return digest(" ".join(text.split()))


def forbidden(recipe: Recipe, tasks: Sequence[beir.Task]) -> Evaluations:
    """What may not be trained on by a recipe: CoIR's train splits too, unless its figures are said to be in-domain."""
    held = holdout.load(recipe.path(recipe.held_out)).entries() if recipe.held_out else ()
    known = never.load().entries
    if recipe.regime == "in-domain":
        known = tuple(entry for entry in known if entry.group != "coir")
    return Evaluations(tasks, held, known)


def load(
    recipe: Recipe, evaluations: Callable[[], Evaluations], folder: Path | None = None, against: str = "",
    told: Callable[[str, int], None] = lambda name, done: None,
) -> Mix:  # fmt: skip
    """The pairs of all data sets. Raises UsageError for a set without files, or of which nothing is left.

    What was checked and drawn is kept in `folder` and taken from there: checking takes a millisecond a pair. `against`
    names what it was checked against; what was checked against something else is refused. `told` gets the name of a set
    and how many of its pairs were checked.
    """
    shared: dict[str, str] = {}  # negatives are documents of the same sources: each is held once
    rows: list[Pair] = []
    sets: list[Set] = []
    known: Evaluations | None = None
    verdicts: Verdicts = {}
    for data in recipe.data:
        kept = folder and folder / f"pairs-{data.name}.jsonl.gz"
        counts = folder and folder / f"pairs-{data.name}.json"
        if kept and counts and counts.is_file():
            own, said = list(pairs.read(kept)), json.loads(counts.read_text("utf-8"))
            if said.get("against", against) != against:
                raise UsageError(
                    f"{kept} was checked against other tasks or another list of sources than there are now: begin "
                    "another run, by --out."
                )
        else:
            known = known or evaluations()
            own, said = _lawful(recipe, data, known, verdicts, told)
            if kept and counts:
                pairs.write(kept, own)
                save_json(counts, said | {"against": against})
        start = len(rows)
        rows += [_interned(pair, shared) for pair in own]
        told_before = ("forbidden", "bad", "unlicensed", "negatives")
        sets.append(_set(data, rows, start, *(said.get(name, 0) for name in told_before)))
    return Mix(tuple(_shared(sets)), rows, answers(rows))


def _lawful(
    recipe: Recipe, data: Data, evaluations: Evaluations, verdicts: Verdicts, told: Callable[[str, int], None]
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of a set that may be trained on, as many as are looked at; and how many were not, or are none."""
    places = recipe.places(data)
    if not places:
        raise UsageError(f"data set {data.name}: none of {', '.join(data.files)} is in {recipe.folder}: put it there.")
    if lost := recipe.missing(data):
        raise UsageError(f"data set {data.name}: {', '.join(lost)} is not in {recipe.folder}: put it there.")
    report, bad, unlicensed = Report(), pairs.Bad(), 0

    def licensed() -> Iterator[Pair]:
        nonlocal unlicensed
        for pair in pairs.read_all(places, bad):
            if recipe.licences and not licences.allowed(pair.licence, recipe.licences):
                unlicensed += 1
            else:
                yield pair

    fresh = verdicts.setdefault(tuple(places), [])
    own = []
    for number, pair in enumerate(licensed()):
        if number == len(fresh):
            fresh.append(None if evaluations.find(pair) else tuple(evaluations.negatives(pair)))
            if number % TOLD == 0:
                told(data.name, number)
        if (places_out := fresh[number]) is not None:
            own.append(without(pair, places_out))
    forbidden = len(fresh) - len(own)
    negatives = sum(len(places_out or ()) for places_out in fresh)
    if data.most:
        own = consistency.drawn(own, data.most)
    if not data.top:
        own = limited(own, recipe, data)
    if data.ask:  # a question may be one of a benchmark, though what it is made of is not
        made = [question for pair in own if (question := questions.asked(pair, recipe.seed))]
        own = list(allowed(made, evaluations, report))
        forbidden += report.forbidden
    if not own:
        raise UsageError(
            f"data set {data.name} has no pair that may be trained on ({forbidden} are in the tasks "
            f"that are evaluated, or of a source that is never trained on, {unlicensed} under a licence that "
            "`licences` does not name): give other files."
        )
    return own, {"forbidden": forbidden, "bad": bad.lines, "unlicensed": unlicensed, "negatives": negatives}


def limited(own: list[Pair], recipe: Recipe, data: Data) -> list[Pair]:
    if not data.limit or len(own) <= data.limit:
        return own
    return random.Random(f"{recipe.seed} {data.name}").sample(own, data.limit)


def with_pairs(found: Iterable[tuple[Set, Sequence[Pair]]]) -> Mix:
    """A mix of sets with other pairs in them."""
    rows: list[Pair] = []
    sets: list[Set] = []
    for one, own in found:
        start = len(rows)
        rows += own
        sets.append(_set(one.data, rows, start, one.forbidden, one.bad, one.unlicensed, one.negatives))
    return Mix(tuple(_shared(sets)), rows, answers(rows))


def _set(
    data: Data, rows: Sequence[Pair], start: int, forbidden: int, bad: int, unlicensed: int, negatives: int
) -> Set:
    licences, languages = (_counts(getattr(pair, name) for pair in rows[start:]) for name in ("licence", "language"))
    return Set(data, start, len(rows), 0.0, forbidden, bad, unlicensed, negatives, licences, languages)


def _shared(sets: Sequence[Set]) -> list[Set]:
    weights = [one.data.weight or float(one.size) for one in sets]
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
