"""What the verbs of `data` share: files of pairs as they are given, and counts of them as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli import output

if TYPE_CHECKING:
    from embedcode.data.pairs import Bad

Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Pairs in JSON lines; .gz is gzipped.")]
Pairs = Annotated[list[Path], typer.Argument(metavar="PAIRS...", help="Files of pairs, in JSON lines.")]


def put_record(record: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        output.put_json(record)
    else:
        _put_counts(record)


def _put_counts(record: Mapping[str, object], indent: str = "") -> None:
    """A record for people: numbers beside their names, tables below."""
    for name, value in record.items():
        shown = name.replace("_", " ")
        if isinstance(value, dict):
            if value:
                output.put(f"{indent}{shown}:")
                _put_counts(value, indent + "  ")
        elif isinstance(value, list):
            if value:
                output.put(f"{indent}{shown}:")
                for item in value:
                    output.put(f"{indent}  {item}")
        elif isinstance(value, bool):
            output.put(f"{indent}{shown}: {'yes' if value else 'no'}")
        else:
            output.put(f"{indent}{shown}: {value:,}" if isinstance(value, int) else f"{indent}{shown}: {value}")


def tell(bad: Bad) -> None:
    """Lines that were skipped, on stderr."""
    for example in bad.examples:
        output.note(f"skipped {example}")
    if bad.lines > len(bad.examples):
        output.note(f"skipped {bad.lines - len(bad.examples):,} more lines that are no pairs")
