"""`data hold-out` and `split`: what is kept for evaluation and may not be trained on. Thin over data/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli.options import Json
from embedcode.cli.pairs import Out, Pairs, put_record, tell
from embedcode.cli.progress import ProgressLine

if TYPE_CHECKING:
    from embedcode.types import Pair


def hold_out(
    files: Pairs,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.toml", help="The list; one that is there gets more languages.")
    ],
    languages: Annotated[str, typer.Option("--languages", metavar="A,B", help="Languages to hold sources out of.")],
    sources: Annotated[int, typer.Option("--sources", metavar="N", min=1, help="Reported sources a language.")] = 8,
    functions: Annotated[
        int, typer.Option("--functions", metavar="N", min=1, help="Functions that they have together.")
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Draws others.")] = 0,
    as_json: Json = False,
) -> None:
    """Choose the sources that are kept for evaluation.

    embedcode data hold-out merged.jsonl.gz --languages go,java -o recipes/held_out.toml

    For the report as asked, and for validation half as many, with two fifths of the functions.
    """
    from embedcode.data import holdout, pairs

    known = holdout.load(out) if out.exists() else holdout.HeldOut({})
    bad = pairs.Bad()
    wanted = {"reported": (sources, functions), "validation": (max(1, sources // 2), max(1, functions * 2 // 5))}
    more = [name.strip() for name in languages.split(",")]
    head = "Sources that are never trained on, drawn by `embedcode data hold-out`: what is here stays."
    with pairs.saving(out) as save:
        found = holdout.sizes(pairs.read_all(files, bad))
        tell(bad)
        chosen = holdout.choose(found, more, wanted, seed, known)
        save(holdout.text(chosen, head).encode())
    record = {
        part: {
            language: {"sources": len(of[language]), "functions": sum(found[language][name] for name in of[language])}
            for language in more
        }
        for part, of in chosen.parts.items()
    }
    put_record(record, as_json)


def split(
    files: Pairs,
    held: Annotated[Path, typer.Option("--held-out", metavar="FILE.toml", help="The list of sources.")],
    tasks: Annotated[Path, typer.Option("--tasks", metavar="FOLDER", help="Where the tasks go, in BEIR layout.")],
    out: Out,
    queries: Annotated[
        int, typer.Option("--queries", metavar="N", min=1, help="At most so many a task; validation has half.")
    ] = 1000,
    as_json: Json = False,
) -> None:
    """Divide pairs into tasks of held-out sources, and those to train on.

    embedcode data split merged.jsonl.gz --held-out recipes/held_out.toml --tasks tasks/ -o pairs.jsonl.gz
    """
    from collections import Counter

    from embedcode.data import holdout, pairs
    from embedcode.evaluate import beir

    listed, bad = holdout.load(held), pairs.Bad()
    kept: dict[str, list[Pair]] = {}
    counts = Counter[str]()
    with ProgressLine() as line, pairs.writing(out) as put:
        for pair, place in holdout.split(pairs.read_all(files, bad), listed):
            counts["trained" if not place else "left out" if place == "-" else "held out"] += 1
            if not place:
                put(pair)
            elif place != "-":
                kept.setdefault(place, []).append(pair)
            if not counts.total() % 1000:
                line.draw(f"{counts.total():,} pairs read, {counts['held out']:,} held out")
        made: dict[str, int] = {}
        for place, of in sorted(kept.items()):  # before the pairs take their place: whoever has them has the tasks
            part, _, language = place.partition(" ")
            made[name := f"{part}-{language}"] = len(of)
            beir.write(holdout.task(name, of, queries if part == "reported" else max(1, queries // 2)), tasks / name)
    tell(bad)
    put_record({**counts, "bad_lines": bad.lines, "tasks": made}, as_json)
