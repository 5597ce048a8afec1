"""Linear maps in int8 for a processor: weights per output channel, activations per token, products in oneDNN."""

from __future__ import annotations

import torch

MIDDLE = 128
"""Activations are unsigned around it: for signed ones oneDNN has no kernel without AMX, and its reference code takes
4 seconds for what takes 10 ms (100 x 384 x 1536, torch 2.13)."""
ROWS = 64
"""Rows quantised at a time, so that the four passes over them stay in the cache."""


class Int8Linear(torch.nn.Module):
    """y = x W^T + b with W int8 by a scale per output channel, and x int8 by a scale per token (dynamic).

    Takes and gives bf16 or fp32 [..., in]. Symmetric, range ±127.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._dtype = dtype
        quantised, scales = quantise(weight, 0)
        self._scales = scales.flatten()
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, self.in_features)
        codes, scales = quantise(flat, MIDDLE)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, MIDDLE, self._weight, self._scales, self._zeros, None, 1.0, 0, self._dtype, "none", [], ""
        )
        y = y.mul_(scales.to(self._dtype))
        if self._bias is not None:
            y += self._bias
        return y.view(*x.shape[:-1], self.out_features)


def quantise(rows: torch.Tensor, middle: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [n, k] and fp32 scales [n, 1] of rows [n, k]: rows ≈ (codes - middle) * scales; a row of zeros has scale 1.

    int8 around 0, uint8 around MIDDLE.
    """
    codes = torch.empty(rows.shape, dtype=torch.uint8 if middle else torch.int8)
    scales = torch.empty(len(rows), 1)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].float()
        scale = torch.linalg.vector_norm(part, torch.inf, -1, keepdim=True).div_(127)
        scale[scale == 0] = 1
        scales[start : start + ROWS] = scale
        codes[start : start + ROWS] = (part / scale).round_().add_(middle)
    return codes, scales
