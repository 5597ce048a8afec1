"""Tokens a second of the packaged encoder against sentence-transformers (torch fp32) with all-MiniLM-L6-v2, the
network it was made from, on the same texts.

    python bench/main_job/paired.py --corpus DIR --peer E/bin/python --out bench/main_job/results/COMMIT-paired.json

E is made from bench/env/sentence_transformers.txt. Both sides start from the same strings, cut at the model's 512
tokens, and take turns, round after round, in one run; the first round is not counted. The texts are chunks of the
corpus as our chunker makes them. Give --batch-sizes to try others than sentence-transformers' default of 32: the
ratio is to the fastest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import corpus
import embedcode
import record
from embedcode.types import Floats, Role, Tokens, Truncate
from record import Figure

PAUSE_SECONDS = 0.5
"""Between turns: worker threads of the side before spin for a while."""


class Peer:
    """sentence-transformers in a process of another Python."""

    def __init__(self, python: Path, texts: list[str], max_tokens: int) -> None:
        script = Path(__file__).with_name("peer_sentence_transformers.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.about = self.ask({"texts": texts, "max_tokens": max_tokens})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peer has ended: see what it says above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="unpacked source archive")
    parser.add_argument("--peer", type=Path, required=True, help="Python of the sentence-transformers environment")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32], metavar="N", help="of the peer")
    args = parser.parse_args()
    result: dict[str, Any] = record.context()
    encoder = embedcode.load()
    texts = corpus.passages(args.corpus, args.texts)
    entries = encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END)
    tokens = sum(entry.used for entry in entries if isinstance(entry, Tokens))
    peer = Peer(args.peer, texts, encoder.max_tokens)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in args.batch_sizes}
    padding: dict[int, float] = {}
    vectors: Floats = np.empty((0, 0), np.float32)
    for number in range(args.rounds + 1):
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        vectors = encoder.encode(texts, Role.PASSAGE, truncate=Truncate.END)
        ours.append(tokens / (time.perf_counter() - start))
        for size in args.batch_sizes:
            time.sleep(PAUSE_SECONDS)
            answer = peer.ask({"batch_size": size})
            if answer["tokens"] != tokens:
                raise SystemExit(f"the peer reads {answer['tokens']} tokens of the same texts, we read {tokens}")
            theirs[size].append(tokens / answer["seconds"])
            padding[size] = record.short(answer["padding"])
        print(f"round {number}: {ours[-1]:,.0f}", *(f"{r[-1]:,.0f}" for r in theirs.values()), "tokens/s", flush=True)
    with tempfile.TemporaryDirectory() as work:
        saved = Path(work) / "vectors.npy"
        peer.ask({"save": str(saved)})
        other = np.load(saved)
    peer.close()
    cosines = (vectors * other).sum(1) / np.linalg.norm(other, axis=1)
    best = max(theirs, key=lambda size: statistics.median(theirs[size][1:]))
    ratios = [a / b for a, b in zip(ours[1:], theirs[best][1:], strict=True)]
    figures = [
        Figure("embedcode", "tokens/s", ours[1:], notes={"build": encoder.build, "padding": 0.0}),
        *(
            Figure(f"peer_batch_{size}", "tokens/s", rates[1:], notes={"padding": padding[size]})
            for size, rates in theirs.items()
        ),
        Figure("ratio", "x", ratios, at_least=1.7, notes={"peer_batch": best}),
    ]
    result |= {
        "corpus": args.corpus.resolve().name, "texts": len(texts), "tokens": tokens, "peer": peer.about,
        "cosine": {"mean": round(float(cosines.mean()), 5), "min": round(float(cosines.min()), 5)},
        "figures": {figure.name: figure.record() for figure in figures},
    }  # fmt: skip
    record.write(args.out, result)
    print(*figures, f"cosine to the peer: mean {cosines.mean():.4f}, least {cosines.min():.4f}", sep="\n")


if __name__ == "__main__":
    main()
