"""Rules that know code: each looks at a query and a candidate, and moves the candidate's score.

A rule is a function with a switch (its name in RULES), a constant with its reason, and a row in the ablation table
(bench/repo_search). Constants were set on the tuning half of that benchmark. Knows no store.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from embedcode.search.asked import Asked
from embedcode.search.lines import defines, holds, passes_on
from embedcode.search.places import ends
from embedcode.store.terms import is_word, split
from embedcode.types import Chunk

DEFINITION = 0.7
"""Added where a chunk's symbol has every word of a name that is asked for, and no other; less by the square."""
MENTIONED = 0.16
"""The same where a sentence is asked, which has more words than a name."""
STEM = 0.06
"""The same for the name of its file."""
NAMED = 0.25
"""Added where a name written in the query is defined here; a path typed in it."""
FRAME = 1.0
"""Shared by the frames in the query that lie in candidates, and added to these, with NAMED at least: a place named
alone is all that is sure, and worth the best of both lists; of a long traceback any may be meant. By reasoning, not
tuned."""
TESTS = 0.6
"""Times the score of a test, unless the query speaks of tests."""
DOCS = 0.4
"""Times the score of prose, which repeats what code does in the words of a question."""
SHIMS = 0.7
"""Times the score of what only passes names on (imports of an `__init__.py`, type stubs), or of an example."""
VERBATIM = 2.0
"""Added where the name that is all of the query stands, and again where it is defined: more than a name that is only
like it can have from all else, and for a test too (x 0.6) about as much. By reasoning, as FRAME."""
AGAIN = 0.97
"""Times the score of the second hit of a file, twice for the third: other files come between."""
PIECE = 0.5
"""The same of a piece of a definition that has a hit already: one is enough to find it by."""
FILE = 0.1
"""Added to the best chunk of the file whose candidates' scores have the largest sum; less in proportion."""
NEIGHBOUR = 0.03
"""Added where the chunk before or behind it in its file is a candidate of at least the same score."""

MOST_TERMS = 32
"""A query of more terms is no name, and says too much for one to be half of it."""
TELLING = 0.05
"""Of its score, what a rule must move for a hit to name it: `definition` stood under nearly every one."""
ALIKE = 0.7
"""What a word counts that only begins like one of the query."""

Rule = Callable[[Asked, Chunk, float], float]
"""The score after the rule."""


@dataclass(slots=True)
class Ranked:
    """A candidate with its score and the names of the rules that moved it."""

    id: int
    chunk: Chunk
    score: float
    fired: list[str] = field(default_factory=list)

    def move(self, score: float, rule: str) -> None:
        """To the score after a rule, which is named where it moved it by a share that tells."""
        if abs(score - self.score) > TELLING * max(abs(score), abs(self.score)):
            self.fired.append(rule)
        self.score = score


def definition(asked: Asked, chunk: Chunk, score: float) -> float:
    """The symbol defined here has the words of the query."""
    if len(asked.terms) > MOST_TERMS:
        return score
    weight = MENTIONED if asked.sentence else DEFINITION
    if asked.alone and _assigns(asked, chunk):
        return score + weight
    # A symbol such as `_` or `<=>` has no words.
    return score + weight * max((_likeness(asked, part) for part in _symbols(chunk.symbol)), default=0.0) ** 2


def stem(asked: Asked, chunk: Chunk, score: float) -> float:
    """The file is called by words of the query."""
    if len(asked.terms) > MOST_TERMS:
        return score
    return score + STEM * _likeness(asked, _stem(chunk.path))


def named(asked: Asked, chunk: Chunk, score: float) -> float:
    """A name that is written in the query as a name is defined here."""
    return score + NAMED if _defines(asked, chunk) else score


def verbatim(asked: Asked, chunk: Chunk, score: float) -> float:
    """The name that is all of the query stands here."""
    if not asked.alone:
        return score
    return score + VERBATIM * (holds(chunk.text, asked.alone) + _defines(asked, chunk))


def paths(asked: Asked, chunk: Chunk, score: float) -> float:
    """The query names this file, or the folder it lies in."""
    return score + NAMED if _is_typed(asked, chunk) else score


def is_test(path: str) -> bool:
    """Whether a path is that of a test, its data or its helpers."""
    return _kind(path).test


def tests(asked: Asked, chunk: Chunk, score: float) -> float:
    """Tests after code."""
    return score * TESTS if not asked.tests and is_test(chunk.path) else score


def docs(asked: Asked, chunk: Chunk, score: float) -> float:
    """Prose after code."""
    return score * DOCS if not asked.prose and _kind(chunk.path).prose else score


def shims(asked: Asked, chunk: Chunk, score: float) -> float:
    """What only passes names on, after what it passes on."""
    kind = _kind(chunk.path)
    # `pub mod views;` has a symbol, and no body.
    shim = kind.shim or (kind.hub and passes_on(chunk.text, wholly=bool(chunk.symbol)))
    return score * SHIMS if shim and not _is_typed(asked, chunk) else score


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (definition, stem, named, verbatim, paths, tests, docs, shims)
}
"""Rules on one candidate, in the order they are applied."""

FRAMES, SPREAD, NEIGHBOURS, MASS = "frames", "spread", "neighbours", "file"
"""Rules on all candidates."""
FORMS, KIND = "forms", "kind"
"""Rules of the candidate lists, carried out in `search.py`."""
ALL = frozenset({*RULES, FRAMES, SPREAD, NEIGHBOURS, MASS, FORMS, KIND})


def rank(asked: Asked, candidates: Sequence[Ranked], rules: frozenset[str] = ALL) -> list[Ranked]:
    """The candidates by their scores after the rules, best first, ties in the order given."""
    chosen = [(name, rule) for name, rule in RULES.items() if name in rules]
    if FRAMES in rules:
        _frames(asked, candidates)
    for candidate in candidates:
        for name, rule in chosen:
            candidate.move(rule(asked, candidate.chunk, candidate.score), name)
    if NEIGHBOURS in rules:
        _neighbours(candidates)
    if MASS in rules:
        _mass(candidates)
    ranked = sorted(candidates, key=lambda candidate: -candidate.score)
    return _spread(ranked) if SPREAD in rules else ranked


def _frames(asked: Asked, candidates: Sequence[Ranked]) -> None:
    """Where frames of the query lie."""
    found = [(one, lines) for one in candidates if (lines := _frames_in(asked, one.chunk))]
    known = len({frame for _, lines in found for frame in lines})
    for one, _ in found:
        one.move(one.score + max(FRAME / known, NAMED), FRAMES)


def _frames_in(asked: Asked, chunk: Chunk) -> list[tuple[str, int]]:
    return [
        (path, line)
        for path, line in asked.frames
        if chunk.start_line <= line <= chunk.end_line and ends(chunk.path, chunk.repo, path)
    ]


def _is_typed(asked: Asked, chunk: Chunk) -> bool:
    return any(ends(chunk.path, chunk.repo, path) for path in asked.paths)


def _assigns(asked: Asked, chunk: Chunk) -> bool:
    """Whether a name in the query gets its value here, as a constant does, without being the chunk's symbol."""
    return any(defines(chunk.text, name, chunk.language, bool(chunk.symbol)) for name in asked.names)


def _defines(asked: Asked, chunk: Chunk) -> bool:
    if not asked.names:
        return False
    whole = {parts[0] for parts in _symbols(chunk.symbol) if parts}
    return bool(whole & asked.names) or _assigns(asked, chunk)


def _neighbours(candidates: Sequence[Ranked]) -> None:
    """Neighbours that are both candidates speak for each other."""
    ends = {(one.chunk.path, one.chunk.end_line): one.score for one in candidates}
    starts = {(one.chunk.path, one.chunk.start_line): one.score for one in candidates}
    for one in candidates:
        beside = (
            ends.get((one.chunk.path, one.chunk.start_line - 1)),
            starts.get((one.chunk.path, one.chunk.end_line + 1)),
        )
        if any(score is not None and score >= one.score for score in beside):
            one.move(one.score + NEIGHBOUR, NEIGHBOURS)


def _mass(candidates: Sequence[Ranked]) -> None:
    """A file of which many chunks are candidates speaks for its best one."""
    sums: dict[str, float] = {}
    best: dict[str, Ranked] = {}
    for one in candidates:
        path = one.chunk.path
        sums[path] = sums.get(path, 0.0) + one.score
        if path not in best or one.score > best[path].score:
            best[path] = one
    most = max(sums.values(), default=0.0)
    for path, one in best.items():
        if most > 0 and sums[path] > one.score:
            one.move(one.score + FILE * sums[path] / most, MASS)


def _spread(ranked: list[Ranked]) -> list[Ranked]:
    """Later hits of a file count less, and other pieces of one definition less again."""
    files: Counter[str] = Counter()
    pieces: Counter[tuple[str, str]] = Counter()
    for one in ranked:
        path, piece = one.chunk.path, (one.chunk.path, one.chunk.symbol)
        factor = AGAIN ** files[path] * (PIECE ** pieces[piece] if one.chunk.symbol else 1.0)
        one.move(one.score * factor, SPREAD)
        files[path] += not (one.chunk.symbol and pieces[piece])
        pieces[piece] += 1
    return sorted(ranked, key=lambda one: -one.score)


# ---- likeness ----------------------------------------------------------------------------------------------------


def _likeness(asked: Asked, name: tuple[str, ...]) -> float:
    """0..1: the harmonic mean of how much of the name is asked for and how much of the query the name says.

    Words are alike when they are equal, and a little less when they begin alike: an abbreviation, a plural, another
    form of a verb.
    """
    if not name or not asked.terms:
        return 0.0
    parts = name[1:] or name
    hit = float(len(parts)) if name[0] in asked.terms else sum(_found(part, asked) for part in parts)
    if not hit:
        return 0.0
    precision, recall = hit / len(parts), min(1.0, hit / len(asked.terms))
    return 2 * precision * recall / (precision + recall)


def _found(part: str, asked: Asked) -> float:
    if part in asked.terms:
        return 1.0
    return ALIKE if any(_alike(part, term) for term in asked.beginnings.get(part[:3], ())) else 0.0


def _alike(one: str, two: str) -> bool:
    """Whether they have more than half of the longer one in common, and all but two letters of the shorter one."""
    short, long = sorted((one, two), key=len)
    common = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return common >= 3 and common >= len(short) - 2 and 2 * common >= len(long)


@lru_cache(maxsize=1 << 14)
def _symbols(symbol: str) -> tuple[tuple[str, ...], ...]:
    """The terms of each name that a chunk defines, the whole form first, "" where there is none: of a qualified one its
    last part, then all of it."""
    found: list[tuple[str, ...]] = []
    for name in symbol.split(", "):
        last = name.rpartition(".")[2]
        found.append(_named(last))
        if last != name:
            found.append(("", *split(name)))
    return tuple(parts for parts in found if any(parts))


@lru_cache(maxsize=1 << 14)
def _stem(path: str) -> tuple[str, ...]:
    return _named(path.rpartition("/")[2].partition(".")[0])


def _named(name: str) -> tuple[str, ...]:
    """A title, of several words, has no whole form: its first word is not all of it."""
    return tuple(split(name)) if is_word(name) else ("", *split(name))


class _Kind(NamedTuple):
    test: bool
    prose: bool
    shim: bool
    hub: bool
    """It is called like those that pass names on, and may hold code too."""


@lru_cache(maxsize=1 << 14)
def _kind(path: str) -> _Kind:
    return _Kind(*(pattern.search(path) is not None for pattern in (_TEST, _DOCS, _SHIM, _HUB)))


_TEST = re.compile(
    r"(?:^|/)(?:[Tt]ests?|[Ss]pecs?|__tests__|__mocks__|testing|testdata|test[-_]\w+|[Ff]ixtures?|[Mm]ocks?|e2e)/"
    # MyApp.UnitTests, MyAppTests and MyApp.Test, but not ABTest; the sets of sources that Gradle knows
    r"|(?:^|/)(?:[\w.-]*Tests|[\w.-]*\.Test|src/[a-z]\w*Test)/"
    r"|(?:^|/)(?:test_[^/]*|conftest\.py|tests?\.(?:py|rs))$|[._-](?:test|spec|unittest)s?\.[^/]+$"
    r"|(?:Tests?|Spec|IT)\.(?:java|kt|cs|scala|swift|php)$|Tests?\.(?:cpp|cc|cxx|mm?)$"
)
_DOCS = re.compile(
    r"\.(?:md|markdown|mdx|rst|adoc|asciidoc|txt|org|tex|html?|[1-9]|man|info)$|(?:^|/)(?:README|CHANGE|NEWS|LICENSE)[^/]*$"
)
_SHIM = re.compile(
    r"\.d\.[cm]?ts$|\.pyi$|(?:^|/)package-info\.java$|(?:^|/)(?:[Ee]xamples?|[Ss]amples?|[Dd]emos?|legacy|deprecated|compat)/"
)
_HUB = re.compile(r"(?:^|/)(?:__init__\.py|index\.[cm]?[jt]sx?|mod\.rs)$")
