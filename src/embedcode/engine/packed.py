"""Packed attention: many texts as one row of tokens, none of them padded.

One function, registered with transformers under NAME, serves every architecture: linear maps and norms run over the
row as a whole, and attention runs text by text between its borders. Nothing is computed for padding, and no text sees
another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

NAME = "embedcode_packed"
FLASH = (torch.bfloat16, torch.float16)
"""What the kernel of one call for all texts computes in."""
ROWS = 512
"""Tokens whose scores are in memory at a time, where they are bounded."""


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
    if query.is_cuda and query.dtype in FLASH and softcap is None and (varlen := _varlen()):
        return _together(varlen, query, key, value, borders, causal, scaling, sliding_window), None
    keep = torch.is_grad_enabled()  # autograd would copy the whole row for each text that is written into it
    out = query.new_empty(0) if keep else torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    rows = []
    runs = list(_runs(borders))
    # split(), not slices: the gradient of each slice would be a whole row of zeros.
    sizes = [stop - start for start, stop, _ in runs]
    parts = zip(*(torch.split(part, sizes, 2) for part in (query, key, value)), strict=True)
    for (start, stop, texts), part in zip(runs, parts, strict=True):
        q, k, v = (_apart(one, texts) for one in part)
        if softcap is not None:
            row = _capped(q, k, v, sliding_window, causal, scaling, softcap)
        elif sliding_window is not None and q.shape[2] > sliding_window:
            row = _windowed(q, k, v, sliding_window, causal, scaling)
        else:
            row = functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
            )
        row = row.transpose(1, 2).flatten(0, 1)[None]
        if keep:
            rows.append(row)
        else:
            out[:, start:stop] = row
    return torch.cat(rows, 1) if keep else out, None


def _together(
    varlen: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: Sequence[int],
    causal: bool,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """All texts by one kernel (FlashAttention-2, arXiv 2307.08691): text by text a card waits for its next launch."""
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    longest = max(end - begin for begin, end in pairwise(borders))
    starts = _starts(tuple(borders), query.device)
    back = -1 if window is None or longest <= window else window - 1
    # A window that looks back to the start and not ahead is what the kernel knows as causal.
    sees = (back, 0 if causal else back)
    out: torch.Tensor = varlen(
        q, k, v, starts, starts, longest, longest, scale=scaling, window_size=sees, **_grouped(varlen)
    )
    return out[None]


@lru_cache(maxsize=1)
def _varlen() -> Any:
    """torch's varlen_attn, from 2.11 on, where it takes a window; else None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in signature(varlen_attn).parameters else None


@lru_cache(maxsize=4)
def _grouped(varlen: Any) -> dict[str, bool]:
    """What has the kernel serve the heads of a group by one key: with a copy for each a 7B read 4 % fewer tokens.

    torch 2.11 has no name for it and asks nothing; its vectors and gradients are those of copies.
    """
    return {"enable_gqa": True} if "enable_gqa" in signature(varlen).parameters else {}


@lru_cache(maxsize=4)
def _starts(borders: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """int32 [texts + 1] on the device, made once for all layers of a pass."""
    with torch.inference_mode(False):  # it is kept for a backward pass too
        return torch.tensor(borders, dtype=torch.int32, device=device)


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
    _, heads, rows, width = part.shape
    return part[0].view(heads, texts, rows // texts, width).transpose(0, 1)


def _blocks(length: int, window: int | None, causal: bool) -> Iterator[tuple[range, range]]:
    """ROWS tokens at a time, and those that they may see."""
    back = length if window is None else window - 1
    ahead = 0 if causal else back
    for first in range(0, length, ROWS):
        rows = range(first, min(first + ROWS, length))
        yield rows, range(max(0, rows.start - back), min(length, rows.stop + ahead))


def _seen(rows: range, others: range, window: int, causal: bool, device: torch.device) -> torch.Tensor:
    """Which of `others` the tokens of `rows` see, bool [rows, others]."""
    own, other = (torch.arange(one.start, one.stop, dtype=torch.int32, device=device) for one in (rows, others))
    distance = own[:, None] - other
    return (distance < window) & ((distance >= 0) if causal else (distance > -window))


def _windowed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, causal: bool, scaling: float | None
) -> torch.Tensor:
    """Some rows at a time, and the keys near them: a mask of all pairs of 32,768 tokens is 13 GB as it is made."""
    found = []
    for rows, near in _blocks(q.shape[2], window, causal):
        part, keys, values = (one[:, :, at.start : at.stop] for one, at in ((q, rows), (k, near), (v, near)))
        seen = _seen(rows, near, window, causal, q.device)
        found.append(
            functional.scaled_dot_product_attention(
                part, keys, values, seen, scale=scaling, enable_gqa=k.shape[1] != q.shape[1]
            )
        )
    return torch.cat(found, 2)


def _capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    window: int | None,
    causal: bool,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Some rows of scores at a time: all of a text of 8,192 tokens are 2 GB a tensor for the 8 heads of Gemma 2."""
    groups, length = q.shape[1] // k.shape[1], q.shape[2]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    found = []
    for rows, near in _blocks(length, window, causal):
        part, keys, values = (one[:, :, at.start : at.stop] for one, at in ((q, rows), (k, near), (v, near)))
        scores = torch.tanh((part @ keys.transpose(2, 3)).float() * scale / softcap) * softcap
        if causal or window is not None:
            scores = scores.masked_fill(~_seen(rows, near, window or length, causal, q.device), -torch.inf)
        found.append(scores.softmax(-1).to(v.dtype) @ values)
    return torch.cat(found, 2)
