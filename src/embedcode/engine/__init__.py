"""How a model runs: load() gives an Encoder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedcode.engine.encoder import Check, LocalEncoder
    from embedcode.engine.remote import RemoteEncoder
    from embedcode.settings import Settings
    from embedcode.types import Role


def load(
    model: str | os.PathLike[str] = "",
    threads: int = 0,
    precision: str = "",
    device: str = "cpu",
    stream: bool = False,
    prompts: Mapping[Role, str] | None = None,
    pooling: str = "",
    masks_prompt: bool | None = None,
) -> LocalEncoder | RemoteEncoder:
    """The encoder of a model; "" is the packaged default.

    `model` is the folder of a checkpoint or of an exported graph, a name on the hub such as
    nvidia/NV-EmbedCode-7b-v1, or the address of a server such as http://host:8000, for which nothing else but
    `prompts` counts. Cheap until it first encodes; `threads` = 0 takes every core this process may use.
    `precision` is fp32, bf16 or int8, "" what a trial on this processor chooses; an exported graph has its own.
    `device` is cpu, cuda, cuda:1, tensorrt (for a graph exported in batches), or auto for the best that works. `stream`
    keeps no layer in memory. `prompts` replace the model's; `pooling` (mean, last, cls) and `masks_prompt`, which
    leaves a prompt's tokens out of the mean, a checkpoint's. UsageError for what none of these is.
    """
    from embedcode.engine.given import number_of
    from embedcode.engine.graph import GraphEncoder
    from embedcode.errors import UsageError
    from embedcode.model.hub import expanded, find, own_name
    from embedcode.model.spec import DEFAULT, Spec, is_export
    from embedcode.settings import MOST_THREADS, cores, device_of, precision_of
    from embedcode.types import Role

    model = os.fspath(model)
    if unknown := set(prompts or ()) - set(Role):
        raise UsageError(f"prompts has {', '.join(sorted(map(repr, unknown)))}: its keys are {' and '.join(Role)}.")
    for role, prompt in (prompts or {}).items():
        if not isinstance(prompt, str):
            raise UsageError(f"the prompt of a {role} is {prompt!r}: give a text.")
    precision, device = precision_of(precision, "precision"), device_of(device, "device")
    if not 0 <= (threads := number_of("threads", threads)) <= MOST_THREADS:
        raise UsageError(f"threads {threads} is not between 0 and {MOST_THREADS}: give one that is.")
    threads = threads or cores()
    folder = expanded(model) if model else DEFAULT
    served = model.lower().startswith(("http://", "https://"))
    if served or is_export(folder):
        if pooling or masks_prompt is not None:
            raise UsageError("pooling and masks_prompt are for checkpoints: exported and served models have their own.")
        if served:
            from embedcode import settings
            from embedcode.engine.remote import RemoteEncoder

            asked = {"precision": precision, "device": "" if device in ("cpu", "auto") else device}
            idle = [f"{name} {value}" for name, value in asked.items() if value] + ["stream"] * stream
            return RemoteEncoder(model, settings.load().home, prompts, idle)
        return GraphEncoder(Spec.read(folder).prompted(prompts or {}), threads, device, precision, stream)
    from embedcode.engine.torch_encoder import TorchEncoder
    from embedcode.model.checkpoint import Checkpoint

    folder = find(model)
    if device.startswith("tensorrt"):
        raise UsageError(
            f"{model} is a checkpoint, and TensorRT runs graphs: `embedcode models export` it with --batch."
        )
    if device == "auto" and (precision == "int8" or not _has_card()):
        device = "cpu"
    checkpoint = Checkpoint.read(folder, own_name(model), prompts, pooling, masks_prompt)
    return TorchEncoder(checkpoint, precision, threads, device, stream)


def _has_card() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def configured(chosen: Settings, model: str = "") -> LocalEncoder | RemoteEncoder:
    """An encoder as settings ask for; `model` is in place of theirs."""
    return load(model or chosen.model, chosen.threads, chosen.precision, chosen.device, chosen.stream)


def doctor(model: str = "") -> list[Check]:
    """What a look at a model on this machine finds; else at the configured one."""
    from embedcode import settings

    return configured(settings.load({"model": model or None})).checks()
