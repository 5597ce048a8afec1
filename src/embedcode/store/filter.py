"""Whether a file is within a Filter. Knows no store: both resolve a filter to files by this one function."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from embedcode.types import File, Filter

_ALTERNATIVES = re.compile(r"\{[^{}]*,[^{}]*\}")
_ACROSS = {"": "(?:)", "**": ".*", "**/": "(?:[^/]*/)*"}
"""What crosses folders, as a regex that `?` makes lazy."""


def matches(where: Filter, file: File) -> bool:
    """Fields are joined by AND, the values of one field by OR; an empty field does not limit.

    Paths and repositories are compared with case, languages without.
    """
    return (
        (where.only is None or file.path in where.only)
        and (not where.content or file.content in where.content)
        and (not where.repos or file.repo in where.repos)
        and (not where.languages or any(file.language.lower() == name.strip().lower() for name in where.languages))
        and (not where.paths or any(_under(file.path, glob) for glob in where.paths))
    )


def from_top(root: str, where: Filter) -> Filter:
    """The filter with globs that are absolute paths in `root` read from there, as hits outside of it are printed."""
    within = (f"{glob}/".startswith(f"{root}/") for glob in where.paths)
    paths = ((glob.removeprefix(root) or "/") if at else glob for glob, at in zip(where.paths, within, strict=True))
    return replace(where, paths=tuple(paths))


def unsupported(glob: str) -> str:
    """What a glob asks for that there is not, and what to give instead, as the end of a sentence; "" for nothing.

    Braces without a comma are names, as of templates: `{{cookiecutter.name}}`.
    """
    if glob.startswith("!"):
        return "excludes nothing: give what is to be searched, or leave files out in .embedcodeignore."
    if _ALTERNATIVES.search(glob):
        return "has braces, which stand for themselves: give a path for each of the alternatives."
    return ""


def also_from(folder: str, where: Filter) -> Filter:
    """The filter with its globs read from a folder of the repository, too, as somebody there writes them; but those
    that begin with a slash."""
    if not folder:
        return where
    plain = re.sub(r"([*?\[])", r"[\1]", folder)
    here = (f"{plain}/{glob.removeprefix('./')}" for glob in where.paths if not glob.startswith("/"))
    return replace(where, paths=(*where.paths, *here))


def _under(path: str, glob: str) -> bool:
    plain, anchored, pattern = _compile(glob)
    # The plain comparison comes first: folders may be called `[id]`.
    place = f"/{path}/".find(f"/{plain}/")
    return not plain or place == 0 or (place > 0 and not anchored) or pattern.fullmatch(path) is not None


@lru_cache(maxsize=512)
def _compile(glob: str) -> tuple[str, bool, re.Pattern[str]]:
    """A glob as a plain path ("" is the root), whether it starts at the root, and as a regular expression.

    `*` and `?` stay in a folder and `**` crosses folders. As in .gitignore, a glob without a slash inside it (`*.py`,
    `setup.py`, `src/`) matches at any depth, and a leading slash keeps it at the root. One that ends in a plain name
    (`src`, `**/tests`) also means all below it.
    """
    plain = glob.removeprefix("./").strip("/")
    plain = "" if plain == "." else plain
    anchored = "/" in plain or glob.startswith(("/", "./"))
    wild = re.compile(r"[*?\[]")
    source = plain if anchored else "**/" + plain
    below = "" if wild.search(plain.rpartition("/")[2]) and not glob.endswith("/") else "(?:/.*)?"
    try:
        return plain, anchored, re.compile(_translate(source) + below, re.DOTALL)
    except re.error:  # a class such as [z-a]
        return plain, anchored, re.compile(re.escape(plain))


def _translate(glob: str) -> str:
    """A regex for a glob. Atomic groups keep a hostile one (`*a*a*a*b`) from backtracking: the leftmost match of what
    follows a wildcard is always good enough, but for the last `*` and the last `**`."""
    blocks: list[tuple[str, list[str]]] = [("", [""])]  # by the "**" before each; in them, what is between the "*"
    for part in re.findall(r"(?<![^/])\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", glob, re.DOTALL):
        across, fixed = blocks[-1]
        if part == "*":
            fixed.append("")
        elif part not in _ACROSS:
            fixed[-1] += _piece(part)
        elif across and fixed == [""]:  # `**/**` says no more than the wider of the two
            blocks[-1] = (min(across, part), fixed)
        else:
            blocks.append((part, [""]))
    *before, (across, fixed) = blocks
    last = f"[^/]*{fixed.pop()}" if len(fixed) > 1 else ""
    return "".join(f"(?>{_ACROSS[kind]}?{_block(parts)})" for kind, parts in before) + (
        _ACROSS[across] + _block(fixed) + last
    )


def _block(fixed: list[str]) -> str:
    return fixed[0] + "".join(f"(?>[^/]*?{part})" for part in fixed[1:])


def _piece(part: str) -> str:
    if part == "?":
        return "[^/]"
    if len(part) > 1:  # a class; a lone "[" is an ordinary character
        negated = part[1] in "!^"
        inner = part[1 + negated : -1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)
