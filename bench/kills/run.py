"""A repository indexed by two processes at once that are killed at random: does it answer as a fresh index does?

    python bench/kills/run.py --corpus DIR --kills 50 --out results.json

Every round starts two `embedcode index DIR --wait` and kills both with SIGKILL after a random time; the last update is
left alone. Then every chunk, and the hits of 60 queries in the three modes, are compared with those of an index made
in one go elsewhere. Queries are the first words of chunks drawn at random.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from embedcode import Index, Mode, Query
from embedcode.store.terms import split

QUERIES = 60


def killed_rounds(corpus: Path, home: Path, kills: int, longest: float, rng: random.Random) -> int:
    """How many of the processes were still at work when they were killed."""
    environment = os.environ | {"EMBEDCODE_HOME": str(home)}
    command = [sys.executable, "-m", "embedcode", "index", str(corpus), "--wait"]
    at_work = 0
    for _ in range(kills // 2):
        pair = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
        time.sleep(rng.uniform(0.3, longest))
        for process in pair:
            at_work += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
    return at_work


def answers(corpus: Path, home: Path, queries: list[str]) -> tuple[dict[str, Any], list[str]]:
    os.environ["EMBEDCODE_HOME"] = str(home)
    with Index.open(corpus) as index:
        report = index.update()
        index.store.maintain(rebuild=True)  # deleted chunks leave the statistics that lexical scores rest on
        assert report.embedded == report.chunks and not report.failed
        chunks = {path: [chunk.id for _, chunk in index.store.chunks_of(path)] for path in index.store.files()}
        if not queries:
            rng = random.Random(1)
            every = [chunk for path in sorted(chunks) for _, chunk in index.store.chunks_of(path)]
            drawn = rng.sample(every, min(QUERIES, len(every)))
            queries = [" ".join(split(chunk.text)[:8]) for chunk in drawn]
        hits = {
            f"{mode} {query}": sorted((-round(h.score, 3), h.chunk.id) for h in index.search(Query(query, mode=mode)))
            for query in queries
            for mode in Mode
        }
        return {"chunks": chunks, "hits": hits}, queries


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill two indexers at random; compare with a fresh index.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds until a round is killed, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed, fresh = Path(folder, "killed"), Path(folder, "fresh")
        at_work = killed_rounds(args.corpus, killed, args.kills, args.longest, random.Random(args.seed))
        expected, queries = answers(args.corpus, fresh, [])
        found, _ = answers(args.corpus, killed, queries)
    other = sum(found["hits"][name] != expected["hits"][name] for name in expected["hits"])
    result = {
        "corpus": args.corpus.name,
        "files": len(expected["chunks"]),
        "chunks": sum(map(len, expected["chunks"].values())),
        "processes_killed_at_work": at_work,
        "same_chunks": found["chunks"] == expected["chunks"],
        "answers": len(expected["hits"]),
        "answers_that_differ": other,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(0 if result["same_chunks"] and not other else 1)


if __name__ == "__main__":
    main()
