"""Checkpoints: a tiny folder in the layout of each published model, with random weights under the published key names.

Written from the config.json, key names and tokenizer files of the models on the hub. Imports nothing of embedcode, so
that a fault of the loader has no twin in here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """A published model: what is written into its folder, and how its vectors are computed from it."""

    name: str
    """On the hub, and of the folder."""
    network: str
    """Class of transformers that computes the states."""
    config: Mapping[str, Any]
    """config.json."""
    shapes: Shapes
    """By published key."""
    tokenizer: Tokenizer
    stock: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the stock config where they are not those of `config`."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(prefix or part, replacement) from published keys to those of the stock network."""
    causal: bool = False
    reach: int | None = None
    """How far a token sees in layers with a sliding window."""
    pooling: str = "mean"
    query: str = ""
    passage: str = ""
    padding: str = "right"
    adds_eos: str = ""
    """Put behind every text, where the tokenizer does not do so itself."""
    dense: tuple[tuple[int, int], ...] = ()
    dtype: torch.dtype = torch.float32
    shards: int = 1
    files: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON files, by their path in the folder."""
    buffers: Shapes = field(default_factory=dict)
    """Published beside the weights, and computed by the network."""

    def weights(self) -> Tensors:
        """Random ones, of `dtype`: norms near 1, small biases, the rest scaled to keep the states' size."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        return {key: _random(key, shape, generator).to(self.dtype) for key, shape in self.shapes.items()}

    def dense_weights(self) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [_random("linear.weight", shape, generator) for shape in self.dense]


def write(layout: Layout, parent: Path) -> Path:
    """The layout's folder, below `parent`."""
    folder = parent / layout.name.rpartition("/")[2]
    for path, content in {"config.json": layout.config, **layout.files}.items():
        write_json(folder / path, content)
    layout.tokenizer.save(str(folder / "tokenizer.json"))
    buffers = {key: torch.arange(shape[-1]).expand(shape).contiguous() for key, shape in layout.buffers.items()}
    write_weights(folder, layout.weights() | buffers, layout.shards)
    for index, weight in enumerate(layout.dense_weights(), 2):
        rows, columns = weight.shape
        write_json(
            folder / f"{index}_Dense" / "config.json",
            {
                "in_features": columns,
                "out_features": rows,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        save_file({"linear.weight": weight}, folder / f"{index}_Dense" / "model.safetensors", {"format": "pt"})
    return folder


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_weights(folder: Path, tensors: Tensors, shards: int = 1) -> None:
    """One model.safetensors, or numbered shards with an index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names, keys = {}, list(tensors)
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = keys[number::shards]
        save_file({key: tensors[key] for key in own}, folder / name, {"format": "pt"})
        names |= dict.fromkeys(own, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": names})


def write_adapter(base: Path, folder: Path, shapes: Shapes, prefix: str = "base_model.model.") -> tuple[Tensors, float]:
    """A LoRA adapter as peft saves it, over the query and value projections; its tensors and alpha / r."""
    rank, alpha = 4, 8
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for key in shapes:
        if key.endswith(("q_proj.weight", "v_proj.weight")):
            rows, columns = shapes[key]
            stem = prefix + key.removesuffix("weight")
            tensors[stem + "lora_A.weight"] = _random("lora_A.weight", (rank, columns), generator)
            tensors[stem + "lora_B.weight"] = _random("lora_B.weight", (rows, rank), generator)
    config = {
        "base_model_name_or_path": str(base),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }
    write_json(folder / "adapter_config.json", config)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return tensors, alpha / rank


def _random(key: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.2 * values + (1.0 if key.endswith("weight") else 0.0)
    if "embed" in key or "latents" in key:
        return values
    return values / shape[1] ** 0.5


# Key names


def decoder(config: Mapping[str, Any], prefix: str = "", extra: Shapes | None = None) -> Shapes:
    """Mistral, Llama, Qwen and Gemma; `extra` are keys of a layer that only some have."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, values = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    layer: Shapes = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (values, hidden),
        "self_attn.v_proj.weight": (values, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        **(extra or {}),
    }
    shapes: Shapes = {"embed_tokens.weight": (config["vocab_size"], hidden)}
    for index in range(config["num_hidden_layers"]):
        shapes |= {f"layers.{index}.{key}": shape for key, shape in layer.items()}
    shapes["norm.weight"] = (hidden,)
    return {prefix + key: shape for key, shape in shapes.items()}


def latent_attention(hidden: int, latents: int, heads: int, head: int) -> Shapes:
    """NV-Embed-v2's head."""
    first, second = (f"latent_attention_model.cross_attend_blocks.{index}" for index in (0, 1))
    norms = (f"{first}.norm", f"{first}.norm_context", f"{second}.norm")
    return {
        "latent_attention_model.latents": (latents, hidden),
        f"{first}.fn.to_q.weight": (heads * head, hidden),
        f"{first}.fn.to_kv.weight": (2 * heads * head, hidden),
        f"{first}.fn.to_out.weight": (hidden, heads * head),
        f"{second}.fn.net.0.weight": (8 * hidden, hidden),
        f"{second}.fn.net.0.bias": (8 * hidden,),
        f"{second}.fn.net.2.weight": (hidden, 4 * hidden),
        f"{second}.fn.net.2.bias": (hidden,),
        **{f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")},
    }


def bert(config: Mapping[str, Any]) -> Shapes:
    """BERT and XLM-RoBERTa, with the pooler that they publish and that no embedding uses."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    linear = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        stem = f"encoder.layer.{index}."
        for key, shape in linear.items():
            shapes |= {f"{stem}{key}.weight": shape, f"{stem}{key}.bias": shape[:1]}
        for norm in ("attention.output", "output"):
            shapes |= {f"{stem}{norm}.LayerNorm.{part}": (hidden,) for part in ("weight", "bias")}
    return shapes | {"pooler.dense.weight": (hidden, hidden), "pooler.dense.bias": (hidden,)}


def nomic_bert(config: Mapping[str, Any]) -> Shapes:
    hidden, inner = config["n_embd"], config["n_inner"]
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "emb_ln.weight": (hidden,),
        "emb_ln.bias": (hidden,),
    }
    for index in range(config["n_layer"]):
        stem = f"encoder.layers.{index}."
        shapes |= {
            f"{stem}attn.Wqkv.weight": (3 * hidden, hidden),
            f"{stem}attn.out_proj.weight": (hidden, hidden),
            f"{stem}mlp.fc11.weight": (inner, hidden),
            f"{stem}mlp.fc12.weight": (inner, hidden),
            f"{stem}mlp.fc2.weight": (hidden, inner),
            **{f"{stem}{norm}.{part}": (hidden,) for norm in ("norm1", "norm2") for part in ("weight", "bias")},
        }
    return shapes


def modern_bert(config: Mapping[str, Any]) -> Shapes:
    """No norm before the first layer's attention: the one of the embeddings stands in."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {
        "embeddings.tok_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.norm.weight": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        stem = f"layers.{index}."
        shapes |= {f"{stem}attn_norm.weight": (hidden,)} if index else {}
        shapes |= {
            f"{stem}attn.Wqkv.weight": (3 * hidden, hidden),
            f"{stem}attn.Wo.weight": (hidden, hidden),
            f"{stem}mlp_norm.weight": (hidden,),
            f"{stem}mlp.Wi.weight": (2 * inner, hidden),
            f"{stem}mlp.Wo.weight": (hidden, inner),
        }
    return shapes | {"final_norm.weight": (hidden,)}


# Files beside the weights


def sentence_transformers(
    mode: str, limit: int, dim: int, prompts: Mapping[str, str] | None = None, dense: int = 0, **pooling: Any
) -> dict[str, Any]:
    """The files of sentence-transformers, as its versions 2 to 5 wrote them."""
    kinds = ["Transformer", "Pooling", *["Dense"] * dense, "Normalize"]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": dim,
            **{f"pooling_mode_{name}": name == mode for name in modes},
            **pooling,
        },
        "sentence_bert_config.json": {"max_seq_length": limit, "do_lower_case": False},
    }
    if prompts is not None:
        files["config_sentence_transformers.json"] = {
            "__version__": {"sentence_transformers": "5.0.0", "transformers": "4.53.0", "pytorch": "2.7.1"},
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        }
    return files


def tokenizer_config(kind: str, limit: int, **more: Any) -> dict[str, Any]:
    return {"tokenizer_config.json": {"tokenizer_class": kind, "model_max_length": limit, **more}}
