"""Int8: what config.json says of a checkpoint whose linear maps are stored in 8 bits.

In the layout int-quantized of compressed-tensors (https://github.com/vllm-project/compressed-tensors), which vLLM reads
too: NAME.weight has int8 codes [out, in] and NAME.weight_scale [out, 1], so that a weight is codes * scale. Activations
are quantised as they come, by token. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
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
    preset: str = ""
    """Name of the preset that says what its files do not; empty for none."""
    made_of: tuple[str, ...] = ()
    """Fingerprints of its weights: vectors of both are of one space."""

    @property
    def sound(self) -> bool:
        """Whether it can have been written here."""
        texts = (self.name, self.preset, *self.made_of)
        return type(self.most) is int and 0 < self.most <= MOST and all(isinstance(one, str) for one in texts)

    def written(self) -> dict[str, Any]:
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
            own: {"most": self.most, "name": self.name, "preset": self.preset, "made_of": list(self.made_of)},
        }


def stored(path: Path, published: Mapping[str, Any]) -> Stored | None:
    """What config.json at `path` says; None for weights that are not quantised. ModelError for other ways."""
    said, own = map(published.get, FIELDS)
    if said is None:
        return None
    layout = said if isinstance(said, Mapping) else {}
    groups = layout.get("config_groups")
    if not groups or not isinstance(groups, Mapping) or not all(_by_channel(one, layout) for one in groups.values()):
        named = [layout.get(name) for name in ("quant_method", "format")]
        way = ", ".join(str(one) for one in named if one)
        raise ModelError(
            f"{path}: weights quantised as {way or 'quantization_config says'} are not read here: take the model in "
            "bf16, which `embedcode models quantize` makes int8 of."
        )
    known = {one.name for one in fields(Stored)}
    given = {name: value for name, value in own.items() if name in known} if isinstance(own, Mapping) else {}
    if not isinstance(given.setdefault("made_of", []), list) or not (found := Stored(**given)).sound:
        raise ModelError(f"{path}: {FIELDS[1]} {given!r} is none that was written here: quantize the model again.")
    return replace(found, made_of=tuple(found.made_of))


def _by_channel(group: Any, layout: Mapping[str, Any]) -> bool:
    """Whether weights are int8 by output channel, and activations are quantised as they come or not at all."""
    if not isinstance(group, Mapping) or (group.get("format") or layout.get("format")) != FORMAT:
        return False
    weights, activations = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, Mapping) or any(weights.get(name) != value for name, value in _WEIGHTS.items()):
        return False
    return activations is None or (isinstance(activations, Mapping) and bool(activations.get("dynamic")))
