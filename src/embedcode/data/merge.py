"""Several files of pairs to one: copies, near copies and texts said of too many functions are left out.

Two readings: the first keeps 420 bytes a pair, so a million take as much memory as a browser's tab. Knows no miner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcode.data import minhash, pairs
from embedcode.data.docstrings import REPEATED, Repeats
from embedcode.data.never import fingerprint_of, tokens
from embedcode.errors import UsageError
from embedcode.types import Pair

EXACT = "copy of another's positive"
NEAR = "nearly a copy"
_EVERY = 1000


def merge(
    files: Sequence[Path], put: Callable[[Pair], None], progress: Callable[[int], None] = lambda done: None
) -> tuple[dict[str, Any], pairs.Bad]:
    """Put the pairs of `files` whose positives are no copies of earlier ones, in order; counts, and bad lines."""
    if piped := next((file for file in files if file.exists() and not file.is_file()), None):
        raise UsageError(f"{piped} is not a regular file, and files are read twice: write it to one first.")
    signatures: list[minhash.Signatures] = []
    exact: list[bool] = []
    seen: set[bytes] = set()
    bad = pairs.Bad()
    for pair in pairs.read_all(files, bad):
        found = tokens("\n".join(pair.positives))
        known = fingerprint_of(found)
        exact.append(known in seen)
        seen.add(known)
        signatures.append(minhash.sketch(minhash.elements_of(found)))
        if not len(exact) % _EVERY:
            progress(len(exact))
    near = minhash.copies(np.stack(signatures)) if signatures else np.zeros(0, np.bool_)
    repeats, dropped, languages, licences = Repeats(), Counter[str](), Counter[str](), Counter[str]()
    for number, pair in enumerate(pairs.read_all(files)):
        if exact[number] or near[number]:
            dropped[EXACT if exact[number] else NEAR] += 1
        elif not repeats.admit(pair):
            dropped[REPEATED] += 1
        else:
            put(pair)
            languages[pair.language] += 1
            licences[pair.licence] += 1
    record = {
        "read": len(exact),
        "pairs": languages.total(),
        "languages": dict(languages.most_common()),
        "licences": dict(licences.most_common()),
        "dropped": dict(dropped.most_common()),
    }
    return record, bad
