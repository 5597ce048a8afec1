"""SWE-bench's file retrieval: the development issues as a smoke row, and speed and memory on made instances.

    python bench/evaluate/swebench.py dev   --instances dev.jsonl  --repos CLONES --home H --out .../dev.json
    python bench/evaluate/swebench.py scale --instances made.jsonl --repos CLONES --home H --out .../scale.json

Each row is one run of the command, as its output says. `scale` wants made_instances.py's 300 over 40,000 file versions
or more: within three minutes, within 2 GB with all processes together, no chunk embedded twice. For the latter a model
counts what it is given: the numbers say nothing, so it costs no time. 23 issues are too few for a claim.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
import record
from embedcode.evaluate import clones, history, instances, swebench
from embedcode.evaluate.choices import Protocol
from embedcode.settings import cores

ROWS: dict[str, tuple[str, ...]] = {
    "bm25, files": ("--system", "bm25"),
    "bm25, files, .py without tests": ("--system", "bm25", "--files", "py", "--no-tests"),
    "bm25, files, .py without tests, path words": ("--system", "bm25:paths", "--files", "py", "--no-tests"),
    "bm25, files, stemmed, no stop words": ("--system", "bm25:stem,stop"),
    "bm25, 450 tokens with path": ("--system", "bm25:chunks,paths"),
    "bm25, own chunks with path": ("--system", "bm25:chunks,paths", "--protocol", "search"),
    "lexical": ("--system", "lexical", "--protocol", "search"),
    "packaged model, own chunks": ("--protocol", "search"),
    "hybrid": ("--system", "hybrid", "--protocol", "search"),
    "packaged model, 450 tokens, .py without tests": ("--files", "py", "--no-tests"),
}
DIM = 8
POLL = 0.05
"""Seconds between two looks at the memory of all processes."""


def command(name: str, given: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """One run: its figures, wall seconds, and the most memory of all its processes together."""
    with tempfile.TemporaryDirectory() as out:
        line = [
            sys.executable, "-m", "embedcode", "eval", "swebench-lite", *given, "--json", "--out", out,
            "--instances", str(args.instances), "--repos", str(args.repos),
        ]  # fmt: skip
        before, begun = cpu(), time.perf_counter()
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(line, stdout=said)
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, record.peak_mb(process.pid))
                time.sleep(POLL)
            seconds, busy = time.perf_counter() - begun, cpu() - before
            said.seek(0)
            text = said.read()
    if process.returncode not in (0, 2) or not text:
        raise SystemExit(f"{name}: the command failed")
    found = json.loads(text)
    shown = {key: found[key] for key in ("system", "recall@1", "recall@3", "recall@5", "recall@10", "ndcg@10")}
    own = ("rows", "files left out")
    row = shown | {
        "intervals": found["intervals"],
        "queries": found["queries"],
        "documents": found["documents"],
        "conditions": {key: value for key, value in found["conditions"].items() if key not in own},
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "stages": found["seconds"],
        "peak_mb": round(peak),
        "partial": found["partial"],
        "command": " ".join(["embedcode eval swebench-lite", *given, "--instances FILE --repos CLONES"]),
    }
    figures = f"R@1 {row['recall@1']:.3f}  R@10 {row['recall@10']:.3f}"
    print(f"{name:<48} {figures}  {seconds:6.1f} s, {busy:6.1f} s of cores  {peak:,.0f} MB", flush=True)
    return row


def cpu() -> float:
    """Seconds of all cores that ended processes have used. On a shared machine it says more than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Counting:
    """An Encoder that counts the passages it is given; its vectors say nothing."""

    dim, max_tokens, space, build = DIM, 512, "counting", "counting"

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()

    def tokenize(self, *_: Any) -> list[Any]:
        return []

    def encode(self, texts: Sequence[str], role: Any, *arguments: Any) -> Any:
        from embedcode.types import Role, digest

        if role is Role.PASSAGE:
            self.asked.update(map(digest, texts))
        return np.full((len(texts), DIM), DIM**-0.5, np.float32)


def embedded_twice(args: argparse.Namespace) -> dict[str, Any]:
    rows = instances.read(args.instances)
    groups: dict[str, list[instances.Instance]] = defaultdict(list)
    for one in rows:
        groups[one.repo].append(one)
    counting: Any = Counting()
    held = distinct = 0
    with tempfile.TemporaryDirectory() as home:
        setup = swebench.system("counting", Protocol.SEARCH, lambda name: counting, Path(home))
        for repo, some in groups.items():
            found = history.read(
                clones.local(repo, args.repos, some), repo, some, setup.cutting, setup.files, True, cores()
            )
            for _, ranking in setup.system.rankings(found, some):
                assert not isinstance(ranking, str)
            held += sum(len(found.commits[one.commit].units) for one in some)
            distinct += found.units
    return {
        "chunks of all trees": held,
        "distinct chunks": distinct,
        "chunks embedded": counting.asked.total(),
        "embedded twice": sum(count > 1 for count in counting.asked.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["dev", "scale"])
    parser.add_argument("--instances", type=Path, required=True)
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--only", action="append", help="rows to measure; those of --out that are not named stay")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    corpus.own_settings(args.home.resolve(), args.home)
    made = json.loads(args.out.read_text()) if args.out.exists() else record.context() | {"rows": {}}
    if args.what == "dev":
        for name, given in ROWS.items():
            if not args.only or name in args.only:
                made["rows"][name] = command(name, given, args)
                record.write(args.out, made)
    else:
        row = command("lexical", ROWS["lexical"], args)
        counts = embedded_twice(args)
        print(counts)
        figures = [
            record.Figure("lexical, seconds", "s", [row["seconds"]], below=180),
            record.Figure("lexical, seconds of cores", "s", [row["cpu_seconds"]], below=180 * cores()),
            record.Figure("lexical, memory", "MB", [row["peak_mb"]], below=2000),
            record.Figure("file versions", "", [row["conditions"]["file versions"]], at_least=40_000),
            record.Figure("chunks embedded twice", "", [counts["embedded twice"]], below=1),
        ]
        for figure in figures:
            print(figure)
        made["figures"] = {figure.name: figure.record() for figure in figures}
        made["rows"]["lexical"] = row
        made["chunks"] = counts
        record.write(args.out, made)


if __name__ == "__main__":
    main()
