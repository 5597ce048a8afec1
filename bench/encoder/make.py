"""Write a random checkpoint of a published model's shape, in bf16, as Hugging Face folders have it.

    python bench/encoder/make.py mistral-7b OUT             # 14.2 GB
    python bench/encoder/make.py mistral-7b OUT --slice 8   # beside a whole one: its first layers, by links

Speed and memory do not depend on what the weights say. One layer's numbers are drawn and written for every layer. The
tokenizer is the packaged model's for all shapes, so that every side reads the same tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from embedcode.model.spec import DEFAULT

MISTRAL = {
    "architectures": ["MistralBiDirectionalModel"], "model_type": "mistralbidirectional", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "vocab_size": 32000, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 32768,
    "sliding_window": None, "hidden_act": "silu", "head_dim": 128,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3Model"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 28, "vocab_size": 151669,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "max_position_embeddings": 32768, "hidden_act": "silu",
    "head_dim": 128,
}  # fmt: skip
SMOLLM2 = {
    "architectures": ["LlamaModel"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30, "vocab_size": 49152,
    "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "max_position_embeddings": 8192, "hidden_act": "silu",
    "head_dim": 64,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {"mistral-7b": MISTRAL, "qwen3-0.6b": QWEN3, "smollm2-135m": SMOLLM2}
PER_FILE = 4
"""Layers in a file, as 7B models are published."""
SEED = 0


def layer(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    hidden, wide, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {
        "self_attn.q_proj": (heads, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, heads), "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }  # fmt: skip
    found = {f"{name}.weight": drawn(*shape) for name, shape in shapes.items()}
    ones = ["input_layernorm", "post_attention_layernorm"]
    found |= {f"{name}.weight": torch.ones(hidden, dtype=torch.bfloat16) for name in ones}
    if config["model_type"] == "qwen3":
        found |= {f"self_attn.{q}_norm.weight": torch.ones(head, dtype=torch.bfloat16) for q in "qk"}
    return found


def drawn(rows: int, columns: int) -> torch.Tensor:
    return (torch.randn(rows, columns) * columns**-0.5).bfloat16()


def write(config: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True)
    torch.manual_seed(SEED)
    count = config["num_hidden_layers"]
    files = -(-count // PER_FILE) + 1
    names = [f"model-{n + 1:05}-of-{files:05}.safetensors" for n in range(files)]
    table = drawn(config["vocab_size"], config["hidden_size"])
    ends = {"embed_tokens.weight": table, "norm.weight": torch.ones(config["hidden_size"], dtype=torch.bfloat16)}
    save_file(ends, out / names[0], {"format": "pt"})
    where = dict.fromkeys(ends, names[0])
    one = layer(config)
    for number, name in enumerate(names[1:]):
        first = number * PER_FILE
        inside = range(first, min(first + PER_FILE, count))
        tensors = {f"layers.{n}.{key}": tensor.clone() for n in inside for key, tensor in one.items()}
        save_file(tensors, out / name, {"format": "pt"})
        where |= dict.fromkeys(tensors, name)
    finish(config, out, where)


def cut(whole: Path, layers: int, out: Path) -> None:
    """The first layers of a checkpoint, by links to its files."""
    out.mkdir(parents=True)
    config = json.loads((whole / "config.json").read_text()) | {"num_hidden_layers": layers}
    listed = json.loads((whole / "model.safetensors.index.json").read_text())["weight_map"]
    where = {k: name for k, name in listed.items() if not k.startswith("layers.") or int(k.split(".")[1]) < layers}
    stock = {"architectures": ["MistralModel"], "model_type": "mistral"} if "mistral" in config["model_type"] else {}
    peer = out.with_name(f"{out.name}-peer")  # which knows no bidirectional Mistral, and loses nothing by the mask
    peer.mkdir()
    for folder, told in ((out, config), (peer, config | stock)):
        for name in set(where.values()):
            (folder / name).symlink_to((whole / name).resolve())
        finish(told, folder, where)


def finish(config: dict[str, Any], out: Path, where: dict[str, str]) -> None:
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (out / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    shutil.copy(DEFAULT / "tokenizer.json", out)
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 4096}
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--slice", type=int, default=0, help="only so many layers, of OUT, into OUT-LAYERS")
    args = parser.parse_args()
    if not args.out.exists():
        write(SHAPES[args.shape], args.out)
    if args.slice:
        cut(args.out, args.slice, args.out.with_name(f"{args.out.name}-{args.slice}"))


if __name__ == "__main__":
    main()
