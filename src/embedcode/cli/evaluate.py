"""`eval`: figures of models and systems on retrieval tasks, with all that they depend on. Thin over evaluate/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.eval_report import compare, report
from embedcode.cli.eval_repositories import repo_search
from embedcode.cli.eval_result import (
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
from embedcode.cli.options import Instruction, Json, Threads
from embedcode.cli.overlap import overlap
from embedcode.errors import UsageError
from embedcode.evaluate.choices import Convention
from embedcode.files import is_file, is_folder

if TYPE_CHECKING:
    from embedcode.evaluate.beir import Task
    from embedcode.evaluate.coir import Part
    from embedcode.evaluate.measure import Measured
    from embedcode.evaluate.systems import System
    from embedcode.settings import Settings
    from embedcode.types import Encoder


Name = Annotated[str | None, system_option("bm25 (bm25:stem,stop)")]
Dimensions = Annotated[
    int | None, typer.Option("--dimensions", metavar="N", min=1, help="Cut vectors to N, which the model declares.")
]
Type = Annotated[
    str, typer.Option("--type", metavar="<float|int8|binary>", help="Compare queries and documents packed so.")
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
    dimensions: Dimensions = None,
    kind: Type = "float",
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
    system = named(name, settings_of(precision, threads), instruction, dimensions=dimensions, kind=kind)
    done, path, _ = measured(system, task, {"text": "title and text, joined by a line break"}, out)
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
    instructions: Annotated[
        list[str] | None,
        typer.Option(
            "--instruction",
            metavar="[TASK=]TEXT",
            help="The task, for a model that takes one: bug, bug-summary, general, or a text; TASK=TEXT is of one. "
            "Repeatable.",
        ),
    ] = None,
    precision: Precision = None,
    dimensions: Dimensions = None,
    kind: Type = "float",
    out: Out = Path("results"),
    again: Annotated[bool, typer.Option("--again", help="Measure also what --out has already.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure one system on CoIR: ten tasks, twenty subtasks.

    embedcode eval coir --model Qwen/Qwen3-Embedding-0.6B --tasks cosqa --tasks apps

    A run that was ended goes on behind the subtasks that it has results of."""
    from functools import cache, partial

    from embedcode.engine import configured
    from embedcode.evaluate import coir as tasks_of

    parts = tasks_of.chosen([name for given in tasks or () for name in given.split(",") if name])
    told, chosen = tasks_of.instructions(instructions or (), parts), settings_of(precision, threads)
    load = cache(partial(configured, chosen))
    systems = [named(name, chosen, told.get(part.name), tasks_of.INSTRUCTION, load, dimensions, kind) for part in parts]
    found: list[Measured] = []
    records: list[dict[str, Any]] = []
    for part, system in zip(parts, systems, strict=True):
        done, path, before = _part(part, system, data, convention, out, again)
        found.append(done)
        records.append(record(done.result, path, done.failed) | {"already_measured": before})
        if other := done.result.conditions.get("size"):
            output.note(f"embedcode: {done.result.task} has {other}: its figure compares with no published one")
        if not as_json:
            figure = done.result.metrics["ndcg@10"]
            marks = f"{' PARTIAL' if done.failed else ''}  {path}.json{', already measured' if before else ''}"
            output.put(f"{part.name:<26} {100 * figure:6.2f}{marks}")
    # A cut part is no part of a mean that others publish.
    left: dict[str, str] = {}
    whole: dict[str, float] = {}
    for part, done in zip(parts, found, strict=True):
        if done.failed or "size" in done.result.conditions:
            left[part.name] = "partial" if done.failed else "another size"
        else:
            whole[part.name] = done.result.metrics["ndcg@10"]
    means = tasks_of.means(whole)
    asked = {part.task for part in parts} | ({"coir"} if len(parts) == len(tasks_of.chosen([])) else set())
    lacking = {name_of: why for name_of, why in tasks_of.lacking(whole, left).items() if name_of in asked}
    if as_json:
        output.put_json({"convention": str(convention), "results": records, "ndcg@10": means, "lacking": lacking})
    else:
        for name_of, value in means.items():
            if len(tasks_of.PARTS.get(name_of, ())) != 1:
                output.put(f"{'mean of ' + name_of:<26} {100 * value:6.2f}")
        for name_of, why in lacking.items():
            output.put(f"no mean of {name_of}: {why}")
        output.put(f"again: {command()}")
    ended(found)


def _part(
    part: Part, system: System, data: Path | None, convention: Convention, out: Path, again: bool
) -> tuple[Measured, Path, bool]:
    """As `measured`, without the ranks and the values of queries, which are written: those of CoIR take 1.2 GB."""
    from dataclasses import replace

    from embedcode.evaluate import coir as tasks_of
    from embedcode.evaluate.vectors import Moment

    with watching() as progress:
        progress(Moment(f"reading {part.name}", 0, 1, None))
        task = tasks_of.load(part, data, convention)
    conditions = {"convention": str(convention), "data": str(data.name) if data else f"{part.hub}@{part.revision}"}
    if other := tasks_of.differs(part, task):
        conditions["size"] = other
    done, path, before = measured(system, task, conditions, out, again)
    return replace(done, run={}, result=replace(done.result, values={})), path, before


eval.command("repo-search")(repo_search)
eval.command()(report)
eval.command()(compare)


def named(
    name: str | None,
    chosen: Settings,
    instruction: str | None,
    default: str = "",
    load: Callable[[str], Encoder] | None = None,
    dimensions: int | None = None,
    kind: str = "float",
) -> System:
    """`default` is the instruction of a task, for a model that takes one and has none of its own."""
    from embedcode.evaluate.systems import named as found
    from embedcode.model.presets import task

    return found(name or "", chosen, instruction and task(instruction), default, load, dimensions, kind)


def measured(
    system: System, task: Task, conditions: Mapping[str, Any], out: Path, again: bool = True
) -> tuple[Measured, Path, bool]:
    """With the path of the result, without suffix, and whether it was there, which is looked at unless it is to be
    measured `again`."""
    from embedcode.evaluate.made import made
    from embedcode.evaluate.measure import Measured, measure
    from embedcode.evaluate.result import already

    content = task.content
    conditions = {**conditions, "content": content}  # one folder's name says little of what is in it
    path = place(out, task.name, system.name, {**conditions, **system.conditions})
    if not again and (found := already(path, content, made())):
        return Measured(found, {}, {}), path, True
    if not again and is_file(path.with_name(f"{path.name}.json")):
        output.note(f"embedcode: {path}.json is of other texts or another embedcode, or not whole: measured again")
    with watching(f"{task.name}: ") as progress:
        done = measure(system, task, command(), conditions, progress)
    save(done, path)
    return done, path, False


eval.command("swebench-lite")(swebench_lite)
eval.command()(overlap)
