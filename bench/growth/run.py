"""How the cost of indexing and of searching grows: the store alone, with 10,000, 100,000 and 500,000 chunks.

    python bench/growth/run.py --corpus DIR --out bench/growth/results/COMMIT.json

Vectors are random unit vectors; texts are words drawn by their frequency in DIR, so that terms are as frequent as in
real code. Everything is seeded. Each size is measured in a process of its own. Beside the JSON file it writes the same
as a plot, growth.svg, and prints it as a Markdown table; some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from plot import Chart, svg

import corpus
import record
from embedcode.search.search import POOL, Signals, search
from embedcode.store.sqlite import SqliteStore
from embedcode.store.terms import query_terms
from embedcode.types import Chunk, File, Floats, digest

CHUNKS_A_FILE = 10
WORDS, LINE_WORDS = 73, 4
"""Of a chunk and of its lines: the means of what the chunker makes of Django's package."""
CHUNK_LINES = -(-WORDS // LINE_WORDS)
FILES_A_COMMIT = 200
LEAST_WORDS, VOCABULARY = 1_000, 50_000
CHANGES = 5
WARM_UP = 10
_WORD = re.compile(r"[A-Za-z_]\w+")
T = TypeVar("T")

ROWS = {
    "write_s": "write texts and vectors, s",
    "first_lexical_s": "first query by words (derived data made), s",
    "first_dense_s": "first query by vector (derived data made), s",
    "open_s": "open again and query by both, s",
    "changed_s": "a file changes, next query by both, s",
    "lexical_ms": "words, short, p50, ms",
    "lexical_100_ms": "words, 100 terms, p50, ms",
    "dense_ms": "vector, p50, ms",
    "hybrid_ms": "both, with its hits, p50, ms",
    "sqlite_mb": "SQLite file, MB",
    "lexical_mb": "lexical data, MB",
    "dense_mb": "dense data, MB",
    "peak_mb": "peak memory, MB",
}


class Synthetic:
    """Seeded files and vectors; the words of the corpus by their frequency."""

    def __init__(self, words: list[str], counts: list[int], dim: int) -> None:
        self._words = words
        self._upto = np.cumsum(counts) / sum(counts)
        self._rng = np.random.default_rng(corpus.SEED)
        self._dim = dim

    def words(self, count: int) -> list[str]:
        places = np.searchsorted(self._upto, self._rng.random(count), side="right")
        return [self._words[i] for i in places.tolist()]

    def vectors(self, count: int) -> Floats:
        rows = self._rng.standard_normal((count, self._dim), np.float32)
        unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def file(self, number: int, chunks: int, extra: str = "") -> tuple[File, list[Chunk], list[bytes]]:
        """File `number` with new content, its chunks and their keys; `extra` is a word in the last chunk."""
        name = "_".join(self._words[number * step % len(self._words)] for step in (7, 11)).lower()
        path = f"folder{number // 1000}/part{number // 40 % 25}/{name}_{number}.py"
        pieces = []
        for i in range(chunks):
            words = [*self.words(WORDS), *([extra] if extra and i == chunks - 1 else [])]
            text = "\n".join(" ".join(words[at : at + LINE_WORDS]) for at in range(0, len(words), LINE_WORDS))
            first = i * CHUNK_LINES + 1
            pieces.append(Chunk("", path, first, first + CHUNK_LINES - 1, "python", words[0], text))
        keys = [digest(piece.id) for piece in pieces]
        return File(path, "", "python", "code", chunks * WORDS * 6, number + 1, digest(*keys)), pieces, keys


def measure(size: int, folder: Path, synthetic: Synthetic, dim: int, queries: int) -> dict[str, Any]:
    """All figures of one size, by the names of ROWS."""
    row: dict[str, Any] = {"chunks": size}
    short = [" ".join(synthetic.words(5)) for _ in range(queries)]
    long = [" ".join(_distinct(synthetic, 100)) for _ in range(queries)]
    vectors = synthetic.vectors(queries)
    with SqliteStore.open(folder, dim) as store:
        row["write_s"] = _write(store, synthetic, size)
        row["first_lexical_s"] = _seconds(lambda: store.lexical(query_terms(short[0]), POOL))
        row["first_dense_s"] = _seconds(lambda: store.dense(vectors[0], POOL))
        store.maintain()
    with SqliteStore.open(folder, dim) as store:
        row["open_s"] = _seconds(lambda: search(store, Signals(short[0], vectors[0]), 10))
        both = [Signals(text, vector) for text, vector in zip(short, vectors, strict=True)]
        row["lexical_ms"] = _median_ms(lambda text: store.lexical(query_terms(text), POOL), short)
        row["lexical_100_ms"] = _median_ms(lambda text: store.lexical(query_terms(text), POOL), long)
        row["dense_ms"] = _median_ms(lambda vector: store.dense(vector, POOL), list(vectors))
        row["hybrid_ms"] = _median_ms(lambda signals: search(store, signals, 10), both)
        row["changed_s"] = statistics.median(_change(store, synthetic, i) for i in range(CHANGES))
        row["peak_mb"] = record.peak_mb()
        store.maintain()
    row["sqlite_mb"] = sum(file.stat().st_size for file in folder.glob("index.sqlite*")) / 1e6
    for part in ("lexical", "dense"):
        row[f"{part}_mb"] = sum(file.stat().st_size for file in (folder / part).rglob("*") if file.is_file()) / 1e6
    return {name: record.short(value) for name, value in row.items()}


def _write(store: SqliteStore, synthetic: Synthetic, size: int) -> float:
    """Seconds that the store takes; making the texts is not counted."""
    seconds = 0.0
    for batch in _batches(size):
        files = [synthetic.file(number, chunks) for number, chunks in batch]
        vectors = synthetic.vectors(sum(chunks for _, chunks in batch))
        start = time.perf_counter()
        with store.begin() as transaction:
            for file, chunks, keys in files:
                transaction.upsert(file, chunks, keys)
            transaction.put_vectors([key for _, _, keys in files for key in keys], vectors)
            transaction.commit()
        seconds += time.perf_counter() - start
    return seconds


def _batches(size: int) -> Iterator[list[tuple[int, int]]]:
    """(number, chunks) of files, `size` chunks in all."""
    counts = [CHUNKS_A_FILE] * (size // CHUNKS_A_FILE) + ([size % CHUNKS_A_FILE] if size % CHUNKS_A_FILE else [])
    files = list(enumerate(counts))
    for start in range(0, len(files), FILES_A_COMMIT):
        yield files[start : start + FILES_A_COMMIT]


def _change(store: SqliteStore, synthetic: Synthetic, number: int) -> float:
    """Seconds from the content of a file to the first queries by words and by vector that find it."""
    term = f"unseen{'abcdefghij'[number]}word"
    file, chunks, keys = synthetic.file(number, CHUNKS_A_FILE, term)
    vectors = synthetic.vectors(CHUNKS_A_FILE)
    start = time.perf_counter()
    with store.begin() as transaction:
        transaction.upsert(file, chunks, keys)
        transaction.put_vectors(keys, vectors)
        transaction.commit()
    found = [store.lexical(query_terms(term), 1), store.dense(vectors[-1], 1)]
    seconds = time.perf_counter() - start
    if any(store.get([hits[0].id]) != [chunks[-1]] for hits in found):
        raise SystemExit(f"the change of {file.path} was not found")
    return seconds


def _distinct(synthetic: Synthetic, count: int) -> list[str]:
    terms: dict[str, float] = {}
    while len(terms) < count:
        words = [word for word in synthetic.words(count) if word.isascii() and word.isalpha() and word.islower()]
        terms = query_terms(" ".join([*terms, *words]))
    return list(terms)[:count]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _median_ms(call: Callable[[T], object], inputs: Sequence[T]) -> float:
    for value in inputs[:WARM_UP]:
        call(value)
    return statistics.median(_seconds(partial(call, value)) for value in inputs) * 1e3


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [(label, [f"{row[name]:,}" for row in rows]) for name, label in ({"chunks": "chunks"} | ROWS).items()]
    table = [f"| {label} | {' | '.join(cells)} |" for label, cells in lines]
    return "\n".join([table[0], f"|---|{'---:|' * len(rows)}", *table[1:]])


def charts(rows: list[dict[str, Any]]) -> list[Chart]:
    sizes = [row["chunks"] for row in rows]

    def chart(title: str, lines: dict[str, str]) -> Chart:
        return Chart(title, "chunks in the index", sizes, {k: [row[name] for row in rows] for k, name in lines.items()})

    query = {"words, short": "lexical_ms", "words, 100 terms": "lexical_100_ms", "vector": "dense_ms"}
    index = {"write": "write_s", "make lexical data": "first_lexical_s", "make dense data": "first_dense_s"}
    return [
        chart("A query, milliseconds (p50)", query | {"both": "hybrid_ms"}),
        chart("The index, seconds", index | {"open again": "open_s", "one file changes": "changed_s"}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="source tree whose words are used")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write; growth.svg goes beside it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 500_000], metavar="CHUNKS")
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--dim", type=int, default=384, help="numbers of a vector")
    args = parser.parse_args()
    result: dict[str, Any] = record.context() | {"words_from": args.corpus.resolve().name, "dim": args.dim}
    counts = Counter(word for text in corpus.texts(args.corpus).values() for word in _WORD.findall(text))
    if len(counts) < LEAST_WORDS:
        raise SystemExit(f"{args.corpus} has only {len(counts)} different words: give a larger source tree")
    words, frequencies = zip(*counts.most_common(VOCABULARY), strict=True)
    rows: list[dict[str, Any]] = []
    for size in sorted(args.sizes):
        synthetic = Synthetic(list(words), list(frequencies), args.dim)
        with (
            tempfile.TemporaryDirectory(prefix="embedcode-bench-") as folder,
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
        ):
            job = process.submit(measure, size, Path(folder) / "store", synthetic, args.dim, args.queries)
            rows.append(job.result())
        record.write(args.out, result | {"rows": rows})
        print(f"{size:,} chunks: {rows[-1]}", flush=True)
    args.out.with_name("growth.svg").write_text(svg(charts(rows)), "utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
