"""Network: a checkpoint as the trainer of sentence-transformers trains it: packed, bidirectional, with or without LoRA.

The stock network and its weights come from engine/network.py, attention from engine/packed.py, so that what is trained
is what the encoder will compute. Knows no data and no loss.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.module import Module

from embedcode.engine import memory, network
from embedcode.engine.memory import CARD_PACK, PACK
from embedcode.engine.packs import packs
from embedcode.engine.pooling import pooled
from embedcode.engine.vectors import unit
from embedcode.errors import UsageError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.train.batches import packed
from embedcode.train.recipe import Lora
from embedcode.types import Floats, Tokens


class Packed(Module):
    """Texts side by side to one vector each: the network, then pooling text by text, in fp32."""

    def __init__(self, network: Any, pooling: Pooling, masks_prompt: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network = network
        self.pooling, self.masks_prompt = pooling, masks_prompt

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        borders: Sequence[int] = features["borders"]
        states = self.network(
            input_ids=features["input_ids"], position_ids=features["position_ids"], borders=borders
        ).last_hidden_state[0]
        skipped = features["prompts"] if self.masks_prompt else None
        return {"sentence_embedding": pooled(states, borders, self.pooling, skipped)}

    def get_embedding_dimension(self) -> int:
        return int(self.network.config.hidden_size)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        raise NotImplementedError("publish.py writes checkpoints")


def check(checkpoint: Checkpoint, lora: Lora | None, precision: str) -> None:
    """UsageError where training a checkpoint will not fit in memory, a card's where there is one: beside its weights
    there are, of all that is trained, a gradient and two moments of Adam."""
    held = frozen(checkpoint, precision) if lora else "fp32"
    need = memory.needed(checkpoint, held) + (0 if lora else 12 * checkpoint.weights.count)
    where, have = "", memory.available()
    if torch.cuda.is_available():
        where, have = " on the card", torch.cuda.mem_get_info()[0]
    if need > have:
        cure = "take a smaller base" if lora else "train adapters (lora), or take a smaller base"
        sizes = f"{need / 1e9:.1f} GB of memory to be trained and {have / 1e9:.1f} GB are free{where}"
        raise UsageError(f"{checkpoint.name} needs {sizes}: {cure}.")


def check_places(checkpoint: Checkpoint, lora: Lora | None, dropout: float) -> None:
    """UsageError for a target that no linear map is called, which the library passes over in silence beside others, and
    for dropout where nothing drops."""
    built = network.bare(checkpoint)
    if dropout and not any(isinstance(part, torch.nn.Dropout) for part in built.modules()):
        raise UsageError(f"dropout {dropout:g} does nothing: this network has none, as most decoders; leave it out.")
    maps = [name for name, part in built.named_modules() if isinstance(part, torch.nn.Linear)]
    names = sorted({name.rpartition(".")[2] for name in maps})
    for target in lora.targets if lora is not None else ():
        if not any(f".{name}".endswith(f".{target}") for name in maps):
            near = get_close_matches(target, names, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}."
            raise UsageError(f"lora: targets {target!r} is no linear map of this network; {cure}")


def frozen(checkpoint: Checkpoint, precision: str) -> str:
    """What weights that are not trained are held in: bf16 where the run computes in it and they are stored so, since a
    base of 7 B weights takes 14 GB more in fp32. States between layers are then bf16 too, as the encoder has them."""
    stored = set(checkpoint.weights.dtypes) - {"I64"}  # of ids of places
    return "bf16" if precision == "bf16" and stored == {"BF16"} and checkpoint.adapter is None else "fp32"


def trainable(
    checkpoint: Checkpoint,
    lora: Lora | None,
    dropout: float,
    device: str = "cpu",
    precision: str = "fp32",
    checkpointing: bool = False,
) -> SentenceTransformer:
    """The model [Packed] of a checkpoint: all its weights trainable, in fp32, or with LoRA those of the adapters, over
    weights as `frozen` has them for a run in `precision`.

    `checkpointing` keeps of each layer only what goes in, and computes it again in the backward pass (Chen et al.
    2016, arXiv 1604.06174).
    """
    built = _built(checkpoint, device, frozen(checkpoint, precision) if lora else "fp32")
    for parameter in built.parameters():
        parameter.requires_grad_(lora is None)
    for module in built.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    if lora is not None:
        _adapt(built, lora, device)
    if checkpointing:
        # Older transformers have it by its name of before, which newer ones warn of.
        name = "activation_checkpointing_enable"
        getattr(built, name if hasattr(built, name) else "gradient_checkpointing_enable")({"use_reentrant": False})
    return _packed(checkpoint, built, device).train()


def untrained(checkpoint: Checkpoint, device: str = "cpu", precision: str = "fp32") -> SentenceTransformer:
    """The same to embed with, in a run that computes in `precision`."""
    return _packed(checkpoint, _built(checkpoint, device, frozen(checkpoint, precision)), device).eval()


def _built(checkpoint: Checkpoint, device: str, precision: str) -> Any:
    gc.collect()  # a model and its trainer name each other, so that one of before is still in memory
    built = network.build(checkpoint, precision, torch.device(device))
    for parameter in built.parameters():
        parameter.data = parameter.data.clone()  # they are views of a file that must not be written
    return built


def _packed(checkpoint: Checkpoint, built: Any, device: str) -> SentenceTransformer:
    return SentenceTransformer(modules=[Packed(built, checkpoint.pooling, checkpoint.masks_prompt)], device=device)


def _adapt(built: Any, lora: Lora, device: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    alpha: Any = lora.alpha  # the library divides by the rank, and takes fractions
    config = LoraConfig(r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets))
    inject_adapter_in_model(config, built)
    for name, parameter in built.named_parameters():
        if ".lora_" in name:  # the library makes them of the base's type, in which a step of 1e-6 is lost
            parameter.data = parameter.data.float()
    for module in built.modules() if device != "cpu" else ():
        if hasattr(module, "lora_A"):  # which autocast gives bf16 anyhow: what goes in need not be fp32 in between
            module.cast_input_dtype_enabled = False


def body(model: SentenceTransformer) -> Packed:
    return next(part for part in model.modules() if isinstance(part, Packed))


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run changes, by name: all that a checkpoint of it has to hold."""
    return {name: one.detach().contiguous() for name, one in model.named_parameters() if one.requires_grad}


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """The opposite of `trained_weights`; UsageError where the weights are of another model."""
    own = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if own.keys() != weights.keys() or any(own[name].shape != one.shape for name, one in weights.items()):
        raise UsageError("the checkpoint of this run is of another model: begin another run, by --out.")
    with torch.no_grad():
        for name, one in weights.items():
            own[name].copy_(one)


@torch.no_grad()
def merged(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The stock network's weights by name, in the machine's memory, adapters in them; the model is never written.

    One tensor at a time: two more copies of 7 B weights in fp32, 56 GB, are more than an 80 GB card has left.
    """
    built, found = body(model).network, {}
    for name, tensor in built.state_dict().items():
        if ".lora_" in name:
            continue
        weight = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        place, adapted, kind = name.rpartition(".base_layer.")
        if adapted and kind == "weight":
            layer = built.get_submodule(place)
            for adapter in layer.active_adapters:
                weight += layer.get_delta_weight(adapter).cpu()
        found[f"{place}.{kind}" if adapted else name] = weight
    return found


def encode(model: SentenceTransformer, tokens: Sequence[Tokens], first: int = 0) -> Floats:
    """Unit vectors float32 [texts, dim] of the model as it is, in the order of the texts."""
    order = sorted(range(len(tokens)), key=lambda place: tokens[place].used)
    sorted_tokens = [tokens[place] for place in order]
    training, part = model.training, body(model)
    device = next(part.parameters()).device
    packs_ = list(packs(sorted_tokens, PACK if device.type == "cpu" else CARD_PACK))
    model.eval()
    rows = []
    try:
        # A card computes bf16 several times as fast, and attention to all texts at once in no other precision.
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            for one in packs_:
                batch = packed("", sorted_tokens[one], first)
                batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
                rows.append(part(batch)["sentence_embedding"].float().cpu().numpy())
    finally:
        model.train(training)
    out = np.empty((len(tokens), rows[0].shape[1] if rows else 0), np.float32)
    if rows:
        out[order] = np.concatenate(rows)
    return unit(out)
