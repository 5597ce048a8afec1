"""From the states of one text's tokens to its vector: pooling, the latent head of NV-Embed-v2, dense heads.

Everything is fp32, whatever the network computes in: it is one text's sum, and costs nothing beside the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from embedcode.errors import ModelError
from embedcode.model.family import LATENT, Pooling

ROWS = 2048
"""Tokens that go through the latent head at a time: its widest layer takes 131 KB of each at published sizes."""


def pool(states: torch.Tensor, pooling: Pooling, skipped: int = 0) -> torch.Tensor:
    """States [tokens, dim] to [dim]; a mean leaves out the first `skipped` tokens, unless there are no others."""
    match pooling:
        case Pooling.CLS:
            return states[0].float()
        case Pooling.LAST:
            return states[-1].float()
        case _:
            return states[skipped if skipped < len(states) else 0 :].float().mean(0)


def pooled(
    states: torch.Tensor, borders: Sequence[int], pooling: Pooling, skipped: Sequence[int] | None = None
) -> torch.Tensor:
    """States [T, dim] of texts side by side to [texts, dim]; a mean leaves out the first `skipped` tokens of each.

    A few operations for all texts: what a gradient goes through, and what a card computes without waiting.
    """
    first = torch.tensor(borders[:-1], device=states.device)
    last = torch.tensor(borders[1:], device=states.device)
    if pooling is Pooling.CLS:
        return states[first].float()
    if pooling is Pooling.LAST:
        return states[last - 1].float()
    counted = torch.ones(len(states), 1, device=states.device)
    for start, stop, own in zip(borders, borders[1:], skipped or (), strict=False):
        if 0 < own < stop - start:
            counted[start : start + own] = 0
    texts = torch.repeat_interleave(torch.arange(len(first), device=states.device), last - first)
    zero = torch.zeros(len(first), states.shape[1], device=states.device)
    sums = zero.index_add(0, texts, states.float() * counted)
    return sums / torch.zeros(len(first), 1, device=states.device).index_add(0, texts, counted)


class LatentAttention(torch.nn.Module):
    """NV-Embed-v2's head (arXiv 2405.17428): each token attends to trained latents, then a gated feed-forward layer.

    Both parts add to what they are given. Names of the weights are those of the published checkpoint. Keys and values
    of the latents are the same for every text, and are computed once: at published sizes they take 275 GFLOP.
    """

    PREFIX = LATENT

    def __init__(self, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self._weights = {name.removeprefix(self.PREFIX): tensor.float() for name, tensor in weights.items()}
        self._heads = int(config.get("num_cross_heads", 8))
        with torch.no_grad():
            latents = self._normed("cross_attend_blocks.0.norm_context", self._get("latents"))
            both = self._linear("cross_attend_blocks.0.fn.to_kv", latents).chunk(2, -1)
        del self._weights["cross_attend_blocks.0.fn.to_kv.weight"]  # a gigabyte
        self._key, self._value = map(self._apart, both)

    def some_at_a_time(self, states: torch.Tensor) -> torch.Tensor:
        """forward() of ROWS tokens at a time, as no token's result depends on another's."""
        return torch.cat([self(part) for part in torch.split(states, ROWS)])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States [tokens, dim] to states of the same shape."""
        states = states.float()
        q = self._linear("cross_attend_blocks.0.fn.to_q", self._normed("cross_attend_blocks.0.norm", states))
        seen = functional.scaled_dot_product_attention(self._apart(q), self._key, self._value)
        seen = seen[0].transpose(0, 1).flatten(1)
        states = states + self._linear("cross_attend_blocks.0.fn.to_out", seen)
        inner = self._normed("cross_attend_blocks.1.norm", states)
        inner, gate = self._linear("cross_attend_blocks.1.fn.net.0", inner).chunk(2, -1)
        return states + self._linear("cross_attend_blocks.1.fn.net.2", inner * functional.gelu(gate))

    def _apart(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, heads * d] to [1, heads, n, d]."""
        return rows[None].view(1, *rows.shape[:1], self._heads, -1).transpose(1, 2)

    def _get(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            raise ModelError(f"the checkpoint has no {self.PREFIX}{name}: download it again.")
        return self._weights[name]

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self._get(f"{name}.weight"), self._weights.get(f"{name}.bias"))

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], self._get(f"{name}.weight"), self._weights.get(f"{name}.bias"))


def dense(vector: torch.Tensor, heads: Sequence[tuple[torch.Tensor, torch.Tensor | None, str]]) -> torch.Tensor:
    """The dense heads (weight, bias, activation) in turn over pooled vectors [..., dim]."""
    for weight, bias, activation in heads:
        vector = functional.linear(vector, weight, bias)
        vector = {"": vector, "tanh": vector.tanh(), "gelu": functional.gelu(vector)}[activation]
    return vector
