"""Whether a file is within a Filter. Knows no store: both resolve a filter to files by this one function."""

from __future__ import annotations

import re
from functools import lru_cache

from embedcode.types import File, Filter

_DIALECTS = {"typescript": frozenset({"typescript", "tsx"})}
"""Languages whose name also means those a user would not think to name apart."""


def matches(where: Filter, file: File) -> bool:
    """Fields are joined by AND, the values of one field by OR; an empty field does not limit.

    Paths and repositories are compared with case, languages without.
    """
    return (
        (where.only is None or file.path in where.only)
        and (not where.content or file.content in where.content)
        and (not where.repos or file.repo in where.repos)
        and (not where.languages or any(_speaks(file.language, name) for name in where.languages))
        and (not where.paths or any(_under(file.path, glob) for glob in where.paths))
    )


def _speaks(language: str, name: str) -> bool:
    name = name.strip().lower()
    return language.lower() in _DIALECTS.get(name, (name,))


def _under(path: str, glob: str) -> bool:
    plain, pattern = _compile(glob)
    # The plain comparison comes first: folders may be called `[id]`.
    return not plain or path == plain or path.startswith(plain + "/") or pattern.fullmatch(path) is not None


@lru_cache(maxsize=256)
def _compile(glob: str) -> tuple[str, re.Pattern[str]]:
    """A glob as a plain path ("" is the root) and as a regular expression.

    `*` and `?` stay in a folder and `**` crosses folders. A glob without a slash, such as `*.py`, matches at any depth,
    as in .gitignore. One that ends in a plain name (`src`, `**/tests`) also means all below it.
    """
    anchored = glob.startswith(("/", "./"))
    plain = glob.removeprefix("./").strip("/")
    plain = "" if plain == "." else plain
    wild = re.compile(r"[*?\[]")
    source = plain
    if wild.search(plain) and "/" not in plain and not anchored:
        source = "**/" + plain
    below = "" if wild.search(plain.rpartition("/")[2]) and not glob.endswith("/") else "(?:/.*)?"
    try:
        return plain, re.compile(_translate(source) + below, re.DOTALL)
    except re.error:  # a class such as [z-a]
        return plain, re.compile(re.escape(plain))


def _translate(glob: str) -> str:
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", glob, re.DOTALL)
    return "".join(map(_piece, parts))


def _piece(part: str) -> str:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if part in known:
        return known[part]
    if len(part) > 1:  # a class; a lone "[" is an ordinary character
        negated = part[1] in "!^"
        inner = part[1 + negated : -1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)
