"""`embed`: texts to vectors, in files or in a pipe. Knows no repository and no index."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.alone import alone
from embedcode.cli.growing import Growing, begun, json_lines
from embedcode.cli.options import Model, Threads
from embedcode.errors import EncodeError, UsageError
from embedcode.files import is_folder
from embedcode.settings import PRECISIONS
from embedcode.types import InputError, Role, Tokens, Truncate, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.engine.encoder import LocalEncoder
    from embedcode.engine.remote import RemoteEncoder
    from embedcode.types import Encoder, Floats

BLOCK_TOKENS = 32_768
"""Tokens between two writes: enough to sort and fill batches, little enough to see progress."""
PART = 1024
"""Texts that are tokenised beside those that are computed."""
PACKINGS = ("float", "int8", "uint8", "binary", "ubinary")


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
            "-o", "--out", metavar="FILE", help=".npy (a row a text) or .jsonl; JSON lines to stdout if none."
        ),
    ] = None,
    model: Model = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="The task, for a model that takes one: bug, bug-summary, general, or a text."
        ),
    ] = None,
    truncate: Annotated[
        Truncate,
        typer.Option(case_sensitive=False, help="What is cut off a text that is too long; NONE makes it an error."),
    ] = Truncate.NONE,
    dimensions: Annotated[
        int | None, typer.Option(metavar="N", help="Keep the first N, at unit length again (Matryoshka).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Cut to a size that the model does not declare.")] = False,
    packing: Annotated[
        str, typer.Option("--type", metavar=f"<{'|'.join(PACKINGS)}>", help="How a number is kept.")
    ] = "float",
    precision: Annotated[
        str | None,
        typer.Option(metavar="<fp32|bf16|int8>", help="What a checkpoint is computed in; else a trial chooses."),
    ] = None,
    threads: Threads = None,
) -> None:
    """Embed texts: one unit vector for each, in order.

    embedcode embed passages.jsonl --role passage -o passages.npy

    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    if texts and file is not None:
        raise UsageError(f"give either {file} or --text, not both")
    if out is not None:
        _check_out(out, None if texts else file or "-")
    if packing not in PACKINGS:
        raise UsageError(f"--type {packing} is none of {', '.join(PACKINGS)}")
    wanted = _given(texts) if texts else _read(file or "-", lines)
    if not wanted:
        raise UsageError("there is nothing to embed; give JSON lines, or --text")
    encoder = _encoder({"model": model, "threads": threads, "precision": precision})
    if dimensions is not None and not force:
        try:
            encoder.check_dimensions(dimensions)
        except UsageError as error:
            raise UsageError(_worded(str(error))) from None
    pack = _packer(dimensions, packing)
    _sample(encoder, pack)  # what cannot be packed so is said before the texts are read
    reader = _Reader(encoder, wanted, role, instruction, truncate)
    read = reader.check()
    try:
        if out is None:
            for start, vectors, told in _blocks(encoder, reader, 0):
                for line in json_lines(pack(vectors), told, start):
                    output.put(line)
        else:
            key = digest(encoder.space, str(dimensions), packing, read).hex()
            _write(Path(out), encoder, reader, pack, key)
    except EncodeError as error:
        raise UsageError(f"{wanted[error.index].place}: {_worded(str(error), error.index)}") from None
    for remark in encoder.remarks():
        output.note(remark)
    if reader.cut:
        output.note(f"too long, and cut at the {truncate.value.lower()}: {reader.cut:,} of {len(wanted):,} texts")


def _check_out(out: str, source: str | None) -> None:
    """UsageError where nothing can be written to `out`, or the texts that are read from `source` would be lost."""
    if Path(out).suffix not in (".npy", ".jsonl"):
        raise UsageError(f"-o {out}: the name must end in .npy or .jsonl")
    folder = Path(out).parent
    if is_folder(out):
        raise UsageError(f"-o {out} is a folder: give the name of a file")
    if not is_folder(folder):
        raise UsageError(f"{out} cannot be written: there is no folder {folder}")
    with suppress(OSError):  # one that is not there is not the same
        if source is not None and os.path.samefile(0 if source == "-" else source, out):  # noqa: PTH121
            raise UsageError(f"-o {out} is the file that is read: give another name")


def _worded(message: str, index: int = -1) -> str:
    """What an encoder says, for this command: the place of a text is given already, and the cures are flags."""
    for said, here in (
        (f" (input {index})", ""),
        (f"Input {index} ", "it "),
        ("set truncate to END or START", "give --truncate end or start"),
        ("force it by embedcode.cut(vectors, dimensions)", "give --force"),
    ):
        message = message.replace(said, here, 1)
    return message


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
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    name = "stdin" if file == "-" else file
    raw = raw.removeprefix(codecs.BOM_UTF8)  # as Excel and PowerShell write; it is no part of the first text
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


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(digits: str) -> float:
    """What is too large for a float would be written as Infinity, which nobody could read."""
    return number if isfinite(number := float(digits)) else _no_number(digits)


def _parsed(place: str, line: str) -> Text:
    try:
        value = json.loads(line, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        # Of what was meant to be JSON, --lines would embed the brackets and the quotes.
        cure = "mend it" if line.lstrip()[:1] in ("{", '"', "[") else "give --lines if each line is a text"
        raise UsageError(f"{place} is not JSON ({error}); {cure}") from None
    if isinstance(value, str):
        return Text(place, value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return Text(place, value["text"], value.get("id"))
    raise UsageError(f'{place} must be a string or an object with a string "text", not {line.strip()[:60]}')


class _Reader:
    """Tokens of the texts, a part at a time: all of a million at once would take 10 GB."""

    def __init__(
        self, encoder: Encoder, wanted: Sequence[Text], role: Role, instruction: str | None, truncate: Truncate
    ) -> None:
        self.wanted = wanted
        self.cut = 0
        self._encoder, self._role, self._instruction, self._truncate = encoder, role, instruction, truncate

    def check(self) -> bytes:
        """Read every text once, so that one that cannot be embedded is named before any work: a fiftieth of it.

        A digest of all that is to be embedded; `cut` counts texts that are too long.
        """
        from embedcode.cli.progress import ProgressLine

        found = b""
        with ProgressLine() as progress:
            for start in range(0, len(self.wanted), PART):
                entries = self.tokens(start)
                texts = self.wanted[start : start + PART]
                said = (f"{text.id!r} {entry.ids}" for text, entry in zip(texts, entries, strict=True))
                found = digest(found, *said)
                self.cut += sum(entry.truncated for entry in entries)
                progress.draw(f"reading {start + len(entries):,} of {len(self.wanted):,} texts")
        return found

    def tokens(self, start: int) -> list[Tokens]:
        """Of PART texts from `start` on."""
        texts = self.wanted[start : start + PART]
        tokens: list[Tokens] = []
        given = [text.text for text in texts]
        for entry in self._encoder.tokenize(given, self._role, self._instruction, self._truncate):
            if isinstance(entry, InputError):
                at = start + entry.index
                raise UsageError(f"{self.wanted[at].place}: {_worded(entry.message, entry.index)}")
            tokens.append(entry)
        return tokens


def _encoder(flags: dict[str, Any]) -> LocalEncoder | RemoteEncoder:
    from embedcode import engine, settings

    return engine.configured(settings.load(flags))


def _packer(dimensions: int | None, packing: str) -> Callable[[Floats], NDArray[Any]]:
    from embedcode.engine import vectors

    return lambda rows: vectors.packed(rows, packing, dimensions)


def _sample(encoder: Encoder, pack: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
    """A row as it will be kept; UsageError where such vectors cannot be packed so."""
    import numpy as np

    return pack(np.ones((1, encoder.dim), np.float32))


def _write(out: Path, encoder: Encoder, reader: _Reader, pack: Callable[[Floats], NDArray[Any]], key: str) -> None:
    sample = _sample(encoder, pack)
    with alone(out):
        build = _as_begun(out, encoder, key)
        with Growing.at(out, len(reader.wanted), key, build, sample.shape[1], sample.dtype.str) as file:
            if file.done:
                output.note(f"going on after {file.done:,} of {file.rows:,} texts")
            for _, vectors, told in _blocks(encoder, reader, file.done):
                file.write(pack(vectors), told)


def _as_begun(out: Path, encoder: Encoder, key: str) -> str:
    """The build of `out`, which is had gone on with by what began it where it is unfinished; UsageError where that
    cannot be, and nothing is lost."""
    from embedcode.engine.processor import int8_range
    from embedcode.engine.torch_encoder import TorchEncoder

    if not (build := begun(out, key)):
        return encoder.build
    if isinstance(encoder, TorchEncoder):
        encoder.as_before(build)
    if encoder.build not in (build, f"{build}, codes to {int8_range()}"):  # an older version did not name its codes
        before, now = (one.partition(" ")[0] for one in (build, encoder.build))
        cure = f"give --precision {before}" if before != now and before in PRECISIONS else "go on with that one"
        raise UsageError(
            f"{out} was begun with {build} and would be gone on with by {encoder.build}: {cure}, or remove "
            f"{out.with_name(f'.{out.name}.part')} to begin again"
        )
    return build


def _blocks(encoder: Encoder, reader: _Reader, start: int) -> Iterator[tuple[int, Floats, list[dict[str, Any]]]]:
    """(number of the first, vectors, id and receipt of each) from `start` on; the next part is tokenised beside the
    work on this one."""
    from concurrent.futures import ThreadPoolExecutor

    from embedcode.cli.progress import ProgressLine
    from embedcode.engine.packs import packs
    from embedcode.index.report import Step

    since, done, total, first = time.monotonic(), 0, len(reader.wanted), start
    with ProgressLine() as progress, ThreadPoolExecutor(1) as beside:
        ahead = beside.submit(reader.tokens, start)
        while tokens := ahead.result():
            ahead = beside.submit(reader.tokens, start + len(tokens))
            for part in packs(tokens, BLOCK_TOKENS):
                try:
                    vectors = encoder.forward(tokens[part])
                except EncodeError as error:
                    raise error.behind(start + part.start) from None
                texts = reader.wanted[start + part.start : start + part.stop]
                yield start + part.start, vectors, list(map(_told, texts, tokens[part]))
                done += sum(entry.used for entry in tokens[part])
                progress(Step("embed", start + part.stop, total, total, done, time.monotonic() - since, first))
            start += len(tokens)


def _told(text: Text, entry: Tokens) -> dict[str, Any]:
    return ({} if text.id is None else {"id": text.id}) | entry.receipt
