"""What the command line prints: answers on stdout, remarks on stderr.

Colour only on a terminal; one JSON object with `--json`. What comes out of a repository is shown with its control
characters made visible, because a file may hold sequences that drive the terminal. Knows no index and does no work.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from embedcode.index.report import Status
    from embedcode.types import Chunk, Hit

SNIPPET_LINES = 10
"""Of a chunk, on a screen; `--json` gives all."""
SNIPPET_COLUMNS = 200
"""Of a line; data and generated code have lines of many pages."""

BACKGROUND = "embedding the rest in the background: `embedcode status` shows it, `embedcode index --stop` ends it"

# C0 and C1 controls but tab and newline, and the bidirectional overrides that make code read as what it is not.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text that cannot drive a terminal: controls as \\x1b or \\u202e, undecodable bytes as \\udcff."""
    text = _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n"))
    return text.encode("utf-8", "backslashreplace").decode()


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def interactive(as_json: bool) -> bool:
    """Whether a person is reading: stdout is a terminal, no --json and no CI. Only then is work left for later."""
    return is_terminal(sys.stdout) and not as_json and os.environ.get("CI", "").lower() in ("", "0", "false")


def note(text: str) -> None:
    """A remark for the person, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def put(text: str) -> None:
    """A line of the answer, as UTF-8 whatever the locale; \\n is written as it is."""
    if sys.stdout is not None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()


def put_json(value: Any) -> None:
    """One JSON object on one line. A lone surrogate leaves as \\udcff, which is also how JSON escapes it."""
    put(json.dumps(value, ensure_ascii=False, allow_nan=False))


def duration(seconds: float) -> str:
    """3 s, 4 min, 2 h, 5 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def share(part: int, whole: int) -> str:
    """A percentage that says 100 only when nothing is missing, and 0 only when nothing is there."""
    if not part or part >= whole:
        return "100 %" if part >= whole else "0 %"
    if 100 * part < whole:
        return "less than 1 %"
    return f"{100 * part // whole} %"


def hit_record(hit: Hit) -> dict[str, Any]:
    """One hit as `--json` prints it; `snippet` is the whole chunk."""
    chunk = hit.chunk
    return {
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "language": chunk.language,
        "score": round(float(hit.score), 6),
        "why": list(hit.why),
        "snippet": chunk.text,
    }


def answer_record(query: str, hits: Iterable[Hit], status: Status, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "query": query,
        "root": str(status.root),
        "hits": [hit_record(hit) for hit in hits],
        "indexed": {
            "files": status.files,
            "chunks": status.chunks,
            "embedded": status.embedded,
            "age_seconds": round(max(0.0, time.time() - status.updated), 1),
        },
        "notes": list(notes),
    }


def put_places(hits: Sequence[Hit], root: Path) -> None:
    """One line a hit."""
    for rank, hit in enumerate(hits, 1):
        put(f"{rank:>2}  {_place(hit.chunk, root)}  {_symbol(hit.chunk)}".rstrip())


def put_hits(hits: Sequence[Hit], root: Path, why: bool = False) -> None:
    """Place and first lines of each hit; paths as the current folder needs them, so that they can be opened."""
    if is_terminal(sys.stdout) and hits:
        _put_coloured(hits, root, why)
        return
    for rank, hit in enumerate(hits, 1):
        put(f"{rank:>2}  {_place(hit.chunk, root)}  {_symbol(hit.chunk)}".rstrip())
        if why:
            put(f"    {_reasons(hit)}")
        first, lines, more = _excerpt(hit.chunk)
        for number, line in enumerate(lines, first):
            put(f"{number:>8}  {line}".rstrip())
        put(f"{more}\n" if more else "")


def _put_coloured(hits: Sequence[Hit], root: Path, why: bool) -> None:
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.text import Text

    console = Console(highlight=False)
    for rank, hit in enumerate(hits, 1):
        chunk = hit.chunk
        place = Text.assemble(f"{rank:>2}  ", (_place(chunk, root), "bold cyan"), "  ", (_symbol(chunk), "bold"))
        console.print(place, soft_wrap=True)
        if why:
            console.print(Text(f"    {_reasons(hit)}", "dim"), soft_wrap=True)
        first, lines, more = _excerpt(chunk)
        code = "\n".join(lines)
        console.print(
            Syntax(
                code, chunk.language, theme="ansi_dark", line_numbers=True, start_line=first, background_color="default"
            )
        )
        console.print(Text(f"{more}\n" if more else "", "dim"))


def _place(chunk: Chunk, root: Path) -> str:
    """path:start-end; the path from the current folder where the file lies below it, else absolute."""
    path = root / chunk.path
    with suppress(OSError, ValueError):  # the current folder is gone, or elsewhere
        path = path.relative_to(Path.cwd())
    return _one_line(f"{path}:{chunk.start_line}-{chunk.end_line}")


def _symbol(chunk: Chunk) -> str:
    return _one_line(chunk.symbol)


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def _reasons(hit: Hit) -> str:
    return printable(f"{hit.score:.4f}  {', '.join(hit.why)}")


def _excerpt(chunk: Chunk) -> tuple[int, list[str], str]:
    """The number of the first line shown, the lines, and a remark on the rest."""
    lines = printable(chunk.text).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    blank = next((number for number, line in enumerate(lines) if line.strip()), 0)
    shown = [
        line if len(line) <= SNIPPET_COLUMNS else f"{line[:SNIPPET_COLUMNS]}…"
        for line in lines[blank : blank + SNIPPET_LINES]
    ]
    rest = len(lines) - blank - len(shown)
    return chunk.start_line + blank, shown, f"          … {rest} more lines" if rest else ""
