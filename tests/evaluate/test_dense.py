"""Search is exact whatever the blocks, and its memory does not grow with the documents."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from embedcode.engine.vectors import packed, unit
from embedcode.evaluate import dense


@dataclass
class Held:
    rows: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.rows[start:stop]


def expected(queries: NDArray[np.float32], documents: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """A full sort of the whole matrix."""
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(
    ("queries", "documents", "k"), [(7, 100, 10), (5, 3, 10), (1, 1, 1), (33, 257, 100), (4, 64, 64)]
)
@pytest.mark.parametrize("block", [1, 10, 64, 1000])
@pytest.mark.parametrize("many", [0, 8])
def test_it_is_a_full_sort(
    queries: int, documents: int, k: int, block: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "QUERIES", 3)
    monkeypatch.setattr(dense, "MANY", many)
    monkeypatch.setattr(dense, "DOCUMENTS", block)
    rng = np.random.default_rng(queries)
    # Small whole numbers: products are exact in every order of summation, and ties are many.
    a, b = (rng.integers(-2, 3, (n, 6)).astype(np.float32) for n in (queries, documents))
    places, scores = dense.search(Held(a), Held(b), k)
    assert np.array_equal(places, expected(a, b, k))
    assert np.array_equal(scores, np.take_along_axis(a @ b.T, places, 1))


def test_nothing_to_search_is_no_error() -> None:
    some, none = Held(np.ones((2, 4), np.float32)), Held(np.empty((0, 4), np.float32))
    assert dense.search(some, none, 10)[0].shape == (2, 0)
    assert dense.search(none, some, 10)[0].shape == (0, 2)


def test_300_000_documents_in_bounded_memory() -> None:
    """500 queries: their similarity matrix has 600 MB, and the process may grow by less than half of that."""
    script = """
import numpy as np
from embedcode.engine.vectors import packed, unit
from embedcode.evaluate import dense
from embedcode.evaluate.made import peak_mb

class Made:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def block(self, start, stop):
        rows = np.random.default_rng(start).standard_normal((stop - start, 16), np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

before = peak_mb()
places, scores = dense.search(Made(500), Made(300_000), 100)
assert places.shape == (500, 100) and (np.diff(scores, axis=1) <= 0).all() and places.max() > 290_000
print(peak_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 280


@pytest.mark.parametrize("dimensions", [None, 8])
def test_vectors_are_compared_as_they_are_kept(dimensions: int | None) -> None:
    """int8 as their inner products, and bits by the Hamming distance that whoever packs them counts."""
    random = np.random.default_rng(4)
    queries, documents = (unit(random.normal(size=(n, 16)).astype(np.float32)) for n in (3, 200))
    for kind in ("int8", "ubinary"):
        asked, known = (packed(one, kind, dimensions) for one in (queries, documents))
        if kind == "int8":
            closeness = asked.astype(np.int32) @ known.astype(np.int32).T
        else:
            closeness = -np.unpackbits(asked[:, None] ^ known[None], axis=2).sum(2, dtype=np.int32)
        best = np.argsort(-closeness, axis=1, kind="stable")[:, :10]
        both = (dense.Packed(Held(one), dimensions, kind.removeprefix("u")) for one in (queries, documents))
        np.testing.assert_array_equal(dense.search(*both, 10)[0], best)
