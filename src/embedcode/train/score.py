"""Scores of a model while it is trained: nDCG@10 on the retrieval tasks that steer the run. Knows no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedcode.data import scoring
from embedcode.evaluate.beir import Task
from embedcode.evaluate.metrics import mean, ndcg_at
from embedcode.train.batches import Texts
from embedcode.types import Floats

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
            out[task.name] = ndcg(task, asked, found)
        return out


def ndcg(task: Task, queries: Floats, documents: Floats) -> dict[str, float]:
    """nDCG@10 of each query of a task, by vectors in its order."""
    names = list(task.corpus)
    run = {
        query: dict(zip((names[place] for place in places), map(float, scores), strict=True))
        for query, scores, places in zip(task.queries, *scoring.nearest(queries, documents, DEEP), strict=True)
    }
    return ndcg_at(CUT, run, task.qrels)


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {task: mean(one) for task, one in values.items()}


def overall(values: Mapping[str, Mapping[str, float]]) -> float:
    """The mean over tasks, each counted once."""
    return sum(means(values).values()) / len(values) if values else 0.0
