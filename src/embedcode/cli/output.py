"""What the command line prints: answers on stdout, remarks on stderr.

Colour only on a terminal; one JSON object with `--json`. A file, its name or an ignore rule of a stranger's repository
may hold sequences that drive the terminal: put() and note() make control characters visible, whoever calls them, and
put_json() escapes them. Knows no index and does no work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from embedcode.errors import UsageError
from embedcode.printable import UNSAFE, printable

if TYPE_CHECKING:
    from embedcode.types import Chunk, Hit

BACKGROUND = "embedding the rest in the background: `embedcode status` shows it, `embedcode index --stop` ends it"


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def interactive(as_json: bool) -> bool:
    """Whether a person is reading: stdout is a terminal, no --json and no CI. Only then is work left for later."""
    return is_terminal(sys.stdout) and not as_json and os.environ.get("CI", "").lower() in ("", "0", "false")


def note(text: str) -> None:
    """A remark for the person, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def put(text: str) -> None:
    """A line of the answer, as UTF-8 whatever the locale."""
    with writing():
        if sys.stdout is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(printable(text).encode() + b"\n")
            sys.stdout.buffer.flush()


def put_json(value: Any) -> None:
    """One JSON object on one line, equal when parsed: what is unsafe leaves as JSON escapes it.

    So does a lone surrogate, since put() writes it as \\udcff.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    put(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line))


@contextmanager
def writing() -> Iterator[None]:
    """What keeps the output from being written, such as a full disk, is the user's to mend."""
    try:
        yield
    except BrokenPipeError:  # no mistake at all, and main() knows its code
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"the output cannot be written ({reason}): free some space, or send it elsewhere") from None


def foreground(pid: int) -> str:
    return f"process {pid} is at work, not in the background (Ctrl-C where it runs ends it)"


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
    if not whole:
        return "none yet"
    if not part or part >= whole:
        return "100 %" if part >= whole else "0 %"
    if 100 * part < whole:
        return "less than 1 %"
    return f"{100 * part // whole} %"


def put_places(hits: Sequence[Hit], root: Path) -> None:
    """One line a hit."""
    for rank, hit in enumerate(hits, 1):
        _put_place(rank, hit, root)


def put_hits(hits: Sequence[Hit], root: Path, why: bool = False, words: str = "") -> None:
    """Place and telling lines of each hit; paths as the current folder needs them, so that they can be opened."""
    from embedcode.store.terms import query_terms

    terms = query_terms(words).keys()
    if is_terminal(sys.stdout) and hits:
        with writing():
            _put_coloured(hits, root, why, terms)
        return
    for rank, hit in enumerate(hits, 1):
        _put_place(rank, hit, root)
        if why:
            put(f"    {_reasons(hit)}")
        first, lines, more = _excerpt(hit.chunk, terms)
        for number, line in enumerate(lines, first):
            put(f"{number:>8}  {line}".rstrip())
        if more:
            put(more)
        put("")


def _put_place(rank: int, hit: Hit, root: Path) -> None:
    put(f"{rank:>2}  {_place(hit.chunk, root)}  {hit.chunk.symbol}".rstrip())


def _put_coloured(hits: Sequence[Hit], root: Path, why: bool, terms: Set[str]) -> None:
    """The same, written by rich and not by put(): what is of the repository is made printable here."""
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.text import Text

    console = Console(highlight=False)
    for rank, hit in enumerate(hits, 1):
        chunk = hit.chunk
        place, symbol = printable(_place(chunk, root)), printable(chunk.symbol)
        console.print(Text.assemble(f"{rank:>2}  ", (place, "bold cyan"), "  ", (symbol, "bold")), soft_wrap=True)
        if why:
            console.print(Text(printable(f"    {_reasons(hit)}"), "dim"), soft_wrap=True)
        first, lines, more = _excerpt(chunk, terms)
        code = "\n".join(lines)
        console.print(
            Syntax(
                code,
                chunk.language,
                theme="ansi_dark",
                line_numbers=True,
                start_line=first,
                word_wrap=True,  # else a line ends at the edge of the window, and looks whole
                background_color="default",
            )
        )
        console.print(Text(f"{more}\n" if more else "", "dim"))


def _place(chunk: Chunk, root: Path) -> str:
    """path:start-end; the path from the current folder where that lies around the file or in its repository, else
    absolute."""
    path = root / chunk.path
    with suppress(OSError):  # the current folder is gone
        here = Path.cwd()
        if path.is_relative_to(here) or here.is_relative_to(root):
            path = Path(os.path.relpath(path, here))
    return f"{path}:{chunk.start_line}-{chunk.end_line}"


def _reasons(hit: Hit) -> str:
    return f"{hit.score:.4f}  {', '.join(hit.why)}"


def _excerpt(chunk: Chunk, terms: Set[str]) -> tuple[int, list[str], str]:
    """The number of the first line shown, the lines, printable, and a remark on the rest."""
    from embedcode.search.excerpt import COLUMNS, beginning, telling

    lines = [printable(line.removesuffix("\r")) for line in chunk.text.rstrip().split("\n")]
    chosen = telling(lines, terms)
    shown = [line if len(line) <= COLUMNS else f"{line[:COLUMNS]}…" for line in lines[chosen.start : chosen.stop]]
    sides = ((chosen.start - beginning(lines), "above"), (len(lines) - chosen.stop, "below"))
    rest = [f"{count} more line{'s' if count > 1 else ''} {side}" for count, side in sides if count]
    return chunk.start_line + chosen.start, shown, f"          … {', '.join(rest)}" if rest else ""
