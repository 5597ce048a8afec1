"""`embed`: texts to vectors, in files or in a pipe. Knows no repository and no index."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.opening import Threads
from embedcode.errors import UsageError
from embedcode.files import replacing
from embedcode.types import InputError, Role, Tokens, Truncate

if TYPE_CHECKING:
    from embedcode.types import Encoder, Floats

BLOCK_TOKENS = 32_768
"""Tokens between two writes: enough to sort and fill batches, little enough to see progress."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text to embed; `place` is how an error names it."""

    place: str
    text: str
    id: Any = None


def embed(
    role: Annotated[
        Role,
        typer.Option(
            help="Which side of retrieval the texts are on. There is no default: "
            "the wrong one finds next to nothing, silently.",
            show_default=False,
        ),
    ],
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help='JSON lines, each a string or {"text": …, "id": …}; - or none is stdin.'),
    ] = None,
    texts: Annotated[list[str] | None, typer.Option("--text", help="A text to embed; repeatable.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of FILE is a text as it stands, not JSON.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help=".npy (float32, a row a text) or .jsonl; JSON lines to stdout if none."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR", help="A model other than the packaged one.")] = None,
    truncate: Annotated[
        Truncate, typer.Option(help="What is cut off a text that is too long; NONE makes it an error.")
    ] = Truncate.NONE,
    threads: Threads = None,
) -> None:
    """Embed texts: one unit vector for each, in order.

    embedcode embed passages.jsonl --role passage -o passages.npy
    """
    if texts and file is not None:
        raise UsageError(f"give either {output.printable(file)} or --text, not both")
    if out is not None and Path(out).suffix not in (".npy", ".jsonl"):
        raise UsageError(f"-o {output.printable(out)}: the name must end in .npy or .jsonl")
    wanted = _given(texts) if texts else _read(file or "-", lines)
    if not wanted:
        raise UsageError("there is nothing to embed; give JSON lines, or --text")
    tokens, vectors = _encoded(wanted, role, truncate, {"model": model, "threads": threads})
    try:
        _write(out, wanted, vectors)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    if cut := sum(entry.truncated for entry in tokens):
        output.note(f"{cut:,} of {len(tokens):,} texts were too long and were cut at the {truncate.value.lower()}")


def _given(texts: Sequence[str]) -> list[Text]:
    found = []
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"--text number {number} is not UTF-8") from None
        found.append(Text(f"--text number {number}", text))
    return found


def _read(file: str, lines: bool) -> list[Text]:
    if file == "-" and output.is_terminal(sys.stdin):
        output.note("reading texts from the terminal; end with Ctrl-D")
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{output.printable(file)} cannot be read: {error.strerror}") from None
    name = "stdin" if file == "-" else output.printable(file)
    rows = raw.removesuffix(b"\n").split(b"\n") if raw else []
    found = []
    for number, row in enumerate(rows, 1):
        place = f"{name} line {number}"
        try:
            text = row.decode().removesuffix("\r")
        except UnicodeDecodeError:
            raise UsageError(f"{place} is not UTF-8") from None
        if lines:
            found.append(Text(place, text))
        elif text.strip():
            found.append(_parsed(place, text))
    return found


def _parsed(place: str, line: str) -> Text:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON ({error}); give --lines if each line is a text") from None
    if isinstance(value, str):
        return Text(place, value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return Text(place, value["text"], value.get("id"))
    raise UsageError(f'{place} must be a string or an object with a string "text", not {line.strip()[:60]}')


def _encoded(
    wanted: Sequence[Text], role: Role, truncate: Truncate, flags: dict[str, Any]
) -> tuple[list[Tokens], Iterator[Floats]]:
    """The receipts at once, so that a text that cannot be embedded is named before any work; then vectors in blocks."""
    encoder = _encoder(flags)
    tokens: list[Tokens] = []
    for entry in encoder.tokenize([text.text for text in wanted], role, truncate=truncate):
        if isinstance(entry, InputError):
            raise UsageError(f"{wanted[entry.index].place}: {entry.message}")
        tokens.append(entry)
    return tokens, _blocks(encoder, tokens)


def _encoder(flags: dict[str, Any]) -> Encoder:
    from embedcode import engine, settings

    chosen = settings.load(flags)
    return engine.load(chosen.model, chosen.threads)


def _blocks(encoder: Encoder, tokens: Sequence[Tokens]) -> Iterator[Floats]:
    from embedcode.cli.progress import ProgressLine
    from embedcode.index.report import Step

    start, since, done = 0, time.monotonic(), 0
    with ProgressLine() as progress:
        while start < len(tokens):
            end, size = start, 0
            while end < len(tokens) and (end == start or size + tokens[end].used <= BLOCK_TOKENS):
                size += tokens[end].used
                end += 1
            yield encoder.forward(tokens[start:end])
            start, done = end, done + size
            progress(Step("embed", start, len(tokens), len(tokens), done, time.monotonic() - since))


def _write(out: str | None, wanted: Sequence[Text], vectors: Iterator[Floats]) -> None:
    if out is None:
        for line in _json_lines(wanted, vectors):
            output.put(line)
    elif out.endswith(".jsonl"):
        with replacing(Path(out)) as file:
            for line in _json_lines(wanted, vectors):
                file.write(line.encode() + b"\n")
    else:
        import numpy as np

        with replacing(Path(out)) as file:
            first = next(vectors)
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(wanted), first.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(first.astype("<f4").tobytes())
            for block in vectors:
                file.write(block.astype("<f4").tobytes())


def _json_lines(wanted: Sequence[Text], vectors: Iterator[Floats]) -> Iterator[str]:
    index = 0
    for block in vectors:
        for row in block:
            text = wanted[index]
            named = "" if text.id is None else f'"id": {json.dumps(text.id)}, '
            # str() of a float32 is the shortest decimal that reads back as the same float32.
            yield f'{{"index": {index}, {named}"embedding": [{", ".join(map(str, row))}]}}'
            index += 1
