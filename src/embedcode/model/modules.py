"""Modules: what the sentence-transformers files beside a checkpoint say of pooling, prompts, limits and dense heads.

modules.json, config_sentence_transformers.json, sentence_bert_config.json and the folders modules.json names, as that
library writes them. Knows no architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedcode.errors import ModelError
from embedcode.files import is_file
from embedcode.model import weights
from embedcode.model.family import GEMMA, Pooling
from embedcode.model.weights import Weights, optional_json, read_json
from embedcode.types import Role

_MODE = "pooling_mode"
_POOLINGS = {"mean": Pooling.MEAN, "cls": Pooling.CLS, "lasttoken": Pooling.LAST}
_PROMPTS = {
    Role.QUERY: ("query", "nl2code_query", "web_search_query"),
    Role.PASSAGE: ("passage", "document", "nl2code_document"),
}
"""Names under which models of the hub keep the prompt of a role."""
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
"""Modules of sentence-transformers that are read. Others would be left out of every vector: weights of layers, a norm
over the dimensions, or the heads of PyLate, whose models have a vector for each token."""
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
}


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear map after pooling, with its weights in a folder of its own (EmbeddingGemma has two)."""

    weights: Weights
    activation: str
    """"", "tanh" or "gelu"."""

    @property
    def shape(self) -> tuple[int, int]:
        """(dimensions out, dimensions in)."""
        entry = self.weights.get("linear.weight")
        if entry is None or len(entry.shape) != 2:
            raise ModelError(f"{self.weights.files[0]} has no matrix linear.weight: download it again.")
        return entry.shape[0], entry.shape[1]


@dataclass(frozen=True, slots=True)
class Modules:
    """None and empty where the files say nothing."""

    pooling: Pooling | None = None
    includes_prompt: bool | None = None
    max_tokens: int | None = None
    prompts: Mapping[Role, str] = field(default_factory=dict)
    dense: tuple[Dense, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Modules:
        kinds = folders(folder)
        place = next((place for place, kind in kinds.items() if kind == "Pooling"), "1_Pooling")
        path = folder / place / "config.json"
        pooling = optional_json(path)
        # Several are put side by side. Newer files name the mode itself, older ones flag it, as in .._mean_tokens.
        modes = [name.removeprefix(f"{_MODE}_") for name, is_one in pooling.items() if is_one is True and _MODE in name]
        modes = [name.removesuffix("_tokens").removesuffix("_token") for name in modes]
        if named := pooling.get(_MODE):
            modes = [named] if isinstance(named, str) else list(named)
        if pooling and (len(modes) != 1 or modes[0] not in _POOLINGS):
            raise ModelError(f"{path} is not one of mean, cls and last token pooling.")
        transformer = optional_json(folder / "sentence_bert_config.json")
        limit = transformer.get("max_seq_length")
        if transformer.get("do_lower_case") is True and not _lowers(folder / "tokenizer.json"):
            raise ModelError(
                f"{folder / 'sentence_bert_config.json'} wants texts in lower case, which its tokenizer.json does not "
                "make: have it do so, by a normalizer of the type Lowercase, and set do_lower_case to false."
            )
        said = optional_json(folder / "config_sentence_transformers.json").get("prompts") or {}
        if not isinstance(said, dict):
            raise ModelError(
                f"{folder / 'config_sentence_transformers.json'}: prompts is no object: download it again."
            )
        given = {
            role: [said[name] for name in names if isinstance(said.get(name), str)] for role, names in _PROMPTS.items()
        }
        # The first that is not empty: sentence-transformers 6 writes an empty one for each role that has none.
        prompts = {role: next(filter(None, texts), "") for role, texts in given.items() if texts}
        if not any(prompts.values()):  # then it says nothing; beside another's, that a role has none
            prompts = {}
        if GEMMA in said.values():
            prompts[Role.QUERY] = GEMMA
        return cls(
            pooling=_POOLINGS[modes[0]] if modes else None,
            includes_prompt=pooling.get("include_prompt"),
            max_tokens=limit if isinstance(limit, int) else None,
            prompts=prompts,
            dense=tuple(_dense(folder, [place for place, kind in kinds.items() if kind == "Dense"])),
        )


def folders(folder: Path) -> Mapping[str, str]:
    """Those below it that modules.json names, each with the kind of its module. ModelError for one that is not read."""
    path = folder / "modules.json"
    if not is_file(path):
        return {}
    try:
        listed = json.loads(path.read_text("utf-8"))
        found = {row["path"]: row["type"].rpartition(".") for row in listed}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read ({error!r}): download it again.") from None
    for place, (package, _, kind) in found.items():
        if kind not in _KINDS or (kind == "Dense" and not package.startswith("sentence_transformers.")):
            raise ModelError(
                f"{path}: {place or 'the first module'} is a {package}.{kind}, which embedcode does not compute: "
                f"choose a model of no more than {', '.join(_KINDS[:-1])} and {_KINDS[-1]} of sentence-transformers."
            )
    return {place: kind for place, (_, _, kind) in found.items()}


def _dense(folder: Path, places: Sequence[str]) -> list[Dense]:
    found = []
    for place in places:
        activation = read_json(folder / place / "config.json").get("activation_function", "")
        if activation not in _ACTIVATIONS:
            raise ModelError(f"{folder / place}: activation {activation!r} is none of {', '.join(_ACTIVATIONS)}.")
        found.append(Dense(weights.read(folder / place), _ACTIVATIONS[activation]))
    return found


def _lowers(tokenizer: Path) -> bool:
    """Whether a tokenizer's own normalizer makes lower case of a text."""
    said = json.dumps(optional_json(tokenizer).get("normalizer"))
    return '"Lowercase"' in said or '"lowercase": true' in said
