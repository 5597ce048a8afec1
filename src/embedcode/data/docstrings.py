"""Docstrings: what a function's author says it does, paired with the function without that text.

Extraction of one file is pure and runs in other processes, so that a parser that crashes costs a file. What is refused
is counted by reason. Knows nothing of where files are from and of their licences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from embedcode.data import comments
from embedcode.data.never import fingerprint
from embedcode.index.functions import functions
from embedcode.index.grammars import GRAMMARS, parse
from embedcode.index.languages import Language, language_of
from embedcode.types import Pair

TASK = "docstring"
LONGEST_CODE = 8_000
"""Characters, about 2,500 tokens: a model reads a fifth of it, and what follows is another matter."""
SHORTEST_CODE = 60
FEWEST_LINES = 3
MOST_OF_A_QUERY = 3
"""Functions that one text may describe, in a run: "Returns the length." is said of hundreds."""

UNPARSED = "too costly to parse"
CRASHED = "parser crashed"
FAILED = "parser failed"
SHORT_CODE = "function too short"
LONG_CODE = "function too long"
STUB = "stub"
MISREAD = "no function"
ACCESSOR = "getter or setter"
REPEATED = "same text, other functions"

_HEAD = 4096
_NO_FUNCTION = re.compile(r"(?:typedef\s+)?(?:struct|union|enum|class)\b[^({;]*\{")
"""What a macro before a name makes of a type, for a grammar that cannot know macros."""
_ACCESSOR = re.compile(r"^(?:.*\.)?(?:get|set|is|has)(?:[A-Z_]|$)")
_STUB = re.compile(
    r"raise NotImplementedError|throw new (?:UnsupportedOperation|NotImplemented|NotSupported)\w*|unimplemented!"
    r"|todo!\(|panic\(\"not implemented|\bpass\s*$"
)


@dataclass(frozen=True, slots=True)
class File:
    """A text to extract from, and what its pairs say of where it is from."""

    path: str
    text: str
    source: str


@dataclass(slots=True)
class Extracted:
    """The pairs of a file, and what was refused, by reason."""

    pairs: list[Pair] = field(default_factory=list)
    prints: list[bytes] = field(default_factory=list)
    """The fingerprint of each pair's function, by which copies are known."""
    refused: Counter[str] = field(default_factory=Counter)


def language(path: str, text: str) -> Language | None:
    """The language of a file, where functions can be found in it."""
    found = language_of(path, text[:_HEAD].encode("utf-8", "replace"))
    return found if found and found.grammar and GRAMMARS[found.grammar].functions else None


def extract(file: File) -> Extracted:
    """The documented functions of one file; never raises."""
    return guarded(_extract, file)


def guarded(extraction: Callable[[File], Extracted], file: File) -> Extracted:
    """What it extracts from one file. Never raises: what fails at one file must not cost the others."""
    try:
        return extraction(file)
    except Exception as error:
        return Extracted(refused=Counter({f"{FAILED} ({type(error).__name__})": 1}))


def _extract(file: File) -> Extracted:
    result = Extracted()
    known = language(file.path, file.text)
    if known is None or known.grammar is None:
        return result
    source = file.text.encode("utf-8", "replace")
    root = parse(known.grammar, source)
    if root is None:
        result.refused[UNPARSED] += 1
        return result
    for found in functions(root, source):
        if not found.comment:
            continue
        query = comments.unnamed(comments.query(found.comment), found.name)
        why = comments.reason(query, found.name) or code_reason(found.name, found.code)
        if why is not None:
            result.refused[why] += 1
            continue
        result.prints.append(fingerprint(found.code))
        result.pairs.append(Pair(query, (found.code,), (), TASK, known.name, file.source))
    return result


def code_reason(name: str, code: str) -> str | None:
    """Why a function is no answer worth finding."""
    if len(code) > LONGEST_CODE:
        return LONG_CODE
    if _NO_FUNCTION.match(code):
        return MISREAD
    lines = [line for line in code.split("\n") if line.strip(" \t{}();")]
    if len(code) < SHORTEST_CODE or len(lines) < FEWEST_LINES - 1:
        return SHORT_CODE
    if len(lines) <= FEWEST_LINES and _ACCESSOR.match(name):
        return ACCESSOR
    if len(lines) <= FEWEST_LINES + 1 and _STUB.search(code):
        return STUB
    return None


def lost(_file: File, _why: str) -> Extracted:
    """What a file gives whose parser ended its process."""
    return Extracted(refused=Counter({CRASHED: 1}))


def plain(query: str) -> str:
    """A query as it is compared with others."""
    return " ".join(query.casefold().split())


class Repeats:
    """Lets each text describe so many functions, and no more."""

    def __init__(self, most: int = MOST_OF_A_QUERY) -> None:
        self._most, self._seen = most, Counter[int]()

    def admit(self, pair: Pair) -> bool:
        key = hash(plain(pair.query))
        self._seen[key] += 1
        return self._seen[key] <= self._most
