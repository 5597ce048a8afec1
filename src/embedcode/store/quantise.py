"""Float vectors to int8 and back. Knows no store, no key and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedcode.types import Floats

    Bytes8 = NDArray[np.int8]


def quantise(vectors: Floats) -> tuple[Bytes8, Floats]:
    """float32 [n, dim] to int8 [n, dim] and float32 scales [n], so that q * scale approximates the row.

    Symmetric, one scale a row. The scale is |row| / |q| and not max / 127, so that a unit vector comes back with unit
    length and the product of two of them is a cosine.
    """
    largest = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    even = vectors / np.where(largest > 0, largest, 1)  # squares of very small numbers would vanish
    quantised = np.rint(even * 127).astype(np.int8)
    lengths = np.linalg.norm(quantised.astype(np.float32), axis=1)
    scales = largest[:, 0] * np.linalg.norm(even, axis=1) / np.maximum(lengths, 1.0)
    return quantised, scales.astype(np.float32)


def restore(quantised: Bytes8, scales: Floats) -> Floats:
    """int8 [n, dim] and float32 scales [n] to float32 [n, dim]."""
    return quantised.astype(np.float32) * scales[:, None].astype(np.float32)
