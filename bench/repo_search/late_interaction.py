"""Is a second stage worth its milliseconds? The best hits read again by the encoder's token vectors (tuning half).

    python bench/repo_search/late_interaction.py --repos REPOS --home HOME --out results.json

MaxSim (Khattab and Zaharia 2020): for each token of the query the best cosine among the passage's tokens, averaged;
added to a hit's score with a weight. Token vectors are the packaged model's last states, made at query time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from run import from_queries, scored
from systems import TOP, Place

import corpus
import record
from embedcode import Index, Role, Truncate
from embedcode.engine.graph import GraphEncoder
from embedcode.evaluate.metrics import mean, ndcg_at
from embedcode.index.prepare import embedded_text
from embedcode.search.search import Signals, search
from embedcode.types import Floats, Tokens

DEPTHS = (10, 20, 50)
WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)


def states(encoder: GraphEncoder, texts: list[str], role: Role) -> list[Floats]:
    """Unit token vectors [tokens, dim] of each text, without the special tokens."""
    found = []
    for entry in encoder.tokenize(texts, role, truncate=Truncate.END):
        assert isinstance(entry, Tokens)
        raw = encoder._session.run(np.array([entry.ids]), None)[0][1:-1]
        found.append(raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = record.context()
    corpus.own_settings(args.home.resolve(), args.home)
    asked = from_queries(args.repos.resolve(), "tuning")
    qrels = {one.id: {"target 0": 1} for one in asked}
    runs: dict[tuple[int, float], dict[str, list[Place]]] = {(d, w): {} for d in DEPTHS for w in WEIGHTS}
    times: list[float] = []
    for root in dict.fromkeys(one.root for one in asked):
        with Index.open(root) as index:
            for one in [one for one in asked if one.root == root]:
                vector = index.encoder.encode([one.query], Role.QUERY, truncate=Truncate.END)[0]
                hits = search(index.store, Signals(one.query, vector, one.query), TOP)
                start = time.perf_counter()
                (query,) = states(index.encoder, [one.query], Role.QUERY)
                passages = states(index.encoder, [embedded_text(hit.chunk) for hit in hits], Role.PASSAGE)
                late = [float((query @ passage.T).max(1).mean()) for passage in passages]
                times.append((time.perf_counter() - start) / len(hits) * 1e3)
                for depth, weight in runs:
                    order = (
                        sorted(
                            range(len(hits)),
                            key=lambda i: -(hits[i].score + weight * late[i] + (10 if i < depth else 0)),
                        )
                        if weight
                        else range(len(hits))
                    )
                    chunks = [hits[i].chunk for i in order]
                    runs[depth, weight][one.id] = [Place(c.path, c.start_line, c.end_line) for c in chunks]
    result["ms_a_hit"] = record.short(statistics.median(times))
    result["rows"] = {}
    for (depth, weight), run in runs.items():
        values = [mean(ndcg_at(10, scored(asked, run, whole), qrels)) for whole in (False, True)]
        result["rows"][f"top {depth}, weight {weight}"] = {"place": round(values[0], 4), "file": round(values[1], 4)}
        print(f"top {depth}, weight {weight}: place {values[0]:.4f}, file {values[1]:.4f}")
    record.write(args.out, result)
    print(f"{result['ms_a_hit']} ms a hit on one thread")


if __name__ == "__main__":
    main()
