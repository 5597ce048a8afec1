"""`eval`: figures of models and systems on retrieval tasks, with all that they depend on. Thin over evaluate/."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.eval_report import compare, report
from embedcode.cli.eval_repositories import repo_search
from embedcode.cli.opening import Threads
from embedcode.errors import UsageError
from embedcode.files import is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedcode.evaluate.beir import Task
    from embedcode.evaluate.measure import Measured
    from embedcode.evaluate.result import Result
    from embedcode.evaluate.systems import System
    from embedcode.evaluate.vectors import Moment, Progress
    from embedcode.settings import Settings


class Convention(StrEnum):
    """As evaluate/coir.py, which reads a table that help does not wait for."""

    MTEB = "mteb"
    COIR_EVAL = "coir-eval"


SHOWN = ("precision", "device", "stream", "model", "threads")
"""Settings that a figure or its time depends on: where they come from the environment, the command says so."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Name = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--system",
        metavar="NAME",
        help="bm25 (bm25:stem,stop), lexical, hybrid (hybrid:MODEL), or a model: a folder, a name on the hub, a "
        "server's URL; that of the settings if none.",
    ),
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where results and run files are written.")]
Instruction = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="The task, for a model that takes one: bug, bug-summary, general, or a text."),
]
Precision = Annotated[
    str | None, typer.Option(metavar="<fp32|bf16|int8>", help="What a checkpoint is computed in; else a trial chooses.")
]

eval = typer.Typer(rich_markup_mode=None, add_completion=False)


@eval.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Measure models and search: tasks, reports, comparisons."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@eval.command()
def beir(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A task in BEIR's layout: corpus.jsonl, queries.jsonl, qrels.tsv.")
    ],
    name: Name = None,
    instruction: Instruction = None,
    precision: Precision = None,
    out: Out = Path("results"),
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure one system on a task in BEIR's layout.

    embedcode eval beir data/cosqa --model bm25:stem
    """
    from embedcode.evaluate import beir as reader

    if not is_folder(folder):
        raise UsageError(
            f"{output.printable(str(folder))} is no folder: give one with corpus.jsonl, queries.jsonl, qrels.tsv"
        )
    task = reader.load(folder)
    system = named(name, settings_of(precision, threads), instruction)
    done, path = measured(system, task, {"text": "title and text, joined by a line break"}, out)
    if as_json:
        output.put_json(record(done.result, path, done.failed))
    else:
        shown(done.result, path)
    ended([done])


@eval.command()
def coir(
    name: Name = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="TASK", help="Only these tasks or subtasks; repeatable.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folders as the hub has them, one a subtask; the hub itself if none."),
    ] = None,
    convention: Annotated[
        Convention,
        typer.Option(help="The text of a document: title and text (mteb), or the text alone (coir-eval)."),
    ] = Convention.MTEB,
    instruction: Instruction = None,
    precision: Precision = None,
    out: Out = Path("results"),
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure one system on CoIR: ten tasks, twenty subtasks.

    embedcode eval coir --model Qwen/Qwen3-Embedding-0.6B --tasks cosqa --tasks apps"""
    from embedcode.evaluate import coir as tasks_of
    from embedcode.evaluate.vectors import Moment

    parts = tasks_of.chosen([name for given in tasks or () for name in given.split(",") if name])
    system = named(name, settings_of(precision, threads), instruction, tasks_of.INSTRUCTION)
    found: list[Measured] = []
    records: list[dict[str, Any]] = []
    for part in parts:
        with watching() as progress:
            progress(Moment(f"reading {part.name}", len(found), len(parts), None))
            task = tasks_of.load(part, data, tasks_of.Convention(convention))
        other = tasks_of.differs(part, task)
        conditions = {"convention": str(convention), "data": str(data.name) if data else f"{part.hub}@{part.revision}"}
        done, path = measured(system, task, conditions | ({"size": other} if other else {}), out)
        found.append(done)
        records.append(record(done.result, path, done.failed))
        if other:
            output.note(f"embedcode: {task.name} has {other}: its figure compares with no published one")
        if not as_json:
            figure = done.result.metrics["ndcg@10"]
            output.put(f"{part.name:<26} {100 * figure:6.2f}{' PARTIAL' if done.failed else ''}  {path}.json")
    whole = {  # a cut part is no part of a mean that others publish
        part.name: done.result.metrics["ndcg@10"]
        for part, done in zip(parts, found, strict=True)
        if not done.failed and "size" not in done.result.conditions
    }
    means = tasks_of.means(whole)
    if as_json:
        output.put_json({"convention": str(convention), "results": records, "ndcg@10": means})
    else:
        for name_of, value in means.items():
            if len(tasks_of.PARTS.get(name_of, ())) != 1:
                output.put(f"{'mean of ' + name_of:<26} {100 * value:6.2f}")
        output.put(f"again: {command()}")
    ended(found)


eval.command("repo-search")(repo_search)
eval.command()(report)
eval.command()(compare)


def named(name: str | None, chosen: Settings, instruction: str | None, default: str = "") -> System:
    """`default` is the instruction of a task, for a model that takes one and has none of its own."""
    from embedcode.evaluate.systems import named as found
    from embedcode.model.presets import INSTRUCTIONS

    if name == "":
        raise UsageError("the model is empty, as from a variable that is not set: name one, or leave it out")
    return found(name or "", chosen, INSTRUCTIONS.get(instruction or "", instruction), default)


def settings_of(precision: str | None, threads: str | None) -> Settings:
    from embedcode import settings

    return settings.load({"precision": precision, "threads": threads})


def command() -> str:
    """What the user typed, with what the environment added to it."""
    given = [f"EMBEDCODE_{name.upper()}" for name in SHOWN]
    added = [f"{name}={shlex.quote(os.environ[name])} " for name in given if os.environ.get(name)]
    return "".join(added) + shlex.join(["embedcode", *sys.argv[1:]])


def measured(system: System, task: Task, conditions: Mapping[str, Any], out: Path) -> tuple[Measured, Path]:
    """With the path of the result that was written, without suffix."""
    from embedcode.evaluate.measure import measure

    conditions = {**conditions, "content": task.content}  # one folder's name says little of what is in it
    path = place(out, task.name, system.name, {**conditions, **system.conditions})
    with watching(f"{task.name}: ") as progress:
        done = measure(system, task, command(), conditions, progress)
    save(done, path)
    return done, path


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
        raise UsageError(f"{output.printable(str(path))} cannot be written ({error.strerror or error})") from None


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


from embedcode.cli.eval_overlap import overlap  # noqa: E402
from embedcode.cli.eval_swebench import swebench_lite  # noqa: E402  it takes its options from here

eval.command("swebench-lite")(swebench_lite)
eval.command()(overlap)
