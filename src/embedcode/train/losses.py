"""The contrastive loss over a relation: which document of a batch answers which query, which does not, and which of
them nobody may say anything about. Knows no pairs and no tokens: batches.py decides the relation.

sentence-transformers has the in-batch losses; none takes explicit negatives only, and none leaves out a document that
answers a query by another of its pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

POSITIVE, UNKNOWN, NEGATIVE = 1, 0, -1
"""Entries of a relation [queries, documents]: what a query is to find, what it is not compared with, and the rest."""


def contrastive(
    queries: torch.Tensor,
    documents: torch.Tensor,
    relation: torch.Tensor,
    temperature: float,
    symmetric: bool = False,
) -> torch.Tensor:
    """InfoNCE (arXiv 1807.03748) of vectors [Q, dim] and [D, dim] over `relation` int8 [Q, D]: a scalar.

    For each query, the cross entropy of its positive among that positive and its negatives; of several positives each
    counts alone, and the query's value is their mean. A query without a positive or without a negative counts nothing.
    With `symmetric` the mean of that and the same from documents to queries. Vectors need not be of unit length.
    """
    scores = functional.normalize(queries.float(), dim=-1) @ functional.normalize(documents.float(), dim=-1).T
    scores = scores / temperature
    loss = _one_way(scores, relation)
    return (loss + _one_way(scores.T, relation.T)) / 2 if symmetric else loss


def packed(vectors: torch.Tensor, packing: str) -> torch.Tensor:
    """Unit vectors as a store packs them (engine/vectors.py), in int8 or by their signs; the gradient passes straight
    through (arXiv 1308.3432)."""
    exact = functional.normalize(vectors.float(), dim=-1)
    if packing == "int8":
        rough = (exact * 127).round() / 127
    else:
        rough = torch.where(exact > 0, 1.0, -1.0) / exact.shape[-1] ** 0.5
    return exact + (rough - exact).detach()


def _one_way(scores: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
    wrong = relation == NEGATIVE
    right = relation == POSITIVE
    asked = right.any(1) & wrong.any(1)
    if not bool(asked.any()):
        return scores.sum() * 0.0
    scores, wrong, right = scores[asked], wrong[asked], right[asked]
    against = scores.masked_fill(~wrong, -torch.inf).logsumexp(1, keepdim=True)
    each = torch.logaddexp(scores, against) - scores
    return (each.masked_fill(~right, 0.0).sum(1) / right.sum(1)).mean()


class Contrastive(torch.nn.Module):
    """`contrastive` as the trainer of sentence-transformers calls a loss: features of queries and of documents, and
    the relation as their label. With `packings` the mean of it and of the same over packed vectors; with `dimensions`
    the sum of that over the whole vectors and those cut to each smaller size (Matryoshka, arXiv 2205.13147)."""

    def __init__(
        self, model: Any, temperature: float, symmetric: bool = False, dimensions: Sequence[int] = (),
        packings: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.symmetric = symmetric
        self.dimensions = tuple(dimensions)
        self.packings = tuple(packings)

    def forward(self, features: Sequence[Mapping[str, Any]], relation: torch.Tensor) -> torch.Tensor:
        queries, documents = (self.model(dict(each))["sentence_embedding"] for each in features)
        whole = queries.shape[-1]
        # Not sentence-transformers' MatryoshkaLoss: it takes a relation of as many columns for vectors, and cuts it.
        sizes = sorted({whole, *(min(size, whole) for size in self.dimensions)}, reverse=True)
        return torch.stack([self._of(queries[:, :size], documents[:, :size], relation) for size in sizes]).sum()

    def _of(self, queries: torch.Tensor, documents: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
        sides = [(queries, documents)]
        sides += [(packed(queries, packing), packed(documents, packing)) for packing in self.packings]
        each = [contrastive(*side, relation, self.temperature, self.symmetric) for side in sides]
        return torch.stack(each).mean()
