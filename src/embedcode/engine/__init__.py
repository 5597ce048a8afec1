"""How a model runs: load() gives an Encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedcode.engine.encoder import LocalEncoder
    from embedcode.types import Role


def load(
    model: str = "",
    threads: int = 0,
    precision: str = "",
    device: str = "cpu",
    prompts: Mapping[Role, str] | None = None,
) -> LocalEncoder:
    """The encoder of a model; "" is the packaged default.

    `model` is the folder of a checkpoint or of an exported graph, or a name on the hub such as
    nvidia/NV-EmbedCode-7b-v1. Cheap until it first encodes; `threads` = 0 takes every core this process may use.
    `precision` is fp32, bf16 or int8, "" what a short calibration chooses; `prompts` replace those of the checkpoint.
    """
    from pathlib import Path

    from embedcode.engine.light import LightEncoder
    from embedcode.model.spec import DEFAULT, Spec
    from embedcode.settings import cores

    threads = threads or cores()
    folder = Path(model) if model else DEFAULT
    if (folder / "meta.json").is_file():
        return LightEncoder(Spec.read(folder), threads)
    from embedcode.engine.torch_encoder import TorchEncoder
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.hub import find

    folder = find(model)
    return TorchEncoder(Checkpoint.read(folder, model, prompts), precision or "fp32", threads, device)


def doctor(model: str = "") -> list[tuple[str, str, bool]]:
    """(name, finding, whether it is fine) of each check, on this machine, of the model in a folder; else the configured
    one."""
    import hashlib
    import time

    from embedcode import settings
    from embedcode.engine.light import GOLDEN_COSINE
    from embedcode.errors import ModelError
    from embedcode.types import Role, Tokens

    model = model or settings.load().model
    cure = f"export {model} again" if model else "install again"
    encoder = load(model)
    spec = encoder.spec
    found = hashlib.sha256((spec.folder / "model.onnx").read_bytes()).hexdigest()
    checks = [
        (
            "model",
            f"{spec.name}, {spec.licence}, {spec.dim} dimensions, {spec.max_tokens} tokens, "
            f"{f'in {model}' if model else 'packaged'}",
            True,
        ),
        ("weights", "as published" if found == spec.graph else f"changed on disk: {cure}", found == spec.graph),
        ("engine", encoder.build, True),
    ]
    try:
        cosine = encoder.golden_cosine()
    except ModelError as error:
        return [*checks, ("golden vector", str(error), False)]
    checks.append(("golden vector", f"cosine {cosine:.4f} to full precision", cosine >= GOLDEN_COSINE))
    if cosine >= GOLDEN_COSINE:
        text = spec.golden.text
        start = time.perf_counter()
        encoder.encode([text] * 32, Role.PASSAGE)
        seconds = time.perf_counter() - start
        used = sum(t.used for t in encoder.tokenize([text], Role.PASSAGE) if isinstance(t, Tokens))
        checks.append(("speed", f"{32 * used / seconds:,.0f} tokens/s", True))
    return checks
