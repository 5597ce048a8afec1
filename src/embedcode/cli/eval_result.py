"""What the verbs of `eval` share: the conditions that are asked for, and a result as it is written and printed."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.errors import UsageError

if TYPE_CHECKING:
    from embedcode.evaluate.measure import Measured
    from embedcode.evaluate.result import Result
    from embedcode.evaluate.vectors import Moment, Progress
    from embedcode.settings import Settings

SHOWN = ("precision", "device", "stream", "model", "threads")
"""Settings that a figure or its time depends on: where they come from the environment, the command says so."""

Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where results and run files are written.")]
Precision = Annotated[
    str | None, typer.Option(metavar="<fp32|bf16|int8>", help="What a checkpoint is computed in; else a trial chooses.")
]


def _checked(name: str | None) -> str | None:
    if name == "":
        raise UsageError("the model is empty, as from a variable that is not set: name one, or leave it out")
    return name


def system(bm25: str) -> Any:
    """The option that names a system, of which a task knows its own kinds of BM25."""
    return typer.Option(
        "--model",
        "--system",
        metavar="NAME",
        callback=_checked,
        help=f"{bm25}, lexical, hybrid (hybrid:MODEL), or a model: a folder, a name on the hub, a server's URL; that "
        "of the settings if none.",
    )


def settings_of(precision: str | None, threads: str | None) -> Settings:
    from embedcode import settings

    return settings.load({"precision": precision, "threads": threads})


def command() -> str:
    """What the user typed, with what the environment added to it."""
    given = [f"EMBEDCODE_{name.upper()}" for name in SHOWN]
    added = [f"{name}={shlex.quote(os.environ[name])} " for name in given if os.environ.get(name)]
    return "".join(added) + shlex.join(["embedcode", *sys.argv[1:]])


@contextmanager
def watching(before: str = "") -> Iterator[Progress]:
    """A line on the terminal with the time that is left; nothing in a pipe."""
    from embedcode.cli.progress import ProgressLine

    with ProgressLine() as line:

        def say(moment: Moment) -> None:
            left = f", {output.duration(moment.left)} left" if moment.left is not None else ""
            line.draw(f"{before}{moment.what}: {moment.done:,} of {moment.total:,}{left}")

        yield say


def place(out: Path, task: str, system: str, conditions: Mapping[str, Any]) -> Path:
    """Where a result goes, without suffix. UsageError where another one is there, before the work of hours."""
    from embedcode.evaluate.result import refuse_another

    path = out / f"{_slug(task)}--{_slug(system)}"
    refuse_another(path, task, system, conditions)
    return path


def save(done: Measured, path: Path) -> None:
    from embedcode.evaluate.result import refuse_another

    refuse_another(path, done.result.task, done.result.system, done.result.conditions)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done.result.write(path, done.run)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error})") from None


def record(result: Result, path: Path | None = None, failed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A result for --json: its figures by name, the rest beside them, without the values of single queries."""
    found: dict[str, Any] = {"task": result.task, "system": result.system}
    found |= {name: round(value, 6) for name, value in result.metrics.items()}
    found |= {
        "intervals": {name: [round(end, 6) for end in ends] for name, ends in result.intervals.items()},
        "queries": result.queries,
        "documents": result.documents,
        "conditions": dict(result.conditions),
        "seconds": dict(result.seconds),
        "peak_mb": result.peak_mb,
        "made": dict(result.made),
        "command": result.command,
        "partial": result.partial,
    }
    if failed:
        found["failed"] = dict(failed)
    return found | ({"files": [f"{path}.json", f"{path}.run"]} if path else {})


def shown(result: Result, path: Path) -> None:
    partial = "PARTIAL, " if result.partial else ""
    output.put(f"{result.task}: {partial}{result.system}, {result.queries:,} queries, {result.documents:,} documents")
    for name, value in result.metrics.items():
        low, high = result.intervals.get(name, (None, None))
        ends = f"  [{low:.4f}, {high:.4f}]" if low is not None else ""
        output.put(f"  {name:<11} {value:.4f}{ends}")
    for name, condition in result.conditions.items():
        output.put(
            f"  {name + ':':<16} {condition!r}" if isinstance(condition, str) else f"  {name + ':':<16} {condition}"
        )
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result.seconds.items())
    kept = result.made.get("kept") or {}
    again = "".join(f", {count:,} {name} from an earlier run" for name, count in kept.items() if count)
    output.put(f"  {'time:':<16} {spent}{again}; peak {result.peak_mb:,.0f} MB")
    output.put(f"  {'files:':<16} {path}.json, {path}.run")
    output.put(f"  {'again:':<16} {result.command}")


def ended(measured: list[Measured]) -> None:
    """Exit code 2, and why, where a result is partial."""
    partial = [done for done in measured if done.failed]
    for done in partial:
        first = next(iter(done.failed.values()))
        more = f", and {len(done.failed) - 1} more queries" if len(done.failed) > 1 else ""
        output.note(
            f"embedcode: {done.result.task}: {first}{more}; the figures are of the other {done.result.queries:,} "
            "queries only, and the result is marked partial"
        )
    if partial:
        raise typer.Exit(2)


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "result"
