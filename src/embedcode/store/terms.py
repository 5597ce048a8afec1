"""Text to lexical terms: the one tokenizer of the index, of queries and of the BM25 baseline, and what it is not given.

Knows no field, no weight of a field and no store. Both sides of lexical search call `split`, so a store needs only
a plain whitespace tokenizer. There is no stemming here: the index must hold what is written, and a ranker that wants
stems or synonyms adds them on its own side.

A word is split at changes of case, at digits and at `_` and `-`, and its whole form, without separators, is a term
too: `getUserName`, `get_user_name` and `get-user-name` all give `getusername get user name`. One-character parts of a
split word are left out (`x` of `get_x`), because they match nearly every file.
"""

from __future__ import annotations

import re
from collections.abc import Set
from functools import lru_cache
from math import log
from unicodedata import normalize

MAX_TERM = 64
"""Characters kept of a term: longer ones are data, and their beginning is enough to find them."""

MAX_WORD = 256
"""Characters read of a word: a minified or base64 line is one word and must not give thousands of terms."""

# Starts only where no such character is before, so that every character is read once.
_DATA = re.compile(r"(?<![A-Za-z0-9+/=\\])[A-Za-z0-9+/=\\]{512,}+")

NAME_WEIGHT = 1.5
"""Weight in a query of what its author wrote as a name: whole identifiers, and anything in backticks."""

# `\w` lacks combining marks, without which decomposed accents and Indic, Thai or Tibetan words fall apart.
# A hyphen joins only words of two or more characters that go on with a letter: `dry-run`, but not `n-1` or `a-b`.
# The quantifiers are possessive, so every character is read once.
_W = r"[\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u109f]"
_WORD = re.compile(rf"{_W}{{2,}}+(?:-[^\W\d_]{_W}++)*+|\w")

# The same for ASCII text, which `re` reads 1.5 times as fast with plain classes.
_ASCII_WORD = re.compile(r"\w{2,}+(?:-[^\W\d_]\w++)*+|\w", re.ASCII)

# An acronym, with its plural s, ends before the capital of the next word: HTTPServer, userIDs.
_PART = re.compile(r"[A-Z]++s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]++|[0-9]++")

# Chinese, Japanese and Korean write without spaces; they are cut into overlapping pairs, as Lucene's CJK analyzer does.
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003134f]++)")

_BACKTICKS = re.compile(r"`([^`\n]{1,200}+)`")

STOP_WORDS = frozenset(
    _WORD.findall(
        "a about am an and are aren't as at be been being but by can could couldn't did didn't do does doesn't doing "
        "don't for from had has have having he her here him his how i if in into is isn't it its just like may me "
        "might must my of on or our shall she should so some such than that the their them then there these they this "
        "those to us very was wasn't we we'll we're we've were what when where which while who whom whose why will "
        "with would wouldn't you your"
    )
)


def searchable(text: str) -> str:
    """What of a chunk's text is worth terms and a vector: all but long unbroken data (base64 images, keys).

    A notebook's outputs are chunks like any other, because each of their lines is a line of the file; their images
    end here.
    """
    return _DATA.sub("", text)


def split(text: str) -> list[str]:
    """The terms of a text in order, with repeats; each is casefolded and at most MAX_TERM characters long."""
    terms: list[str] = []
    for word in _words(text):
        terms += _terms(word[:MAX_WORD])
    return terms


def is_word(text: str) -> bool:
    """Whether the first term of a text is its whole form: it is one word, of a script that writes words apart."""
    words = _words(text)
    return len(words) == 1 and not _CJK.search(words[0])


def places(text: str, terms: Set[str]) -> list[tuple[int, int]]:
    """Where in a text its words, or parts of its names, are among `terms`: (start, end) in order."""
    found: list[tuple[int, int]] = []
    for match in (_ASCII_WORD if text.isascii() else _WORD).finditer(text):
        word = match[0][:MAX_WORD]
        held = [term in terms for term in _terms(word)]
        if any(held[:1]) or (any(held) and not word.isascii()):
            found.append(match.span())
        elif any(held):
            parts = (part.span() for part in _PART.finditer(word) if part[0].casefold() in terms)
            found += [(match.start() + start, match.start() + end) for start, end in parts]
    return found


def joined(text: str) -> str:
    """`split`, joined by blanks: what a plain whitespace tokenizer indexes. Twice as fast as splitting and joining."""
    runs = text.translate(_RUNS).split() if text.isascii() else _WORD.findall(text)
    return " ".join(map(_JOINED.__getitem__, runs))


def query_terms(text: str, limit: int = 256) -> dict[str, float]:
    """The distinct terms of a query with their weights, at most `limit` of them.

    English function and question words are dropped, unless they are in backticks or nothing else remains. A term seen
    n times weighs 1 + ln n, times NAME_WEIGHT where it was written as a name. Of a text with more terms, the first
    half of the places goes to those that come first (a title, a first paragraph), the rest to the heaviest of what
    follows, then the longest; bare numbers (line numbers, addresses) come last.
    """
    quoted = {term for span in _BACKTICKS.findall(text) for term in split(span)}
    counts: dict[str, int] = {}
    names = set(quoted)
    for word in _words(text):
        terms = _terms(word[:MAX_WORD])
        if len(terms) > 1:
            names.add(terms[0])
        for term in terms:
            counts[term] = counts.get(term, 0) + 1
    kept = [term for term in counts if term not in STOP_WORDS or term in quoted] or list(counts)
    weights = {term: (1 + log(counts[term])) * (NAME_WEIGHT if term in names else 1) for term in kept}
    first = kept[: (limit + 1) // 2]
    rest = sorted(kept[len(first) :], key=lambda term: (term.isdigit(), -weights[term], -len(term)))
    return {term: weights[term] for term in first + rest[: limit - len(first)]}


def _words(text: str) -> list[str]:
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


class _Joined(dict[str, str]):
    """The joined terms of each run of word characters and hyphens; a repository repeats its words a hundred times."""

    def __missing__(self, run: str) -> str:
        if len(self) >= 1 << 18:
            self.clear()
        plain = run.islower() and run.isalpha() and run.isascii() and len(run) <= MAX_TERM
        value = run if plain else " ".join(split(run))
        if len(run) <= MAX_WORD:
            self[run] = value
        return value


_JOINED = _Joined()

# No word reaches over any other character, so the words of a text are those of its runs; `translate` and `split`
# find the runs five times as fast as `re`.
_RUNS = {i: " " for i in range(128) if not (chr(i).isalnum() or chr(i) in "_-")}


@lru_cache(maxsize=1 << 15)
def _terms(word: str) -> tuple[str, ...]:
    if word.isascii():
        return _name(word, word)
    word = normalize("NFKC", word)
    terms: list[str] = []
    for i, run in enumerate(_CJK.split(word)):
        if i % 2:
            terms += [run[j : j + 2] for j in range(max(1, len(run) - 1))]
        elif run:
            terms += _name(run, "".join(map(_ascii_class, run)))
    return tuple(terms)


def _name(word: str, shape: str) -> tuple[str, ...]:
    """The whole form and the parts of a word whose characters' classes are those of `shape`, an ASCII string."""
    parts = [word[slice(*match.span())].casefold() for match in _PART.finditer(shape)]
    whole = "".join(parts)[:MAX_TERM]
    if len(parts) < 2:
        return (whole,) if whole else ()
    return (whole, *(part[:MAX_TERM] for part in parts if len(part) > 1))


def _ascii_class(char: str) -> str:
    if char.isascii():
        return char
    return "-" if char.isspace() else "A" if char.isupper() else "0" if char.isnumeric() else "a"
