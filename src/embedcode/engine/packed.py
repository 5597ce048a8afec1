"""Packed attention: many texts as one row of tokens, none of them padded.

One function, registered with transformers under NAME, serves every architecture: linear maps and norms run over the
row as a whole, and attention runs text by text between its borders. Nothing is computed for padding, and no text sees
another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

NAME = "embedcode_packed"


def register() -> None:
    """Make `attn_implementation=NAME` known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    borders: Sequence[int],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, T, d], key and value [1, key heads, T, d]; text i is rows borders[i]:borders[i + 1].

    Returns [1, T, heads, d]. A window lets a token see those nearer than `sliding_window`; `softcap` bounds scores as
    in Gemma 2.
    """
    causal = bool(getattr(module, "is_causal", False))
    keep = torch.is_grad_enabled()  # autograd would copy the whole row for each text that is written into it
    out = query.new_empty(0) if keep else torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    rows = []
    runs = list(_runs(borders))
    # split(), not slices: the gradient of each slice would be a whole row of zeros.
    sizes = [stop - start for start, stop, _ in runs]
    parts = zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)
    for (start, stop, texts), part in zip(runs, parts, strict=True):
        q, k, v = (_apart(one, texts) for one in part)
        near = _near((stop - start) // texts, sliding_window, causal, query.device)
        if softcap is not None:
            row = _capped(q, k, v, near, causal, scaling, softcap)
        else:
            row = functional.scaled_dot_product_attention(
                q, k, v, near, is_causal=causal and near is None, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
            )
        row = row.transpose(1, 2).flatten(0, 1)[None]
        if keep:
            rows.append(row)
        else:
            out[:, start:stop] = row
    return torch.cat(rows, 1) if keep else out, None


def _runs(borders: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first row, last + 1, texts) of neighbours of one length, which are computed together."""
    start, texts = borders[0], 0
    for begin, end in pairwise(borders):
        if texts and (end - begin) * texts != begin - start:
            yield start, begin, texts
            start, texts = begin, 0
        texts += 1
    if texts:
        yield start, borders[-1], texts


def _apart(part: torch.Tensor, texts: int) -> torch.Tensor:
    """[1, heads, rows, d] to [texts, heads, rows / texts, d]."""
    return part[0].unflatten(1, (texts, -1)).transpose(0, 1)


def _near(length: int, window: int | None, causal: bool, device: torch.device) -> torch.Tensor | None:
    """Which tokens see which, bool [length, length]; None where the window does not bite."""
    if window is None or length <= window:
        return None
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return (distance < window) & ((distance >= 0) if causal else (distance > -window))


def _capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    near: torch.Tensor | None,
    causal: bool,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(2, 3)).float() * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    if causal and near is None:
        near = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if near is not None:
        scores = scores.masked_fill(~near, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v
