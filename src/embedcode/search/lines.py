"""What the lines of a chunk say beside its symbol: whether they hold a name, define it, or only pass names on.

Names are joined lower-case forms, as `terms.split` gives them first. Knows no query and no scores.
"""

from __future__ import annotations

import re
from functools import lru_cache

_REACH = 200
"""Characters read around a name on its line."""
# What stands before a name on the line that gives it its value: modifiers and a type.
_WORDS = r"(?:\w[\w$.<>\[\],*&:?]*[ \t]+[*&]*){0,5}"
_BEFORE = re.compile(rf"[ \t]*{_WORDS}|(?:module\.)?exports\.")
_MACRO = re.compile(r"[ \t]*#[ \t]*define[ \t]+|.*\bdefine\([ \t]*[\"']")
_KEY = re.compile(r"(?:.*[{,])?[ \t]*(?:-[ \t]+|(?:export|ENV|ARG)[ \t]+|set\()?[\"']?")
_ENUM = re.compile(r"\benum\b[^;{}]*\Z")
# And what stands behind it.
_VALUE = re.compile(r"(?:\[[^\]]*\])*(?:[ \t]*:(?![:=])[^=]*|[ \t]*)[:?]?=(?![=>])")
_KEY_VALUE = re.compile(r"[\"']?[ \t]*[:=]")
_MEMBER_END = re.compile(r"\s*(?:[=,}(]|$)")
_KEYED = frozenset(
    {"json", "yaml", "toml", "ini", "properties", "dockerfile", "makefile", "cmake", "just", "terraform", "bash"}
)
"""Languages in which a key at the start of a line is a definition, however far it is indented."""

_DOC = re.compile(r"(\"\"\"|''').*?(?:\1|\Z)", re.DOTALL)
_PASSED = re.compile(
    r"(?:from|import|package|require|(?:pub(?:\([^)]*\))?\s+)?(?:use|mod|extern))\b"
    r"|export\s*(?:type\s*)?[*{]|export\s+(?:default\s+[\w.]+;?$|import\b|=)"
    r"|__all__\b|module\.exports\b|(?:const|let|var)\s[\w{} ,:]+=\s*require\("
    r"|try:|except\b|if (?:typing\.)?TYPE_CHECKING:"
    r"|[\"']?[\w.:*]+[\"']?(?:\s+as\s+\w+)?,?$|[\w\"' ]+(?:,[\w\"' ]+)*,$"  # what is named in brackets
    r"|[()\[\]{},;\s]+(?:from\s+[\"'].*)?$"
)


@lru_cache(maxsize=1 << 10)
def holds(text: str, name: str) -> bool:
    """Whether a name stands in a text by itself, in any style."""
    return _held(name).search(text) is not None


@lru_cache(maxsize=1 << 10)
def defines(text: str, name: str, language: str, within: bool) -> bool:
    """Whether a name gets its value here: a constant, a macro, a key, a member of an enumeration. `within` a function
    or a class only a capitalised one does, for others are local, or arguments."""
    for found in _held(name).finditer(text):
        start = text.rfind("\n", 0, found.start()) + 1
        if found.start() - start > _REACH:
            continue
        before = text[start : found.start()]
        behind = text[found.end() : found.end() + _REACH].partition("\n")[0]
        if _MACRO.fullmatch(before) or _is_member(text[: found.start()], behind):
            return True
        if language in _KEYED and _KEY.fullmatch(before) and _KEY_VALUE.match(behind):
            return True
        if _BEFORE.fullmatch(before) and _VALUE.match(behind):
            local = within and not found[0].lstrip("_$")[0].isupper()
            # Without a blank before the sign it is an argument: `f(\n    NAME=1)`.
            if not before[:1].isspace() or not (local or behind.startswith("=")):
                return True
    return False


def _is_member(before: str, behind: str) -> bool:
    head, brace, members = before.rpartition("}")[2].rpartition("{")
    return (
        brace != ""
        and _ENUM.search(head[-_REACH:]) is not None
        and (members.rstrip().endswith(",") or not members.rpartition("\n")[2].strip())
        and _MEMBER_END.match(behind) is not None
    )


def passes_on(text: str, wholly: bool) -> bool:
    """Whether at least half of the lines that are no comment, or `wholly` all, name what is defined elsewhere."""
    lines = [line for line in map(str.strip, _DOC.sub("", text).split("\n")) if line]
    code = [line for line in lines if not line.startswith(("#", "//", "/*", "*"))]
    passed = sum(_PASSED.match(line) is not None for line in code)
    return passed == len(code) if wholly else 2 * passed >= len(code)


@lru_cache(maxsize=64)
def _held(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w$])[_$]*(?i:{'[_-]?'.join(map(re.escape, name))})_*(?!\w)")
