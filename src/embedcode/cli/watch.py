"""What `search --watch` prints: a line for each update, or the answer again when a change has altered it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedcode.cli import output
from embedcode.errors import EmbedcodeError

if TYPE_CHECKING:
    from embedcode.index.index import Index
    from embedcode.index.report import Report
    from embedcode.types import Hit, Query


@contextmanager
def until_stopped() -> Iterator[None]:
    """Ctrl-C is how watching ends, and no mistake; SIGTERM ends it in the same way."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if output.is_terminal(sys.stderr):
            output.note("stopped; what was finished is kept")


def keep_fresh(index: Index, yes: bool, as_json: bool) -> None:
    """Say of the first update what there is, and of each later one what it did."""
    begun = False
    for report in _reports(index, yes):
        done = _done(report)
        if as_json and (done or not begun):
            output.put_json(_record(index, report))
        elif not begun:
            how = ", Ctrl-C ends it" if output.is_terminal(sys.stdout) else ""
            size = f"{report.files:,} files, {report.chunks:,} chunks"
            output.put(f"{index.root}: {size}, {_vectors(report)}, in {report.seconds:.1f} s; watching{how}")
        elif done:
            output.put(f"{_clock()}  {done}, in {report.seconds:.1f} s")
        begun = True


def keep_answering(
    index: Index,
    yes: bool,
    as_json: bool,
    shown: list[Hit],
    now: Callable[[], Query],
    put: Callable[[Query, list[Hit], list[str]], None],
) -> None:
    """Search again after each update, and put() the hits under what has changed, with remarks on them, unless they are
    those `shown`."""
    for report in _reports(index, yes):
        remarks: list[str] = []
        try:
            query = now()
            hits = index.search(query, remarks.append)
        except EmbedcodeError as error:  # such as a filter that fits nothing any more
            output.note(str(error))
            continue
        if [hit.chunk for hit in hits] != [hit.chunk for hit in shown]:
            if not as_json:
                output.put(f"{_clock()}  {_done(report) or 'another process has read changes'}:")
            put(query, hits, remarks)
            shown = hits


def _reports(index: Index, yes: bool) -> Iterator[Report]:
    from embedcode.cli.progress import ProgressLine
    from embedcode.index.watch import watch

    with ProgressLine() as progress:

        def remark(sentence: str) -> None:
            progress.wipe()
            output.note(sentence)

        for report in watch(index, remark, progress, yes):
            progress.wipe()
            yield report


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _done(report: Report) -> str:
    """What the update did; "" where another process did it."""
    made = report.encoded + report.cached
    counts = {"changed": report.changed, "removed": report.removed, "vectors made": made}
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    if made or report.embedded < report.chunks:
        parts.append(_vectors(report))
    return ", ".join(parts) if any(counts.values()) else ""


def _vectors(report: Report) -> str:
    return f"{output.share(report.embedded, report.chunks)} with a vector"


def _record(index: Index, report: Report) -> dict[str, Any]:
    return {
        "root": str(index.root),
        "time": time.time(),
        "files": report.files,
        "changed": report.changed,
        "removed": report.removed,
        "chunks": report.chunks,
        "embedded": report.embedded,
        "seconds": round(report.seconds, 3),
        "failed": dict(report.failed),
    }
