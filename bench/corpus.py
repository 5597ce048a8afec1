"""What the scripts take from a corpus, with a fixed seed: its files as the index reads them, passages, queries."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from pathlib import Path

from embedcode.index.prepare import Job, embedded_text, prepare
from embedcode.index.walk import Found, Source, read, walk
from embedcode.settings import MAX_FILE_BYTES
from embedcode.store.terms import query_terms, split

SEED = 0
_PROSE = re.compile(
    r"""^[ \t]*(?:r?"{3}|'{3}|//+|/\*\*?|\*|\#+)[ \t]*([A-Z][\w ,'`()-]{24,120}[\w)])[.\n]""", re.MULTILINE
)


def own_settings(work: Path, home: Path | None = None) -> None:
    """Keep the user's settings, indexes and cached vectors out of the run: all of ours lie in `work`, or what is worth
    keeping in `home`."""
    for name in [name for name in os.environ if name.startswith("EMBEDCODE_")]:
        del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = str(work / "config")
    os.environ["EMBEDCODE_HOME"] = str((home or work / "home").resolve())


def texts(root: Path) -> dict[str, str]:
    """Relative path to text of every file that the index would hold."""
    read_files = ((found.path, read(found)) for found in walk(root) if isinstance(found, Found))
    return {path: source.text for path, source in read_files if isinstance(source, Source)}


def passages(root: Path, count: int) -> list[str]:
    """`count` chunks, as the strings that are embedded."""
    jobs = (Job(found, None, MAX_FILE_BYTES, "") for found in walk(root) if isinstance(found, Found))
    out = [embedded_text(piece) for job in jobs for piece in prepare(job).chunks or []]
    return random.Random(SEED).sample(out, min(count, len(out)))


def questions(files: dict[str, str], count: int) -> list[str]:
    """First lines of docstrings and comments, of at least four words: what a person may ask. Repeated if too few."""
    found = {line for text in files.values() for line in _PROSE.findall(text) if len(line.split()) >= 4}
    if not found:
        raise SystemExit("the corpus has no comments to take queries from: give another one")
    chosen = random.Random(SEED).sample(sorted(found), min(count, len(found)))
    return [chosen[i % len(chosen)] for i in range(count)]


def long_queries(texts: Iterable[str], count: int, terms: int) -> list[str]:
    """Queries of exactly `terms` distinct terms, drawn from running text, so that frequent ones are in most of them."""
    rng = random.Random(SEED)
    sample = sorted(texts)
    sample = rng.sample(sample, min(400, len(sample)))
    words = [term for text in sample for term in split(text) if term.isascii() and term.isalpha() and len(term) > 1]
    if len(query_terms(" ".join(set(words)))) < terms:
        raise SystemExit(f"the corpus has fewer than {terms} different words: give another one")
    out = []
    for _ in range(count):
        distinct: dict[str, float] = {}
        while len(distinct) < terms:
            distinct = query_terms(" ".join([*distinct, *rng.choices(words, k=terms - len(distinct))]))
        out.append(" ".join(distinct))
    return out
