"""Int8: what config.json says of a checkpoint whose linear maps are stored in 8 bits.

In the layout int-quantized of compressed-tensors (https://github.com/vllm-project/compressed-tensors), which vLLM reads
too: NAME.weight has int8 codes [out, in] and NAME.weight_scale [out, 1], so that a weight is codes * scale. Activations
are quantised as they come, by token. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcode.errors import ModelError

SCALE = "_scale"
"""What the name of a weight's scales ends with, behind the weight's own."""
METHOD, FORMAT = "compressed-tensors", "int-quantized"
MOST = 127
"""The largest code of a weight, where nothing says that they are smaller."""
FIELDS = ("quantization_config", "embedcode")
"""Keys of config.json: the layout's, and ours for what it has no place for."""
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
_ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


@dataclass(frozen=True, slots=True)
class Stored:
    """Weights are stored in int8."""

    most: int = MOST
    """The largest code."""
    name: str = ""
    """Of the model that they were made of; empty where nobody says."""
    made_of: tuple[str, ...] = ()
    """Fingerprints of its weights: vectors of both are of one space."""

    def fields(self) -> dict[str, Any]:
        """For config.json."""
        group = {
            "targets": ["Linear"],
            "weights": {**_WEIGHTS, "dynamic": False},
            "input_activations": _ACTIVATIONS,
        }
        layout, own = FIELDS
        return {
            layout: {
                "quant_method": METHOD,
                "format": FORMAT,
                "quantization_status": "compressed",
                "config_groups": {"group_0": group},
                "ignore": ["lm_head"],
            },
            own: {"name": self.name, "made_of": list(self.made_of), "most": self.most},
        }


def stored(path: Path, published: Mapping[str, Any]) -> Stored | None:
    """What config.json at `path` says; None for weights that are not quantised. ModelError for other ways."""
    said, own = map(published.get, FIELDS)
    if said is None:
        return None
    groups = said.get("config_groups") if isinstance(said, Mapping) else None
    if not groups or not isinstance(groups, Mapping) or not all(map(_by_channel, groups.values())):
        named = [said.get(name) for name in ("quant_method", "format")] if isinstance(said, Mapping) else [said]
        way = ", ".join(str(one) for one in named if one)
        raise ModelError(
            f"{path}: weights quantised as {way or 'quantization_config says'} are not read here: take the model in "
            "bf16, which `embedcode models quantize` makes int8 of."
        )
    own = own if isinstance(own, Mapping) else {}
    most, made_of = own.get("most", MOST), own.get("made_of", ())
    if not isinstance(most, int) or not 0 < most <= MOST or not _is_texts(made_of):
        raise ModelError(f"{path}: {FIELDS[1]} {dict(own)!r} is none that was written here: quantize the model again.")
    return Stored(most, str(own.get("name") or ""), tuple(made_of))


def _by_channel(group: Any) -> bool:
    """Whether weights are int8 by output channel, and activations are quantised as they come or not at all."""
    if not isinstance(group, Mapping) or group.get("format", FORMAT) not in (FORMAT, None):
        return False
    weights, activations = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, Mapping) or any(weights.get(name) != value for name, value in _WEIGHTS.items()):
        return False
    return activations is None or (isinstance(activations, Mapping) and bool(activations.get("dynamic")))


def _is_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)
