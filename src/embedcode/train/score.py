"""Scores of a model while it is trained: nDCG@10 on the retrieval tasks that steer the run. Knows no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedcode.evaluate.beir import Task
from embedcode.evaluate.metrics import mean, ndcg_at
from embedcode.train.batches import Texts

CUT = 10
DEEP = 100
"""Documents of a query that a run keeps; more change no figure at CUT."""


class Judge:
    """Tasks with their tokens, which are made once."""

    def __init__(self, tasks: Sequence[Task], texts: Texts, first: int = 0) -> None:
        self._tasks, self._first = tasks, first
        self._tokens = [
            (texts.query(list(task.queries.values())), texts.passage(list(task.corpus.values()))) for task in tasks
        ]

    def __len__(self) -> int:
        return len(self._tasks)

    def values(self, model: Any) -> dict[str, dict[str, float]]:
        """nDCG@10 of each query of each task."""
        from embedcode.train.network import encode

        out = {}
        for task, (queries, documents) in zip(self._tasks, self._tokens, strict=True):
            asked, found = encode(model, queries, self._first), encode(model, documents, self._first)
            out[task.name] = ndcg_at(CUT, run_of(task, asked @ found.T), task.qrels)
        return out


def run_of(task: Task, scores: Any) -> dict[str, dict[str, float]]:
    names = list(task.corpus)
    deep = min(DEEP, len(names))
    best = np.argpartition(-scores, deep - 1, axis=1)[:, :deep]
    return {
        query: {names[place]: float(scores[row, place]) for place in best[row]}
        for row, query in enumerate(task.queries)
    }


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {task: mean(one) for task, one in values.items()}


def overall(values: Mapping[str, Mapping[str, float]]) -> float:
    """The mean over tasks, each counted once."""
    return sum(means(values).values()) / len(values) if values else 0.0
