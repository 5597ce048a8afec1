"""Where the sections of Markdown, reStructuredText and AsciiDoc begin, and their heading paths. Knows no chunks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_MAX_TITLE = 80  # characters of one heading within a path
_MAX_LINE = 300  # characters of a line that can make it a heading; the patterns are quadratic in it

_FENCE = re.compile(r" {0,3}((?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(`{3,}|~{3,})(.*)")
"""It may open right behind the marks of a list."""
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?\s*$")
_SETEXT = re.compile(r" {0,3}(=+|--+)\s*$")
_PARAGRAPH = re.compile(r" {0,3}(?![-*+>|#=`~<\s]|\d+[.)])")
_RST_LINE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*$")
_ADOC_BLOCK = re.compile(r"(-{4,}|\.{4,}|={4,}|/{4,}|\+{4,}|_{4,}|`{3,})")
_ADOC_HEADING = re.compile(r"(={1,6})\s+(\S.*)$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")

Heading = tuple[int, int, str]
"""Row, level (1 is the top), title."""


def sections(lines: list[str], kind: str) -> list[tuple[int, str]]:
    """(row, heading path such as "Install > Linux") of every section, in order; `kind` is a key of READERS."""
    found: list[tuple[int, str]] = []
    path: list[tuple[int, str]] = []
    for row, level, title in READERS[kind]([line[:_MAX_LINE] for line in lines]):
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, " ".join(_LINK.sub(r"\1", title).replace("`", "").split())[:_MAX_TITLE]))
        found.append((row, " > ".join(name for _, name in path if name)))
    return found


def _markdown(lines: list[str]) -> Iterator[Heading]:
    fence, inside = "", 0
    start = _after_front_matter(lines)
    for row in range(start, len(lines)):
        line = lines[row]
        mark = _FENCE.match(line)
        if fence:
            end, indent = line.strip(), len(line) - len(line.lstrip())
            if indent <= inside + 3 and end.startswith(fence) and not end.strip(fence[0]):
                fence = ""
        elif mark and not (mark[2][0] == "`" and "`" in mark[3]):
            fence, inside = mark[2], mark.start(2) if mark[1] else 0  # what is in a list is indented as far as its text
        elif atx := _ATX.match(line):
            yield row, len(atx[1]), atx[2] or ""
        elif (
            row > start
            and (under := _SETEXT.match(line))
            and _PARAGRAPH.match(lines[row - 1])
            and lines[row - 1].strip()
            and (row - 1 == start or not lines[row - 2].strip())
        ):
            yield row - 1, 1 if under[1][0] == "=" else 2, lines[row - 1]


def _after_front_matter(lines: list[str]) -> int:
    if lines and lines[0].rstrip() == "---":
        for row, line in enumerate(lines[1:], 1):
            if line.rstrip() in ("---", "..."):
                return row + 1
    return 0


def _restructuredtext(lines: list[str]) -> Iterator[Heading]:
    levels: dict[tuple[str, bool], int] = {}
    for row in range(1, len(lines)):
        under, title = _RST_LINE.match(lines[row]), lines[row - 1]
        if not under or not title.strip() or len(lines[row].rstrip()) < len(title.strip()) or _RST_LINE.match(title):
            continue
        above = lines[row - 2].rstrip() if row > 1 else ""
        over = above == lines[row].rstrip()
        if over or (not above and not title[0].isspace()):
            style = (under[1], over)
            yield row - 1 - over, levels.setdefault(style, len(levels) + 1), title


def _asciidoc(lines: list[str]) -> Iterator[Heading]:
    block = ""
    for row, line in enumerate(lines):
        mark = _ADOC_BLOCK.match(line)
        if block:
            block = "" if line.rstrip() == block else block
        elif mark and line.rstrip() == mark[1]:
            block = mark[1]
        elif heading := _ADOC_HEADING.match(line):
            yield row, len(heading[1]), heading[2]


READERS: dict[str, Callable[[list[str]], Iterator[Heading]]] = {
    "markdown": _markdown,
    "restructuredtext": _restructuredtext,
    "asciidoc": _asciidoc,
}
"""By language name."""
