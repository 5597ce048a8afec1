"""Json: an entry in an object of a JSON text, with comments or without.

take() undoes put() to the byte, because the form of what put() writes says what was there before: a new text is laid
out in full, the outer object and the entry are on one line where both were missing, else the entry alone is a line.
Knows no files and no assistants.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedcode.serve.syntax import Where

_STRING = r'"(?:\\.|[^"\\])*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING}|[\[{{]\s*,)|,(?=\s*[}}\]])", re.DOTALL)
_WHITE = re.compile(r"[ \t\r\n]*")
_BLANK_REST = re.compile(r"[ \t]*(?=(\r?\n))")


class Json:
    def __init__(self, comments: bool = False) -> None:
        """`comments`: comments and trailing commas are allowed, as VS Code writes and reads them."""
        self.comments = comments

    def parse(self, text: str) -> dict[str, Any]:
        """An object, with numbers as they are written; a key that is there twice is refused too."""
        _, plain = self._without_comments(text)
        try:
            value = _DECODER.decode(plain)
        except json.JSONDecodeError as error:
            line = text.count("\n", 0, error.pos) + 1
            raise ValueError(f"line {line}: {error.msg}") from None
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        return value

    def put(self, text: str | None, where: Where, value: Mapping[str, object]) -> str:
        """As the first of its object, so that no neighbour needs another comma."""
        if text is None:
            return _new(where, value)
        bare, plain = self._without_comments(text)
        outer, key = where
        top = _object(plain, plain.index("{"))
        unit = next((_indentation(text, member.start) for member in top.members.values()), "") or "  "
        entry = f"{_line(key)}: {_line(value)}"
        if outer not in top.members:
            return _insert(text, bare, top, f"{_line(outer)}: {{{entry}}}", unit)
        inner = _object(plain, top.members[outer].value)
        if key not in inner.members:
            return _insert(text, bare, inner, entry, unit)
        old = inner.members[key]
        if text == _new(where, _DECODER.decode(plain[old.value : old.end])):
            return _new(where, value)
        return text[: old.value] + _line(value) + text[old.end :]

    def take(self, text: str, where: Where) -> str | None:
        bare, plain = self._without_comments(text)
        outer, key = where
        top = _object(plain, plain.index("{"))
        holder = top.members[outer]
        inner = _object(plain, holder.value)
        entry = inner.members[key]
        if text == _new(where, _DECODER.decode(plain[entry.value : entry.end])):
            return None
        if (entry.start, entry.end) == (inner.start + 1, inner.end):
            return _drop(text, bare, top, holder)
        return _drop(text, bare, inner, entry)

    def _without_comments(self, text: str) -> tuple[str, str]:
        """The text with blanks for comments, and with blanks for trailing commas too: every other place is the same."""
        if not self.comments:
            return text, text
        bare = _COMMENT.sub(lambda found: found[1] or " " * len(found[0]), text)
        return bare, _TRAILING_COMMA.sub(lambda found: found[1] or " ", bare)


@dataclass(frozen=True, slots=True)
class _Member:
    start: int
    value: int
    """Where its value starts."""
    end: int


@dataclass(frozen=True, slots=True)
class _Object:
    start: int
    """The place of its brace."""
    end: int
    """The place of its other brace."""
    members: Mapping[str, _Member]
    """In their order."""


def _object(plain: str, start: int) -> _Object:
    """The object whose brace is at `start` of a valid text."""
    members = {}
    place = _skip(plain, start + 1)
    while plain[place] != "}":
        key, end = _DECODER.raw_decode(plain, place)
        value = _skip(plain, _skip(plain, end) + 1)
        _, end = _DECODER.raw_decode(plain, value)
        members[key] = _Member(place, value, end)
        place = _skip(plain, end)
        if plain[place] == ",":
            place = _skip(plain, place + 1)
    return _Object(start, place, members)


def _insert(text: str, bare: str, place: _Object, member: str, unit: str) -> str:
    after = place.start + 1
    if not place.members:
        if after < place.end:
            return text[:after] + member + text[after:]
        line_end = "\r\n" if "\r\n" in text else "\n"
        margin = line_end + _indentation(text, place.start)
        return text[:after] + margin + unit + member + margin + text[after:]
    rest = _BLANK_REST.match(bare, after)
    if rest is None:
        return text[:after] + member + "," + text[after:]
    first = next(iter(place.members.values()))
    margin = rest[1] + _indentation(text, first.start)
    return text[: rest.end()] + margin + member + "," + text[rest.end() :]


def _drop(text: str, bare: str, place: _Object, member: _Member) -> str:
    """Without the member, the comma that goes with it, and its lines where nothing else stands on them."""
    lead, rest = text[: member.start], text[member.end :]
    comma = _skip(bare, member.end)
    before = bare.rfind(",", place.start, member.start)
    if bare[comma] == ",":
        rest = text[member.end : comma] + text[comma + 1 :]
    elif before >= 0:
        lead = text[:before] + text[before + 1 : member.start]
    margin = lead.rstrip(" \t")
    if margin.endswith("\n") and rest.startswith(("\n", "\r\n")):
        lead = margin.removesuffix("\n").removesuffix("\r")
        if len(lead) == place.start + 1 and rest[_skip(rest, 0)] == "}":
            rest = rest[_skip(rest, 0) :]
    return lead + rest


def _new(where: Where, value: object) -> str:
    outer, key = where
    return json.dumps({outer: {key: value}}, ensure_ascii=False, indent=2) + "\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _indentation(text: str, place: int) -> str:
    """The white space that starts the line of a place."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _skip(text: str, place: int) -> int:
    """The next place that holds no white space."""
    found = _WHITE.match(text, place)
    return found.end() if found else place


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice in one object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


# Numbers stay text: one that no float holds is no reason to refuse a file, and NaN would not equal itself.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=str, parse_int=str, parse_constant=_refuse)
