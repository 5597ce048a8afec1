"""`eval overlap`: what a file of pairs has in common with evaluation sets. A function for the group `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.options import Json
from embedcode.cli.pairs import tell

if TYPE_CHECKING:
    from embedcode.data.overlap import Report


def overlap(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Pairs, in JSON lines.")],
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVAL...", help="Folders in BEIR layout: corpus, queries, qrels.")
    ],
    as_json: Json = False,
) -> None:
    """Say which training pairs copy an evaluation set.

    By content: equal texts, near duplicates of at least 80 % of the words and texts inside of others; and by names that
    are never trained on.
    Exit code 1 when there are any; `embedcode data check --out` drops them.
    """
    from embedcode.data import pairs
    from embedcode.data.overlap import Evaluations, Report, allowed
    from embedcode.evaluate import beir

    known, report, bad = Evaluations([beir.load(folder) for folder in evaluations]), Report(), pairs.Bad()
    for _ in allowed(pairs.read(train, bad), known, report):
        pass
    tell(bad)
    if as_json:
        output.put_json(described(report, known) | {"bad_lines": bad.lines})
    else:
        put(report, known)
    if report.forbidden:
        raise typer.Exit(1)


def described(report: Report, known: Any) -> dict[str, Any]:
    """For machines."""
    return {
        "pairs": report.pairs,
        "overlapping": report.forbidden,
        "evaluation_sets": known.names,
        "by_set": [
            {"set": where, "kind": kind, "text": text, "pairs": count}
            for (where, kind, text), count in report.by_set.most_common()
        ],
        "examples": [
            {"set": one.where, "kind": one.kind, "text": one.text, "other": one.other, "similarity": one.similarity}
            for one in report.examples
        ],
    }


def put(report: Report, known: Any) -> None:
    """For people."""
    sets = f"{len(known.names)} evaluation sets of {len(known):,} texts"
    output.put(f"{report.forbidden:,} of {report.pairs:,} pairs may not be trained on, against {sets}")
    words = {
        "equal": "equal to one of",
        "near": "nearly one of",
        "inside": "holds, or is part of, one of",
        "name": "from",
    }
    for (where, kind, text), count in report.by_set.most_common():
        output.put(f"  {count:>8,}  {text} {words[kind]} {where}")
    for one in report.examples:
        near = f" ({one.similarity:.2f})" if one.kind in ("near", "inside") else ""
        output.put(f"  such as a {one.text} like {one.other} of {one.where}{near}")
