"""What every store refuses of the vectors it is given, said once. Knows no store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedcode.errors import StoreError

if TYPE_CHECKING:
    from embedcode.types import Floats


def check_query(vector: Floats, dim: int) -> None:
    """Refuse a query's vector of another length than those of the index."""
    if vector.shape != (dim,):
        raise StoreError(
            f"a query vector has the shape {vector.shape} and this index holds vectors of {dim} numbers: "
            f"use the model the index was made with"
        )


def check_vectors(vectors: Floats, count: int, dim: int) -> None:
    """Refuse vectors for `count` keys that have another shape than [count, dim], or are not numbers."""
    import numpy as np

    if vectors.shape != (count, dim):
        raise StoreError(
            f"vectors of shape {vectors.shape} do not fit {count} keys in an index of {dim} numbers a vector: "
            f"use the model the index was made with"
        )
    if not np.isfinite(vectors).all():
        raise StoreError("a vector has values that are not finite: run `embedcode doctor`, the model is not sound")
