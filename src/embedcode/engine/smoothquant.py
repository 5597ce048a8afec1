"""SmoothQuant: an ONNX graph in int8 for ONNX Runtime on processors. The one adapter to `onnx`.

Linear maps: weights per output channel in 7 bits (processors without VNNI add two products in 16 bits, which saturate
with 8), activations per text in uint8 after SmoothQuant (Xiao et al. 2022, arXiv 2211.10438) with its strength chosen
per map by the error it gives, biases corrected by the mean error; maps of one input become one. Tables of embeddings:
per row in 8 bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from embedcode.engine.onnx import library
from embedcode.model.spec import LARGE
from embedcode.types import Floats

STRENGTHS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
"""SmoothQuant's alpha, one of which each linear map gets."""
KEPT, KEPT_BYTES = 16, 1 << 29
"""Texts whose activations are kept to choose by, and what they may take together."""
WORK = 10**11
"""Products of a kept token and a weight: of a larger graph fewer tokens of each text are kept. MiniLM's 16 texts have a
third of it, SmolLM2's nine times as much."""
LOUDEST = 8
"""Tokens of a text that are kept in any case: a few of a decoder's, such as the first, set the scale of all."""
TABLE = 1024
"""A matrix of so many rows that is gathered from is a table of embeddings."""
QUIET = 0.1
"""Share of the median divisor that each channel has at least: one that is quiet in all calibration texts may be loud in
another, where it would set the scale of all."""
LEAST_OUTSIDE = 1024
"""Bytes of a tensor that goes into a file of its own where the weights are LARGE: shapes and axes stay in the graph."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass
class Linear:
    """Maps of one input: x @ weight + bias."""

    x: str
    parts: list[tuple[str, str, str]] = field(default_factory=list)
    """Weight [in, out], bias [out] or "", and output of each."""
    nodes: list[int] = field(default_factory=list)
    """Their places in the graph."""
    largest: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    """Magnitude of each channel of x, of all calibration texts."""
    mean: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    texts: list[Floats] = field(default_factory=list)
    """x of some of them."""
    smooth: Floats = field(default_factory=lambda: np.ones(1, np.float32))
    """Divisor of each channel of x."""
    loss: float = 0.0
    """Squared error of int8, as a share of the squared output."""


class SmoothQuant:
    """A graph in fp32 of one text, calibrated on texts given as ids."""

    def __init__(self, source: Path, ids: Sequence[Sequence[int]], scratch: Path) -> None:
        """`scratch` is a folder with room for the graph once more."""
        self._model = onnx.load(str(source))
        self._constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        linears = self._linears()
        weights = sum(prod(self._constants[name].dims) for one in linears.values() for name, _, _ in one.parts)
        _measure(source, linears, weights, ids, scratch)
        for linear in linears.values():
            linear.smooth, linear.loss = _smoothing(self._weight(linear), linear)
            linear.texts.clear()
        self._by_loss = sorted(linears.values(), key=lambda linear: -linear.loss)

    def write(self, target: Path, exact: float) -> None:
        """The graph in int8, but for the share `exact` of the maps, of those that lose most."""
        first = int(exact * len(self._by_loss))
        owner = {index: linear for linear in self._by_loss[first:] for index in linear.nodes}
        nodes: list[onnx.NodeProto] = []
        added: dict[str, NDArray[Any]] = {}
        for index, node in enumerate(self._model.graph.node):
            linear, table = owner.get(index), self._table(node)
            if linear is not None:
                new, weights = self._int8(linear) if index == linear.nodes[0] else ([], {})
            else:
                new, weights = ([node], {}) if table is None else _rows(node, table)
            nodes += new
            added |= weights
        used = {name for node in nodes for name in node.input}
        tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in added.items()]
        tensors += [tensor for name, tensor in self._constants.items() if name in used]
        graph = self._model.graph
        opsets = {opset.domain: opset.version for opset in self._model.opset_import} | {"com.microsoft": 1}
        smaller = helper.make_model(
            helper.make_graph(nodes, graph.name, graph.input, graph.output, tensors),
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=self._model.ir_version,
        )
        _save(smaller, target, sum(len(tensor.raw_data) for tensor in tensors))

    def _linears(self) -> dict[str, Linear]:
        graph = self._model.graph
        readers = defaultdict(list)
        for index, node in enumerate(graph.node):
            for name in node.input:
                readers[name].append(index)
        found: dict[str, Linear] = {}
        for index, node in enumerate(graph.node):
            weight = self._constants.get(node.input[1]) if node.op_type == "MatMul" else None
            if weight is None or len(weight.dims) != 2:
                continue
            linear = found.setdefault(node.input[0], Linear(node.input[0]))
            linear.nodes.append(index)
            output, bias = node.output[0], ""
            if len(readers[output]) == 1:
                (after,) = readers[output]
                add = graph.node[after]
                other = next((name for name in add.input if name != output), "")
                if add.op_type == "Add" and list(getattr(self._constants.get(other), "dims", ())) == [weight.dims[1]]:
                    output, bias = add.output[0], other
                    linear.nodes.append(after)
            linear.parts.append((node.input[1], bias, output))
        return found

    def _weight(self, linear: Linear) -> Floats:
        whole: Floats = np.concatenate([numpy_helper.to_array(self._constants[name]) for name, _, _ in linear.parts], 1)
        return whole

    def _int8(self, linear: Linear) -> tuple[list[Any], Arrays]:
        """The nodes that stand for linear maps, and their weights."""
        widths = [self._constants[name].dims[1] for name, _, _ in linear.parts]
        biases = [
            numpy_helper.to_array(self._constants[name]) if name else np.zeros(width, np.float32)
            for (_, name, _), width in zip(linear.parts, widths, strict=True)
        ]
        scaled = self._weight(linear) * linear.smooth[:, None]
        codes, scale = _columns(scaled)
        corrected = np.concatenate(biases) + (linear.mean / linear.smooth) @ (scaled - codes * scale)
        name = linear.parts[0][0]
        outputs = [output for _, _, output in linear.parts]
        whole = outputs[0] if len(outputs) == 1 else f"{name}.all"
        weights: dict[str, NDArray[Any]] = {
            f"{name}.smooth": 1 / linear.smooth,
            f"{name}.int8": codes,
            f"{name}.scale": scale,
            f"{name}.zero": np.zeros(len(scale), np.int8),
            f"{name}.bias": corrected.astype(np.float32),
        }
        factor, *rest = weights
        nodes = [
            helper.make_node("Mul", [linear.x, factor], [f"{name}.in"]),
            helper.make_node("DynamicQuantizeMatMul", [f"{name}.in", *rest], [whole], domain="com.microsoft"),
        ]
        if len(outputs) > 1:
            weights[f"{name}.widths"] = np.array(widths, np.int64)
            nodes.append(helper.make_node("Split", [whole, f"{name}.widths"], outputs, axis=-1))
        return nodes, weights

    def _table(self, node: Any) -> Floats | None:
        table = self._constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.dims[0] < TABLE:
            return None
        values: Floats = numpy_helper.to_array(table)
        return values


def _measure(
    source: Path, linears: Mapping[str, Linear], weights: int, ids: Sequence[Sequence[int]], scratch: Path
) -> None:
    """Run the texts, and note what each map is given."""
    ort = library()
    names = list(linears)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "watched.onnx"
        _write_watched(source, names, path)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    count, kept, every = sum(map(len, ids)), 0, max(1, len(ids) // KEPT)
    rows = max(LOUDEST, WORK // KEPT // max(1, weights))
    for number, text in enumerate(ids):
        values = [value.reshape(-1, value.shape[-1]) for value in session.run(names, {"input_ids": np.array(text)})]
        for name, value in zip(names, values, strict=True):
            linear = linears[name]
            linear.largest = np.maximum(linear.largest, np.abs(value).max(0))
            linear.mean = linear.mean + value.sum(0) / count
        if number % every:
            continue
        thin = [_thinned(value, rows) for value in values]
        size = sum(one.nbytes for one in thin)
        if kept and kept + size > KEPT_BYTES:
            continue
        kept += size
        for name, one in zip(names, thin, strict=True):
            linears[name].texts.append(one)


def _write_watched(source: Path, names: Sequence[str], path: Path) -> None:
    """The graph with what its maps are given as outputs too. Its weights are given up behind it."""
    model = onnx.load(str(source))
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    _save(model, path, sum(len(tensor.raw_data) for tensor in model.graph.initializer))


def _thinned(x: Floats, rows: int) -> Floats:
    """About so many rows of x: some at even steps, and those of the largest values."""
    if len(x) <= rows:
        return x
    loudest = np.argpartition(-np.abs(x).max(1), LOUDEST - 1)[:LOUDEST]
    even = np.linspace(0, len(x) - 1, rows - LOUDEST, dtype=np.int64)
    return x[np.union1d(loudest, even)]


def _save(model: Any, path: Path, size: int) -> None:
    """In place of what is there. save_model() itself appends to a file of weights, and looks for one to refuse in the
    current folder (onnx 1.23)."""
    weights = path.with_name(f"{path.name}.data")
    weights.unlink(missing_ok=True)
    if size > LARGE:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= LEAST_OUTSIDE:
                set_external_data(tensor, weights.name)
    onnx.save_model(model, str(path))


def _rows(node: Any, table: Floats) -> tuple[list[Any], Arrays]:
    """Rows of a table of embeddings, gathered as int8."""
    name, output = node.input[0], node.output[0]
    scale = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127
    codes, scales = f"{name}.int8", f"{name}.scale"
    nodes = [
        helper.make_node("Gather", [codes, node.input[1]], [f"{output}.int8"]),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.codes"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, node.input[1]], [f"{output}.scale"]),
        helper.make_node("Mul", [f"{output}.codes", f"{output}.scale"], [output]),
    ]
    return nodes, {codes: np.round(table / scale).astype(np.int8), scales: scale.astype(np.float32)}


def _smoothing(weight: Floats, linear: Linear) -> tuple[Floats, float]:
    """The divisor of each channel whose int8 product is nearest to the exact one, and its loss."""
    exact = [x @ weight for x in linear.texts]

    def divisor(strength: float) -> Floats:
        smooth = linear.largest**strength / np.maximum(np.abs(weight).max(1), 1e-5) ** (1 - strength)
        floored: Floats = np.maximum(smooth, max(1e-5, QUIET * float(np.median(smooth)))).astype(np.float32)
        return floored

    def error(smooth: Floats) -> float:
        codes, scale = _columns(weight * smooth[:, None])
        back = codes * scale
        each = zip(linear.texts, exact, strict=True)
        return sum(float(((_rounded(x / smooth) @ back - y) ** 2).sum()) for x, y in each)

    smooth = min(map(divisor, STRENGTHS), key=error)
    return smooth, error(smooth) / max(1e-12, sum(float((y**2).sum()) for y in exact))


def _columns(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[in, out] to int8 in -63..63 and one scale per output channel."""
    scale = np.maximum(np.abs(weight).max(0), 1e-12) / 63
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


def _rounded(x: Floats) -> Floats:
    """x as DynamicQuantizeLinear leaves it: uint8 over its own range, which includes 0."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255 or 1.0
    read: Floats = np.round(x / scale).astype(np.float32) * np.float32(scale)
    return read
