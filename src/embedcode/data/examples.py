"""Examples: what documentation says that code does, paired with the block of code below it.

Docstrings are statements; headings and the sentences before a block are nearer to what people ask ("Read a file in
chunks"). Markdown, reStructuredText, AsciiDoc and notebooks are read, and the description in a wheel. Extraction of one
file is pure, as docstrings.py has it. Knows nothing of where files are from and of their licences.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

from embedcode.data import comments
from embedcode.data.docstrings import Extracted, File, guarded
from embedcode.data.never import fingerprint
from embedcode.index.headings import READERS, sections
from embedcode.index.languages import Language, language_of, of_name
from embedcode.types import Pair

TASK = "example"
LONGEST_CODE = 4_000
"""Characters: what is longer shows more than its heading says."""
SHORTEST_CODE = 40
SHORTEST_COMMAND = 15
FEWEST_LINES = 2
MOST_OF_A_FILE = 200
"""A page of more is a list, made by a program."""

NO_LANGUAGE = "block of no known language"
SHORT_CODE = "block too short"
LONG_CODE = "block too long"
INSTALLS = "installation"
ELSEWHERE = "block of another file"
UNSAID = "nothing said of a block"

_NOTEBOOK, _WHEEL = "jupyter", "a wheel's metadata"
_METADATA = re.compile(r"(?:^|/)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)")
_CONTENT_TYPE = re.compile(r"^Description-Content-Type:\s*([\w/-]+)", re.IGNORECASE | re.MULTILINE)
_CHANGES = re.compile(r"(?i)(?:^|/)(?:change|news|history|release|upgrad|migrat)[^/]*$")
_FENCE = re.compile(r"\s*(?P<mark>`{3,}|~{3,})\s*\{?\.?(?P<language>[\w+#.-]*)")
_DIRECTIVE = re.compile(
    r"(?P<indent>\s*)\.\. (?:code-block|code|sourcecode|ipython|testcode)::\s*(?P<language>[\w+#-]*)\s*$"
)
_LITERAL = re.compile(r"(?P<indent>\s*)(?!\.\. ).*::\s*$")
_HIGHLIGHT = re.compile(r"\.\. highlight::\s*(?P<language>[\w+#-]+)")
_SOURCE = re.compile(r"\[(?:source[\w%.#]*)?\s*,\s*(?P<language>[\w+#-]+)[^\]]*\]\s*$")
_ADOC_MARK = re.compile(r"(-{4,}|\.{4,})\s*$")
_OPTION = re.compile(r"\s*:[\w-]+:")
_PROMPT = re.compile(r">>>(?: |$)|\.\.\.(?: |$)|In \[\d*\]: ?| {3}\.{3,}: ?")
_SHELL_PROMPT = re.compile(r"(?:[$%]|\w+@\w+[:~ ]\S*[$#]) (?=\S)")
_INSTALL = re.compile(
    r"^(?:sudo |python3? -m |!|%)*(?:pip3?|pipx|uv|npm|npx|yarn|pnpm|bun|conda|mamba|brew|apt(?:-get)?|dnf|yum|pacman"
    r"|cargo|gem|go|composer|dotnet|poetry|git|cd|mkdir|make|docker|source|export|virtualenv|\./configure)\b"
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*\[(\"'])")
_ANCHOR = re.compile(r"\s*\{#[\w-]+\}")
_ABOVE = re.compile(
    r"(?i)(?:this|that|these|those|they|it|its|here|there|instead|the (?:above|output|result|previous|former|latter)"
    r"|(?:it|you) (?:will|should|may) |and |but |or )\b"
)
"""How a sentence begins that says nothing without those before it."""
_LEAD = re.compile(
    r"(?i)^(?:for (?:example|instance)|e\.g\.|now|then|next|first(?:ly)?|second(?:ly)?|finally|so|also|and|thus|here"
    r"|alternatively|again|after that)\s*,\s*"
)
_POINTER = re.compile(
    r"(?i)(?:\s*[,;-]?\s*(?:(?:see|as in|like in|with|by|use|run|try|do|write) )?(?:the )?"
    r"(?:following|below|like this|like so|as follows|as such|for example|for instance|e\.g\.)"
    r"(?: (?:code|example|snippet|way|command)s?)?\s*)[:.]*$"
)
_NO_PROSE = (".. ", "```", "~~~", "|", "<", "[[", "==", "{")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class _Block:
    row: int
    """Where it begins; the text above ends there."""
    language: str
    code: str


def kind(path: str) -> str | None:
    """The markup of a file of documentation that examples can be read from, by its name; None for others."""
    if is_description(path):
        return _WHEEL
    known = language_of(path)
    if known is None or _CHANGES.search(path):
        return None
    return known.name if known.name in READERS or known.name == _NOTEBOOK else None


def is_description(path: str) -> bool:
    """Whether a file holds what a package of PyPI says of itself: its readme, as a rule."""
    return _METADATA.fullmatch(path) is not None


def extract(file: File) -> Extracted:
    """The examples of one file; never raises."""
    return guarded(_extract, file)


def _extract(file: File) -> Extracted:
    result = Extracted()
    markup, text = kind(file.path), file.text
    if markup == _NOTEBOOK:
        markup, text = "markdown", _notebook(text)
    elif markup == _WHEEL:
        markup, text = _description(text)
    if markup is None:
        return result
    lines = text.expandtabs(4).split("\n")
    headings = sections(lines, markup)
    rows = [row for row, _ in headings]
    titled = -1  # the section whose title a block has been paired with
    last = 0
    for block in _BLOCKS[markup](lines):
        section = bisect_right(rows, block.row) - 1
        above = lines[max(last, rows[section] + 1 if section >= 0 else 0) : block.row]
        last = block.row + 1
        known = _language(block)
        code = _unprompted(block.code, known)
        why = _refused(known, code)
        if why is None and known is not None:
            said, title = _sentence(above, markup), ""
            if not said and section >= 0 and section != titled:
                said = title = _title(headings[section][1])
            why = UNSAID if not said else comments.reason(said)
        if why is not None or known is None:
            result.refused[why or NO_LANGUAGE] += 1
            continue
        if title:
            titled = section
        result.prints.append(fingerprint(code))
        result.pairs.append(Pair(said, (code,), (), TASK, known.name, file.source))
        if len(result.pairs) == MOST_OF_A_FILE:
            break
    return result


# ---- what is said of a block -------------------------------------------------------------------------------------


def _title(path: str) -> str:
    title = path.rpartition(" > ")[2]
    return comments.query(_ANCHOR.sub("", re.sub(r"^[\d.]+\s+", "", title))).rstrip(":")


def _sentence(lines: list[str], markup: str) -> str:
    """The sentence that ends above a block with a colon, since it is said of the block then; else ""."""
    end = len(lines)
    while end and (not lines[end - 1].strip() or (markup == "asciidoc" and lines[end - 1].startswith(("[", ".")))):
        end -= 1
    if not end or not lines[end - 1].rstrip().endswith(":"):
        return ""
    start = end
    while start and lines[start - 1].strip() and not lines[start - 1].lstrip().startswith(_NO_PROSE):
        start -= 1
        if _ITEM.match(lines[start]):
            break
    paragraph = _ITEM.sub("", " ".join(line.strip() for line in lines[start:end]))
    said = _SENTENCES.split(comments.query(paragraph))[-1]
    said = _POINTER.sub("", _LEAD.sub("", said)).strip(" :,;")
    return "" if _ABOVE.match(said) else said[:1].upper() + said[1:]


# ---- blocks ------------------------------------------------------------------------------------------------------


def _markdown(lines: list[str]) -> Iterator[_Block]:
    row = 0
    while row < len(lines):
        fence = _FENCE.match(lines[row])
        if fence is None:
            row += 1
            continue
        end = row + 1
        while end < len(lines) and not (
            (closing := lines[end].strip()).startswith(fence["mark"]) and not closing.strip(fence["mark"][0])
        ):
            end += 1
        yield _Block(row, fence["language"], dedent("\n".join(lines[row + 1 : end])))
        row = end + 1


def _restructuredtext(lines: list[str]) -> Iterator[_Block]:
    highlighted = ""
    row = 0
    while row < len(lines):
        line = lines[row]
        if found := _HIGHLIGHT.match(line):
            highlighted = found["language"]
        elif found := _DIRECTIVE.match(line) or _LITERAL.match(line):
            language = found.groupdict().get("language") or highlighted
            begin = row + 1
            while begin < len(lines) and (not lines[begin].strip() or _OPTION.match(lines[begin])):
                begin += 1
            end = _indented(lines, begin, len(found["indent"]))
            # the line with two colons is what is said of the block
            yield _Block(row + (".. " not in line), language, dedent("\n".join(lines[begin:end])))
            row = max(row + 1, end)
            continue
        elif line.lstrip().startswith(">>> "):
            end = row
            while end < len(lines) and lines[end].strip():
                end += 1
            yield _Block(row, "python", dedent("\n".join(lines[row:end])))
            row = end
            continue
        row += 1


def _indented(lines: list[str], begin: int, indent: int) -> int:
    end = begin
    for row in range(begin, len(lines)):
        if lines[row].strip():
            if len(lines[row]) - len(lines[row].lstrip()) <= indent:
                break
            end = row + 1
    return end


def _asciidoc(lines: list[str]) -> Iterator[_Block]:
    row = 0
    while row + 1 < len(lines):
        source, mark = _SOURCE.match(lines[row]), _ADOC_MARK.match(lines[row + 1])
        if source and mark:
            end = row + 2
            while end < len(lines) and lines[end].rstrip() != mark[1]:
                end += 1
            yield _Block(row, source["language"], "\n".join(lines[row + 2 : end]))
            row = end
        row += 1


_BLOCKS = {"markdown": _markdown, "restructuredtext": _restructuredtext, "asciidoc": _asciidoc}


def _notebook(text: str) -> str:
    """A notebook as Markdown, each cell of code fenced."""
    held = json.loads(text)
    language = held.get("metadata", {}).get("kernelspec", {}).get("language") or "python"
    parts = []
    for cell in held.get("cells", []):
        source = cell.get("source") or ""
        source = source if isinstance(source, str) else "".join(source)
        if cell.get("cell_type") == "markdown":
            parts.append(source)
        elif cell.get("cell_type") == "code" and "`````" not in source:
            parts.append(f"`````{language}\n{source}\n`````")
    return "\n\n".join(parts)


def _description(text: str) -> tuple[str | None, str]:
    """Markup and text of a description, which stands below the fields and is reStructuredText unless they say other."""
    fields, _, body = text.partition("\n\n")
    said = _CONTENT_TYPE.search(fields)
    kinds = {"text/markdown": "markdown", "text/x-rst": "restructuredtext"}
    return kinds.get(said[1].lower()) if said else "restructuredtext", body


# ---- the code of a block -----------------------------------------------------------------------------------------


_OTHER_NAMES = {
    "console": "bash", "shell-session": "bash", "pycon": "python", "ipython": "python", "ipython3": "python",
}  # fmt: skip


def _language(block: _Block) -> Language | None:
    if block.code.startswith(">>> "):
        return of_name("python")
    name = block.language.lower()
    known = of_name(_OTHER_NAMES.get(name, name))
    return known if known and known.content == "code" else None


def _unprompted(code: str, known: Language | None) -> str:
    """Without the prompts of a session and what it answered."""
    lines = code.strip("\n").rstrip().split("\n")
    if any(line.startswith((">>> ", "In [")) for line in lines):
        lines = [_PROMPT.sub("", line, count=1) for line in lines if _PROMPT.match(line)]
    elif known and known.name == "rust":  # what rustdoc compiles and does not show
        lines = [line for line in lines if line.strip() != "#" and not line.lstrip().startswith("# ")]
    elif known and known.name == "bash" and any(_SHELL_PROMPT.match(line) for line in lines):
        lines = [_SHELL_PROMPT.sub("", line) for line in lines if _SHELL_PROMPT.match(line)]
    return "\n".join(lines).strip("\n")


def _refused(known: Language | None, code: str) -> str | None:
    if known is None:
        return NO_LANGUAGE
    if "{{#" in code:  # mdBook puts another file there
        return ELSEWHERE
    if len(code) > LONGEST_CODE:
        return LONG_CODE
    lines = [line for line in code.split("\n") if line.strip(" \t{}();")]
    if known.name == "bash":
        lines = [line for line in lines if not line.lstrip().startswith("#")]
        if all(_INSTALL.match(line) for line in lines):
            return INSTALLS
    elif len(lines) < FEWEST_LINES:
        return SHORT_CODE
    return SHORT_CODE if len(code) < (SHORTEST_COMMAND if known.name == "bash" else SHORTEST_CODE) else None
