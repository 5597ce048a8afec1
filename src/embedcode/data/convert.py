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
    lacking = f"no texts {query!r} and {positive!r}"

    def parse(raw: bytes) -> Pair:
        try:
            row = json.loads(raw)
            asked, answer = (row[key].strip() for key in (query, positive))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ValueError(lacking) from None
        if not asked or not answer:
            raise ValueError(lacking)
        return replace(like, query=asked, positives=(answer,))

    found = 0
    try:
        for pair in pairs.rows(file, parse, bad):
            found += 1
            yield pair
    except pairs.UNREADABLE as error:
        raise UsageError(f"{file} cannot be read ({str(error) or 'cut short'}): give a file of JSON lines.") from None
    if not found:
        raise UsageError(f"{file} has no line with texts {query!r} and {positive!r}: name its keys.")
