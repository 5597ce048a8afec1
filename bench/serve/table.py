"""aiperf's table of our server, by its endpoint type `nim_embeddings`.

    python bench/serve/table.py --aiperf E/bin/aiperf --tokenizer DIR --out FILE

E is made from bench/env/serve_aiperf.txt; DIR has the tokenizer that aiperf counts with, as transformers reads it: that
of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import started

import corpus
import record

ASKED = (
    "--concurrency", "4", "--request-count", "120", "--batch-size-text", "4", "--synthetic-input-tokens-mean", "120",
    "--synthetic-input-tokens-stddev", "40",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--aiperf", type=Path, required=True, help="the program in that environment")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    result = record.context()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus.own_settings(work)
        with started.embedcode(work) as server:
            given = ("-m", f"{started.MODEL}-passage", "--endpoint-type", "nim_embeddings", *ASKED)
            place = ("--url", f"http://127.0.0.1:{server.port}", "--tokenizer", str(args.tokenizer))
            kept = ("--artifact-dir", str(work / "found"), "--ui-type", "none")
            subprocess.run([args.aiperf, "profile", *given, *place, *kept], check=True, cwd=work)
        (found,) = (work / "found").rglob("profile_export_aiperf.json")
        metrics = {name: one for name, one in json.loads(found.read_text("utf-8")).items()
                   if isinstance(one, dict) and "avg" in one}  # fmt: skip
    version = subprocess.run([args.aiperf, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    record.write(args.out, result | {"aiperf": version, "given": given, "metrics": metrics})


if __name__ == "__main__":
    main()
