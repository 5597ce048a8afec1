"""What a query says besides its words: names, paths and lines that its author wrote, and what it is about.

Knows no store and no ranking; `rank.py` reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from embedcode.store.terms import query_terms, split

LEAST_WORDS = 5
"""Words from which a query without any name in it is a sentence, not a name half-remembered."""
MOST_PLACES = 50
"""Paths and frames read of a query: a traceback has some, a log has thousands."""

_BACKTICKS = re.compile(r"`([^`\n]{1,200})`")
_NAME = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::|->|#)[A-Za-z_$][\w$]*)*")
_CODELIKE = re.compile(r"[a-z0-9][A-Z]|[A-Za-z0-9]_[A-Za-z0-9]|\.\w|::|->|^[A-Z]{2,}[a-z]")
# Both start only where no character of theirs is before, so that every character is read once.
_PATH = re.compile(
    r"(?<![\w/.@-])(?:\.{0,2}/{1,2})?(?:[\w.@-]++/)*+[\w@-][\w.@-]*\.[A-Za-z]\w{0,9}\b"  # with an extension
    r"|(?<![\w/.:@-])(?:[\w.@-]++/)++[\w.@-]+"  # with a folder
)
_URL = re.compile(r"(?<!\w)[A-Za-z][\w+.-]{0,15}://[^\s`\"'<>)\]]+")
_EXTENSION = re.compile(
    "bash|cfg|conf|cpp|cshtml|csproj|css|csv|cuh|cxx|dart|dll|erb|exe|gif|gradle|hpp|html?|hxx|ini|ipynb|jar|java|jpe?g"
    "|jsonl?|jsx|less|log|lua|mdx|mjs|pdf|php|png|proto|pyi|pyx|rst|sass|scala|scss|sql|svelte|svg|swift|toml|tsv|tsx"
    "|txt|vue|whl|xhtml|xml|xsd|xslt?|ya?ml|zip|zsh"
)
"""What follows the dot in the name of a file, rather than in `self.socket`. Shorter ones are never taken for a name."""
# Two groups of each alternative: path and line.
_FRAME = re.compile(
    r"File \"([^\"\n]+)\", line (\d{1,9})"  # Python
    r"|(?<![\w./@\\-])([\w./@\\-]+\.[A-Za-z]\w{0,9})"
    r"(?::(?:line )?(\d{1,9})"  # most others, and .NET
    r"|\((\d{1,9})(?:,\d{1,9})?\) ?:"  # PHP, tsc and MSVC; with the colon, for `a.get(1)` is a call
    r"| on line (\d{1,9})"  # PHP
    r"|#L(\d{1,9}))"  # a permalink
    r"|\(([\w./-]+\.[A-Za-z]+):(\d{1,9})\)"
)
_TESTS = frozenset({"test", "tests", "testing", "spec", "specs", "fixture", "fixtures", "mock", "mocks", "benchmark"})
_PROSE = frozenset(
    {"docs", "documentation", "readme", "changelog", "guide", "tutorial", "manual", "install", "license"}
)
_QUESTION = re.compile(r"^\s*(?:how|where|what|when|which|why|who|does|is|are|can)\b|\?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, read once."""

    terms: frozenset[str]
    """Its distinct lexical terms without function words."""
    beginnings: dict[str, tuple[str, ...]]
    """The terms by their first three letters."""
    names: frozenset[str]
    """Names as they are written in code or backticks, each as its joined lower-case form; none of a file or a URL."""
    alone: str
    """The one of `names` that is all of the query; "" otherwise."""
    paths: tuple[str, ...]
    """Paths and file names typed in it."""
    frames: tuple[tuple[str, int], ...]
    """(path, line) of each frame of a traceback, in order."""
    sentence: bool
    """Whether it describes or names a line, rather than half-remembers a name."""
    tests: bool
    """Whether it speaks of tests."""
    prose: bool
    """Whether it asks for documents."""


@lru_cache(maxsize=64)
def read(text: str) -> Asked:
    terms = frozenset(query_terms(text))
    unplaced = _PATH.sub(lambda path: " " if _is_file(path) else path[0], _URL.sub(" ", text))
    quoted = [name for span in _BACKTICKS.findall(unplaced) for name in _NAME.findall(span)]
    coded = [name for name in _NAME.findall(unplaced) if _CODELIKE.search(name)]
    whole = _NAME.fullmatch(unplaced.strip(" `\t\n"))
    if whole and (len(split(whole[0])) > 1 or whole[0].isupper()):
        coded.append(whole[0])  # spec2argparse, DEBUG
    names = frozenset(joined for name in (*quoted, *coded) if len(joined := _joined(name)) > 2)
    written = [tuple(filter(None, found.groups())) for found in islice(_FRAME.finditer(text), MOST_PLACES)]
    frames = tuple((path, int(line)) for path, line in written)
    words = text.split()
    beginnings: dict[str, tuple[str, ...]] = {}
    for term in terms:
        beginnings[term[:3]] = (*beginnings.get(term[:3], ()), term)
    return Asked(
        terms=terms,
        beginnings=beginnings,
        names=names,
        alone="".join(names) if whole and len(names) == 1 else "",
        paths=tuple(dict.fromkeys(_PATH.findall(text)))[:MOST_PLACES],
        frames=frames,
        sentence=len(words) >= LEAST_WORDS or bool(frames or _QUESTION.search(text)),
        tests=not terms.isdisjoint(_TESTS),
        prose=not terms.isdisjoint(_PROSE),
    )


def _is_file(path: re.Match[str]) -> bool:
    """Whether a path is the name of a file: `config.json`, but not the call `response.json()`."""
    return _EXTENSION.fullmatch(path[0].rpartition(".")[2]) is not None and not path.string.startswith("(", path.end())


def _joined(name: str) -> str:
    """The whole form of the last part of a qualified name: `flush_all` of `Session.flush_all` is `flushall`."""
    last = re.split(r"\.|::|->|#", name)[-1]
    parts = split(last)
    return parts[0] if parts else ""
