"""Other forms of a query's words: the index holds words as they are written, so a query asks for their forms too.

English only, by suffix: `invalidated` also asks for invalidate, invalidates, invalidating, invalidation. A form that
nobody wrote costs one look-up and finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

FORM_WEIGHT = 0.25
"""Of another form, relative to the word as it was asked."""
MOST_TERMS = 24
"""A query of more terms says enough by itself, and each form costs time."""
LEAST_LETTERS = 4

_SUFFIXES = ("ations", "ation", "ings", "ions", "ing", "ies", "ied", "ers", "ors", "ion", "es", "ed", "er", "or", "s")
_ENDINGS = ("", "s", "es", "ed", "ing", "er", "or", "ion", "ation")


def with_forms(terms: Mapping[str, float]) -> dict[str, float]:
    """The terms with their weights, and other forms of them with less."""
    if len(terms) > MOST_TERMS:
        return dict(terms)
    found = dict(terms)
    for term, weight in terms.items():
        for form in forms(term):
            if form not in terms:
                found[form] = max(found.get(form, 0.0), weight * FORM_WEIGHT)
    return found


@lru_cache(maxsize=4096)
def forms(word: str) -> frozenset[str]:
    """Other forms of a lower-case English word; empty for what does not look like one."""
    if len(word) < LEAST_LETTERS or not (word.isascii() and word.isalpha()):
        return frozenset()
    stems = {word}
    for suffix in _SUFFIXES:
        stem = word.removesuffix(suffix)
        if stem != word and len(stem) >= 3:
            stems.add(stem + "y" if suffix in ("ies", "ied") else stem)
            if stem[-1] == stem[-2] and stem[-1] not in "ls":
                stems.add(stem[:-1])  # stopped, stop
            break
    made: set[str] = set()
    for stem in stems:
        base = stem.removesuffix("e")
        made |= {stem + ending for ending in ("", "s", "es")} | {base + ending for ending in _ENDINGS} | {base + "e"}
        if stem.endswith("y") and stem[-2] not in "aeiou":
            made |= {stem[:-1] + "ies", stem[:-1] + "ied"}
    return frozenset(form for form in made if len(form) >= 3) - {word}
