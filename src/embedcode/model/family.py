"""Family: how a published architecture maps to a stock network of transformers. A table, and no code of any model.

Sources: the config.json, key names and pooling files of each model on the hub, as `recipe.md` of the project lists
them. A family fixes what the files of a checkpoint leave open; where they say something, they win (checkpoint.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

INSTRUCT = "Instruct: {instruction}\nQuery: "
"""The query prompt of NV-Embed, NV-EmbedCode, the SFR models and others; passages go bare."""
GEMMA = "task: code retrieval | query: "
"""EmbeddingGemma's query prompt for code; what its files call `query` is for search in general."""

LATENT = "latent_attention_model."
"""What the names of NV-Embed-v2's head begin with."""


class Pooling(StrEnum):
    """How states [tokens, dim] become one vector."""

    MEAN = "mean"
    LAST = "last"
    CLS = "cls"
    LATENT = "latent"
    """NV-Embed-v2: each token attends to trained latents, then the mean (arXiv 2405.17428)."""


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture as published, and the stock network that computes it."""

    model_type: str
    """Of transformers."""
    causal: bool = False
    stock: bool = False
    """Whether transformers has a decoder of this very name: code beside a checkpoint may see both ways by it."""
    pooling: Pooling = Pooling.MEAN
    query: str = ""
    passage: str = ""
    masks_prompt: bool = False
    """Whether the tokens of the prompt are left out of the mean, where the files do not say."""
    adds_eos: bool = False
    nested: str = ""
    """Key of config.json under which the network's own config lies."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(pattern, replacement) from published key names to stock ones, applied in turn."""
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Part of a key name to the parts its rows are divided into, evenly."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Field of the published config to field of the stock one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the stock config that the published one has under no name."""
    computed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the published config that the stock network computes at this value only."""
    offset_positions: bool = False
    """Positions count from the padding id + 1, as in RoBERTa."""


_NOMIC_NAMES = (
    (r"^emb_ln\.", "embeddings.LayerNorm."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.attn\.Wqkv\.", ".self_attn.Wqkv."),
    (r"\.fc11\.", ".up_proj."),
    (r"\.fc12\.", ".gate_proj."),
    (r"\.fc2\.", ".down_proj."),
    (r"\.norm1\.", ".post_attention_layernorm."),
    (r"\.norm2\.", ".post_mlp_layernorm."),
)
_NOMIC_FIELDS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
}
_WINDOWLESS: Mapping[str, Any] = {"sliding_window": None}
"""Of published code that masks padding alone, whatever the config says; stock Mistral takes 4,096 unless it says so."""
_DECODERS = ("MistralModel", "LlamaModel", "Qwen2Model", "Qwen3Model", "Gemma2Model")
_ENCODERS = ("BertModel", "ModernBertModel", "EuroBertModel")

FAMILIES: Mapping[str, Family] = {
    "MistralBiDirectionalModel": Family("mistral", query=INSTRUCT, settings=_WINDOWLESS),
    "NVEmbedModel": Family(
        "mistral",
        pooling=Pooling.LATENT,
        query=INSTRUCT,
        masks_prompt=True,
        adds_eos=True,
        nested="text_config",
        settings=_WINDOWLESS,
    ),
    "LlamaBidirectionalModel": Family("llama", query="query: ", passage="passage: "),
    "CodeXEmbedModel2B": Family("gemma2", causal=True, pooling=Pooling.LAST, query=INSTRUCT),
    "Gemma3TextModel": Family("gemma3_text", causal=True, stock=True, pooling=Pooling.LAST),
    "NomicBertModel": Family(
        "nomic_bert",
        renamed=_NOMIC_NAMES,
        split={".Wqkv.": (".q_proj.", ".k_proj.", ".v_proj.")},
        fields=_NOMIC_FIELDS,
        settings={"hidden_act": "silu"},
        computed={"activation_function": "swiglu", "prenorm": False, "rotary_emb_fraction": 1.0},
    ),
    "RobertaModel": Family("roberta", offset_positions=True),
    "XLMRobertaModel": Family("xlm-roberta", offset_positions=True),
    **{
        name: Family(name.removesuffix("Model").lower(), causal=True, stock=True, pooling=Pooling.LAST)
        for name in _DECODERS
    },
    **{name: Family(name.removesuffix("Model").lower()) for name in _ENCODERS},
}
"""Every `architectures` entry that is read. A head for another task (ForCausalLM, ForMaskedLM) is left aside."""


def family(architecture: str) -> Family | None:
    """The family of an `architectures` entry, with or without a head for another task; None for an unknown one."""
    for ending in ("", "ForCausalLM", "ForMaskedLM"):
        name = architecture.removesuffix(ending) if ending else architecture
        for candidate in (name, f"{name}Model"):
            if candidate in FAMILIES:
                return FAMILIES[candidate]
    return None
