"""The versions of one path to distinct units: what is ranked, with its terms and its text. Pure, for other processes.

A unit's text holds its path, so no two paths share one, and all versions of a path are cut together: of a file that
changed in one place, most units are the same. Knows no commit and no model but a tokenizer's file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from embedcode.engine.tokens import TextTokenizer
from embedcode.evaluate.bm25 import stemmer, stop_words
from embedcode.evaluate.postings import Counts
from embedcode.index import exclude
from embedcode.index.chunk import chunk, plain
from embedcode.index.languages import TEXT, language_of
from embedcode.index.walk import BINARY, decode
from embedcode.model.passage import passage
from embedcode.store.terms import joined, searchable
from embedcode.types import digest

Field = Literal["path", "symbol", "body", "text"]
"""`text` is path and body together, as a unit is embedded."""

_HEAD = 4096
"""Characters by which a language is known where its name does not tell, as the index has it."""


@dataclass(frozen=True, slots=True)
class Words:
    """How a text becomes terms: the index's, stemmed or without stop words where asked."""

    stem: bool = False
    stop_words: bool = False
    """Whether Lucene's 33 English ones are left out."""

    def counts(self, text: str) -> Mapping[str, int]:
        found = Counter(joined(text).split())
        if self.stop_words:
            for word in stop_words():
                found.pop(word, None)
        if self.stem:
            stemmed: Counter[str] = Counter()
            for word, stem in zip(found, stemmer()(list(found)), strict=True):
                stemmed[stem] += found[word]
            return stemmed
        return found


@dataclass(frozen=True, slots=True)
class Cutting:
    """What is done to a file. `tokens` and `tokenizer` count for chunks of tokens only."""

    unit: Literal["file", "chunk", "tokens"]
    """A whole file; a chunk of the product's; a run of `tokens` tokens, without overlap."""
    tokens: int = 0
    tokenizer: str = ""
    """A tokenizer.json."""
    judged: bool = False
    """Whether generated, minified and secret texts are left out, as the product does."""
    fields: tuple[Field, ...] = ()
    """Those whose terms are counted."""
    words: Words = field(default_factory=Words)
    texts: bool = False
    """Whether the texts to embed are wanted."""


@dataclass(frozen=True, slots=True)
class Job:
    path: str
    blobs: tuple[str, ...]
    raws: tuple[bytes, ...]
    """Of the blobs."""
    cutting: Cutting
    by_syntax: bool = True


@dataclass(frozen=True, slots=True)
class Unit:
    key: bytes
    """Of path, symbol and body."""
    symbol: str
    lines: int
    text: str
    """What is embedded; "" where it is not wanted."""


@dataclass(frozen=True, slots=True)
class Version:
    """A file as one blob has it: places of its units in the job's list, and the first line of each."""

    blob: str
    units: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    path: str
    language: str
    versions: list[Version]
    units: list[Unit]
    counts: dict[Field, Counts]
    """By field, of the units."""


Piece = tuple[int, int, str, str]
"""First line from 1, lines, symbol, body."""


def cut(job: Job) -> Cut:
    places: dict[bytes, int] = {}
    units: list[Unit] = []
    bodies: list[str] = []
    versions = []
    language = ""
    for blob, raw in zip(job.blobs, job.raws, strict=True):
        text = decode(raw)
        reason = BINARY if text is None else (exclude.text_reason(job.path, text) if job.cutting.judged else None)
        if text is None or reason:
            versions.append(Version(blob, left_out=reason or BINARY))
            continue
        numbers, starts = [], []
        language, pieces = _pieces(job, text)
        for start, lines, symbol, body in pieces:
            key = digest(job.path, symbol, body)
            place = places.get(key)
            if place is None:
                place = places[key] = len(units)
                wanted = _embedded(job, symbol, body) if job.cutting.texts else ""
                units.append(Unit(key, symbol, lines, wanted))
                bodies.append(body)
            numbers.append(place)
            starts.append(start)
        versions.append(Version(blob, tuple(numbers), tuple(starts)))
    counts = {name: _counts(job, name, units, bodies) for name in job.cutting.fields}
    return Cut(job.path, language, versions, units, counts)


def lost(job: Job, reason: str) -> Cut:
    """What cut() would have given, without the parser that died."""
    return cut(replace(job, by_syntax=False))


def _counts(job: Job, name: str, units: list[Unit], bodies: list[str]) -> Counts:
    words = job.cutting.words
    if name == "path":
        once = words.counts(job.path)
        return Counts.of([once] * len(units))
    if name == "symbol":
        return Counts.of([words.counts(unit.symbol) for unit in units])
    texts: Iterable[str] = map(searchable, bodies) if job.cutting.unit == "chunk" else bodies
    if name == "text":
        texts = (f"{job.path}\n{body}" for body in texts)
    return Counts.of([words.counts(text) for text in texts])


def _embedded(job: Job, symbol: str, body: str) -> str:
    return passage(job.path, symbol, searchable(body) if job.cutting.unit == "chunk" else body)


def _pieces(job: Job, text: str) -> tuple[str, list[Piece]]:
    """The language, and the pieces of a text in order; of one without a word, none."""
    cutting = job.cutting
    if not text.strip():
        return "", []
    if cutting.unit == "file":
        return "", [(1, text.count("\n") + 1, "", text)]
    language = language_of(job.path, text[:_HEAD].encode("utf-8", "replace")) or TEXT
    if cutting.unit == "tokens":
        return language.name, _by_tokens(text, cutting)
    try:
        chunks = (chunk if job.by_syntax else plain)(job.path, text, language)
    except Exception:  # as the index has it: what fails at one file's syntax costs neither others nor its text
        chunks = plain(job.path, text, language)
    return language.name, [(c.start_line, c.end_line - c.start_line + 1, c.symbol, c.text) for c in chunks]


def _by_tokens(text: str, cutting: Cutting) -> list[Piece]:
    """Runs of exactly so many tokens of the whole file's, the last one shorter; every character lies in one run."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates, which a tokenizer cannot read
    firsts = [first for first, end in _tokenizer(cutting.tokenizer).places("", text) if end]
    borders = [0, *firsts[cutting.tokens :: cutting.tokens], len(text)]
    found, line = [], 1
    for first, end in pairwise(borders):
        body = text[first:end]
        breaks = body.count("\n")
        if body.strip():
            found.append((line, breaks + 1, "", body))
        line += breaks
    return found


@lru_cache(maxsize=2)
def _tokenizer(path: str) -> TextTokenizer:
    return TextTokenizer(Path(path), max_tokens=1)
