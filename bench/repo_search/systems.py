"""The systems that are compared: each turns the queries of one repository into ranked places. Knows no labels."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcode import Index, Role, Truncate
from embedcode.evaluate.bm25 import BM25
from embedcode.search.rank import ALL
from embedcode.search.search import Signals, search
from embedcode.store.terms import query_terms
from embedcode.types import Chunk, Floats

TOP = 50
"""Places asked of each system."""
CONTEXT = 10
"""Lines around a line that ripgrep finds: what `rg -C 10` shows."""


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    start_line: int
    end_line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.start_line}-{self.end_line}"


@dataclass(frozen=True, slots=True)
class Answers:
    """Ranked places of each query, in order, and the median milliseconds of one."""

    places: list[list[Place]]
    milliseconds: float


def timed(answer: Callable[[str], list[Place]], queries: Sequence[str]) -> Answers:
    places, times = [], []
    for query in queries:
        start = time.perf_counter()
        places.append(answer(query))
        times.append(1e3 * (time.perf_counter() - start))
    return Answers(places, statistics.median(times))


def ripgrep(root: Path, queries: Sequence[str]) -> Answers:
    """Lines by the number of different words of the query in them, then in their file; one place a file."""
    program = shutil.which("rg")
    if program is None:
        raise SystemExit("ripgrep is not installed: apt-get install ripgrep")

    def answer(query: str) -> list[Place]:
        words = [term for term in query_terms(query) if re.fullmatch(r"\w{3,}", term)]
        if not words:
            return []
        patterns = [part for word in words for part in ("-e", word)]
        command = [program, "-n", "-i", "-F", "--no-heading", "--null", "--max-filesize", "1M", *patterns, "."]
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
        best: dict[str, tuple[int, int]] = {}
        held: dict[str, set[str]] = {}
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            path, _, rest = line.partition("\0")
            number, _, text = rest.partition(":")
            found = {word for word in words if word in text.lower()}
            path = path.removeprefix("./")
            held.setdefault(path, set()).update(found)
            if number.isdigit() and len(found) > best.get(path, (0, 0))[0]:
                best[path] = len(found), int(number)
        ranked = sorted(best, key=lambda path: (-len(held[path]), -best[path][0], path))
        return [Place(p, max(1, best[p][1] - CONTEXT), best[p][1] + CONTEXT) for p in ranked[:TOP]]

    return timed(answer, queries)


def bm25_chunks(chunks: Iterable[Chunk], queries: Sequence[str]) -> Answers:
    """bm25s over our chunks with their paths."""
    places = {str(number): chunk for number, chunk in enumerate(chunks)}
    index = BM25([f"{chunk.path}\n{chunk.text}" for chunk in places.values()], list(places))

    def answer(query: str) -> list[Place]:
        return [_place(places[name]) for name, _ in index.search(query, TOP)]

    return timed(answer, queries)


def bm25_files(chunks: Iterable[Chunk], queries: Sequence[str]) -> Answers:
    """bm25s over whole files with their paths."""
    texts: dict[str, list[str]] = {}
    for chunk in chunks:
        texts.setdefault(chunk.path, [chunk.path]).append(chunk.text)
    index = BM25(["\n".join(parts) for parts in texts.values()], list(texts))
    return timed(lambda query: [Place(path, 1, 1 << 30) for path, _ in index.search(query, TOP)], queries)


def semble(python: Path, root: Path, queries: Sequence[str]) -> Answers:
    """semble's chunker, BM25 and ranker, in its own environment."""
    script = Path(__file__).with_name("peer_semble.py")
    request = json.dumps({"root": str(root), "queries": list(queries), "top_k": TOP})
    done = subprocess.run([python, script], input=request + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"semble failed on {root}: {done.stderr[-500:]}")
    answer = json.loads(done.stdout)
    return Answers([[Place(*place) for place in places] for places in answer["places"]], 1e3 * answer["seconds"])


class Ours:
    """One index of ours, asked with signals and rules switched on and off."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._vectors: dict[str, Floats] = {}

    def chunks(self) -> list[Chunk]:
        return [chunk for path in self.index.store.files() for _, chunk in self.index.store.chunks_of(path)]

    def answers(self, queries: Sequence[str], words: bool, vectors: bool, rules: frozenset[str] = ALL) -> Answers:
        def answer(query: str) -> list[Place]:
            vector = self._vector(query) if vectors else None
            hits = search(self.index.store, Signals(query if words else "", vector, query), TOP, rules=rules)
            return [_place(hit.chunk) for hit in hits]

        for query in queries if vectors else ():
            self._vector(query)
        return timed(answer, queries)

    def _vector(self, query: str) -> Floats:
        if query not in self._vectors:
            self._vectors[query] = self.index.encoder.encode([query], Role.QUERY, truncate=Truncate.END)[0]
        return self._vectors[query]


def _place(chunk: Chunk) -> Place:
    return Place(chunk.path, chunk.start_line, chunk.end_line)
