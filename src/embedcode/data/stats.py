"""What is in a file of pairs: how many, of what kind and language, under which licences, how long.

Knows no evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from embedcode.types import Pair

SHARES = (5, 50, 95)
"""Percentiles of a length."""


def stats(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Counts by task, language, licence and source, and percentiles of lengths in characters. Streams the pairs."""
    counts = {name: Counter[str]() for name in ("task", "language", "licence", "source")}
    lengths: dict[str, list[int]] = {"query": [], "positive": [], "negative": []}
    positives, negatives = Counter[int](), Counter[int]()
    queries = Counter[int]()
    total = 0
    for pair in pairs:
        total += 1
        for name, counter in counts.items():
            counter[getattr(pair, name) or "(none)"] += 1
        positives[len(pair.positives)] += 1
        negatives[len(pair.negatives)] += 1
        queries[hash(pair.query)] += 1
        lengths["query"].append(len(pair.query))
        lengths["positive"] += map(len, pair.positives)
        lengths["negative"] += map(len, pair.negatives)
    sources = counts.pop("source")
    return {
        "pairs": total,
        "queries": len(queries),
        **{f"{name}s": dict(counter.most_common()) for name, counter in counts.items()},
        "sources": len(sources),
        "largest_sources": dict(sources.most_common(5)),
        "positives_a_pair": {str(number): count for number, count in sorted(positives.items())},
        "negatives_a_pair": {str(number): count for number, count in sorted(negatives.items())},
        "characters": {
            name: {f"p{share}": int(value) for share, value in zip(SHARES, np.percentile(sizes, SHARES), strict=True)}
            for name, sizes in lengths.items()
            if sizes
        },
    }
