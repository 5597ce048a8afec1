"""Checkpoints: a tiny folder in the layout of each published model, with random weights under the published key names.

Written from the config.json, key names and tokenizer files of the models on the hub. Imports nothing of embedcode, so
that a fault of the loader has no twin in here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import vocabularies
from safetensors.torch import save_file
from tokenizers import Tokenizer

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, torch.Tensor]

INSTRUCT = "Instruct: {instruction}\nQuery: "
WEB = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
NOMIC = "Represent this query for searching relevant code: "
JINA = {
    "nl2code_query": "Find the most relevant code snippet given the following query:\n",
    "nl2code_document": "Candidate code snippet:\n",
    "qa_query": "Find the most relevant answer given the following question:\n",
    "qa_document": "Candidate answer:\n",
}
GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
}
WINDOW = 16
"""Tokens of a sliding window; published ones have 128 to 4096."""


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


LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}


# Layouts


def _mistral(tokenizer: Tokenizer, architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 48,
        "initializer_range": 0.02,
        "intermediate_size": 80,
        "max_position_embeddings": 32768,
        "model_type": kind,
        "num_attention_heads": 6,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": False,
        "vocab_size": tokenizer.get_vocab_size(),
        **more,
    }


def _nv_embedcode() -> Layout:
    tokenizer = vocabularies.mistral()
    config = _mistral(tokenizer, "MistralBiDirectionalModel", "mistralbidirectional", torch_dtype="bfloat16")
    return Layout(
        "nvidia/NV-EmbedCode-7b-v1",
        "MistralModel",
        config,
        decoder(config),
        tokenizer,
        query=INSTRUCT,
        padding="left",
        dtype=torch.bfloat16,
        shards=3,
        files={
            **sentence_transformers("mean_tokens", 4096, 48, include_prompt=True),
            **tokenizer_config(
                "LlamaTokenizer", 4096, **LLAMA_TOKENS, add_eos_token=False, pad_token="</s>", padding_side="left"
            ),
        },
    )


def _prefixed(layout: Layout) -> Layout:
    """The same weights with the keys of a model for generation, in one file."""
    return replace(
        layout,
        shapes={f"model.{key}": shape for key, shape in layout.shapes.items()},
        renamed=(("model.", ""),),
        shards=1,
        dtype=torch.float16,
    )


def _nv_embed() -> Layout:
    tokenizer = vocabularies.mistral()
    text = _mistral(tokenizer, "MistralModel", "bidir_mistral", torch_dtype="float32")
    head = {"hidden_dim": 48, "latent_dim": 48, "num_latents_value": 12, "num_cross_heads": 4, "cross_dim_head": 24}
    config = {
        "add_eos": True,
        "add_pad_token": True,
        "architectures": ["NVEmbedModel"],
        "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
        "hidden_size": 48,
        "is_mask_instruction": True,
        "latent_attention_config": {"model_type": "latent_attention", "output_normalize": False, **head},
        "mask_type": "b",
        "model_type": "nvembed",
        "padding_side": "right",
        "text_config": text,
        "torch_dtype": "float16",
    }
    return Layout(
        "nvidia/NV-Embed-v2",
        "MistralModel",
        config,
        decoder(text, "embedding_model.") | latent_attention(48, 12, 4, 24),
        tokenizer,
        stock=text,
        renamed=(("embedding_model.", ""),),
        pooling="latent",
        query=INSTRUCT,
        adds_eos="</s>",
        dtype=torch.float16,
        shards=2,
        files={
            **sentence_transformers("mean_tokens", 32768, 48, include_prompt=False),
            **tokenizer_config("LlamaTokenizer", 32768, **LLAMA_TOKENS, add_eos_token=False, padding_side="right"),
        },
    )


def _llama_embedqa() -> Layout:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = vocabularies.byte_level(special, "<|begin_of_text|> $A", normalise=False)
    config = {
        "architectures": ["LlamaBidirectionalModel"],
        "attention_bias": False,
        "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
        "bos_token_id": tokenizer.token_to_id(special[0]),
        "eos_token_id": tokenizer.token_to_id(special[1]),
        "head_dim": 12,
        "hidden_act": "silu",
        "hidden_size": 48,
        "intermediate_size": 80,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama_bidirec",
        "num_attention_heads": 6,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": tokenizer.token_to_id(special[2]),
        "pooling": "avg",
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "temperature": 0.02,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "nvidia/llama-3.2-nv-embedqa-1b-v2",
        "LlamaModel",
        config,
        decoder(config),
        tokenizer,
        query="query: ",
        passage="passage: ",
        dtype=torch.bfloat16,
        files=tokenizer_config(
            "PreTrainedTokenizerFast", 131072, bos_token=special[0], eos_token=special[1], pad_token=special[2]
        ),
    )


def _sfr_mistral(name: str, template: str, **more: Any) -> Layout:
    """Every text ends with </s>: the template of tokenizer.json puts it there, or only tokenizer_config.json asks."""
    tokenizer = vocabularies.mistral(template)
    config = _mistral(tokenizer, "MistralModel", "mistral", **more)
    return Layout(
        name,
        "MistralModel",
        config,
        decoder(config),
        tokenizer,
        causal=True,
        reach=WINDOW - 1 if more.get("sliding_window") else None,
        pooling="last",
        query=INSTRUCT,
        padding="left",
        adds_eos="" if "</s>" in template else "</s>",
        dtype=torch.float16,
        files={
            **sentence_transformers("lasttoken", 4096, 48, include_prompt=True),
            **tokenizer_config("LlamaTokenizer", 4096, **LLAMA_TOKENS, add_eos_token=True, pad_token="</s>"),
        },
    )


GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}


def _gemma(tokenizer: Tokenizer, **more: Any) -> dict[str, Any]:
    """`query_pre_attn_scalar` is not the head's size, and the window is short, so that both decide something."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 24,
        "rms_norm_eps": 1e-06,
        "sliding_window": WINDOW,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
        **more,
    }


def _sfr_code() -> Layout:
    tokenizer = vocabularies.gemma()
    config = _gemma(
        tokenizer,
        architectures=["CodeXEmbedModel2B"],
        attn_logit_softcapping=2.0,
        auto_map={"AutoModel": "modeling_gemma2.CodeXEmbedModel2B"},
        cache_implementation="hybrid",
        final_logit_softcapping=30.0,
        hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=8192,
        model_type="codexembed2b",
        num_hidden_layers=3,
        rope_theta=10000.0,
    )
    norms = {f"{side}_feedforward_layernorm.weight": (32,) for side in ("pre", "post")}
    return Layout(
        "Salesforce/SFR-Embedding-Code-2B_R",
        "Gemma2Model",
        config,
        decoder(config, "model.", norms),
        tokenizer,
        renamed=(("model.", ""),),
        causal=True,
        reach=WINDOW - 1,
        pooling="last",
        query=INSTRUCT,
        padding="left",
        dtype=torch.bfloat16,
        files=tokenizer_config("GemmaTokenizer", 8192, **GEMMA_TOKENS, add_bos_token=True, add_eos_token=False),
    )


def _embedding_gemma() -> Layout:
    tokenizer = vocabularies.gemma("<bos> $A <eos>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = _gemma(
        tokenizer,
        _sliding_window_pattern=6,
        architectures=["Gemma3TextModel"],
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        layer_types=kinds,
        max_position_embeddings=2048,
        model_type="gemma3_text",
        num_hidden_layers=len(kinds),
        rope_local_base_freq=10000.0,
        rope_scaling=None,
        rope_theta=1000000.0,
        use_bidirectional_attention=True,
    )
    norms: Shapes = {f"{side}_feedforward_layernorm.weight": (32,) for side in ("pre", "post")}
    norms |= {f"self_attn.{name}_norm.weight": (16,) for name in "qk"}
    return Layout(
        "google/embeddinggemma-300m",
        "Gemma3TextModel",
        config,
        decoder(config, "", norms),
        tokenizer,
        reach=WINDOW // 2,
        query="task: code retrieval | query: ",
        passage="title: none | text: ",
        dense=((96, 32), (32, 96)),
        files={
            **sentence_transformers("mean_tokens", 2048, 32, GEMMA, dense=2, include_prompt=True),
            **tokenizer_config("GemmaTokenizer", 2048, **GEMMA_TOKENS, add_bos_token=True, add_eos_token=True),
        },
    )


QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _qwen(tokenizer: Tokenizer, architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(QWEN_TOKENS[0]),
        "eos_token_id": tokenizer.token_to_id(QWEN_TOKENS[0]),
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 64,
        "max_position_embeddings": 32768,
        "max_window_layers": 2,
        "model_type": kind,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size() + 7,  # padded beyond the vocabulary, as published
        **more,
    }


def _qwen3_embedding() -> Layout:
    tokenizer = vocabularies.byte_level(QWEN_TOKENS, "$A <|endoftext|>")
    config = _qwen(tokenizer, "Qwen3ForCausalLM", "qwen3", head_dim=16, attention_bias=False)
    norms = {f"self_attn.{name}_norm.weight": (16,) for name in "qk"}
    return Layout(
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen3Model",
        config,
        decoder(config, "", norms),
        tokenizer,
        causal=True,
        pooling="last",
        query=WEB,
        padding="left",
        dtype=torch.bfloat16,
        files={
            **sentence_transformers("lasttoken", 32768, 32, {"query": WEB, "document": ""}, include_prompt=True),
            **tokenizer_config("Qwen2Tokenizer", 131072, pad_token="<|endoftext|>", eos_token="<|im_end|>"),
        },
    )


def _jina_code() -> Layout:
    tokenizer = vocabularies.byte_level(QWEN_TOKENS)
    config = _qwen(tokenizer, "Qwen2ForCausalLM", "qwen2", matryoshka_dims=[8, 16, 32])
    biases: Shapes = {"self_attn.q_proj.bias": (32,), "self_attn.k_proj.bias": (16,), "self_attn.v_proj.bias": (16,)}
    return Layout(
        "jinaai/jina-code-embeddings-0.5b",
        "Qwen2Model",
        config,
        decoder(config, "model.", biases),
        tokenizer,
        renamed=(("model.", ""),),
        causal=True,
        pooling="last",
        query=JINA["nl2code_query"],
        passage=JINA["nl2code_document"],
        padding="left",
        dtype=torch.bfloat16,
        shards=2,
        files={
            **sentence_transformers("lasttoken", 32768, 32, JINA, include_prompt=True),
            **tokenizer_config("Qwen2Tokenizer", 32768, pad_token="<|endoftext|>", eos_token="<|endoftext|>"),
        },
    )


BERT_TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def _bert(
    name: str, mode: str, limit: int, query: str = "", passage: str = "", dtype: torch.dtype = torch.float32
) -> Layout:
    tokenizer = vocabularies.word_piece()
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        name,
        "BertModel",
        config,
        bert(config),
        tokenizer,
        pooling={"mean_tokens": "mean", "cls_token": "cls"}[mode],
        query=query,
        passage=passage,
        dtype=dtype,
        buffers={"embeddings.position_ids": (1, 512)},
        files={
            **sentence_transformers(mode, limit, 32),
            **tokenizer_config("BertTokenizer", 512, **BERT_TOKENS, do_lower_case=True),
        },
    )


def _code_rank_embed() -> Layout:
    tokenizer = vocabularies.word_piece()
    config = {
        "activation_function": "swiglu",
        "architectures": ["NomicBertModel"],
        "attn_pdrop": 0.0,
        "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
        "causal": False,
        "embd_pdrop": 0.0,
        "fused_bias_fc": True,
        "layer_norm_epsilon": 1e-12,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": 32,
        "n_head": 4,
        "n_inner": 64,
        "n_layer": 2,
        "n_positions": 8192,
        "pad_vocab_size_multiple": 64,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "resid_pdrop": 0.0,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "scale_attn_weights": True,
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
    }
    return Layout(
        "nomic-ai/CodeRankEmbed",
        "NomicBertModel",
        config,
        nomic_bert(config),
        tokenizer,
        stock={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "vocab_size": config["vocab_size"],
        },
        renamed=(
            ("emb_ln", "embeddings.LayerNorm"),
            ("encoder.layers", "layers"),
            ("attn.out_proj", "self_attn.o_proj"),
            ("mlp.fc11", "mlp.up_proj"),
            ("mlp.fc12", "mlp.gate_proj"),
            ("mlp.fc2", "mlp.down_proj"),
            ("norm1", "post_attention_layernorm"),
            ("norm2", "post_mlp_layernorm"),
        ),
        pooling="cls",
        query=NOMIC,
        files={
            **sentence_transformers("cls_token", 8192, 32, {"query": NOMIC}, include_prompt=True),
            **tokenizer_config("BertTokenizer", 8192, **BERT_TOKENS, do_lower_case=True),
        },
    )


def _multilingual_e5() -> Layout:
    tokenizer = vocabularies.unigram()
    config = {
        "architectures": ["XLMRobertaModel"],
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514,
        "model_type": "xlm-roberta",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "output_past": True,
        "pad_token_id": 1,
        "position_embedding_type": "absolute",
        "type_vocab_size": 1,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "intfloat/multilingual-e5-base",
        "XLMRobertaModel",
        config,
        bert(config),
        tokenizer,
        query="query: ",
        passage="passage: ",
        files={
            **sentence_transformers("mean_tokens", 512, 32),
            **tokenizer_config(
                "XLMRobertaTokenizer", 512, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
                pad_token="<pad>", unk_token="<unk>",
            ),
        },
    )  # fmt: skip


def _gte_modernbert() -> Layout:
    tokenizer = vocabularies.byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], "[CLS] $A [SEP]")
    cls, sep, pad = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]"))
    config = {
        "architectures": ["ModernBertModel"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": cls,
        "classifier_pooling": "mean",
        "cls_token_id": cls,
        "embedding_dropout": 0.0,
        "eos_token_id": sep,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "hidden_activation": "gelu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-05,
        "local_attention": WINDOW,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "pad_token_id": pad,
        "position_embedding_type": "absolute",
        "sep_token_id": sep,
        "torch_dtype": "float16",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "Alibaba-NLP/gte-modernbert-base",
        "ModernBertModel",
        config,
        modern_bert(config),
        tokenizer,
        reach=WINDOW // 2,
        pooling="cls",
        dtype=torch.float16,
        files={
            **sentence_transformers("cls_token", 8192, 32),
            **tokenizer_config("PreTrainedTokenizerFast", 8192, **BERT_TOKENS),
        },
    )


LAYOUTS: dict[str, Layout] = {
    "nv-embedcode": _nv_embedcode(),
    "nv-embedcode-model.": _prefixed(_nv_embedcode()),
    "nv-embed": _nv_embed(),
    "llama-embedqa": _llama_embedqa(),
    "sfr-mistral": _sfr_mistral("Salesforce/SFR-Embedding-Mistral", "<s> $A </s>", sliding_window=WINDOW),
    "sfr-mistral-2": _sfr_mistral("Salesforce/SFR-Embedding-2_R", "<s> $A"),
    "sfr-code": _sfr_code(),
    "qwen3-embedding": _qwen3_embedding(),
    "jina-code": _jina_code(),
    "embeddinggemma": _embedding_gemma(),
    "minilm": _bert("sentence-transformers/all-MiniLM-L6-v2", "mean_tokens", 256),
    "bge": _bert(
        "BAAI/bge-small-en-v1.5", "cls_token", 512, "Represent this sentence for searching relevant passages: "
    ),
    "e5": _bert("intfloat/e5-small-v2", "mean_tokens", 512, "query: ", "passage: ", torch.float16),
    "coderankembed": _code_rank_embed(),
    "multilingual-e5": _multilingual_e5(),
    "gte-modernbert": _gte_modernbert(),
}
