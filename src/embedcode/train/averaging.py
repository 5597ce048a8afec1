"""Weights between models: the mean of several checkpoints of a run, and a blend of what was tuned with its base.

Both make one model of the same cost. The mean takes out the noise of the last steps (arXiv 1803.05407); the blend
gives back what fine-tuning forgot (WiSE-FT, arXiv 2109.01903). Knows no network: weights are tensors by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from embedcode.errors import UsageError

Weights = Mapping[str, torch.Tensor]


def average(models: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, summed in double precision, in the type it had."""
    if not models:
        raise UsageError("there is no checkpoint to average: train first.")
    return _combined(models, [1 / len(models)] * len(models))


def blend(base: Weights, tuned: Weights, share: float) -> dict[str, torch.Tensor]:
    """`share` of the tuned weights and the rest of the base's; 1 is the tuned model."""
    return _combined([base, tuned], [1 - share, share])


def _combined(models: Sequence[Weights], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    first = models[0]
    for other in models[1:]:
        if other.keys() != first.keys() or any(other[name].shape != one.shape for name, one in first.items()):
            raise UsageError("the checkpoints are of different models: give those of one run.")
    return {
        name: sum((model[name].double() * share for model, share in zip(models, shares, strict=True)),
                  torch.zeros((), dtype=torch.float64)).to(one.dtype)
        if one.is_floating_point() else one.clone()
        for name, one in first.items()
    }  # fmt: skip
