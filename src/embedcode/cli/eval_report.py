"""`eval report` and `eval compare`: what results say together. Thin over evaluate/report.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.eval_result import record
from embedcode.cli.options import Json
from embedcode.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedcode.evaluate.metrics import Interval
    from embedcode.evaluate.report import Comparison
    from embedcode.evaluate.result import Result

LISTED = 5
"""Queries won and lost that are shown; --json has all."""
FIRST = 10
"""Documents of a ranking that --explain shows."""
COLUMNS = 100
"""Of a document's text."""
LEVEL = 0.05
"""Of p, from which on nothing is shown."""
FEWEST = 6
"""Repositories, or queries, that a verdict needs: of five, all of which are for one side, p is .06."""


def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="Results of `eval`, or folders that hold them.")
    ],
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw quality against speed, of whole fresh results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set results beside each other, and beside published figures.

    The first table is like a model card's; then each task, with the command that makes each row again.
    """
    from embedcode.evaluate import report as reader

    found = reader.results(paths)
    rows, full, points = reader.card(found), reader.saturated(found), reader.speed(found)
    if svg is not None:
        _draw(svg, points)
    if as_json:
        output.put_json(
            {
                "card": [
                    {"system": row.system, "kind": row.kind, **_rounded(row), "from": row.where, "note": row.note}
                    for row in rows
                ],
                "results": [record(one) for one in found],
                "saturated": sorted(full),
                "lacking": reader.lacking(found),
                "speed": {name: {"texts/s": round(x, 2), "quality": round(y, 4)} for name, (x, y) in points.items()},
            }
        )
        return
    lines = [("system", "", *reader.COLUMNS.values(), "from")]
    for row in rows:
        figures = (f"{row.figures[name]:.2f}" if name in row.figures else "" for name in reader.COLUMNS)
        lines.append((row.system, row.kind, *figures, f"{row.where}{f' ({row.note})' if row.note else ''}"))
    _put_table(lines)
    for name, why in reader.lacking(found).items():
        output.put(f"no mean of CoIR for {name}: it lacks {why}")
    for task in dict.fromkeys(one.task for one in found):
        own = [one for one in found if one.task == task]
        metric = reader.main_metric(task)
        output.put("")
        sizes = " or ".join(dict.fromkeys(f"{one.queries:,} queries, {one.documents:,} documents" for one in own))
        output.put(f"{task}: {sizes}{'; saturated, a smoke test only' if task in full else ''}")
        _put_table(
            [
                ("system", metric, "95 %", "recall@10", "mrr@10", "seconds", "peak MB", "made"),
                *(_line(one, metric, own) for one in sorted(own, key=lambda one: -one.metrics[metric])),
            ]
        )
        for one in own:
            output.put(f"    {one.system}: {one.command}")


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result of `eval`, a .json file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another on the same task.")],
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="Such as recall@10; else what the task is judged by.")
    ] = "",
    explain: Annotated[
        str | None, typer.Option(metavar="QUERY", help="Show what both found for one query, by its id.")
    ] = None,
    task: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The task in BEIR's layout, for the texts of --explain.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two results: the difference, its interval, queries won and lost.

    Interval and p are paired: both systems answer the same queries.
    """
    from embedcode.evaluate import report as reader
    from embedcode.evaluate.result import read

    first, second = read(a), read(b)
    found = reader.compare(first, second, metric)
    if explain is not None:
        _explain((a, first), (b, second), explain, task, as_json)
        return
    difference, differing = found.difference, reader.apart([first, second])
    partial = [letter for letter, one in (("A", first), ("B", second)) if one.partial]
    if as_json:
        output.put_json(
            {
                "task": first.task, "a": first.system, "b": second.system, "metric": found.metric,
                "differing": differing,
                "partial": partial,
                "difference": round(difference.mean, 6),
                "interval": [round(difference.low, 6), round(difference.high, 6)],
                "p": difference.p, "clusters": found.clusters,
                "won": list(found.won), "lost": list(found.lost), "equal": found.equal,
            }
        )  # fmt: skip
        return
    output.put(f"{first.task}, {found.metric}, {first.queries:,} queries")
    if partial:
        output.put(f"  PARTIAL: {' and '.join(partial)}, queries are missing")
    for letter, one in (("A", first), ("B", second)):
        output.put(f"  {letter} {one.metrics[found.metric]:.4f}  {_named(one, differing)}")
    drawn = f"; {found.clusters} clusters (repositories) of queries are drawn whole" if found.clusters else ""
    output.put(f"  A - B {_interval(difference)}, p {difference.p:.4f}: {_verdict(found)}{drawn}")
    output.put(f"  {len(found.won)} queries won, {len(found.lost)} lost, {found.equal} equal")
    for word, queries in (("won", found.won), ("lost", found.lost)):
        if queries:
            more = ", …" if len(queries) > LISTED else ""
            output.put(f"  most {word}: {', '.join(queries[:LISTED])}{more}")
    if found.won or found.lost:
        output.put(f"  --explain {(*found.lost, *found.won)[0]} shows what both found")


def _explain(a: tuple[Path, Result], b: tuple[Path, Result], query: str, folder: Path | None, as_json: bool) -> None:
    from embedcode.evaluate import beir
    from embedcode.evaluate.report import ranking

    task = beir.load(folder) if folder is not None else None
    sides: list[dict[str, Any]] = []
    for path, result in (a, b):
        if all(query not in values for values in result.values.values()):
            raise UsageError(f"{query!r} is no query of {result.task} with a figure: give its id")
        found = ranking(path.with_suffix(".run"), query)
        figures = {name: values[query] for name, values in result.values.items() if query in values}
        sides.append({"system": result.system, "figures": figures, "found": found[:FIRST]})
    gains = task.qrels.get(query, {}) if task else {}
    if as_json:
        said = {"query": query, "text": task.queries.get(query) if task else None, "relevant": gains}
        output.put_json(said | {"a": sides[0], "b": sides[1]})
        return
    output.put(f"query {query}{f': {_short(task.queries.get(query, str()))}' if task else ''}")
    for side in sides:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in side["figures"].items())
        output.put(f"{side['system']}: {shown}")
        for rank, (document, score) in enumerate(side["found"], 1):
            mark = "*" if gains.get(document, 0) > 0 else " "
            text = f"  {_short(task.corpus.get(document, ''))}" if task else ""
            output.put(f" {mark}{rank:>3}  {score:9.4f}  {document}{text}")
    if gains:
        output.put(f"relevant (*): {', '.join(document for document, gain in gains.items() if gain > 0)}")


def _draw(path: Path, points: dict[str, tuple[float, float]]) -> None:
    from embedcode.evaluate.picture import svg
    from embedcode.files import replacing

    if not points:
        raise UsageError(
            "there is nothing to draw: a point needs whole results whose vectors were computed in that run, of every "
            "system on one same task"
        )
    try:
        with replacing(path) as file:
            file.write(svg(points, "texts a second, all stages", "mean figure of the tasks they share").encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error})") from None


def _line(one: Result, metric: str, beside: Sequence[Result]) -> tuple[str, ...]:
    from embedcode.evaluate.report import apart, made

    low, high = one.intervals.get(metric, (None, None))
    ends = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
    others = (f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in ("recall@10", "mrr@10"))
    own = [other for other in beside if other.system == one.system]
    kept = "*" if any((one.made.get("kept") or {}).values()) else ""
    return (
        f"{_named(one, ['convention', *apart(own)])}{' PARTIAL' if one.partial else ''}",
        f"{one.metrics[metric]:.4f}",
        ends,
        *others,
        f"{sum(one.seconds.values()):.1f}{kept}",
        f"{one.peak_mb:.0f}",
        made([one]),
    )


def _named(one: Result, conditions: Sequence[str]) -> str:
    """With those of its conditions that tell it apart."""
    told = [_short(f"{name}: {one.conditions[name]}") for name in dict.fromkeys(conditions) if name in one.conditions]
    return f"{one.system} ({', '.join(told)})" if told else one.system


def _rounded(row: Any) -> dict[str, float]:
    return {name: round(value, 2) for name, value in row.figures.items()}


def _interval(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _verdict(found: Comparison) -> str:
    units = found.clusters or len(found.won) + len(found.lost) + found.equal
    if units < FEWEST:
        return f"too few {'repositories' if found.clusters else 'queries'} ({units}) to say which is better"
    difference = found.difference
    if difference.p is None or difference.p >= LEVEL or difference.low <= 0 <= difference.high:
        return "nothing is shown"
    return f"{'A' if difference.mean > 0 else 'B'} is better"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= COLUMNS else f"{line[:COLUMNS]}…"


def _put_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of words to the left, of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    number = [all(row[at][:1].isdigit() or not row[at] for row in rows[1:]) for at in range(len(widths))]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(row, widths, number, strict=True)
        )
        output.put("  ".join(cells).rstrip())
