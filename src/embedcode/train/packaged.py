"""Packaged: the model in the package as a checkpoint that can be trained: its weights in 8 bits read back into fp32.

What scripts/export_default.py and engine/smoothquant.py did is undone, but for what rounding lost: mean cosine to the
vectors of the packaged model above .995. Knows no recipe.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcode.model.spec import DEFAULT, Spec
from embedcode.train import publish
from embedcode.types import Floats

NAME = "packaged"
"""As a base."""
_MERGED = ("query", "key", "value")
_MAPS = {"merge": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"}
_NORMS = {"n1": "attention.output.LayerNorm", "n2": "output.LayerNorm"}


def unpack(folder: Path) -> Path:
    """The checkpoint in `folder`."""
    from safetensors.numpy import save_file

    spec = Spec.read(DEFAULT)
    weights = _weights(_constants(spec.files[0]))
    places, dim = weights["embeddings.position_embeddings.weight"].shape
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "dtype": "float32", "hidden_act": "gelu",
        "vocab_size": len(weights["embeddings.word_embeddings.weight"]), "max_position_embeddings": places,
        "hidden_size": dim, "intermediate_size": len(weights["encoder.layer.0.intermediate.dense.bias"]),
        "num_hidden_layers": _layers(weights), "num_attention_heads": dim // 32, "layer_norm_eps": 1e-12,
        "type_vocab_size": 2, "pad_token_id": 0,
    }  # fmt: skip
    with publish.writing(folder):
        folder.mkdir(parents=True)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        for name in ("tokenizer.json", "LICENSE", "NOTICE"):
            shutil.copy(DEFAULT / name, folder / name)
        publish.write_json(folder / "config.json", config)
        publish.modules(folder, spec)
    return folder


def _constants(graph: Path) -> dict[str, NDArray[Any]]:
    import onnx
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(graph)).graph.initializer}


def _weights(found: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """By the names of the stock network."""
    places = found["places"]  # a text has one segment, so its embedding is in them
    out = {
        "embeddings.word_embeddings.weight": found["words.int8"] * found["words.scale"],
        "embeddings.position_embeddings.weight": places,
        "embeddings.token_type_embeddings.weight": np.zeros((2, places.shape[1]), np.float32),
        **{f"embeddings.LayerNorm.{kind}": found[f"first.{kind}"] for kind in ("weight", "bias")},
    }
    layer = 0
    while f"encoder.layer.{layer}.n1.weight" in found:
        key = f"encoder.layer.{layer}"
        weight, bias = _map(found, f"{key}.qkv")
        for name, rows, values in zip(_MERGED, np.split(weight, 3), np.split(bias, 3), strict=True):
            out[f"{key}.attention.self.{name}.weight"], out[f"{key}.attention.self.{name}.bias"] = rows, values
        for short, name in _MAPS.items():
            out[f"{key}.{name}.weight"], out[f"{key}.{name}.bias"] = _map(found, f"{key}.{short}")
        for short, name in _NORMS.items():
            out |= {f"{key}.{name}.{kind}": found[f"{key}.{short}.{kind}"] for kind in ("weight", "bias")}
        layer += 1
    return {name: np.ascontiguousarray(value, np.float32) for name, value in out.items()}


def _map(found: Mapping[str, NDArray[Any]], name: str) -> tuple[Floats, Floats]:
    """Weight [out, in] and bias of a linear map, in 8 bits or not."""
    weight = f"{name}.weight"
    if weight in found:
        return found[weight].T, found[f"{name}.bias"]
    values = found[f"{weight}.int8"] * found[f"{weight}.scale"] * found[f"{weight}.smooth"][:, None]
    return values.T, found[f"{weight}.bias"]


def _layers(weights: Mapping[str, Floats]) -> int:
    return sum(name.endswith("intermediate.dense.bias") for name in weights)
