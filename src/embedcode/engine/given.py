"""Given: what a caller of the library passes, as what it has to be, or one sentence on what it is."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence, Set

from embedcode.errors import UsageError
from embedcode.types import Role, Truncate


def listed(texts: Iterable[str] | Iterable[Sequence[int]]) -> Sequence[str] | Sequence[Sequence[int]]:
    """Texts in an order: UsageError for what has none, and for a lone string, which Python would take for a list of
    letters."""
    if isinstance(texts, str | bytes):
        raise UsageError("texts are given as a list: write encode([text], ...) for a single one.")
    if isinstance(texts, Sequence):
        return texts
    if hasattr(texts, "tolist"):  # arrays, and columns of a table
        return listed(texts.tolist())
    if isinstance(texts, Set | Mapping) or not isinstance(texts, Iterable):
        raise UsageError(f"texts are a {type(texts).__name__}, which has no order: give a list of strings.")
    return list(texts)  # type: ignore[return-value]


def number_of(name: str, value: object) -> int:
    """UsageError for what is no whole number."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} {value!r} is no whole number: give one.") from None


def role_of(given: str) -> Role:
    """UsageError for what is none."""
    try:
        return Role(given)
    except ValueError:
        raise UsageError(f"role {given!r} is none of {', '.join(Role)}.") from None


def truncate_of(given: str) -> Truncate:
    """UsageError for what is none."""
    try:
        return Truncate(given)  # a plain string is equal to a member and is not one
    except ValueError:
        raise UsageError(f"truncate {given!r} is none of {', '.join(Truncate)}.") from None


def spans_of(given: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """(first, last + 1) of each part of a text, in characters; UsageError for what is none."""
    found = []
    try:
        for number, span in enumerate(given):
            start, end = (number_of(f"span {number} has {span!r}, of which", place) for place in span)
            if start < 0:
                raise UsageError(f"span {number} is {start}:{end}: count its characters from the beginning.")
            found.append((start, end))
    except (TypeError, ValueError):
        raise UsageError("spans are pairs: give (first, last + 1) of each part, in characters.") from None
    return found
