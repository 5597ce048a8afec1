"""Linear maps in int8 for a processor: weights per output channel, activations per token, products in oneDNN."""

from __future__ import annotations

import torch

from embedcode.engine.processor import int8_range

MIDDLE = 128
"""Activations are unsigned around it: for signed ones oneDNN has no kernel without AMX, and its reference code takes
4 seconds for what takes 10 ms (100 x 384 x 1536, torch 2.13)."""
BLOCK = 1 << 18
"""Numbers quantised at a time: the passes over them stay in the cache, and a call of torch costs little beside one.
By 16 rows, 2,000 rows of 384 took six times as long on two threads, and those of 4,096 twice."""


class Codes:
    """The quantised rows of the activation that was seen last, since query, key and value maps read the same one; and
    codes of weights, one after the other in the same memory."""

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._room = torch.empty(0, dtype=torch.uint8)

    def room(self, shape: torch.Size) -> torch.Tensor:
        """uint8 of any content, the same memory each time: of a 7B's weights fresh pages cost 4 s."""
        if self._room.numel() < shape.numel():
            self._room = torch.empty(shape.numel(), dtype=torch.uint8)
        return self._room[: shape.numel()].view(shape)

    def weight(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 codes [out, in] of a weight for this processor, until the next one, and scales fp32 [out, 1]."""
        unsigned, scales = quantise(weight, int8_range(), self.room(weight.shape))
        return unsigned.bitwise_xor_(MIDDLE).view(torch.int8), scales

    def stored(self, codes: torch.Tensor, scales: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of codes that are there already and reach to `most`: themselves, or half of them in the range of a
        processor that has no more."""
        if most <= int8_range():
            return codes, scales
        halves = self.room(codes.shape).view(torch.int8)
        some = max(1, BLOCK // codes.shape[1])
        for start in range(0, len(codes), some):  # ties to even: away from 0, or up, every sum would drift
            halves[start : start + some] = codes[start : start + some].float().mul_(0.5).round_()
        return halves, 2 * scales

    def of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last = self._last
        if last is None or last[0] is not x:
            self._last = last = x, quantise(x.reshape(-1, x.shape[-1]))
        return last[1]


class Int8Linear(torch.nn.Module):
    """y = x W^T + b with W int8 by a scale per output channel, and x in 8 bits by a scale per token (dynamic).

    Takes and gives bf16 or fp32 [..., in]. Symmetric, weights within ±`int8_range()`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        codes: Codes,
    ) -> None:
        """`weight` int8 [out, in] and `scales` [out, 1] are laid out anew, and are not held."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._dtype = dtype
        self._codes = codes
        self._scales = scales.flatten()
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._weight = torch.ops.onednn.qlinear_prepack(weight, None)
        self._bias = None if bias is None else bias.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, scales = self._codes.of(x)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, MIDDLE, self._weight, self._scales, self._zeros, None, 1.0, 0, self._dtype, "none", [], ""
        )
        y = y.mul_(scales.to(self._dtype))
        if self._bias is not None:
            y += self._bias
        return y.view(*x.shape[:-1], self.out_features)


def quantise(
    rows: torch.Tensor, most: int = 127, codes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes [n, k] within MIDDLE ± `most`, and fp32 scales [n, 1], of rows [n, k].

    So that rows ≈ (codes - MIDDLE) * scales. The codes lie in the memory of `codes` where that is given.
    """
    count, size = rows.shape
    some = max(1, min(count, BLOCK // size))
    read = None if rows.dtype is torch.float32 else torch.empty(some, size)
    work, whole = torch.empty(some, size), torch.empty(some, size, dtype=torch.int32)
    codes = torch.empty(rows.shape, dtype=torch.uint8) if codes is None else codes
    scales = torch.empty(count, 1)
    rounding = torch.tensor(MIDDLE + 0.5)  # what is left is cut off
    for start in range(0, count, some):
        part = rows[start : start + some]
        exact = part if read is None else read[: len(part)].copy_(part)
        scaled = torch.abs(exact, out=work[: len(part)])
        scale = scaled.amax(-1, keepdim=True).div_(most).clamp_(min=1e-30)
        scales[start : start + some] = scale
        torch.addcmul(rounding, exact, scale.reciprocal(), out=scaled)
        codes[start : start + some] = whole[: len(part)].copy_(scaled)  # at once to 8 bits takes three times as long
    return codes, scales
