"""Pure functions over vectors [n, dim]: unit length, the Matryoshka cut, int8 and binary packing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcode.engine.given import number_of
from embedcode.errors import UsageError
from embedcode.types import Floats


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1; a row of zeros stays zeros, and one that is not finite gets NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        scaled: Floats = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


def cut(vectors: Floats, dimensions: int) -> Floats:
    """The first `dimensions` of each row, at unit length again (Matryoshka, Kusupati et al. 2022)."""
    vectors, dimensions = np.asarray(vectors), number_of("dimensions", dimensions)
    if not vectors.ndim or not 1 <= dimensions <= vectors.shape[-1]:
        raise UsageError(f"dimensions {dimensions} is not between 1 and {vectors.shape[-1]}: ask for one that is.")
    return unit(vectors[..., :dimensions])


def to_int8(vectors: Floats) -> NDArray[np.int8]:
    """Unit vectors to int8 by the fixed scale 127, so that rows of different calls compare."""
    rounded: NDArray[np.int8] = np.clip(np.rint(vectors * 127), -127, 127).astype(np.int8)
    return rounded


def to_uint8(vectors: Floats) -> NDArray[np.uint8]:
    """to_int8, moved up by 128."""
    return (to_int8(vectors).astype(np.int16) + 128).astype(np.uint8)


def to_ubinary(vectors: Floats) -> NDArray[np.uint8]:
    """One bit a dimension (1 where positive), eight to a byte, most significant first; dim must divide by 8."""
    if vectors.shape[-1] % 8:
        raise UsageError(f"{vectors.shape[-1]} dimensions cannot be packed to bits: cut to a multiple of 8 first.")
    return np.packbits(vectors > 0, axis=-1)


def to_binary(vectors: Floats) -> NDArray[np.int8]:
    """to_ubinary moved down by 128, as int8."""
    return (to_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


_PACKERS: dict[str, Callable[[Floats], NDArray[Any]]] = {
    "float": lambda rows: rows, "int8": to_int8, "uint8": to_uint8, "binary": to_binary, "ubinary": to_ubinary
}  # fmt: skip


def packed(vectors: Floats, kind: str, dimensions: int | None = None) -> NDArray[Any]:
    """Unit vectors, cut to `dimensions` if given, as float, int8, uint8, binary or ubinary. UsageError of cut() and of
    packing to bits."""
    return _PACKERS[kind](vectors if dimensions is None else cut(vectors, dimensions))
