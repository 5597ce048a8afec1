"""Layouts: the published models, by the config.json, key names, tokenizer and side files they have on the hub.

Tiny, and chosen so that what a file says decides something: windows are shorter than texts, scales are not the default
ones. The shapes of the folders are the builder's (checkpoints.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import vocabularies
from checkpoints import (
    Layout,
    Shapes,
    bert,
    decoder,
    latent_attention,
    modern_bert,
    nomic_bert,
    sentence_transformers,
    tokenizer_config,
)
from tokenizers import Tokenizer

# fmt: off
INSTRUCT = "Instruct: {instruction}\nQuery: "
QUESTION = "Instruct: Given a question, retrieve passages that can help answer the question.\nQuery: "
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


LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}


def _mistral(tokenizer: Tokenizer, architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 80,
        "max_position_embeddings": 32768, "model_type": kind, "num_attention_heads": 6, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": None,
        "tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": False,
        "vocab_size": tokenizer.get_vocab_size(),
        **more,
    }


def _nv_embedcode() -> Layout:
    tokenizer = vocabularies.mistral()
    auto = {"AutoModel": "modeling_mistral_bidirectional.MistralBiDirectionalModel"}
    config = _mistral(
        tokenizer, "MistralBiDirectionalModel", "mistralbidirectional", auto_map=auto, torch_dtype="bfloat16"
    )
    return Layout(
        "nvidia/NV-EmbedCode-7b-v1",
        "MistralModel",
        config,
        decoder(config),
        tokenizer,
        query=INSTRUCT, padding="left", dtype=torch.bfloat16, shards=3,
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
        shards=1, dtype=torch.float16,
    )


def _nv_embed() -> Layout:
    tokenizer = vocabularies.mistral()
    text = _mistral(tokenizer, "MistralModel", "bidir_mistral", torch_dtype="float32")
    head = {"hidden_dim": 48, "latent_dim": 48, "num_latents_value": 12, "num_cross_heads": 4, "cross_dim_head": 24}
    config = {
        "add_eos": True, "add_pad_token": True, "architectures": ["NVEmbedModel"],
        "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
        "hidden_size": 48, "is_mask_instruction": True,
        "latent_attention_config": {"model_type": "latent_attention", "output_normalize": False, **head},
        "mask_type": "b", "model_type": "nvembed", "padding_side": "right", "text_config": text,
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
        pooling="latent", query=INSTRUCT, adds_eos="</s>", dtype=torch.float16, shards=2,
        files={
            **sentence_transformers("mean_tokens", 32768, 48, include_prompt=False),
            **tokenizer_config("LlamaTokenizer", 32768, **LLAMA_TOKENS, add_eos_token=False, padding_side="right"),
        },
    )


def _llama_embedqa() -> Layout:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = vocabularies.byte_level(special, "<|begin_of_text|> $A", normalise=False)
    config = {
        "architectures": ["LlamaBidirectionalModel"], "attention_bias": False,
        "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
        "bos_token_id": tokenizer.token_to_id(special[0]), "eos_token_id": tokenizer.token_to_id(special[1]),
        "head_dim": 12, "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 80,
        "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama_bidirec",
        "num_attention_heads": 6, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "pad_token_id": tokenizer.token_to_id(special[2]), "pooling": "avg", "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0, "temperature": 0.02, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "nvidia/llama-3.2-nv-embedqa-1b-v2",
        "LlamaModel",
        config,
        decoder(config),
        tokenizer,
        query="query: ", passage="passage: ", dtype=torch.bfloat16,
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
        pooling="last", query=INSTRUCT, padding="left", adds_eos="" if "</s>" in template else "</s>",
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
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1, "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
        "query_pre_attn_scalar": 24, "rms_norm_eps": 1e-06, "sliding_window": WINDOW, "torch_dtype": "float32",
        "use_cache": True, "vocab_size": tokenizer.get_vocab_size(),
        **more,
    }


def _sfr_code() -> Layout:
    tokenizer = vocabularies.gemma()
    config = _gemma(
        tokenizer,
        architectures=["CodeXEmbedModel2B"], attn_logit_softcapping=2.0,
        auto_map={"AutoModel": "modeling_gemma2.CodeXEmbedModel2B"},
        cache_implementation="hybrid", final_logit_softcapping=30.0, hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=8192, model_type="codexembed2b", num_hidden_layers=3, rope_theta=10000.0,
    )
    norms = {f"{side}_feedforward_layernorm.weight": (32,) for side in ("pre", "post")}
    return Layout(
        "Salesforce/SFR-Embedding-Code-2B_R",
        "Gemma2Model",
        config,
        decoder(config, "model.", norms),
        tokenizer,
        renamed=(("model.", ""),),
        causal=True, reach=WINDOW - 1, pooling="last", query=INSTRUCT, padding="left", dtype=torch.bfloat16,
        files=tokenizer_config("GemmaTokenizer", 8192, **GEMMA_TOKENS, add_bos_token=True, add_eos_token=False),
    )


IMAGE = "<image_soft_token>"


def _embedding_gemma() -> Layout:
    tokenizer = vocabularies.gemma("<bos> $A <eos>")
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = _gemma(
        tokenizer,
        _sliding_window_pattern=6, architectures=["Gemma3TextModel"], attn_logit_softcapping=None,
        final_logit_softcapping=None, layer_types=kinds, max_position_embeddings=2048, model_type="gemma3_text",
        num_hidden_layers=len(kinds),
        rope_local_base_freq=10000.0, rope_scaling=None, rope_theta=1000000.0, use_bidirectional_attention=True,
    )
    norms: Shapes = {f"{side}_feedforward_layernorm.weight": (32,) for side in ("pre", "post")}
    norms |= {f"self_attn.{name}_norm.weight": (16,) for name in "qk"}
    tokenizer.add_special_tokens([IMAGE])  # for the models with pictures; this one's table ends before it, as published
    return Layout(
        "google/embeddinggemma-300m",
        "Gemma3TextModel",
        config,
        decoder(config, "", norms),
        tokenizer,
        reach=WINDOW // 2, query="task: code retrieval | query: ", passage="title: none | text: ",
        dense=((96, 32), (32, 96)),
        files={
            **sentence_transformers("mean_tokens", 2048, 32, GEMMA, dense=2, include_prompt=True),
            **tokenizer_config("GemmaTokenizer", 2048, **GEMMA_TOKENS, add_bos_token=True, add_eos_token=True),
        },
    )


QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def _qwen(tokenizer: Tokenizer, architecture: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture], "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(QWEN_TOKENS[0]),
        "eos_token_id": tokenizer.token_to_id(QWEN_TOKENS[0]), "hidden_act": "silu", "hidden_size": 32,
        "intermediate_size": 64, "max_position_embeddings": 32768, "max_window_layers": 2, "model_type": kind,
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size() + 7,  # padded beyond the vocabulary, as published
        **more,
    }


def _qwen3(
    name: str, architecture: str, positions: int, query: str, tokenizer: Tokenizer, adds_eos: str = ""
) -> Layout:
    config = _qwen(
        tokenizer, architecture, "qwen3", head_dim=16, attention_bias=False, max_position_embeddings=positions
    )
    norms = {f"self_attn.{side}_norm.weight": (16,) for side in "qk"}
    return Layout(
        name,
        "Qwen3Model",
        config,
        decoder(config, "", norms),
        tokenizer,
        causal=True, pooling="last", query=query, padding="left", adds_eos=adds_eos, dtype=torch.bfloat16,
        files={
            **sentence_transformers("lasttoken", positions, 32, {"query": query, "document": ""}, include_prompt=True),
            **tokenizer_config("Qwen2Tokenizer", 131072, pad_token="<|endoftext|>", eos_token="<|im_end|>"),
        },
    )


def _qwen3_embedding() -> Layout:
    tokenizer = vocabularies.byte_level(QWEN_TOKENS, "$A <|endoftext|>")
    return _qwen3("Qwen/Qwen3-Embedding-0.6B", "Qwen3ForCausalLM", 32768, WEB, tokenizer)


def _f2llm() -> Layout:
    """Trained on ids with <|im_end|> behind them, which its tokenizer is told nowhere to put there."""
    tokenizer = vocabularies.byte_level(QWEN_TOKENS)
    return _qwen3("codefuse-ai/F2LLM-v2-80M", "Qwen3Model", 40960, QUESTION, tokenizer, "<|im_end|>")


QWEN2_BIASES: Shapes = {"self_attn.q_proj.bias": (32,), "self_attn.k_proj.bias": (16,), "self_attn.v_proj.bias": (16,)}


def _jina_code() -> Layout:
    tokenizer = vocabularies.byte_level(QWEN_TOKENS)
    config = _qwen(tokenizer, "Qwen2ForCausalLM", "qwen2", matryoshka_dims=[8, 16, 32])
    return Layout(
        "jinaai/jina-code-embeddings-0.5b",
        "Qwen2Model",
        config,
        decoder(config, "model.", QWEN2_BIASES),
        tokenizer,
        renamed=(("model.", ""),),
        causal=True, pooling="last", query=JINA["nl2code_query"], passage=JINA["nl2code_document"], padding="left",
        dtype=torch.bfloat16, shards=2,
        files={
            **sentence_transformers("lasttoken", 32768, 32, JINA, include_prompt=True),
            **tokenizer_config("Qwen2Tokenizer", 32768, pad_token="<|endoftext|>", eos_token="<|endoftext|>"),
        },
    )


def _nomic_embed_code() -> Layout:
    tokenizer = vocabularies.byte_level(QWEN_TOKENS)
    config = _qwen(tokenizer, "Qwen2Model", "qwen2", tie_word_embeddings=False, torch_dtype="float32")
    return Layout(
        "nomic-ai/nomic-embed-code",
        "Qwen2Model",
        config,
        decoder(config, "", QWEN2_BIASES),
        tokenizer,
        causal=True, pooling="last", query=NOMIC, shards=3,
        files={
            **sentence_transformers("lasttoken", 32768, 32, {"query": NOMIC}, include_prompt=True),
            **tokenizer_config("Qwen2Tokenizer", 32768, pad_token="<|endoftext|>", eos_token="<|endoftext|>"),
        },
    )


def _smollm() -> Layout:
    """No model of embeddings: what one is trained from, with no file of sentence-transformers."""
    tokenizer = vocabularies.byte_level(["<|endoftext|>"], normalise=False)
    end = tokenizer.token_to_id("<|endoftext|>")
    config = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": end,
        "eos_token_id": end, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.041666666666666664,
        "intermediate_size": 80, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 6, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "HuggingFaceTB/SmolLM2-135M",
        "LlamaModel",
        config,
        decoder(config, "model."),
        tokenizer,
        renamed=(("model.", ""),),
        causal=True, pooling="last", dtype=torch.bfloat16,
        files=tokenizer_config("GPT2Tokenizer", 8192, bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
    )


def _eurobert() -> Layout:
    """A decoder's layers, seeing both ways."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>"]
    tokenizer = vocabularies.byte_level(special, "<|begin_of_text|> $A <|end_of_text|>", normalise=False)
    begin, end, mask = map(tokenizer.token_to_id, special)
    config = {
        "architectures": ["EuroBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0,
        "auto_map": {"AutoModel": "modeling_eurobert.EuroBertModel"}, "bos_token_id": begin, "clf_pooling": "late",
        "eos_token_id": end, "head_dim": 8, "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 32,
        "initializer_range": 0.02, "intermediate_size": 64, "is_decoder": False, "mask_token_id": mask,
        "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "eurobert", "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 4, "pad_token_id": end, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 250000, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_cache": False, "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "EuroBERT/EuroBERT-210m",
        "EuroBertModel",
        config,
        decoder(config, "model."),
        tokenizer,
        renamed=(("model.", ""),),
        dtype=torch.bfloat16,
        files=tokenizer_config(
            "PreTrainedTokenizerFast", 8192, bos_token=special[0], eos_token=special[1], pad_token=special[1],
            mask_token=special[2],
        ),
    )  # fmt: skip


BERT_TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def _bert(
    name: str, mode: str, limit: int, query: str = "", passage: str = "", dtype: torch.dtype = torch.float32
) -> Layout:
    tokenizer = vocabularies.word_piece()
    config = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 32, "intermediate_size": 64, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 4, "num_hidden_layers": 2,
        "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        name,
        "BertModel",
        config,
        bert(config),
        tokenizer,
        pooling={"mean_tokens": "mean", "cls_token": "cls"}[mode],
        query=query, passage=passage, dtype=dtype,
        buffers={"embeddings.position_ids": (1, 512)},
        files={
            **sentence_transformers(mode, limit, 32),
            **tokenizer_config("BertTokenizer", 512, **BERT_TOKENS, do_lower_case=True),
        },
    )


def _code_rank_embed() -> Layout:
    tokenizer = vocabularies.word_piece()
    config = {
        "activation_function": "swiglu", "architectures": ["NomicBertModel"], "attn_pdrop": 0.0,
        "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
        "causal": False, "embd_pdrop": 0.0, "fused_bias_fc": True, "layer_norm_epsilon": 1e-12,
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert", "n_embd": 32, "n_head": 4, "n_inner": 64, "n_layer": 2, "n_positions": 8192,
        "pad_vocab_size_multiple": 64, "parallel_block": False, "prenorm": False, "qkv_proj_bias": False,
        "resid_pdrop": 0.0, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "scale_attn_weights": True,
        "torch_dtype": "float32", "type_vocab_size": 2, "use_rms_norm": False,
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
    }
    return Layout(
        "nomic-ai/CodeRankEmbed",
        "NomicBertModel",
        config,
        nomic_bert(config),
        tokenizer,
        stock={
            "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
            "layer_norm_eps": 1e-12, "max_position_embeddings": 8192,
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
        pooling="cls", query=NOMIC,
        files={
            **sentence_transformers("cls_token", 8192, 32, {"query": NOMIC}, include_prompt=True),
            **tokenizer_config("BertTokenizer", 8192, **BERT_TOKENS, do_lower_case=True),
        },
    )


def _multilingual_e5() -> Layout:
    tokenizer = vocabularies.unigram()
    config = {
        "architectures": ["XLMRobertaModel"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 32,
        "intermediate_size": 64, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "xlm-roberta", "num_attention_heads": 4, "num_hidden_layers": 2, "output_past": True,
        "pad_token_id": 1, "position_embedding_type": "absolute", "type_vocab_size": 1,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "intfloat/multilingual-e5-base",
        "XLMRobertaModel",
        config,
        bert(config),
        tokenizer,
        query="query: ", passage="passage: ",
        files={
            **sentence_transformers("mean_tokens", 512, 32),
            **tokenizer_config(
                "XLMRobertaTokenizer", 512, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
                pad_token="<pad>", unk_token="<unk>",
            ),
        },
    )  # fmt: skip


def _roberta() -> Layout:
    tokenizer = vocabularies.roberta()
    config = {
        "architectures": ["RobertaModel"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0, "eos_token_id": 2,
        "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 32,
        "initializer_range": 0.02, "intermediate_size": 64, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "roberta", "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 1,
        "position_embedding_type": "absolute", "type_vocab_size": 1, "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "sentence-transformers/all-distilroberta-v1",
        "RobertaModel",
        config,
        bert(config),
        tokenizer,
        buffers={"embeddings.position_ids": (1, 514)},
        files={
            **sentence_transformers("mean_tokens", 512, 32),
            **tokenizer_config(
                "RobertaTokenizer", 512, add_prefix_space=False, bos_token="<s>", eos_token="</s>", cls_token="<s>",
                sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
            ),
        },
    )  # fmt: skip


def _gte_modernbert() -> Layout:
    tokenizer = vocabularies.byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], "[CLS] $A [SEP]")
    cls, sep, pad = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]"))
    config = {
        "architectures": ["ModernBertModel"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": cls, "classifier_pooling": "mean", "cls_token_id": cls, "embedding_dropout": 0.0,
        "eos_token_id": sep, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
        "hidden_activation": "gelu", "hidden_size": 32, "intermediate_size": 48, "layer_norm_eps": 1e-05,
        "local_attention": WINDOW, "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False,
        "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05,
        "num_attention_heads": 4, "num_hidden_layers": 4, "pad_token_id": pad,
        "position_embedding_type": "absolute", "sep_token_id": sep, "torch_dtype": "float16",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    return Layout(
        "Alibaba-NLP/gte-modernbert-base",
        "ModernBertModel",
        config,
        modern_bert(config),
        tokenizer,
        reach=WINDOW // 2, pooling="cls", dtype=torch.float16,
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
    "f2llm": _f2llm(),
    "jina-code": _jina_code(),
    "nomic-embed-code": _nomic_embed_code(),
    "smollm": _smollm(),
    "eurobert": _eurobert(),
    "embeddinggemma": _embedding_gemma(),
    "minilm": _bert("sentence-transformers/all-MiniLM-L6-v2", "mean_tokens", 256),
    "bge": _bert(
        "BAAI/bge-small-en-v1.5", "cls_token", 512, "Represent this sentence for searching relevant passages: "
    ),
    "e5": _bert("intfloat/e5-small-v2", "mean_tokens", 512, "query: ", "passage: ", torch.float16),
    "coderankembed": _code_rank_embed(),
    "multilingual-e5": _multilingual_e5(),
    "roberta": _roberta(),
    "gte-modernbert": _gte_modernbert(),
}
