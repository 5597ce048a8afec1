"""int8 vectors: what is lost, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedcode.store.quantise import quantise, restore


@pytest.mark.parametrize("dim", [1, 16, 384, 4096])
def test_directions_and_lengths_are_kept(dim: int) -> None:
    rows = np.random.default_rng(dim).standard_normal((50, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    quantised, scales = quantise(rows)
    assert quantised.dtype == np.int8
    assert scales.dtype == np.float32
    back = restore(quantised, scales)
    assert np.sum(back * rows, axis=1).min() > 0.9999
    assert np.linalg.norm(back, axis=1) == pytest.approx(np.ones(50), abs=1e-5)


def test_nothing_and_zeros() -> None:
    quantised, scales = quantise(np.empty((0, 8), np.float32))
    assert restore(quantised, scales).shape == (0, 8)
    assert not restore(*quantise(np.zeros((2, 8), np.float32))).any()


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-1e6, 1e6, width=32)))
def test_each_value_is_within_one_step(rows: np.ndarray) -> None:
    back = restore(*quantise(rows))
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert np.isfinite(back).all()
    assert (np.abs(back - rows) <= step * 1.5 + 1e-30).all()
