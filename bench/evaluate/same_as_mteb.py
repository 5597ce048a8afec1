"""The same figures by mteb and by ours, of the packaged model on a set in BEIR's layout; exit code 1 if they differ.

    E/bin/python bench/evaluate/same_as_mteb.py --data ../shared/data/dev/humaneval --out same.json

E has mteb (bench/env/mteb.txt) beside embedcode.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

import embedcode
import record
from embedcode.evaluate import beir
from embedcode.evaluate.measure import measure
from embedcode.evaluate.mteb import Model
from embedcode.evaluate.systems import Dense

PAIRS = {
    "ndcg@10": "ndcg_at_10", "recall@1": "recall_at_1", "recall@3": "recall_at_3", "recall@5": "recall_at_5",
    "recall@10": "recall_at_10", "recall@100": "recall_at_100", "mrr@10": "mrr_at_10",
}  # fmt: skip
CLOSE = 1e-5
"""mteb rounds to five places."""


def as_mteb(task: beir.Task) -> AbsTaskRetrieval:
    class Own(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Own", description=task.name, reference=None, type="Retrieval", category="t2t", modalities=["text"],
            dataset={"path": "own/own", "revision": "0" * 40}, eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="ndcg_at_10", date=None, domains=None, task_subtypes=None, license=None,
            annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
        )  # fmt: skip

        def load_data(self, **_: Any) -> None:
            corpus = Dataset.from_list([{"id": id, "title": "", "text": text} for id, text in task.corpus.items()])
            asked = {query: task.queries[query] for query in task.qrels}
            queries = Dataset.from_list([{"id": id, "text": text} for id, text in asked.items()])
            split = {"corpus": corpus, "queries": queries, "relevant_docs": task.qrels, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Own()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    result = record.context() | {"mteb": mteb.__version__, "set": args.data.name}
    task, encoder = beir.load(args.data), embedcode.load()
    with tempfile.TemporaryDirectory() as home:
        ours = measure(Dense("packaged", encoder, Path(home)), task, "").result.metrics
    theirs = mteb.evaluate(Model(encoder), as_mteb(task), cache=None, co2_tracker=False)
    scores = theirs.task_results[0].scores["test"][0]
    result["figures"] = {name: {"ours": round(ours[name], 6), "mteb": scores[other]} for name, other in PAIRS.items()}
    result["largest_difference"] = max(abs(ours[name] - scores[other]) for name, other in PAIRS.items())
    record.write(args.out, result)
    for name, row in result["figures"].items():
        print(f"{name:<11} ours {row['ours']:.6f}  mteb {row['mteb']:.6f}")
    sys.exit(result["largest_difference"] > CLOSE)


if __name__ == "__main__":
    main()
