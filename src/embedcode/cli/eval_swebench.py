"""`eval swebench-lite`: issues to the files that mend them. Thin over evaluate/swebench.py."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import eval_result, output
from embedcode.cli.options import Instruction, Json, Threads
from embedcode.errors import UsageError
from embedcode.evaluate.choices import Files, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedcode.evaluate.instances import Instance
    from embedcode.evaluate.vectors import Progress
    from embedcode.index.git import Repository
    from embedcode.settings import Settings


class Split(StrEnum):
    TEST = "test"
    DEV = "dev"


Name = Annotated[str | None, eval_result.system("bm25 (bm25:chunks,paths,stem,stop)")]


def swebench_lite(
    name: Name = None,
    instances: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows of SWE-bench, .jsonl or .parquet; else from the hub.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Of the hub's rows. Tune nothing on test.")] = Split.TEST,
    repos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your clones, as owner__name, owner/name or name; else made in the cache."),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="450-token chunks of all files, as published; or embedcode's own files and chunks.")
    ] = Protocol.PUBLISHED,
    files: Annotated[
        Files | None, typer.Option(help="All texts, those an index takes, or .py; else as the protocol has it.")
    ] = None,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Whether test files are ranked too.")] = True,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A tokenizer.json to cut chunks by; else the model's.")
    ] = None,
    summaries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Summaries to ask with: lines of instance_id and summary.")
    ] = None,
    summarise: Annotated[
        str | None, typer.Option(metavar="URL", help="A chat server (URL#MODEL) that writes what --summaries lacks.")
    ] = None,
    instruction: Instruction = None,
    precision: eval_result.Precision = None,
    out: eval_result.Out = Path("results"),
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find the files that issues of SWE-bench Lite need edited.

    embedcode eval swebench-lite --system lexical --protocol search

    A file ranks by its best chunk. Every file version of all commits is read once, every distinct chunk embedded once,
    and vectors are kept: a run that was ended goes on where it was. Clones are only read.
    """
    from embedcode.engine import configured
    from embedcode.evaluate import instances as reader
    from embedcode.evaluate import swebench
    from embedcode.model.presets import task

    if summarise is not None and summaries is None:
        raise UsageError("--summarise needs a file to write into: give one with --summaries")
    chosen = eval_result.settings_of(precision, threads)
    source, origin = (instances, "") if instances else swebench.fetched(split)
    rows = reader.read(source)
    origin = origin or swebench.by_content(source)
    with eval_result.watching() as progress:
        rows, form = _asked(rows, summaries, summarise, progress)
        setup = swebench.system(
            name or "",
            protocol,
            partial(configured, chosen),
            chosen.home,
            configured=chosen.model,
            files=files,
            tests=tests,
            tokenizer=tokenizer,
            instruction=instruction and task(instruction),
            summarised=summaries is not None,
            progress=progress,
        )
        conditions = {"rows": origin, "issue": form}
        path = eval_result.place(out, setup.task, setup.name, conditions | dict(setup.conditions))
        if not as_json:
            output.note(_header(len(rows), conditions | dict(setup.conditions)))
        done = swebench.measure(
            rows,
            setup,
            lambda repo, some: _clone(repo, some, repos, chosen),
            chosen.threads,
            eval_result.command(),
            conditions,
            progress,
        )
    eval_result.save(done, path)
    if as_json:
        output.put_json(eval_result.record(done.result, path, done.failed))
    else:
        eval_result.shown(done.result, path)
    eval_result.ended([done])


def _header(count: int, conditions: dict[str, Any]) -> str:
    named = ("issue", "chunking", "path prefix", "files", "test files", "tokenizer")
    return f"{count} instances; " + "; ".join(f"{one}: {conditions[one]}" for one in named if one in conditions)


def _asked(
    rows: list[Instance], summaries: Path | None, summarise: str | None, progress: Progress
) -> tuple[list[Instance], str]:
    """The instances with what is asked for each, and what that is."""
    from embedcode.evaluate import summaries as writer
    from embedcode.evaluate.instances import summarised
    from embedcode.evaluate.swebench import by_content
    from embedcode.evaluate.vectors import Moment

    if summaries is None:
        return rows, "raw"
    if summarise is None:
        found = writer.read(summaries)
    else:
        found = writer.Writer(summarise).write(
            rows, summaries, lambda done, total: progress(Moment("summarising issues", done, total, None))
        )
    asked = summarised(rows, {id: summary.text for id, summary in found.items()})
    models = sorted({found[one.id].model for one in rows})
    by = f", by {' and '.join(model or 'an unnamed writer' for model in models)}" if any(models) else ""
    return asked, f"summarised, {by_content(summaries)}{by}"


def _clone(repo: str, some: Sequence[Instance], repos: Path | None, chosen: Settings) -> Repository:
    from embedcode.evaluate import clones

    if repos is not None:
        return clones.local(repo, repos, some)
    return clones.cached(repo, chosen.home / "clones", some, output.note)
