"""A file's text to its chunks: every line lies in exactly one chunk, in order.

Definitions stay whole where they fit, large ones are cut at statement borders, small neighbours are joined; Markdown,
reStructuredText and AsciiDoc are cut at headings, notebooks at cells, all else at lines. Knows no files,
tokens or store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from embedcode.index import headings, notebook
from embedcode.index.grammars import Part, parse
from embedcode.index.languages import Language
from embedcode.index.pieces import CAP, Lines, Piece, by_lines, join, solid
from embedcode.types import Chunk

CHUNKER_VERSION = "3"
"""Grows with every change that moves a border or a symbol: files that another version cut are cut again."""

_PARSE_LIMIT = 1 << 20
"""Characters. Larger sources are generated in practice; they are cut at lines."""
_MAX_DEPTH = 100
"""Levels of nested syntax, each too large for a chunk, that are followed (Python's own stack allows 1,000)."""
_MAX_SYMBOL = 120
"""Characters: a symbol is a part of the text that is embedded, and must leave room for the chunk."""


def chunk(path: str, text: str, language: Language, repo: str = "") -> list[Chunk]:
    """The chunks of a file, in order, over all its lines; [] if there is nothing but white space.

    Lines end at "\\n" only. `Chunk.text` is the chunk's lines joined by "\\n", so all texts joined by "\\n" are the
    file without its last line break. A chunk above the cap is a single line. The pieces of a large definition carry
    its qualified name as their symbol. Any text is accepted: what cannot be parsed is cut at lines.
    """
    return _chunks(path, text, language, repo, by_syntax=True)


def plain(path: str, text: str, language: Language, repo: str = "") -> list[Chunk]:
    """The same, cut at lines alone: for a file at which the syntax failed."""
    return _chunks(path, text, language, repo, by_syntax=False)


def _chunks(path: str, text: str, language: Language, repo: str, by_syntax: bool) -> list[Chunk]:
    if not text.strip():
        return []
    lines = Lines(text)
    pieces = _pieces(text, lines, language) if by_syntax else by_lines(lines, 0, len(lines))
    return [
        Chunk(
            repo=repo,
            path=path,
            start_line=piece.first + 1,
            end_line=piece.end,
            language=language.name,
            symbol=_symbol(piece),
            text="\n".join(lines.lines[piece.first : piece.end]),
        )
        for piece in join(pieces)
    ]


def _symbol(piece: Piece) -> str:
    symbol = ""
    for name in piece.names:
        longer = f"{symbol}, {name}" if symbol else name
        if len(longer) > _MAX_SYMBOL:
            break
        symbol = longer
    return symbol or (piece.names[0] if piece.names else piece.scope)[:_MAX_SYMBOL]


def _pieces(text: str, lines: Lines, language: Language) -> list[Piece]:
    if language.grammar and len(text) <= _PARSE_LIMIT:
        root = parse(language.grammar, text.encode("utf-8", "replace"))
        if root is not None:
            return _split(lines, root.parts(), 0, len(lines), "", 0)
    if language.name in headings.READERS:
        return _by_headings(lines, language.name)
    if language.name == "jupyter" and (cells := notebook.cells(text)):
        return _by_cells(lines, cells)
    return by_lines(lines, 0, len(lines))


# ---- syntax ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """Parts that cannot be told apart by lines, or that belong together: comments and what they precede."""

    first: int
    main: Part
    """The part over several rows if there is one."""
    names: tuple[str, ...]
    last: int
    lead: bool


def _split(lines: Lines, parts: list[Part], first: int, end: int, scope: str, depth: int) -> list[Piece]:
    """Rows first..end-1 cut at the borders of `parts`; what is still too large, at the borders inside it."""
    drafts = _drafts(parts, first, end, scope)
    if not drafts:
        return by_lines(lines, first, end, scope=scope)
    pieces: list[Piece] = []
    for draft, until in zip(drafts, [*(after.first for after in drafts[1:]), end], strict=True):
        size, main = lines.size(draft.first, until), draft.main
        body = depth > 0 and not main.name and 2 * size > lines.size(first, end)  # keep its head with what follows
        large = size > CAP or body
        if depth < _MAX_DEPTH and (main.open or (large and main.last > main.first)):
            inside = _qualify(scope, main.name) if main.name else scope
            inner = _split(lines, main.parts(), draft.first, until, inside, depth + 1)
            if main.name:
                inner = solid(join([replace(inner[0], names=(*draft.names, *inner[0].names)), *inner[1:]]))
            pieces += inner
        elif size > CAP:
            pieces += by_lines(lines, draft.first, until, draft.names, scope)
        else:
            pieces.append(Piece(draft.first, until, size, _opened(draft, scope), scope, whole=bool(draft.names)))
    return pieces


def _drafts(parts: list[Part], first: int, end: int, scope: str) -> list[_Draft]:
    """The parts by the rows they start on. A part over several rows starts a draft even on the row where the one
    before it ends (`} else {`)."""
    drafts: list[_Draft] = []
    for part in parts:
        if part.first >= end:
            break
        start = max(part.first, first)
        names = (_qualify(scope, part.name),) if part.name else ()
        tall = part.last > part.first
        if not drafts:
            drafts.append(_Draft(first, part, names, part.last, part.lead))
            continue
        draft = drafts[-1]
        apart = start > draft.last
        if draft.lead and apart and start - draft.last == 1:
            draft.main, draft.names, draft.lead = part, names, part.lead
        elif apart or (tall and start > max(draft.main.first, draft.first)):
            drafts.append(_Draft(start, part, names, part.last, part.lead))
        else:
            draft.names += names
            draft.lead = draft.lead and part.lead
            if tall and draft.main.last == draft.main.first:
                draft.main = part
        drafts[-1].last = max(drafts[-1].last, part.last)
    return drafts


def _opened(draft: _Draft, scope: str) -> tuple[str, ...]:
    """The names of what a draft defines, those of what a container holds in its place: nearly every class of Ruby lies
    in a module, whose name says nothing of it."""
    own = _qualify(scope, draft.main.name)
    if own not in draft.names:
        return draft.names
    at = draft.names.index(own)
    return tuple(dict.fromkeys((*draft.names[:at], *_held(draft.main, own, 0), *draft.names[at + 1 :])))


def _held(part: Part, name: str, depth: int) -> list[str]:
    """The qualified names in a container, and then its own where it holds functions, which makes it more than a scope;
    the name alone of all else."""
    members = part.members() if depth < _MAX_DEPTH else []
    inside = [one for member in members for one in _held(member, _qualify(name, member.name), depth + 1)]
    return inside if inside and not any(member.function for member in members) else [*inside, name]


def _qualify(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


# ---- documents ---------------------------------------------------------------------------------------------------


def _by_headings(lines: Lines, kind: str) -> list[Piece]:
    pieces: list[Piece] = []
    found = headings.sections(lines.lines, kind)
    if not found or found[0][0] > 0:
        found.insert(0, (0, ""))
    for (first, path), end in zip(found, [*(row for row, _ in found[1:]), len(lines)], strict=True):
        size, names = lines.size(first, end), (path,) if path else ()
        if size > CAP:
            pieces += solid(by_lines(lines, first, end, names, path))
        else:
            pieces.append(Piece(first, end, size, names, path, whole=bool(path)))
    return pieces


def _by_cells(lines: Lines, cells: list[notebook.Cell]) -> list[Piece]:
    """One piece a cell, and one for what the file holds behind the cells. A cell that is too large is cut between its
    source and its outputs first."""
    pieces: list[Piece] = []
    first = 0
    for cell in cells:
        if cell.last < first:
            continue  # several cells on one line
        for end in (cell.split, cell.last + 1):
            if end is None or end <= first or (end == cell.split and lines.size(first, cell.last + 1) <= CAP):
                continue
            pieces += _capped(lines, first, end, cell.heading)
            first = end
    return solid(pieces + _capped(lines, first, len(lines), "")) if first < len(lines) else solid(pieces)


def _capped(lines: Lines, first: int, end: int, scope: str) -> list[Piece]:
    size = lines.size(first, end)
    return [Piece(first, end, size, (), scope)] if size <= CAP else by_lines(lines, first, end, scope=scope)
