"""`embedcode train --on` over a repository, as a user runs it: how long, and what it gains on files held out.

    python bench/train/own.py CLONE --out FILE [--minutes 20]

CLONE is a checkout with its history; its name and commit are noted. Everything is in the time: mining, scoring before
and after, training, and the verdict.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--minutes", type=float, default=20, help="of the steps")
    args = parser.parse_args()
    result = record.context()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=args.clone, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus.own_settings(Path(folder))
        command = [sys.executable, "-m", "embedcode", "train", "--on", str(args.clone), "--out", f"{folder}/run"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "--minutes", f"{args.minutes:g}", "--json"], stdout=subprocess.PIPE, check=True
        )
        seconds = time.perf_counter() - start
        verdict = json.loads(done.stdout)
        log = [json.loads(line) for line in (Path(folder) / "run" / "log.jsonl").read_text().splitlines()]
    result |= {
        "repository": args.clone.resolve().name, "at": commit.stdout.strip(), "minutes": args.minutes,
        "seconds": round(seconds), "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        **verdict, "folder": None, "kept": verdict["folder"] is not None, "log": log,
    }  # fmt: skip
    record.write(args.out, result)


if __name__ == "__main__":
    main()
