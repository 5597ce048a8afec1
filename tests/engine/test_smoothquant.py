"""SmoothQuant: what a large graph's strengths are chosen by (the graphs it writes: test_export.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedcode.engine import smoothquant
from embedcode.engine.smoothquant import LOUDEST, Linear, _thinned


def test_of_many_tokens_even_ones_are_kept_and_those_that_set_the_scale() -> None:
    x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    x[[123, 7], [4, 9]] = 80, -95
    thin = _thinned(x, 40)
    assert 40 - LOUDEST <= len(thin) <= 40
    assert (thin.min(), thin.max()) == (x.min(), x.max())
    places = [int(np.flatnonzero((x == row).all(1))[0]) for row in thin]
    assert places == sorted(set(places)) and max(np.diff(places)) <= 11
    assert _thinned(x, 300) is x
    assert len(_thinned(x, LOUDEST)) == LOUDEST


def test_a_channel_that_is_quiet_in_calibration_does_not_set_the_scale_of_all_where_it_is_not() -> None:
    """Divided by 1e-5 it did: of other code the product had nothing left of the exact one."""
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, 64, 16)).astype(np.float32)
    weight = rng.standard_normal((16, 8)).astype(np.float32)
    for quiet in (0, 1e-4):
        x[:, 5] *= quiet
        linear = Linear("x", largest=np.abs(x).max(0), texts=[x])
        smooth, loss = smoothquant._smoothing(weight, linear)
        codes, scale = smoothquant._columns(weight * smooth[:, None])
        found, exact = smoothquant._rounded(other / smooth) @ (codes * scale), other @ weight
        assert loss < 0.001 and ((found - exact) ** 2).sum() < 0.02 * (exact**2).sum()


def test_the_weights_of_a_large_graph_take_the_place_of_those_of_the_trial_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were written behind them, and refused where a file of their name lay in the current folder."""
    monkeypatch.setattr(smoothquant, "LARGE", 1000)
    monkeypatch.chdir(tmp_path)
    path, weights = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    weights.write_bytes(b"of an earlier one")
    for value, size in ((1, 4000), (2, 4000), (3, 1000)):  # the last has room in the graph
        smoothquant._save(_sum(value), path, size)
        if size > smoothquant.LARGE:
            assert weights.stat().st_size == 999 * 4
        else:
            assert not weights.exists()
        read = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
        assert (read["w"] == value).all() and read["v"] == [value]


def _sum(value: int) -> onnx.ModelProto:
    """y = x + w + v."""
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    nodes = [helper.make_node("Add", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "v"], ["y"])]
    tensors = [numpy_helper.from_array(np.full(n, value, np.float32), name) for n, name in ((999, "w"), (1, "v"))]
    return helper.make_model(helper.make_graph(nodes, "sum", [given], [found], tensors))
