"""`data`: pairs to train on, from public code, and what is in a file of them. Thin over data/."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli import output
from embedcode.cli.opening import Threads
from embedcode.errors import UsageError

if TYPE_CHECKING:
    from embedcode.data.collect import Step
    from embedcode.data.pairs import Bad

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Pairs in JSON lines; .gz is gzipped.")]
Pairs = Annotated[list[Path], typer.Argument(metavar="PAIRS...", help="Files of pairs, in JSON lines.")]

data = typer.Typer(rich_markup_mode=None, add_completion=False)


@data.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Make pairs to train on from public code, and check them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data.command()
def docstrings(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCES...", help="Folders, git repositories and source archives (zip, whl, tar.*)."),
    ],
    out: Out,
    own: Annotated[bool, typer.Option("--own", help="The code is yours: take it whatever its licence.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Pair what a docstring says with the function below it.

    embedcode data docstrings networkx-3.6.whl guava-31.1.tar.xz -o pairs.jsonl.gz

    A source is taken when its own licence file is MIT, BSD, Apache-2.0, ISC, 0BSD, Zlib or Unlicense.
    """
    from collections import Counter

    from embedcode.data import docstrings as extraction
    from embedcode.data.archives import is_source
    from embedcode.data.docstrings import Repeats
    from embedcode.data.mine import mine
    from embedcode.data.pairs import writing

    for source in sources:
        if not source.exists() or not is_source(source):
            raise UsageError(f"{output.printable(str(source))} is no folder and no source archive: check the path")
    repeats, dropped, left = Repeats(), Counter[str](), Counter[str]()
    refused: dict[str, str] = {}
    languages = Counter[str]()
    with _line() as line, extraction.workers(_threads(threads)) as workers, writing(out) as put:
        for number, source in enumerate(sources, 1):
            workers.start()
            line(f"{number} of {len(sources)} sources, {languages.total():,} pairs")
            mined = mine(source, source.resolve().name, workers, own)
            if mined.refused:
                refused[str(source)] = mined.refused
            dropped += mined.dropped
            left += mined.left.counts
            for pair in mined.pairs:
                if repeats.admit(pair):
                    put(pair)
                    languages[pair.language] += 1
                else:
                    dropped[extraction.REPEATED] += 1
    record = {
        "pairs": languages.total(),
        "languages": dict(languages.most_common()),
        "functions_dropped": dict(dropped.most_common()),
        "files_left_out": dict(left.most_common()),
        "sources_refused": refused,
    }
    if as_json:
        output.put_json(record)
    else:
        _put_counts(record)
    if refused and not languages:
        raise typer.Exit(1)


@data.command()
def collect(
    sources: Annotated[Path, typer.Argument(metavar="LIST", help="A list such as recipes/sources.toml.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where pairs and records go, one file a source.")],
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", help="Stop after about so long; run again to go on.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Fetch the packages of a list and pair their docstrings.

    Fetched by pip, npm and apt-get, which run no code of the packages. What is done is not done again. Exit code 1
    when some could not be fetched.
    """
    from embedcode.data import collect as collecting
    from embedcode.data import sources as listing

    wanted = listing.load(sources)
    failed: list[str] = []
    with _line() as line:

        def progress(step: Step) -> None:
            if step.failed:
                failed.append(step.failed)
            last = f", {step.record.source}" if step.record else ""
            line(f"{step.done:,} of {step.total:,} sources, {step.pairs:,} pairs{last}")

        seconds = None if minutes is None else minutes * 60
        complete = collecting.collect(wanted, out, _threads(threads), seconds, progress)
    record = collecting.summary(collecting.records(out)) | {"complete": complete, "not_fetched": failed}
    if as_json:
        output.put_json(record)
    else:
        _put_counts(record)
    if failed:
        raise typer.Exit(1)


@data.command()
def merge(
    files: Pairs,
    out: Out,
    as_json: Json = False,
) -> None:
    """Join files of pairs, without exact and near duplicates.

    embedcode data merge mined/*.jsonl.gz -o pairs.jsonl.gz
    """
    from embedcode.data.merge import merge as join

    with _line() as line:
        record, bad = join(files, out, lambda done: line(f"{done:,} pairs read"))
    _tell(bad)
    if as_json:
        output.put_json(record)
    else:
        _put_counts(record)


@data.command()
def stats(files: Pairs, as_json: Json = False) -> None:
    """Say what is in files of pairs: sizes, lengths, languages, licences."""
    from embedcode.data import pairs
    from embedcode.data.stats import stats as count

    bad = pairs.Bad()
    record = count(pairs.read_all(files, bad)) | {"bad_lines": bad.lines}
    _tell(bad)
    if as_json:
        output.put_json(record)
    else:
        _put_counts(record)


@data.command()
def check(
    files: Pairs,
    evaluations: Annotated[
        list[Path] | None,
        typer.Option("--eval", metavar="FOLDER", help="An evaluation set in BEIR layout; may be given again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the pairs that may be trained on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which pairs may not be trained on: licence, never.toml, copies of evaluation sets.

    Exit code 1 when there are any and no --out to drop them.
    """
    from contextlib import nullcontext

    from embedcode.cli.eval_overlap import described, put
    from embedcode.data import licences, pairs
    from embedcode.data.overlap import Evaluations, Report, allowed

    known, report, bad = Evaluations(evaluations or ()), Report(), pairs.Bad()
    unlicensed = 0
    with _line() as line, nullcontext() if out is None else pairs.writing(out) as keep:
        for pair in allowed(pairs.read_all(files, bad), known, report):
            if not licences.allowed(pair.licence):
                unlicensed += 1
            elif keep is not None:
                keep(pair)
            if not report.pairs % 1000:
                line(f"{report.pairs:,} pairs read, {report.forbidden:,} overlap")
    _tell(bad)
    if as_json:
        output.put_json(described(report, known) | {"unlicensed": unlicensed, "bad_lines": bad.lines})
    else:
        put(report, known)
        if unlicensed:
            output.put(f"{unlicensed:,} pairs without a licence of the allow-list")
    if (report.forbidden or unlicensed) and out is None:
        raise typer.Exit(1)


def _put_counts(record: dict[str, object], indent: str = "") -> None:
    """A record for people: numbers beside their names, tables below."""
    for name, value in record.items():
        shown = name.replace("_", " ")
        if isinstance(value, dict):
            if value:
                output.put(f"{indent}{shown}:")
                _put_counts(value, indent + "  ")
        elif isinstance(value, list):
            if value:
                output.put(f"{indent}{shown}:")
                for item in value:
                    output.put(f"{indent}  {item}")
        elif isinstance(value, bool):
            output.put(f"{indent}{shown}: {'yes' if value else 'no'}")
        else:
            output.put(f"{indent}{shown}: {value:,}" if isinstance(value, int) else f"{indent}{shown}: {value}")


def _tell(bad: Bad) -> None:
    """Lines that were skipped, on stderr."""
    for example in bad.examples:
        output.note(f"skipped {example}")
    if bad.lines > len(bad.examples):
        output.note(f"skipped {bad.lines - len(bad.examples):,} more lines that are no pairs")


def _threads(threads: str | None) -> int:
    from embedcode import settings

    return settings.load({"threads": threads}).threads


class _Line:
    """One line on the terminal; nothing in a pipe."""

    def __init__(self) -> None:
        import sys

        self._stream = sys.stderr if output.is_terminal(sys.stderr) else None
        self._drawn = 0.0

    def __call__(self, text: str) -> None:
        from embedcode.cli.progress import CLEAR_LINE, REDRAW_SECONDS

        now = time.monotonic()
        if self._stream is not None and now - self._drawn >= REDRAW_SECONDS:
            import shutil

            self._drawn = now
            self._stream.write(CLEAR_LINE + output.printable(text)[: shutil.get_terminal_size().columns - 1])
            self._stream.flush()

    def wipe(self) -> None:
        from embedcode.cli.progress import CLEAR_LINE

        if self._stream is not None and self._drawn:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()


@contextmanager
def _line() -> Iterator[_Line]:
    line = _Line()
    try:
        yield line
    finally:
        line.wipe()
