"""A repository indexed by two processes at once that are killed at random: does it answer as a fresh index does?

    python bench/kills/run.py --corpus DIR --kills 50 --out results.json

Works on a copy. Every round cuts some files in half, or makes them whole again, starts two `embedcode index COPY
--wait` and kills both with SIGKILL after a random time, until `--kills` of them were reading or embedding when they
were killed. After one undisturbed update and a few more edits, the index is brought up to date as by any search, and
compared with one made in one go elsewhere: every file and chunk, and the hits of 60 queries in the three modes.
Queries are the first words of chunks drawn at random.

Until lexical data are made anew, which is when a tenth of their rows are dead (DEAD_SHARE), deleted chunks count in the
statistics of BM25; so lexical and hybrid scores may be off by NEAR at first, and must agree once all is made anew.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
from embedcode import Index, Mode, Query
from embedcode.index.walk import Found, walk
from embedcode.store.terms import split

QUERIES = 60
HITS = 100_000
"""All there are: which of equal scores come first depends on the order in which chunks came in, and a rule on the best
sixty would carry that to others."""
EDITED = 0.1
"""Share of the files that change in a round."""
LAST_EDITED = 0.03
"""The same before the comparison: few enough that deleted rows stay."""
EXACT = 1e-5
"""Of scores from 0 to about 1; cosines are rounded to 6 decimals."""
NEAR = {Mode.DENSE: EXACT, Mode.LEXICAL: 0.15, Mode.HYBRID: 0.15}
"""Deleted rows stay in the statistics of words until a tenth is dead; and where that changes which chunk of a file is
its best, the rule `file` moves .1 from one to the other."""

Hits = dict[tuple[Mode, str], dict[str, float]]
"""For a query in a mode, the score of each hit by its chunk's id."""


class Checkout:
    """A copy of the corpus whose files come and go in halves."""

    def __init__(self, corpus: Path, root: Path, rng: random.Random) -> None:
        shutil.copytree(corpus, root, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        self.root = root
        self._rng = rng
        self._whole = {
            found.absolute: found.absolute.read_bytes() for found in walk(root.resolve()) if isinstance(found, Found)
        }

    def edit(self, share: float) -> None:
        for path in self._rng.sample(sorted(self._whole), max(1, round(share * len(self._whole)))):
            lines = self._whole[path].splitlines(keepends=True)
            half = b"".join(lines[: max(1, len(lines) // 2)])
            path.write_bytes(self._whole[path] if path.read_bytes() == half else half)


def kill_at_random(checkout: Checkout, home: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Returns how many processes it took until `kills` were hit at work."""
    corpus.own_settings(home, home)
    command = [sys.executable, "-m", "embedcode", "index", str(checkout.root), "--wait"]
    quiet = subprocess.DEVNULL
    started = hit = 0
    while hit < kills:
        checkout.edit(EDITED)
        pair = [subprocess.Popen(command, stdout=quiet, stderr=quiet) for _ in range(2)]
        started += 2
        for process in pair:
            deadline = time.monotonic() + longest
            while process.poll() is None and process.pid not in holders(home) and time.monotonic() < deadline:
                time.sleep(0.01)  # it starts, or waits for the other
            time.sleep(rng.uniform(0, longest))
            working = process.pid in holders(home)
            process.send_signal(signal.SIGKILL)
            hit += process.wait() == -signal.SIGKILL and working
    return started


def holders(home: Path) -> set[int]:
    """The processes that read or embed now, rather than start, wait for each other or end."""
    found = set()
    for note in home.glob("indexes/*/*.json"):
        with suppress(OSError, ValueError):  # being written, or just removed
            found.add(json.loads(note.read_text())["pid"])
    return found


def update(root: Path, home: Path) -> Index:
    corpus.own_settings(home, home)
    index = Index.open(root)
    report = index.update()
    assert report.embedded == report.chunks and not report.failed
    return index


def chunks(index: Index) -> dict[str, list[str]]:
    return {path: [chunk.id for _, chunk in index.store.chunks_of(path)] for path in sorted(index.store.files())}


def draw(index: Index) -> list[str]:
    every = [chunk for path in sorted(index.store.files()) for _, chunk in index.store.chunks_of(path)]
    return [" ".join(split(chunk.text)[:8]) for chunk in random.Random(1).sample(every, min(QUERIES, len(every)))]


def ask(index: Index, queries: list[str]) -> Hits:
    return {
        (mode, query): {hit.chunk.id: hit.score for hit in index.search(Query(query, mode=mode, top_k=HITS))}
        for query in queries
        if query
        for mode in Mode
    }


def apart(found: dict[str, float], expected: dict[str, float]) -> float:
    """The largest difference of a score. A hit of one side only counts by how far it is above the other's last one."""
    largest = 0.0
    for one, other in ((found, expected), (expected, found)):
        last = min(other.values()) if len(other) == HITS else 0.0
        for hit, score in one.items():
            largest = max(largest, abs(score - other[hit]) if hit in other else score - last)
    return largest


def compared(found: Hits, expected: Hits) -> dict[str, dict[str, float]]:
    """Of each mode, the largest difference of a score and how many answers have other hits or another order.

    Equal scores stand in the order in which the chunks came in, which is not the same in both.
    """
    result: dict[str, dict[str, float]] = {}
    for mode in Mode:
        pairs = [(found[key], expected[key]) for key in expected if key[0] is mode]
        result[mode.value] = {
            "answers": len(pairs),
            "in_another_order": sum(list(one) != list(other) for one, other in pairs),
            "score_apart": round(max(apart(one, other) for one, other in pairs), 6),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill two indexers at random; compare with a fresh index.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50, help="processes to hit at work")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds at work until a process is killed, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "killed")
        checkout = Checkout(args.corpus, Path(folder, args.corpus.resolve().name), rng)
        started = kill_at_random(checkout, home, args.kills, args.longest, rng)
        update(checkout.root, home).close()
        checkout.edit(LAST_EDITED)
        with update(checkout.root, Path(folder, "fresh")) as fresh, update(checkout.root, home) as killed:
            queries = draw(fresh)
            expected = chunks(fresh)
            same = chunks(killed) == expected
            same_files = {path: file.digest for path, file in killed.store.files().items()} == {
                path: file.digest for path, file in fresh.store.files().items()
            }
            plain = compared(ask(killed, queries), ask(fresh, queries))
            for index in (killed, fresh):
                index.store.maintain(rebuild=True)
            anew = compared(ask(killed, queries), ask(fresh, queries))
    result: dict[str, Any] = {
        "corpus": args.corpus.resolve().name,
        "files": len(expected),
        "chunks": sum(map(len, expected.values())),
        "processes": started,
        "killed_at_work": args.kills,
        "same_files": same_files,
        "same_chunks": same,
        "as_found": plain,
        "made_anew": anew,
        "tolerance": {mode.value: NEAR[mode] for mode in Mode},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    near = all(plain[mode.value]["score_apart"] <= NEAR[mode] for mode in Mode)
    exact = all(anew[mode.value]["score_apart"] <= EXACT for mode in Mode)
    sys.exit(0 if same_files and same and near and exact else 1)


if __name__ == "__main__":
    main()
