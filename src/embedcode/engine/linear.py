"""Linear maps in int8 for a processor: weights per output channel, activations per token, products in oneDNN."""

from __future__ import annotations

import torch

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
        quantised, scales = quantise(weight)
        self._scales = scales.flatten()
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, self.in_features)
        codes, scales = quantise(flat)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 0, self._weight, self._scales, self._zeros, None, 1.0, 0, self._dtype, "none", [], ""
        )
        y = y.mul_(scales.to(self._dtype))
        if self._bias is not None:
            y += self._bias
        return y.view(*x.shape[:-1], self.out_features)


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [n, k] and fp32 scales [n, 1] of rows [n, k]: rows ≈ codes * scales. The scale of a row of zeros is 1."""
    codes = torch.empty(rows.shape, dtype=torch.int8)
    scales = torch.empty(len(rows), 1)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].float()
        scale = torch.linalg.vector_norm(part, torch.inf, -1, keepdim=True).div_(127)
        scale[scale == 0] = 1
        scales[start : start + ROWS] = scale
        codes[start : start + ROWS] = (part / scale).round_()
    return codes, scales
