"""Lines of source as runs of text with a class each, for a page to colour. Knows neither colours nor HTML.

Classes come from the syntax tree, by the words that grammars have in common for their tokens: `k` keyword, `s` string,
`c` comment, `n` number or constant, `t` type, `d` the name in a definition; `m` is a word that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cache, lru_cache
from itertools import groupby

from embedcode.index import words
from embedcode.index.grammars import GRAMMARS, Leaf, Part, leaves, parse
from embedcode.store.terms import places

Run = tuple[str, str]
"""Text, and its classes separated by a blank."""

LIMIT = 200_000
"""Bytes of a source that is coloured: to parse and walk so much takes 0.1 s."""
COLUMNS = 1_000
"""Characters of a line that are shown; data and generated code have lines of a megabyte."""

_STRINGS = ("string", "str_text", "char", "regex", "heredoc", "escape", "template_content")
_NUMBERS = ("integer", "float", "number", "int_literal", "real_literal")
_CONSTANTS = words("true false null none nil undefined boolean boolean_literal bool_literal null_literal")
_THEMSELVES = words("self this super")


def coloured(
    text: str, language: str, path: str, first: int = 0, end: int | None = None, asked: Set[str] = frozenset()
) -> list[list[Run]]:
    """Rows first..end-1 (0-based) of a whole file as runs; plain where it is too long to parse or has no grammar.

    What stands behind COLUMNS in a line becomes one run of the class `more` that says how much it is.
    """
    lines = text.removesuffix("\n").split("\n")[first:end]
    shown = [line.removesuffix("\r")[:COLUMNS] for line in lines]
    paint = [[""] * len(line) for line in shown]
    source = text.encode("utf-8", "replace")
    grammar = "tsx" if path.endswith(".tsx") else language
    root = _tree(grammar, source) if grammar in GRAMMARS and len(source) <= LIMIT else None
    if root is not None:
        for leaf in leaves(root, first, first + len(lines) - 1):
            if kind := _class(leaf.kind, leaf.within, leaf.named, leaf.defines):
                _spread(leaf, kind, first, shown, paint)
    rows = []
    for line, whole, classes in zip(shown, lines, paint, strict=True):
        for start, stop in places(line, asked) if asked else ():
            classes[start:stop] = [f"{kind} m".lstrip() for kind in classes[start:stop]]
        rows.append(_runs(line, classes))
        if len(whole) > COLUMNS + 1:
            rows[-1].append((f"… {len(whole) - COLUMNS:,} more characters", "more"))
    return rows


@lru_cache(maxsize=32)  # a page asks for the same files again, at every letter that is typed
def _tree(grammar: str, source: bytes) -> Part | None:
    return parse(grammar, source)


@cache
def _class(kind: str, within: str, named: bool, defines: bool) -> str:
    if "comment" in kind or kind == "marginalia":
        return "c"
    if defines:
        return "d"
    if within.endswith("type") and kind[0].isalpha():
        return "t"
    if not named and kind.lstrip("#").replace("_", "").isalpha():
        return "k"
    if any(word in kind for word in _STRINGS) or any(word in within for word in _STRINGS):
        return "s"
    if any(word in kind for word in _NUMBERS) or kind in _CONSTANTS:
        return "n"
    if kind.startswith("keyword_") or kind.endswith(("modifier", "specifier")) or kind in _THEMSELVES:
        return "k"
    return "t" if kind.endswith(("type", "type_identifier")) else ""


def _spread(leaf: Leaf, kind: str, first: int, shown: Sequence[str], paint: Sequence[list[str]]) -> None:
    """Give a leaf's class to its characters, on each row it covers."""
    for row in range(max(leaf.start[0], first), min(leaf.end[0], first + len(shown) - 1) + 1):
        line, classes = shown[row - first], paint[row - first]
        start = leaf.start[1] if row == leaf.start[0] else 0
        stop = leaf.end[1] if row == leaf.end[0] else None
        if not line.isascii():  # columns are bytes
            raw = line.encode("utf-8", "replace")
            start = len(raw[:start].decode("utf-8", "ignore"))
            stop = None if stop is None else len(raw[:stop].decode("utf-8", "ignore"))
        part = slice(start, stop)
        classes[part] = [kind] * len(classes[part])


def _runs(line: str, classes: Sequence[str]) -> list[Run]:
    runs, start = [], 0
    for kind, group in groupby(classes):
        end = start + len(list(group))
        runs.append((line[start:end], kind))
        start = end
    return runs
