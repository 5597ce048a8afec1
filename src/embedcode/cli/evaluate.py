"""`eval`: figures of models and systems on retrieval tasks, with all that they depend on. Thin over evaluate/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.eval_report import compare, report
from embedcode.cli.eval_repositories import repo_search
from embedcode.cli.eval_result import (
    Instruction,
    Out,
    Precision,
    command,
    ended,
    place,
    record,
    save,
    settings_of,
    shown,
    watching,
)
from embedcode.cli.eval_result import system as system_option
from embedcode.cli.eval_swebench import swebench_lite
from embedcode.cli.options import Json, Threads
from embedcode.cli.overlap import overlap
from embedcode.errors import UsageError
from embedcode.evaluate.choices import Convention
from embedcode.files import is_folder

if TYPE_CHECKING:
    from embedcode.evaluate.beir import Task
    from embedcode.evaluate.measure import Measured
    from embedcode.evaluate.systems import System
    from embedcode.settings import Settings


Name = Annotated[str | None, system_option("bm25 (bm25:stem,stop)")]
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
        raise UsageError(f"{folder} is no folder: give one with corpus.jsonl, queries.jsonl, qrels.tsv")
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
            task = tasks_of.load(part, data, convention)
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
    from embedcode.model.presets import task

    return found(name or "", chosen, instruction and task(instruction), default)


def measured(system: System, task: Task, conditions: Mapping[str, Any], out: Path) -> tuple[Measured, Path]:
    """With the path of the result that was written, without suffix."""
    from embedcode.evaluate.measure import measure

    conditions = {**conditions, "content": task.content}  # one folder's name says little of what is in it
    path = place(out, task.name, system.name, {**conditions, **system.conditions})
    with watching(f"{task.name}: ") as progress:
        done = measure(system, task, command(), conditions, progress)
    save(done, path)
    return done, path


eval.command("swebench-lite")(swebench_lite)
eval.command()(overlap)
