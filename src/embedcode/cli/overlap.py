"""`eval overlap` and `data check`: what pairs have in common with evaluation sets, and what else may not be trained on.
Functions for the two groups. Thin over data/overlap.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.options import Json
from embedcode.cli.pairs import Pairs, tell
from embedcode.cli.progress import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedcode.data.overlap import Evaluations, Report


def overlap(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Pairs, in JSON lines.")],
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVAL...", help="Folders in BEIR layout: corpus, queries, qrels.")
    ],
    as_json: Json = False,
) -> None:
    """Say which training pairs copy an evaluation set.

    By content: equal texts, near duplicates of at least 80 % of the words and texts inside of others, code whatever
    its names; and by sources that are never trained on. Of negatives the copy alone is dropped, not its pair.
    Exit code 1 when there are any; `embedcode data check --out` drops them.
    """
    from embedcode.data.overlap import Evaluations
    from embedcode.evaluate import beir

    if _compared([train], Evaluations([beir.load(folder) for folder in evaluations]), as_json):
        raise typer.Exit(1)


def check(
    files: Pairs,
    evaluations: Annotated[
        list[Path] | None,
        typer.Option("--eval", metavar="FOLDER", help="An evaluation set in BEIR layout; may be given again."),
    ] = None,
    held: Annotated[
        Path | None, typer.Option("--held-out", metavar="FILE.toml", help="Sources that are kept for evaluation.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the pairs that may be trained on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which pairs may not be trained on: licence, never.toml, copies of evaluation sets.

    Exit code 1 when there are any and no --out to drop them.
    """
    from embedcode.data import holdout
    from embedcode.data.overlap import Evaluations
    from embedcode.evaluate import beir

    sources = holdout.load(held).entries() if held else ()
    known = Evaluations([beir.load(folder) for folder in evaluations or ()], sources)
    if _compared(files, known, as_json, out, licensed=True) and out is None:
        raise typer.Exit(1)


def _compared(
    files: Sequence[Path], known: Evaluations, as_json: bool, out: Path | None = None, licensed: bool = False
) -> int:
    """Say which pairs and negatives may not be trained on, and how many those are; `out` gets the others. `licensed`
    ones only may, or any."""
    from contextlib import nullcontext

    from embedcode.data import licences, pairs
    from embedcode.data.overlap import Report, allowed

    report, bad, unlicensed = Report(), pairs.Bad(), 0
    with ProgressLine() as line, nullcontext() if out is None else pairs.writing(out) as keep:
        for pair in allowed(pairs.read_all(files, bad), known, report):
            if licensed and not licences.allowed(pair.licence):
                unlicensed += 1
            elif keep is not None:
                keep(pair)
            if not report.pairs % 1000:
                line.draw(f"{report.pairs:,} pairs read, {report.forbidden:,} overlap")
    tell(bad)
    if as_json:
        counts = {"unlicensed": unlicensed} if licensed else {}
        output.put_json(_described(report, known) | counts | {"bad_lines": bad.lines})
    else:
        _put(report, known)
        if unlicensed:
            output.put(f"{unlicensed:,} pairs without a licence of the allow-list")
    return report.forbidden + report.negatives + unlicensed


def _described(report: Report, known: Any) -> dict[str, Any]:
    """For machines."""
    return {
        "pairs": report.pairs,
        "overlapping": report.forbidden,
        "negatives": report.negatives,
        "evaluation_sets": known.names,
        "texts_too_short": known.least,
        "by_set": [
            {"set": where, "kind": kind, "text": text, "pairs": count}
            for (where, kind, text), count in report.by_set.most_common()
        ],
        "examples": [
            {"set": one.where, "kind": one.kind, "text": one.text, "other": one.other, "similarity": one.similarity}
            for one in report.examples
        ],
    }


def _put(report: Report, known: Any) -> None:
    """For people."""
    sets = f"{len(known.names)} evaluation sets of {len(known):,} texts"
    output.put(f"{report.forbidden:,} of {report.pairs:,} pairs may not be trained on, against {sets}")
    if report.negatives:
        output.put(f"{report.negatives:,} negatives of other pairs may not, and go alone")
    if known.least:
        output.put(f"{known.least:,} texts of the sets are too short to be compared but for equal ones")
    words = {
        "equal": "equal to one of",
        "near": "nearly one of",
        "inside": "holds, or is part of, one of",
        "renamed": "but for its names holds, or is part of, one of",
        "name": "from",
    }
    for (where, kind, text), count in report.by_set.most_common():
        output.put(f"  {count:>8,}  {text} {words[kind]} {where}")
    for one in report.examples:
        near = f" ({one.similarity:.2f})" if one.kind in ("near", "inside", "renamed") else ""
        output.put(f"  such as a {one.text} like {one.other} of {one.where}{near}")
