"""Publish: a finished checkpoint in the hub's layout, which our encoder and SentenceTransformer(folder) load alike.

Weights are merged and in one file; meta.json says how they came about, README.md is the card. Runs no code of a
checkpoint and needs none to be loaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from embedcode import __version__, files
from embedcode.errors import ModelError
from embedcode.evaluate import made
from embedcode.model.checkpoint import CAUSAL, SIZES, TEMPLATE, Checkpoint, tokenizer_config
from embedcode.model.family import Pooling
from embedcode.model.spec import Spec
from embedcode.train import card, score
from embedcode.train.mix import Mix
from embedcode.train.recipe import Recipe
from embedcode.types import Role

if TYPE_CHECKING:
    from embedcode.train.run import Outcome

FORMAT = 1
CURE = "free some space, or make it writable, and go on with --resume"
TOKENIZER, TERMS = ("tokenizer.json", "special_tokens_map.json"), ("LICENSE", "NOTICE")
"""Files of the base that the new checkpoint has as they are; an adapter may have a tokenizer of its own."""
_POOLINGS = {
    Pooling.MEAN: "pooling_mode_mean_tokens",
    Pooling.LAST: "pooling_mode_lasttoken",
    Pooling.CLS: "pooling_mode_cls_token",
}
_MODULES = "sentence_transformers.models"


def write(
    folder: Path,
    recipe: Recipe,
    checkpoint: Checkpoint,
    weights: Mapping[str, torch.Tensor],
    mix: Mix,
    outcome: Outcome,
) -> None:
    """The checkpoint into `folder`, which must not be there."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(dict(weights), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", _config(checkpoint, recipe.dimensions))
    for place, names in ((checkpoint.tokenized, TOKENIZER), (checkpoint.folder, TERMS)):
        for name in names:
            if (place / name).is_file():
                shutil.copy(place / name, folder / name)
    write_json(folder / "tokenizer_config.json", _tokenizer(checkpoint))
    modules(folder, checkpoint)
    query = checkpoint.prompts[Role.QUERY].replace("{instruction}", checkpoint.instruction)
    write_json(folder / "config_sentence_transformers.json", {
        "model_type": "SentenceTransformer",
        "prompts": {"query": query, "document": checkpoint.prompts[Role.PASSAGE]},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    })  # fmt: skip
    read = Checkpoint.read(folder)
    for what in ("causal", "pooling", "masks_prompt"):  # a model that is read otherwise is another
        if (found := getattr(read, what)) != (trained := getattr(checkpoint, what)):
            raise ModelError(f"{folder} would be read with {what} {found!r}, trained with {trained!r}: report this.")
    meta = about(read.space, recipe, mix, outcome, weights)
    write_json(folder / "meta.json", meta)
    write_json(folder / "sources.json", sources(mix))
    (folder / "README.md").write_text(card.text(recipe, checkpoint, mix, meta), "utf-8")


def modules(folder: Path, what: Checkpoint | Spec) -> None:
    """What SentenceTransformer(folder) does with the network's states."""
    write_json(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_MODULES}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_MODULES}.Normalize"},
    ])  # fmt: skip
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": what.dim,
        **{name: pooling is what.pooling for pooling, name in _POOLINGS.items()},
        "include_prompt": not what.masks_prompt,
    })  # fmt: skip
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": what.max_tokens, "do_lower_case": False})


def sources(mix: Mix) -> list[dict[str, Any]]:
    """sources.json: where pairs are from, by name, with their licence and number. Commits of a repository are one."""
    found = Counter((re.sub(r"^(git:.*)@\w+$", r"\1", pair.source), pair.licence) for pair in mix.pairs)
    return [{"source": name, "licence": licence, "pairs": count} for (name, licence), count in sorted(found.items())]


def about(
    space: str, recipe: Recipe, mix: Mix, outcome: Outcome, weights: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """meta.json: the recipe, the data by set, licence and language, the figures, and what made it."""
    import platform
    from importlib.metadata import version

    packages = ("torch", "transformers", "sentence-transformers", "peft")
    return {
        "format": FORMAT,
        "name": recipe.name,
        "licence": recipe.licence,
        "regime": recipe.regime,
        "space": space,
        "parameters": sum(one.numel() for one in weights.values()),
        "base": recipe.base,
        "recipe": {name: value for name, value in asdict(recipe).items() if name != "folder"},
        "data": [
            {
                "name": one.data.name,
                "pairs": one.size,
                "share": round(one.share, 4),
                "left_out": one.forbidden,
                "left_out_negatives": one.negatives,
                "other_licences": one.unlicensed,
                "licences": dict(one.licences),
                "languages": dict(one.languages),
            }
            for one in mix.sets
        ],
        "compared with": [place.name for place in recipe.tasks((*recipe.evaluate, *recipe.never))],
        "steps": outcome.steps,
        "ndcg@10": {"before": score.means(outcome.before), "after": score.means(outcome.after)},
        "ndcg@10 computed in": outcome.computed,
        "trained in": outcome.trained,
        "base read": outcome.reread,
        "pairs that lack negatives": outcome.few,
        "made": {
            "embedcode": __version__,
            **({"commit": commit} if (commit := made.commit()) else {}),
            "files": made.code(),
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _config(checkpoint: Checkpoint, dimensions: Sequence[int]) -> dict[str, Any]:
    """config.json of the stock network. How a decoder sees is said by one field, which stock code obeys: the base may
    say the opposite, in either of two."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(checkpoint.family.model_type, **deepcopy(dict(checkpoint.config)))
    with torch.device("meta"):
        kind = type(AutoModel.from_config(config)).__name__
    fields: dict[str, Any] = config.to_dict()
    fields |= {"architectures": [kind], "dtype": "float32"}
    for name in CAUSAL:
        fields.pop(name, None)
    fields["is_causal"] = checkpoint.causal
    for name in SIZES:  # of the base: trained without them, its vectors are cut no more than others
        fields.pop(name, None)
    if dimensions:
        fields[SIZES[0]] = sorted({*dimensions, checkpoint.dim})
    if "{instruction}" in (prompt := checkpoint.prompts[Role.QUERY]):
        fields[TEMPLATE] = prompt
    return fields


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    said = dict(tokenizer_config(checkpoint.tokenized))
    said["model_max_length"] = checkpoint.max_tokens
    said.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    if checkpoint.adds_eos:  # which the name of the base may have told, and a run has another
        said["add_eos_token"] = True
    if "pad_token" not in said:  # batches need one; what it is makes no difference behind a mask
        said["pad_token"] = said.get("eos_token") or said.get("unk_token") or "[PAD]"
    return said


def writing(place: Path) -> AbstractContextManager[None]:
    """A full disk in one sentence, whichever library met it: safetensors has an error of its own for it."""
    from safetensors import SafetensorError

    return files.writing(place, CURE, (OSError, SafetensorError))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
