"""Checkpoint: what a model folder on disk is, as published: network, attention, pooling, prompts, sizes.

Reads JSON files and safetensors headers, loads no weights and runs no code of the checkpoint. Order of trust for
pooling and prompts: what the caller says, the sentence-transformers files, config.json, the preset of the name, the
family.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedcode.errors import ModelError, UsageError
from embedcode.files import is_file, is_folder
from embedcode.model import hub, int8, weights
from embedcode.model.family import FAMILIES, Family, Pooling, family
from embedcode.model.modules import Dense, Modules
from embedcode.model.passage import FORMAT
from embedcode.model.presets import INSTRUCTIONS, Preset, preset
from embedcode.model.weights import Weights, optional_json, read_json
from embedcode.types import Role, digest

_NAMED = {
    "avg": Pooling.MEAN,
    "mean": Pooling.MEAN,
    "last": Pooling.LAST,
    "lasttoken": Pooling.LAST,
    "cls": Pooling.CLS,
}


SIZES = ("matryoshka_dimensions", "matryoshka_dims")
"""Fields of config.json that declare Matryoshka sizes; ours is the first."""
TEMPLATE = "query_template"
"""Field of ours in config.json: the query prompt with its `{instruction}`, which the other files have filled in."""
_IDLE = ("transformers_version", "use_cache", "initializer_range")
"""Fields of a config that no vector depends on, and that are written anew where a checkpoint is saved again."""

CAUSAL = {"is_causal": True, "use_bidirectional_attention": False}
"""Fields that say how a decoder sees, each with its value where that is causal; both ways where one of them says so, as
transformers has it."""
_DROPPED = ("architectures", "auto_map", "model_type", "_name_or_path", "torch_dtype", "dtype", TEMPLATE, *int8.FIELDS)
"""Those that say nothing of the stock network."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter over a base checkpoint: weight + scale * B @ A (arXiv 2106.09685)."""

    weights: Weights
    scale: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything that decides a model's vectors. `prompts` may hold `{instruction}`."""

    folder: Path
    tokenized: Path
    """Where the tokenizer is: the same folder, or an adapter's own."""
    name: str
    architecture: str
    family: Family
    config: Mapping[str, Any]
    """Fields of the stock network's config."""
    head: Mapping[str, Any]
    """Fields of the latent attention head; empty for other pooling."""
    causal: bool
    pooling: Pooling
    masks_prompt: bool
    prompts: Mapping[Role, str]
    instruction: str
    """Stands for `{instruction}` where a call gives none."""
    max_tokens: int
    first_position: int
    """Of a text's first token: 0, or as in RoBERTa the padding id + 1."""
    dimensions: tuple[int, ...]
    """Matryoshka sizes that are declared."""
    adds_eos: bool
    dense: tuple[Dense, ...]
    weights: Weights
    adapter: Adapter | None
    preset: str
    """Name of the preset that says what the files do not; empty for none."""
    stored: int8.Stored | None
    """Weights in 8 bits, where they are."""

    @classmethod
    def read(
        cls,
        folder: Path,
        name: str = "",
        prompts: Mapping[Role, str] | None = None,
        pooling: str = "",
        masks_prompt: bool | None = None,
    ) -> Checkpoint:
        """The checkpoint in a folder, in the layout of the hub; `name` is its name there, else that of the folder.

        ModelError says which file or field is wrong and what to do; UsageError, which argument.
        """
        if not is_folder(folder):
            raise ModelError(f"{folder} is no folder: give a checkpoint's folder or its name on the hub.")
        adapter, own = None, folder
        if is_file(folder / "adapter_config.json"):
            folder, adapter = _adapter(folder)
        # What an adapter was trained with may lie beside it, and is nearer to it than its base's.
        described = own if is_file(own / "modules.json") else folder
        tokenized = own if is_file(own / "tokenizer.json") else folder
        published = read_json(folder / "config.json")
        architecture, kind = _architecture(folder, published)
        for field, alone in kind.computed.items():
            if (value := published.get(field, alone)) != alone:
                place = folder / "config.json"
                raise ModelError(f"{place}: {field} {value!r} is not computed here, {alone!r} is: take another model.")
        stored = int8.stored(folder / "config.json", published)
        if stored is not None and adapter is None:
            name = name or stored.name
        name = name or hub.named(own)
        names = (name, stored.preset if stored is not None else "", hub.named(folder))
        known = next(filter(None, map(preset, names)), Preset("", "", 0, 0))
        config = _stock_config(published, kind)
        if not isinstance(size := config.get("hidden_size"), int):
            raise ModelError(f"{folder / 'config.json'}: hidden_size {size!r} is no size: download it again.")
        causal = _causal(folder / "config.json", kind, config, published)
        modules = Modules.read(described)
        asked = prompts or {}
        given = modules.prompts
        chosen = {
            Role.QUERY: _first(asked.get(Role.QUERY), given.get(Role.QUERY), known.query, kind.query),
            Role.PASSAGE: _first(asked.get(Role.PASSAGE), given.get(Role.PASSAGE), known.passage, kind.passage),
        }
        chosen[Role.QUERY], instruction = _instruction(chosen[Role.QUERY], str(published.get(TEMPLATE, "")))
        named = published.get("pooling")
        if named is not None and named not in _NAMED:
            raise ModelError(f"{folder / 'config.json'}: pooling {named!r} is none of {', '.join(_NAMED)}.")
        if pooling and (pooling not in _NAMED or kind.pooling is Pooling.LATENT):
            its = "pools by its latents only" if pooling in _NAMED else f"takes {', '.join(_NAMED)}"
            raise UsageError(f"pooling {pooling!r}: {name} {its}.")
        how = kind.pooling
        if how is not Pooling.LATENT:  # whose sentence-transformers files name the mean that follows the latents
            how = _NAMED[pooling] if pooling else modules.pooling or (_NAMED[named] if named else kind.pooling)
        if masks_prompt is None:
            included = modules.includes_prompt
            masks_prompt = kind.masks_prompt if included is None else not included
        first = int(config.get("pad_token_id", 1)) + 1 if kind.offset_positions else 0
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int):
            positions -= first
        # sentence-transformers 6 leaves the limit to the tokenizer's file.
        said = modules.max_tokens or tokenizer_config(tokenized).get("model_max_length")
        limit = min((n for n in (said, positions) if isinstance(n, int)), default=512)
        return cls(
            folder=folder,
            tokenized=tokenized,
            name=name,
            architecture=architecture,
            family=kind,
            config=config,
            head=published.get("latent_attention_config", {}) if kind.pooling is Pooling.LATENT else {},
            causal=causal,
            pooling=how,
            masks_prompt=masks_prompt,
            prompts=chosen,
            instruction=instruction,
            max_tokens=limit,
            first_position=first,
            dimensions=_dimensions(folder, published, known.dimensions),
            adds_eos=kind.adds_eos or known.adds_eos or bool(tokenizer_config(tokenized).get("add_eos_token")),
            dense=modules.dense,
            weights=weights.read(folder),
            adapter=adapter,
            preset=known.name,
            stored=stored,
        )

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        width = int(self.config["hidden_size"])
        for dense in self.dense:
            shape = dense.shape
            if shape[1] != width:
                raise ModelError(
                    f"{dense.weights.files[0]} takes {shape[1]} dimensions and is given {width}: download it again."
                )
            width = shape[0]
        return width

    @property
    def rows(self) -> int:
        """Of the table of tokens; 0 where the config leaves it to its network's default."""
        size = self.config.get("vocab_size")
        return size if isinstance(size, int) else 0

    @property
    def eos(self) -> str:
        """What is put behind every text, where the tokenizer does not do so itself."""
        if not self.adds_eos:
            return ""
        names = ("tokenizer_config.json", "special_tokens_map.json")  # the second in older repositories
        said = (optional_json(self.tokenized / name).get("eos_token") for name in names)
        found = next(filter(None, map(_content, said)), "")
        if not found:
            raise ModelError(
                f"{self.tokenized / names[0]} names no eos_token, which is put behind every text of {self.name}: "
                "write it there."
            )
        return found

    @property
    def bos(self) -> tuple[str, int] | None:
        """What begins a text for the tokenizer, and its id for the network, where the files of both say so."""
        token, number = _content(tokenizer_config(self.tokenized).get("bos_token")), self.config.get("bos_token_id")
        return (token, number) if token and isinstance(number, int) else None

    @property
    def tokenizer(self) -> Path:
        return self.tokenized / "tokenizer.json"

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Of all that is added and multiplied; of what they were made of, where weights in int8 say so."""
        made_of = self.stored.made_of if self.stored is not None else ()
        parts = list(made_of) or [self.weights.fingerprint(), *(one.weights.fingerprint() for one in self.dense)]
        if self.adapter is not None:
            parts += [self.adapter.weights.fingerprint(), str(self.adapter.scale)]
        return tuple(parts)

    @cached_property
    def space(self) -> str:
        """32 hex digits; two encoders of one space give comparable vectors."""
        parts = [*self.fingerprints]
        try:
            tokenizer = hashlib.sha256(self.tokenizer.read_bytes()).hexdigest()
        except OSError:
            raise ModelError(f"{self.tokenizer} is missing: download it too, or convert the tokenizer to it.") from None
        ended = str(self.adds_eos)
        if self.adds_eos and not tokenizer_config(self.tokenized).get("eos_token"):
            ended += self.eos  # which was once left out where only another file names it
        conditions = (self.pooling, str(self.causal), str(self.masks_prompt), ended)
        network = {name: value for name, value in self.config.items() if name not in _IDLE}  # the base of rotation, say
        parts += [dense.activation for dense in self.dense]
        parts.append(json.dumps([network, self.head], sort_keys=True))
        passage = self.prompts[Role.PASSAGE]
        return digest(*parts, tokenizer, passage, *conditions, str(self.dim), str(self.max_tokens), FORMAT).hex()


_INITS = ("gaussian", "eva", "orthogonal")
"""Beginnings of adapters that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ do not."""


def _adapter(folder: Path) -> tuple[Path, Adapter]:
    """The base checkpoint's folder, and the adapter."""
    path = folder / "adapter_config.json"
    config = read_json(path)
    if not (base := str(config.get("base_model_name_or_path") or "")):
        raise ModelError(f"{path} has no base_model_name_or_path: write its base's folder or name there.")
    found = next((place for place in (Path(base), folder / base) if is_file(place / "config.json")), None)
    if found is None:
        try:
            found = hub.find(base, config.get("revision"))  # that it was trained on
        except ModelError as error:
            raise ModelError(f"{path} stands on {base!r}: {error}") from None
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
        raise ModelError(f"{path} is no plain LoRA adapter: merge it into its base with peft first.")
    if isinstance(begun := config.get("init_lora_weights"), str) and begun not in _INITS:
        raise ModelError(f"{path} is of another base, which {begun} changed first: merge it with peft.")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ModelError(f"{path} has another rank or alpha for some layers: merge it into its base with peft first.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise ModelError(f"{path} lacks r or lora_alpha: download it again.")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return found, Adapter(weights.read(folder, "adapter_model"), scale)


def _architecture(folder: Path, published: Mapping[str, Any]) -> tuple[str, Family]:
    names = published.get("architectures") or []
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and (kind := family(name)) is not None:
            return name, kind
    known = ", ".join(FAMILIES)
    raise ModelError(f"{folder / 'config.json'}: architectures {names!r} is none that is read: {known}.")


def _stock_config(published: Mapping[str, Any], kind: Family) -> dict[str, Any]:
    own = published.get(kind.nested) if kind.nested else published
    config = dict(own if isinstance(own, Mapping) else published)
    for name, stock in kind.fields.items():
        if name in config:
            config[stock] = config.pop(name)
    if kind.model_type == "nomic_bert" and "rotary_emb_base" in config:
        theta = float(config.pop("rotary_emb_base"))
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    for other in _DROPPED:
        config.pop(other, None)
    return config | dict(kind.settings)


def _causal(path: Path, kind: Family, config: Mapping[str, Any], published: Mapping[str, Any]) -> bool:
    said = [bool(config[name]) is causal for name, causal in CAUSAL.items() if config.get(name) is not None]
    code = published.get("auto_map")
    if not said and kind.stock and isinstance(code, Mapping) and (own := code.get("AutoModel")):
        # gte-Qwen2-7B-instruct, a Qwen2ForCausalLM, sees both ways by such code alone.
        raise ModelError(
            f"{path}: {own} is code of its own, which is not run, and may see both ways or not: look there, and write "
            '"is_causal": false for both ways, or "is_causal": true, into this file.'
        )
    return all(said) if said else kind.causal


def _first(*values: str | None) -> str:
    return next((value for value in values if value is not None), "")


def _instruction(prompt: str, template: str) -> tuple[str, str]:
    """A query prompt with its instruction taken out of it, and that instruction: by the template it was written by, or
    the one that most have."""
    before, held, after = template.partition("{instruction}")
    own = prompt.removeprefix(before)
    if held and held not in prompt and prompt.startswith(before) and own.endswith(after):
        return template, own.removesuffix(after)
    if found := re.fullmatch(r"(Instruct: )([^{}\n]+)(\nQuery: ?)", prompt):
        return found[1] + "{instruction}" + found[3], found[2]
    return prompt, INSTRUCTIONS["general"]


def _dimensions(folder: Path, published: Mapping[str, Any], known: tuple[int, ...]) -> tuple[int, ...]:
    declared = next(filter(None, map(published.get, SIZES)), known)
    if not isinstance(declared, list | tuple) or not all(isinstance(size, int) and size > 0 for size in declared):
        raise ModelError(f"{folder / 'config.json'}: matryoshka_dimensions {declared!r} is no list of sizes.")
    return tuple(sorted(declared))


def _content(token: Any) -> str:
    """Of a special token, which is written as a string or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def tokenizer_config(folder: Path) -> dict[str, Any]:
    return optional_json(folder / "tokenizer_config.json")
