"""`train`: a recipe to a checkpoint, or a model to one that knows the user's own repository. Thin over train/."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.alone import alone
from embedcode.cli.progress import ProgressLine
from embedcode.errors import UsageError, extra

if TYPE_CHECKING:
    from embedcode.train.run import Outcome, Step

MINUTES = 25.0
"""Of steps, with --on: with mining, scores and writing it ends within half an hour."""


def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE.yaml", help="As those in recipes/.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the run and its model go; runs/NAME if left out.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print data mix and batches, do three steps on a tiny random network, and stop."
        ),
    ] = False,
    on: Annotated[
        Path | None, typer.Option("--on", metavar="PATH", help="A repository of yours to fine-tune a model on.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="With --on: a checkpoint in place of the packaged model."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="N", help=f"With --on: time for the steps; {MINUTES:g} if left out."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole checkpoint of the run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model by a recipe.

    embedcode train recipes/nv_embedcode_smollm.yaml --out runs/smollm

    embedcode train --on path/to/repo

    The second fine-tunes a model on the functions of a repository and the commits that edit them, says how well it
    finds those of files it has not seen, before and after, and keeps the new model only if it is better.

    A run that was killed goes on with --resume and ends as it would have. The checkpoint in DIR/model is loaded with
    --model DIR/model, and by SentenceTransformer.
    """
    if (recipe is None) == (on is None):
        raise UsageError("give a recipe, such as recipes/nv_embedcode_smollm.yaml, or a repository with --on")
    if on is not None:
        if dry_run:
            raise UsageError("--dry-run is for recipes: leave it out, or leave out --on")
        _train_on(on, out, model, MINUTES if minutes is None else minutes, resume, as_json)
        return
    assert recipe is not None
    if model is not None:
        raise UsageError("--model is for --on: a recipe names its base itself")
    if minutes is not None:
        raise UsageError("--minutes is for --on: a recipe has a key for it")
    with extra("train"), _quiet():
        from embedcode.train import recipe as recipes

        read = recipes.read(recipe)
        tell = output.note if as_json else output.put
        if dry_run:
            from dataclasses import asdict

            from embedcode.train.dry import dry

            report = dry(read, tell)
            if as_json:
                output.put_json(asdict(report))
            return
        from embedcode.train.run import Run

        place = out or Path("runs") / read.name
        with alone(place), ProgressLine() as line:
            outcome = Run(read, place, resume, _around(line), lambda step: line.draw(described(step))).go()
    _report(outcome, as_json)


def _train_on(path: Path, out: Path | None, model: str | None, minutes: float, resume: bool, as_json: bool) -> None:
    from embedcode import settings
    from embedcode.cli.opening import check

    check(str(path))
    if not 0 < minutes <= 24 * 60:
        raise UsageError(f"--minutes {minutes:g} must be above 0, and at most a day")
    place = out or Path("runs") / (path.resolve().name or "own")
    with extra("train"), _quiet(), alone(place), ProgressLine() as line:
        from embedcode.train import packaged
        from embedcode.train.own import own

        verdict = own(
            path, place, model or packaged.NAME, minutes, resume, settings.load().threads, _around(line),
            lambda step: line.draw(described(step)),
        )  # fmt: skip
    if as_json:
        from dataclasses import asdict

        output.put_json(asdict(verdict) | {"folder": verdict.folder and str(verdict.folder)})
        return
    output.put(verdict.text)
    if verdict.folder is None:
        why = f"worse at {' and '.join(verdict.worse)}s" if verdict.worse else "not better beyond chance"
        output.put(f"{why}: the old model stays, the new one is deleted")
    else:
        output.put(f"better: embedcode index {path} --model {verdict.folder}")


def _report(outcome: Outcome, as_json: bool) -> None:
    from embedcode.train.score import means

    before, after = means(outcome.before), means(outcome.after)
    if as_json:
        figures = {"before": before, "after": after}
        output.put_json({"model": str(outcome.folder), "steps": outcome.steps, "ndcg@10": figures})
        return
    for task, value in after.items():
        output.put(f"{task:<24} nDCG@10 {before[task]:.4f} -> {value:.4f}")
    output.put(f"{outcome.folder}: {outcome.steps:,} steps; try it with --model {outcome.folder}")


def _around(line: ProgressLine) -> Callable[[str], None]:
    """Remarks, with the line out of their way."""

    def told(text: str) -> None:
        line.wipe()
        output.note(text)

    return told


def described(step: Step) -> str:
    parts = [f"{step.what} {step.done:,}" + (f" of {step.total:,}" if step.total else "")]
    if step.loss is not None:
        parts.append(f"loss {step.loss:.3f}")
    done = step.done - step.before
    if done > 0 and step.seconds > 1:
        parts.append(f"{output.duration(step.seconds / done * (step.total - step.done))} left")
    return ", ".join(parts)


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' own remarks and progress bars stay out of the answer."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import logging
    import warnings

    from transformers.utils import logging as loud

    before: Any = loud.get_verbosity()
    loud.set_verbosity_error()
    loud.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
            yield
    finally:
        loud.set_verbosity(before)
