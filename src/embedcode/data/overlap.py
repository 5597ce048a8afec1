"""What pairs have in common with evaluation sets, by content: equal texts, near duplicates (`minhash`, `short`) and
texts inside of others (`runs`), and names that are never trained on (`never`).

Every text of a pair is compared with every text of a set, queries with documents too: a benchmark may ask by code.
Training drops what is found: a pair for its query or a positive, and of a pair that stays the negatives that are
copies, by which a model would learn that a benchmark's answer is none. `data check` and `eval overlap` report it, all
by this module. Knows no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal, Protocol

from embedcode.data import minhash, never, runs, short
from embedcode.data.sources import Source, file_names
from embedcode.types import Pair, digest

Kind = Literal["name", "equal", "near", "inside", "renamed"]

FEWEST_TOKENS = 4
"""Equal texts below it say nothing: "sort a list" is anybody's."""


@dataclass(frozen=True, slots=True)
class Found:
    """Why a pair may not be trained on: which of its texts, and what it is a copy of."""

    kind: Kind
    where: str
    """The evaluation set, or the entry of never.toml."""
    text: str
    other: str
    """The id of the query or document."""
    similarity: float = 1.0


class Texts(Protocol):
    """An evaluation set: texts by id."""

    @property
    def name(self) -> str: ...
    @property
    def queries(self) -> Mapping[str, str]: ...
    @property
    def corpus(self) -> Mapping[str, str]: ...
    @property
    def bare(self) -> Mapping[str, str]: ...


class Evaluations:
    """The texts of evaluation sets."""

    def __init__(
        self, sets: Sequence[Texts] = (), held: Sequence[never.Entry] = (),
        known: Sequence[never.Entry] | None = None,
    ) -> None:  # fmt: skip
        """`evaluate.beir` reads such sets. `held` are sources that are forbidden beside those of never.toml, or beside
        `known` of them."""
        self.names: list[str] = []
        self.least = 0
        """Texts too short for any comparison but an equal one's."""
        self._count = 0
        self._clean: set[int] = set()
        """Hashes of what was found to be no copy: a document is a negative of many pairs."""
        self._places: list[tuple[str, str]] = []
        self._equal: dict[bytes, int] = {}
        self._near, self._short = minhash.Index(), short.Index()
        self._inside, self._renamed = runs.Index(), runs.Index()
        self._never = never.Never((*(never.load().entries if known is None else known), *held))
        for task in sets:
            self.names.append(task.name)
            self._count += len(task.queries) + len(task.corpus)
            for kind, texts in (("query", task.queries), ("document", task.corpus), ("document", task.bare)):
                for id, text in texts.items():
                    # Of one with a title what is inside of other texts is the text alone.
                    self._add(task.name, f"{kind} {id}", text, inside=texts is not task.corpus or id not in task.bare)

    def __len__(self) -> int:
        return self._count

    def _add(self, name: str, id: str, text: str, inside: bool) -> None:
        tokens = never.tokens(text)
        elements, words = minhash.elements_of(tokens), short.words(tokens)
        number = self._near.add(elements)
        self._short.add(number, words)
        self.least += inside and not words and len(elements) < minhash.FEWEST
        if inside:
            self._inside.add(number, runs.kept(tokens))
            self._renamed.add(number, runs.renamed(tokens))
        self._places.append((name, id))
        if (key := _key(text)) is not None:
            self._equal.setdefault(key, number)

    def find(self, pair: Pair) -> Found | None:
        """The first thing that forbids a pair; None where it may be trained on, without what `negatives` names."""
        if entry := self._never.first(source_names(pair.source)):
            return Found("name", entry.name, "source", pair.source)
        for label, text in (("query", pair.query), *(("positive", text) for text in pair.positives)):
            if (found := self._copy_of(label, text)) is not None:
                return found
        return None

    def negatives(self, pair: Pair) -> dict[int, Found]:
        """Those of its negatives that are copies, by their places."""
        found = {place: self._copy_of("negative", text) for place, text in enumerate(pair.negatives)}
        return {place: one for place, one in found.items() if one is not None}

    def _copy_of(self, label: str, text: str) -> Found | None:
        if hash(text) in self._clean:
            return None
        key = _key(text)
        if key is not None and (number := self._equal.get(key)) is not None:
            return Found("equal", self._places[number][0], label, self._places[number][1])
        tokens = never.tokens(text)
        kind: Kind = "near"
        near = chain(self._near.near(minhash.elements_of(tokens)), self._short.near(short.words(tokens)))
        best = max(near, key=lambda near: near[1], default=None)
        if best is None:
            kind, best = "inside", self._inside.find(runs.kept(tokens))
        if best is None:
            kind, best = "renamed", self._renamed.find(runs.renamed(tokens))
        if best is None:
            self._clean.add(hash(text))
            return None
        name, other = self._places[best[0]]
        return Found(kind, name, label, other, best[1])


@dataclass(slots=True)
class Report:
    """Counts over a file of pairs."""

    pairs: int = 0
    forbidden: int = 0
    negatives: int = 0
    """Of the pairs that are not forbidden."""
    by_set: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(set, kind, which text of the pair): pairs, or negatives."""
    examples: list[Found] = field(default_factory=list)

    def add(self, found: Found | None, negatives: Iterable[Found] = ()) -> None:
        """A pair with what forbids it, or with its negatives that are copies."""
        self.pairs += 1
        self.forbidden += found is not None
        for one in negatives if found is None else (found,):
            self.negatives += one.text == "negative"
            self.by_set[one.where, one.kind, one.text] += 1
            if sum(other.where == one.where for other in self.examples) < 3:
                self.examples.append(one)


def allowed(pairs: Iterable[Pair], evaluations: Evaluations, report: Report) -> Iterator[Pair]:
    """The pairs that may be trained on, without negatives that are copies; `report` counts what is left out."""
    for pair in pairs:
        found = evaluations.find(pair)
        negatives = {} if found else evaluations.negatives(pair)
        report.add(found, negatives.values())
        if found is None:
            yield without(pair, negatives)


def without(pair: Pair, places: Container[int]) -> Pair:
    """The pair less its negatives at `places`."""
    kept = tuple(text for place, text in enumerate(pair.negatives) if place not in places)
    return pair if len(kept) == len(pair.negatives) else replace(pair, negatives=kept)


def source_names(source: str) -> tuple[str, ...]:
    """The names in `pypi:requests 2.32`, `git:owner/name@1234`, a URL or the name of an archive, as never.toml lists
    them: those too by which other registries know it."""
    if not source:
        return ()
    plain = source.split(" ")[0]
    registry, colon, name = plain.partition(":")
    if colon and registry in ("pypi", "npm", "debian", "git", "github") and not name.startswith("//"):
        name = re.sub(r"(?<=\w)@[\w.-]+$", "", name)
        known = Source("github" if registry == "git" else registry, name).known_as
        return (*known, *file_names(name)) if registry == "git" and "/" not in name else known  # a clone's folder
    plain = re.sub(r"(?<=\w)@[\w.-]+$", "", plain)
    file = plain.rpartition("/")[2] if plain.startswith("/") else plain
    return tuple(dict.fromkeys((plain, file, *(() if "/" in file else file_names(file)))))


def _key(text: str) -> bytes | None:
    """As never.fingerprint(), whatever the case and the mark at the end; None for a text too short to be anybody's."""
    tokens = never.tokens(text.casefold().strip(" \n.?!"))
    return digest("\0".join(tokens)) if len(tokens) >= FEWEST_TOKENS else None
