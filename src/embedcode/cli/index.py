"""`index`: read repositories and embed them ahead of the first search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.opening import check, opened
from embedcode.cli.options import Model, Threads
from embedcode.errors import EmbedcodeError, UsageError

if TYPE_CHECKING:
    from embedcode.index.report import Report

SHOWN_FAILURES = 5


def index(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="Repositories; the current folder's if left out.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Come back when every vector is in, rather than embed in the background.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the background work; what it finished is kept.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Index more than 200,000 files.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="List the files left out, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with a list of indexes.")] = False,
    model: Model = None,
    threads: Threads = None,
) -> None:
    """Make an index or bring it up to date; only what changed is read and embedded.

    Searching does this too, so it is needed only to have every vector ready before. On a terminal the vectors are
    made in the background; with --wait, in a pipe, in CI or where the setting `background` is false it comes back when
    all are in. Searches use the model that the index was made with.
    """
    if stop and wait:
        raise UsageError("--stop and --wait exclude each other; give one of them")
    paths = paths or ["."]
    for path in paths:  # all of them, before hours of work on the first
        check(path)
    records = []
    for path in paths:
        try:
            records.append(_stop(path, as_json) if stop else _index(path, model, threads, wait, yes, verbose, as_json))
        except EmbedcodeError as error:
            if len(paths) == 1:
                raise
            records.append({"root": str(Path(path).absolute()), "error": str(error)})
            if not as_json:
                output.note(f"embedcode: {path}: {error}")
    if as_json:
        output.put_json({"indexes": records})
    if any("error" in record for record in records):
        raise typer.Exit(2)


def _stop(path: str, as_json: bool) -> dict[str, Any]:
    with opened(path) as index:
        stopped = index.stop_background()
        other = None if stopped or not index.exists else index.foreground()
        if not as_json:
            said = "stopped; what was done is kept" if stopped else "nothing was running"
            output.put(f"{index.root}: {output.foreground(other.pid) if other else said}")
        return {"root": str(index.root), "stopped": stopped}


def _index(
    path: str, model: str | None, threads: str | None, wait: bool, yes: bool, verbose: bool, as_json: bool
) -> dict[str, Any]:
    from embedcode.cli.progress import ProgressLine

    with opened(path, threads, model=model) as index:
        now = wait or not (output.interactive(as_json) and index.settings.background)
        with ProgressLine() as progress:
            report = index.update(vectors=now, progress=progress, yes=yes)
        if not as_json:
            _put(str(index.root), report, verbose)
        for remark in report.remarks:
            output.note(remark)
        if not now and index.missing and (index.start_background() or index.status().running):
            output.note(output.BACKGROUND)
        return {"root": str(index.root), **asdict(report)}


def _put(root: str, report: Report, verbose: bool) -> None:
    output.put(
        f"{root}: {report.files:,} files ({report.changed:,} changed, {report.removed:,} removed), "
        f"{report.chunks:,} chunks, {report.embedded:,} with a vector "
        f"({report.encoded:,} made, {report.cached:,} from the cache), in {report.seconds:.1f} s"
    )
    if report.skipped:
        output.put(f"left out: {by_reason(report.skipped, report.skipped_more)}{'' if verbose else ' (-v lists them)'}")
    if verbose:
        put_reasons(report.skipped, more=report.skipped_more)
    if report.failed:
        output.put(f"failed: {len(report.failed):,} files, the rest is whole")
    put_reasons(report.failed, None if verbose else SHOWN_FAILURES)


def put_reasons(reasons: Mapping[str, str], most: int | None = None, more: Mapping[str, int] | None = None) -> None:
    """A line for each path, then one for each reason of `more`, which are not named."""
    for path, reason in sorted(reasons.items())[:most]:
        output.put(f"  {path}: {reason}")
    for reason, count in (more or {}).items():
        output.put(f"  and {count:,} more: {reason}")


def by_reason(skipped: Mapping[str, str], more: Mapping[str, int]) -> str:
    """`12 binary, 3 too large`, the most frequent first."""
    counts = Counter(skipped.values()) + Counter(more)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
