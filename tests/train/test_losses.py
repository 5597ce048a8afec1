"""The loss against the formula, written out query by query."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedcode.engine.vectors import to_int8, to_ubinary
from embedcode.train.losses import NEGATIVE, POSITIVE, UNKNOWN, Contrastive, contrastive, packed


def by_hand(q: torch.Tensor, d: torch.Tensor, relation: list[list[int]], temperature: float) -> float:
    """-log(e^s+ / (e^s+ + sum e^s-)), the mean over positives, then over queries that have both kinds."""
    values = []
    for i, row in enumerate(relation):
        cosine = [float(q[i] @ d[j] / (q[i].norm() * d[j].norm())) / temperature for j in range(len(row))]
        against = [math.exp(cosine[j]) for j, mark in enumerate(row) if mark == NEGATIVE]
        each = [
            -math.log(math.exp(cosine[j]) / (math.exp(cosine[j]) + sum(against)))
            for j, mark in enumerate(row)
            if mark == POSITIVE
        ]
        if each and against:
            values.append(sum(each) / len(each))
    return sum(values) / len(values)


@pytest.fixture
def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(4, 8, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)


RELATIONS = {
    "explicit negatives only": [[1, -1, -1, 0, 0, 0], [0, 0, 0, 1, -1, 0], [0, -1, 0, 0, 1, 0], [0, 0, -1, 0, 0, 1]],
    "in batch, one masked": [
        [1, -1, -1, 0, -1, -1],
        [-1, 1, -1, -1, -1, -1],
        [-1, -1, 1, -1, -1, -1],
        [0, -1, -1, 1, -1, -1],
    ],
    "several positives": [[1, 1, -1, -1, 0, 0], [0, 0, 1, 1, 1, -1], [-1, 1, 0, 0, 0, 0], [1, -1, 0, 0, 0, 0]],
    "a query without negatives": [[1, 0, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0], [0, 0, -1, 0, 0, 0], [1, -1, -1, 0, 0, 0]],
}


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_loss_is_the_formula(vectors: tuple[torch.Tensor, torch.Tensor], name: str, temperature: float) -> None:
    q, d = vectors
    found = contrastive(q, d, torch.tensor(RELATIONS[name], dtype=torch.int8), temperature)
    assert float(found) == pytest.approx(by_hand(q, d, RELATIONS[name], temperature), rel=1e-4)


def test_symmetric_is_the_mean_of_both_directions(vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, d = vectors
    relation = RELATIONS["in batch, one masked"]
    turned = [list(column) for column in zip(*relation, strict=True)]
    both = (by_hand(q, d, relation, 0.1) + by_hand(d, q, turned, 0.1)) / 2
    assert float(contrastive(q, d, torch.tensor(relation), 0.1, symmetric=True)) == pytest.approx(both, rel=1e-4)


def test_in_batch_without_masks_is_the_library_s_loss() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    torch.manual_seed(1)
    q, d = torch.randn(5, 16), torch.randn(5, 16)
    theirs = MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings([q, d], None)
    relation = torch.full((5, 5), NEGATIVE, dtype=torch.int8).fill_diagonal_(POSITIVE)
    assert float(contrastive(q, d, relation, 1 / 20)) == pytest.approx(float(theirs), rel=1e-5)


def test_what_is_unknown_gets_no_gradient() -> None:
    torch.manual_seed(2)
    q, d = torch.randn(2, 8), torch.randn(4, 8, requires_grad=True)
    contrastive(q, d, torch.tensor([[1, -1, 0, 0], [0, 1, -1, 0]]), 0.1).backward()
    assert d.grad is not None
    assert d.grad[3].abs().sum() == 0
    assert (d.grad[:3].abs().sum(1) > 0).all()


def test_a_batch_in_which_nothing_is_compared_changes_nothing() -> None:
    q, d = torch.randn(2, 8, requires_grad=True), torch.randn(2, 8)
    found = contrastive(q, d, torch.tensor([[1, 0], [0, UNKNOWN]]), 0.1)
    found.backward()
    assert found.item() == 0
    assert q.grad is not None and q.grad.abs().sum() == 0


def test_micro_batches_add_up_where_negatives_are_explicit(vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, d = vectors
    relation = torch.tensor(RELATIONS["explicit negatives only"])
    whole = contrastive(q, d, relation, 0.1)
    halves = (contrastive(q[:2], d, relation[:2], 0.1) + contrastive(q[2:], d, relation[2:], 0.1)) / 2
    assert float(whole) == pytest.approx(float(halves), rel=1e-6)


class Given(torch.nn.Module):
    """A model whose vectors are its parameters."""

    def __init__(self, documents: int = 3) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.sides = torch.nn.ParameterList([torch.randn(3, 8), torch.randn(documents, 8)])

    def forward(self, features: dict[str, int]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.sides[features["side"]]}


@pytest.mark.parametrize("documents", [3, 8])
def test_matryoshka_is_the_sum_over_sizes(documents: int) -> None:
    """Also of a batch that has as many documents as a vector has numbers."""
    model = Given(documents)
    relation = torch.full((3, documents), NEGATIVE, dtype=torch.int8).fill_diagonal_(POSITIVE)
    found = Contrastive(model, 0.1, dimensions=(4, 2, 8))([{"side": 0}, {"side": 1}], relation)
    q, d = (side.detach() for side in model.sides)
    expected = sum(by_hand(q[:, :size], d[:, :size], relation.tolist(), 0.1) for size in (8, 4, 2))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_packed_vectors_are_those_that_are_stored_and_pass_the_gradient() -> None:
    torch.manual_seed(5)
    raw = torch.randn(5, 16, requires_grad=True)
    unit = torch.nn.functional.normalize(raw, dim=-1)
    stored = unit.detach().numpy()
    assert np.array_equal(packed(raw, "int8").detach().numpy() * 127, to_int8(stored).astype(np.float32))
    assert np.array_equal(np.packbits(packed(raw, "binary").detach().numpy() > 0, axis=-1), to_ubinary(stored))
    towards = torch.randn(5, 16)
    [straight] = torch.autograd.grad((packed(raw, "binary") * towards).sum(), raw)
    [exact] = torch.autograd.grad((torch.nn.functional.normalize(raw, dim=-1) * towards).sum(), raw)
    torch.testing.assert_close(straight, exact)


def test_training_with_packings_helps_packed_vectors() -> None:
    """A linear map of 24 numbers to 8 signs, fitted to tell 24 things apart, with and without."""

    class Map(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(24, 8, bias=False)

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": self.linear(features["x"])}

    torch.manual_seed(1)
    texts = torch.randn(24, 24)
    relation = torch.full((24, 24), NEGATIVE) + 2 * torch.eye(24, dtype=torch.long)
    found = {}
    for packings in ((), ("binary",)):
        model = Map()
        criterion = Contrastive(model, 0.1, packings=packings)
        optimiser = torch.optim.Adam(model.parameters(), 0.02)
        for step in range(300):
            noise = torch.Generator().manual_seed(step)
            noisy = texts + 0.3 * torch.randn(24, 24, generator=noise)
            optimiser.zero_grad()
            criterion([{"x": noisy}, {"x": texts}], relation).backward()
            optimiser.step()
        signs = packed(model.linear(texts), "binary").detach()
        found[packings] = float(contrastive(signs, signs, relation, 0.1))
    assert found["binary",] < 0.8 * found[()]
