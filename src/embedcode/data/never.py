"""What no training may contain, by name (never.toml) and by the content of functions.

Knows no miner and no training loop: they ask it. A name stops a source before it is fetched; only content counts in
the end, because code is copied, vendored and renamed. Content is compared exactly here, on fingerprints that
formatting and comments do not change; near duplicates are `minhash`'s matter.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from embedcode.types import digest


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that is never trained on, with the names it goes by and the reason."""

    name: str
    kind: Literal["repository", "dataset"]
    group: str
    why: str
    aliases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases, *self.parts)


@dataclass(frozen=True, slots=True)
class Never:
    """All entries, in the order of the file."""

    entries: tuple[Entry, ...]
    _found: dict[str, Entry | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By name: a list of patterns is slow to go through, and millions of pairs have few sources."""

    def find(self, name: str) -> Entry | None:
        """The entry for a repository (`owner/name` or its URL), a package or a data set; None when it is allowed."""
        if name not in self._found:
            wanted = _plain(name)
            matching = (entry for entry in self.entries if any(fnmatchcase(wanted, _plain(one)) for one in entry.names))
            self._found[name] = next(matching, None)
        return self._found[name]

    def first(self, names: Iterable[str]) -> Entry | None:
        """The entry of the first of several names of one thing that has one."""
        return next(filter(None, map(self.find, names)), None)


def text() -> str:
    """never.toml as it is written."""
    return files("embedcode.data").joinpath("never.toml").read_text(encoding="utf-8")


@cache
def load() -> Never:
    """The list that ships with the package; one, with the names it has been asked for."""
    table = tomllib.loads(text())
    return Never(
        (*_entries(table["repositories"], "repository"), *_entries(table["datasets"], "dataset")),
    )


def fingerprint(code: str) -> bytes:
    """16 bytes that two copies of a function share, whatever their formatting, comments and docstrings.

    It is the digest of the tokens: words and numbers, string literals, and single characters of punctuation. Left out
    is what formatters add and remove: white space, line breaks and indentation; comments (`# ...`, `// ...`,
    `/* ... */`, `-- ...`) and docstrings; semicolons, commas before a closing bracket, and parentheses unless they are
    empty. Quotes of any kind are equal, runs of white space in a string are one space, and Python's adjacent strings
    are one. So two functions that differ only in grouping, `a * (b + c)` and `a * b + c`, are taken for copies: to
    block one function too many costs nothing, to miss one spoils a figure. Names count: a function renamed is another.

    No language is asked for, since a copy may be filed under any. Where a line opens a block of Python, `//` is a
    division and a string after a colon a docstring; elsewhere `//` opens a comment. `#` and `--` do so after white
    space only, `#[` never; lines of the C preprocessor go with the comments. A guess that is wrong for a language is
    wrong for both copies. A text of which nothing is left, such as a heading in Markdown, is taken as it is.
    """
    return fingerprint_of(tokens(code))


def tokens(code: str) -> list[str]:
    """What fingerprint() digests; of a text that is nothing but comments its words, or all such texts were copies."""
    python = _is_python(code)
    found: list[str] = []
    depth, last = 0, ""
    for match in (_PYTHON_TOKEN if python else _TOKEN).finditer(code):
        text, kind = match[0], match.lastgroup
        if kind == "comment":
            continue
        if kind == "word":
            found.append(text)
        elif kind == "mark":
            depth += (text in "([{") - (text in ")]}")
            if text in ")]}" and found and found[-1] == ",":
                found.pop()
            if text == ")" and last == "(":
                found.append("()")
            elif text not in "()":
                found.append(text)
        elif found and not (python and depth == 0 and found[-1] == ":"):  # else a docstring
            body = next(filter(None, match.group("double", "single", "string", "back")), "")
            body = _ESCAPED_QUOTE.sub("", _SPACES.sub(" ", body))
            prefix = match["prefix"].lower()
            if python and '"' in found[-1] and not prefix:
                found[-1] += body
            else:
                found.append(f'{prefix}"{body}')
        last = text
    return found or code.split()


def _is_python(code: str) -> bool:
    return bool(_PYTHON_BLOCK.search(code) or (_DEF.search(code) and _COLON.search(code)))


# What lacks its end runs to the end of the line or text, so that hostile text is read once, not once per quote.
_LEXER = r"""
      (?P<comment> /\*(?:.*?\*/|.*) | (?:(?<=\s)|^)(?:\#(?!\[)|--(?=\s))[^\n]*+ %s )
    | (?P<prefix> [rRbBuUfF]{0,2} )
      (?: \"{3}(?P<double>.*?)(?:\"{3}|\Z) | '{3}(?P<single>.*?)(?:'{3}|\Z)
        | (?!(?<=[<&])'\w++(?!'))  # a lifetime in Rust
          (?P<quote>["'])(?P<string>(?:(?!(?P=quote))[^\\\n]|\\.)*+)(?P=quote)?
        | `(?P<back>(?:[^`\\]|\\.)*+)`? )
    | (?P<word> \w++ )
    | (?P<mark> [^\w\s\\;\ufeff] )
"""
_PYTHON_TOKEN = re.compile(_LEXER % "", re.VERBOSE | re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(_LEXER % r"| (?<!:)//[^\n]*+", re.VERBOSE | re.DOTALL | re.MULTILINE)

_PYTHON_BLOCK = re.compile(
    r"^[ \t]*+(?:async[ \t]++)?(?:class|if|elif|else|for|while|with|try|except|finally)\b"
    r"[^\n{;]*:[ \t]*+(?:\#[^\n]*+)?$",
    re.MULTILINE,
)
_DEF = re.compile(r"^[ \t]*+(?:async[ \t]++)?def[ \t]++\w++[ \t]*+[(\[]", re.MULTILINE)
_COLON = re.compile(r":[ \t]*+(?:\#[^\n]*+)?$", re.MULTILINE)

_SPACES = re.compile(r"\s+")
_ESCAPED_QUOTE = re.compile(r"\\(?=[\"'`])")


def fingerprint_of(tokens: Iterable[str]) -> bytes:
    """The fingerprint by what tokens() gave."""
    return digest("\0".join(tokens))


def _entries(groups: dict[str, Any], kind: Literal["repository", "dataset"]) -> Iterator[Entry]:
    for group, table in groups.items():
        for entry in table["entries"]:
            aliases, parts = tuple(entry.get("aliases", ())), tuple(entry.get("parts", ()))
            yield Entry(entry["name"], kind, group, table["why"], aliases, parts)


@cache  # each name is compared with all of the list, which stay the same
def _plain(name: str) -> str:
    """A name without case, separators, and what a clone URL adds to `owner/name`."""
    name = re.sub(r"^(?:git\+)?(?:https?|ssh|git)://(?:[^/@]*@)?[^/]+/|^git@[^:]+:", "", name.strip())
    return re.sub(r"[-_. ]+", "-", name.removesuffix("/").removesuffix(".git").casefold())
