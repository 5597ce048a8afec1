"""Reference: the vectors of a layout, computed the published way: padded batches, explicit masks, eager, fp32.

The networks are those of transformers; masks, poolings and NV-Embed-v2's head are written here from their papers and
model cards. Imports nothing of embedcode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import checkpoints
import numpy as np
import torch
import transformers
from torch.nn import functional

Tensors = dict[str, torch.Tensor]


class Reference:
    """`weights` by published key, in place of the layout's own."""

    def __init__(self, layout: checkpoints.Layout, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        self.layout = layout
        fields = {k: v for k, v in (layout.stock or layout.config).items() if k not in ("model_type", "torch_dtype")}
        kind = getattr(transformers, layout.network)
        config = kind.config_class(**fields, attn_implementation="eager")
        self.network = kind(config).eval()
        self.head: Tensors = {}
        states: Tensors = {}
        for key, tensor in (weights or layout.weights()).items():
            if key.startswith("latent_attention_model."):
                self.head[key.removeprefix("latent_attention_model.")] = tensor.float()
            else:
                states |= _stock(layout, key, tensor.float())
        self.network.load_state_dict(states, strict=True)
        self.dense = layout.dense_weights()

    @torch.no_grad()
    def encode(self, texts: Sequence[str], prompt: str, causal: bool | None = None, pooling: str = "") -> np.ndarray:
        """Unit vectors [n, dim]; `causal` and `pooling` in place of the layout's own show what a wrong one does."""
        layout = self.layout
        rows = [self.ids(prompt + text) for text in texts]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), int(layout.config.get("pad_token_id") or 0))
        real = torch.zeros_like(ids, dtype=torch.bool)
        for at, row in enumerate(rows):
            place = slice(longest - len(row), None) if layout.padding == "left" else slice(len(row))
            ids[at, place] = torch.tensor(row)
            real[at, place] = True
        states = self._states(ids, real, layout.causal if causal is None else causal)
        vectors = self._pooled(states, real, pooling or layout.pooling, self._masked(prompt))
        for weight in self.dense:
            vectors = vectors @ weight.T
        return functional.normalize(vectors, dim=-1).numpy()

    def ids(self, text: str) -> list[int]:
        end = self.layout.adds_eos
        return self.layout.tokenizer.encode(text).ids + ([self.layout.tokenizer.token_to_id(end)] if end else [])

    def _masked(self, prompt: str) -> int:
        """Leading tokens NV-Embed-v2 leaves out of the mean: as many as its instruction alone has, <s> not counted."""
        if self.layout.pooling != "latent" or not prompt:
            return 0
        return len(self.layout.tokenizer.encode(prompt, add_special_tokens=False).ids)

    def _states(self, ids: torch.Tensor, real: torch.Tensor, causal: bool) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        distance = places[:, None] - places[None, :]
        seen = real[:, None, None, :] & (distance >= 0 if causal else torch.tensor(True))
        near = seen if self.layout.reach is None else seen & (distance.abs() <= self.layout.reach)
        masks = {"full_attention": _added(seen), "sliding_attention": _added(near)}
        kinds = getattr(self.network.config, "layer_types", None)
        mask = masks if kinds else masks["sliding_attention"]
        more: dict[str, Any] = {}
        if self.layout.padding == "left":
            more["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
        return self.network(input_ids=ids, attention_mask=mask, **more).last_hidden_state

    def _pooled(self, states: torch.Tensor, real: torch.Tensor, pooling: str, masked: int) -> torch.Tensor:
        if pooling == "cls":
            return states[torch.arange(len(states)), real.int().argmax(1)]
        if pooling == "last":
            return states[torch.arange(len(states)), real.shape[1] - 1 - real.flip(1).int().argmax(1)]
        kept = real.clone()
        kept[:, :masked] = False
        if pooling == "latent":
            states = latent_attention(states, self.head, self.layout.config["latent_attention_config"])
        return (states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)


def latent_attention(states: torch.Tensor, head: Tensors, config: Mapping[str, Any]) -> torch.Tensor:
    """NV-Embed-v2's head (arXiv 2405.17428): every token attends to the latents, then a feed-forward with GEGLU."""
    first, second = "cross_attend_blocks.0.", "cross_attend_blocks.1."
    heads, size = config["num_cross_heads"], config["cross_dim_head"]

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(values, values.shape[-1:], head[f"{name}.weight"], head[f"{name}.bias"])

    context = norm(f"{first}norm_context", head["latents"])
    queries = norm(f"{first}norm", states) @ head[f"{first}fn.to_q.weight"].T
    keys, values = (context @ head[f"{first}fn.to_kv.weight"].T).chunk(2, dim=-1)
    queries = queries.unflatten(-1, (heads, size))
    keys, values = keys.unflatten(-1, (heads, size)), values.unflatten(-1, (heads, size))
    scores = torch.einsum("bthd,lhd->bhtl", queries, keys) / size**0.5
    mixed = torch.einsum("bhtl,lhd->bthd", scores.softmax(-1), values).flatten(-2)
    states = states + mixed @ head[f"{first}fn.to_out.weight"].T
    wide = norm(f"{second}norm", states) @ head[f"{second}fn.net.0.weight"].T + head[f"{second}fn.net.0.bias"]
    value, gate = wide.chunk(2, dim=-1)
    return (
        states + (value * functional.gelu(gate)) @ head[f"{second}fn.net.2.weight"].T + head[f"{second}fn.net.2.bias"]
    )


def merged(weights: Tensors, adapter: Tensors, scale: float, prefix: str = "base_model.model.") -> Tensors:
    """A LoRA adapter added into the weights it stands on, in fp32: W + scale * B @ A (arXiv 2106.09685)."""
    out = {key: tensor.float() for key, tensor in weights.items()}
    for key in out:
        stem = prefix + key.removesuffix("weight")
        if f"{stem}lora_A.weight" in adapter:
            out[key] = out[key] + scale * adapter[f"{stem}lora_B.weight"] @ adapter[f"{stem}lora_A.weight"]
    return out


def _stock(layout: checkpoints.Layout, key: str, tensor: torch.Tensor) -> Tensors:
    for part, replacement in layout.renamed:
        key = key.replace(part, replacement)
    if layout.network == "NomicBertModel" and "attn.Wqkv" in key:
        parts = (key.replace("attn.Wqkv", f"self_attn.{name}_proj") for name in "qkv")
        return dict(zip(parts, tensor.chunk(3), strict=True))
    return {key: tensor}


def _added(seen: torch.Tensor) -> torch.Tensor:
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)
