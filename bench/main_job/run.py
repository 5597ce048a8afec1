"""The main job as a user meets it: how long help, a first answer, all vectors, a second search and an edit take.

    python bench/main_job/run.py --corpus DIR --out bench/main_job/results/COMMIT.json

DIR is an unpacked source archive (we use Django 5.2.8's from PyPI). It is copied, and every index lies in a temporary
folder, so nothing is known of it before; its files are in the system's cache. Whole processes are `python -m embedcode`
with its output in a pipe, from start to end. Medians of --repeats runs; half an hour on two cores, most of it for
--memory-lines and for the vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
import embedcode
import record
from embedcode.cli.app import VERBS
from embedcode.store.terms import query_terms
from embedcode.types import Mode, Query
from record import Figure

WARM_UP = 20
POLL_SECONDS = 0.02
COMMAND = [sys.executable, "-m", "embedcode"]


@dataclass(frozen=True, slots=True)
class Bench:
    """The copy of the corpus, its texts, and the folder that all homes lie in."""

    work: Path
    root: Path
    files: dict[str, str]
    args: argparse.Namespace

    @property
    def lines(self) -> int:
        return sum(text.count("\n") for text in self.files.values())


def timed(bench: Bench, home: str, *arguments: str) -> tuple[float, str]:
    """Seconds of a whole process, and its stdout. It has to succeed, which for a search means hits."""
    environment = os.environ | {"EMBEDCODE_HOME": str(bench.work / home)}
    start = time.perf_counter()
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=bench.work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"embedcode {' '.join(arguments)} ended with {done.returncode}: {done.stderr or 'no hits'}")
    return seconds, done.stdout


def help_(bench: Bench) -> Iterator[Figure]:
    """Every verb's help; the figure is that of the slowest."""
    runs: dict[str, list[float]] = {}
    for verb in ["", *VERBS]:
        arguments = [verb, "--help"] if verb else ["--help"]
        timed(bench, "home", *arguments)
        runs[verb or "embedcode"] = [timed(bench, "home", *arguments)[0] for _ in range(bench.args.repeats)]
    slowest = max(runs.values(), key=statistics.median)
    medians = {verb: record.short(statistics.median(values)) for verb, values in runs.items()}
    yield Figure("help", "s", slowest, below=0.2, notes={"verbs": medians})


def first_answer(bench: Bench) -> Iterator[Figure]:
    """A search by words in a repository that was never seen, a new home each time."""
    values = []
    for i in range(bench.args.repeats):
        values.append(timed(bench, f"first-{i}", "search", bench.args.query, str(bench.root), "--mode", "lexical")[0])
        shutil.rmtree(bench.work / f"first-{i}")
    yield Figure("first_answer", "s", values, below=8.0)


def every_vector(bench: Bench) -> Iterator[Figure]:
    """All vectors from nothing; the last home is kept for what follows."""
    seconds, rates, tokens, report = [], [], [], {}
    for _ in range(bench.args.embed_repeats):
        shutil.rmtree(bench.work / "home", ignore_errors=True)
        taken, out = timed(bench, "home", "index", str(bench.root), "--wait", "--json")
        report = json.loads(out)["indexes"][0]
        if report["embedded"] < report["chunks"]:
            raise SystemExit(f"{report['chunks'] - report['embedded']} chunks have no vector: {report['failed']}")
        seconds.append(taken)
        tokens.append(report["tokens"])
        rates.append(report["tokens"] / taken)
    notes = {"tokens": tokens[-1], "chunks": report["chunks"], "made": report["encoded"], "files": report["files"]}
    yield Figure("every_vector", "s", seconds, notes=notes)
    yield Figure("every_vector_rate", "tokens/s", rates)


def unchanged(bench: Bench) -> Iterator[Figure]:
    """A search where nothing has changed, all vectors in."""
    for mode in (Mode.HYBRID, Mode.LEXICAL):
        arguments = ["search", bench.args.query, str(bench.root), "--mode", mode.value]
        timed(bench, "home", *arguments)
        values = [timed(bench, "home", *arguments)[0] for _ in range(bench.args.repeats)]
        yield Figure(f"unchanged_{mode.value}", "s", values, below=1.0)


def in_process(bench: Bench) -> Iterator[Figure]:
    """Index.search in a process that has searched before."""
    count = bench.args.queries
    short = corpus.questions(bench.files, count)
    long = corpus.long_queries(bench.files.values(), count, 100)
    kinds = [
        ("search_hybrid", short, Mode.HYBRID, 15.0),
        ("search_lexical", short, Mode.LEXICAL, 5.0),
        ("search_lexical_100_terms", long, Mode.LEXICAL, 5.0),
        ("search_dense", short, Mode.DENSE, None),
    ]
    with embedcode.Index.open(bench.root) as index:
        for name, texts, mode, target in kinds:
            queries = [Query(text, mode=mode) for text in texts]
            for query in queries[:WARM_UP]:
                index.search(query)
            values = []
            for query in queries:
                start = time.perf_counter()
                index.search(query)
                values.append((time.perf_counter() - start) * 1e3)
            notes = {
                "p95": record.short(statistics.quantiles(values, n=20)[-1]),
                "terms": record.short(statistics.mean(len(query_terms(text)) for text in texts)),
            }
            yield Figure(name, "ms", values, below=target, notes=notes)


def one_file_changed(bench: Bench) -> Iterator[Figure]:
    """A new function at the end of a file, then a search for its name, which has to be the first hit."""
    rng = random.Random(corpus.SEED)
    candidates = [path for path, text in bench.files.items() if path.endswith(".py") and text.count("\n") > 20]
    if not candidates:
        raise SystemExit("the corpus has no Python file to change: give one that has")
    values = []
    for path in rng.choices(candidates, k=bench.args.repeats):
        name = "_".join("".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(2))
        with (bench.root / path).open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef {name}(value):\n    return value + 1\n")
        seconds, out = timed(bench, "home", "search", name, str(bench.root))
        first = out.split("\n 2  ")[0]
        if f"/{path}:" not in first.split("\n")[0] or f"def {name}" not in first:
            raise SystemExit(f"{name} was added to {path} and is not the first hit:\n{first}")
        values.append(seconds)
    yield Figure("one_file_changed", "s", values, below=2.0)


def peak_memory(bench: Bench) -> Iterator[Figure]:
    """Copies of the corpus, each file of them with a line of its own, until there are --memory-lines."""
    copies = -(-bench.args.memory_lines // bench.lines)
    root = bench.work / "large"
    for i in range(copies):
        for path, text in bench.files.items():
            file = root / f"copy{i}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n# copy {i}\n", "utf-8", newline="")
    large = {"lines": bench.lines * copies, "files": len(bench.files) * copies}
    words, seconds = watched(bench, "search", bench.args.query, str(root), "--mode", "lexical")
    yield Figure("first_answer_large", "s", [seconds], notes=large)
    vectors, _ = watched(bench, "index", str(root), "--wait", "--json", stop_after=bench.args.memory_embed_seconds)
    found = json.loads(timed(bench, "large-home", "status", str(root), "--json")[1])
    notes = large | {
        "reading_mb": record.short(words), "embedding_mb": record.short(vectors),
        "embedded_for_s": bench.args.memory_embed_seconds, "embedded": found["embedded"], "chunks": found["chunks"],
    }  # fmt: skip
    yield Figure("peak_memory", "MB", [max(words, vectors)], below=1500.0, notes=notes)


def watched(bench: Bench, *arguments: str, stop_after: float | None = None) -> tuple[float, float]:
    """Peak memory in MB and seconds of a process, which is ended after `stop_after` seconds."""
    environment = os.environ | {"EMBEDCODE_HOME": str(bench.work / "large-home")}
    start = time.perf_counter()
    peak = 0.0
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=bench.work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        peak = max(peak, record.peak_mb(process.pid))
        time.sleep(POLL_SECONDS)
        if stop_after is not None and time.perf_counter() - start > stop_after:
            process.terminate()  # not SIGINT, which is ignored below a shell that works in the background
            stop_after = None
    return peak, time.perf_counter() - start


PARTS = {
    "help": help_,
    "first": first_answer,
    "vectors": every_vector,
    "unchanged": unchanged,
    "searches": in_process,
    "edit": one_file_changed,
    "memory": peak_memory,
}
"""From `unchanged` to `edit` they stand on the index that `vectors` makes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="unpacked source archive")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each whole process")
    parser.add_argument("--embed-repeats", type=int, default=1, help="runs of making all vectors")
    parser.add_argument("--queries", type=int, default=200, help="searches of each kind in one process")
    parser.add_argument("--query", default="where are sessions invalidated?", help="what whole processes search for")
    parser.add_argument("--memory-lines", type=int, default=1_000_000)
    parser.add_argument("--memory-embed-seconds", type=float, default=60.0, help="how long vectors are made there")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS], help="only these, in this order")
    args = parser.parse_args()
    if min(args.repeats, args.embed_repeats) < 1 or args.queries < 2:
        parser.error("--repeats and --embed-repeats are at least 1, --queries at least 2")
    result: dict[str, Any] = record.context()
    with tempfile.TemporaryDirectory(prefix="embedcode-bench-") as folder:
        work = Path(folder).resolve()
        corpus.own_settings(work)
        root = work / "corpus"
        shutil.copytree(args.corpus, root, symlinks=True)
        bench = Bench(work, root, corpus.texts(root), args)
        result["corpus"] = {"name": args.corpus.resolve().name, "files": len(bench.files), "lines": bench.lines}
        result["query"] = args.query
        result["figures"] = {}
        print(f"{result['corpus']['name']}: {len(bench.files):,} files, {bench.lines:,} lines", flush=True)
        for part in args.parts:
            for figure in PARTS[part](bench):
                print(figure, flush=True)
                result["figures"][figure.name] = figure.record()
                record.write(args.out, result)  # each time: a late error must not cost what is measured


if __name__ == "__main__":
    main()
