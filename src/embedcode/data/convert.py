"""Questions and answers that somebody has in other JSON lines, as pairs: which key is the query, and which its answer.

Knows no source; who converts a file says where it is from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from embedcode.data import pairs
from embedcode.errors import UsageError
from embedcode.types import Pair


def convert(file: Path, query: str, positive: str, like: Pair, bad: pairs.Bad) -> Iterator[Pair]:
    """Pairs with the task, language, source and licence of `like`. `bad` collects the lines that lack one of the keys.

    UsageError for a file that cannot be read, and where no line has both.
    """
    found = 0
    try:
        with pairs.open_text(file) as lines:
            for number, raw in enumerate(lines, 1):
                try:
                    row = json.loads(raw)
                    asked, answer = (row[key].strip() for key in (query, positive))
                    if not asked or not answer:
                        raise ValueError
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    if raw.strip():
                        bad.add(f"{file}, line {number}: no texts {query!r} and {positive!r}")
                    continue
                found += 1
                yield replace(like, query=asked, positives=(answer,))
    except (OSError, EOFError) as error:
        raise UsageError(f"{file} cannot be read ({str(error) or 'cut short'}): give a file of JSON lines.") from None
    if not found:
        raise UsageError(f"{file} has no line with texts {query!r} and {positive!r}: name its keys.")
