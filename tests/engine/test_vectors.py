"""Pure functions over vectors, against hand calculation and numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from embedcode.engine.vectors import cut, to_binary, to_int8, to_ubinary, to_uint8, unit
from embedcode.errors import UsageError

RNG = np.random.default_rng(7)
VECTORS = unit(RNG.standard_normal((5, 16)).astype(np.float32))


def test_unit() -> None:
    np.testing.assert_allclose(unit(np.array([[3, 4], [0, -2]], np.float32)), [[0.6, 0.8], [0, -1]])
    assert unit(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]
    assert unit(VECTORS).dtype == np.float32
    assert unit(np.empty((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("dimensions", [1, 8, 15, 16])
def test_the_cut_has_unit_length_again(dimensions: int) -> None:
    head = VECTORS[:, :dimensions].astype(np.float64)
    expected = head / np.sqrt((head**2).sum(1, keepdims=True))
    np.testing.assert_allclose(cut(VECTORS, dimensions), expected, atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, 17])
def test_a_cut_out_of_range_is_refused(dimensions: int) -> None:
    with pytest.raises(UsageError, match=f"dimensions {dimensions} is not between 1 and 16"):
        cut(VECTORS, dimensions)


def test_int8_and_uint8() -> None:
    vectors = np.array([[1, -1, 0, 0.5, -0.5, 0.004, 0.003]], np.float32)
    assert to_int8(vectors).tolist() == [[127, -127, 0, 64, -64, 1, 0]]
    assert to_uint8(vectors).tolist() == [[255, 1, 128, 192, 64, 129, 128]]
    assert (to_int8(vectors).dtype, to_uint8(vectors).dtype) == (np.int8, np.uint8)


def test_rounding_error_never_wraps_around() -> None:
    assert to_int8(np.array([[1.01, -1.01]], np.float32)).tolist() == [[127, -127]]


def test_int8_keeps_cosines() -> None:
    wide = unit(RNG.standard_normal((20, 384)).astype(np.float32))
    packed = to_int8(wide).astype(np.float64)
    packed /= np.linalg.norm(packed, axis=1, keepdims=True)
    np.testing.assert_allclose(packed @ packed.T, wide @ wide.T, atol=0.02)


def test_bits() -> None:
    vectors = np.array([[1, -1, 1, 1, -1, -1, -1, 1, -1, -1, -1, -1, -1, -1, -1, 0]], np.float32)
    assert to_ubinary(vectors).tolist() == [[0b10110001, 0]]
    assert to_binary(vectors).tolist() == [[0b10110001 - 128, -128]]
    assert (to_ubinary(vectors).dtype, to_binary(vectors).dtype) == (np.uint8, np.int8)


def test_bits_unpack_to_the_signs() -> None:
    assert (np.unpackbits(to_ubinary(VECTORS), axis=1) == (VECTORS > 0)).all()


def test_dimensions_that_fill_no_byte_are_refused() -> None:
    with pytest.raises(UsageError, match="12 dimensions cannot be packed to bits: cut to a multiple of 8"):
        to_binary(cut(VECTORS, 12))
