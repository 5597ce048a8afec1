"""Compressed: a checkpoint written once more with its linear maps in int8, and how near it stays to fp32 on real code.

Half of a bf16 model's bytes to keep and to read, and nothing to convert at each start: the codes are those that the
engine makes of the original on this processor. The layout is model/int8.py's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from embedcode.engine.linear import Codes
from embedcode.engine.network import Reading, Tensors, bare
from embedcode.engine.precision import LEAST_COSINE
from embedcode.engine.processor import int8_range
from embedcode.engine.quantise import COMPARED, TOKENS, Nearness
from embedcode.engine.samples import samples
from embedcode.engine.torch_encoder import int8_cosines
from embedcode.errors import ModelError, UsageError
from embedcode.files import is_folder
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import LATENT
from embedcode.model.int8 import SCALE, Stored
from embedcode.model.modules import folders
from embedcode.model.weights import Entry, read_json

SHARD = 2_000_000_000
"""Bytes of a file, and so of memory."""
SIDE = (".json", ".txt", ".model", ".md")
"""Endings of the files that are taken over as they are; and a licence."""
WORK = 4e11
"""Weights times tokens that the comparison may take: 64 texts of 256 tokens of MiniLM, some 60 tokens of a 7B, which
are minutes in fp32 on two cores."""
LEAST_TOKENS = 16
"""Of a text that is compared."""


def compress(checkpoint: Checkpoint, source: Path, out: Path, progress: Callable[[int, int], None]) -> Checkpoint:
    """`checkpoint`, which was read from `source`, written to the folder `out`, and read from there.

    `progress` is told bytes done, and of how many. UsageError for one that is int8 already.
    """
    if checkpoint.stored is not None:
        raise UsageError(f"{source} is in int8 already: give the checkpoint that it was made of.")
    stored = Stored(int8_range(), checkpoint.name, checkpoint.preset, checkpoint.fingerprints)
    wanted = _conditions(checkpoint)  # a tokenizer that is missing is told before anything is written
    for folder in dict.fromkeys((checkpoint.folder, source)):  # an adapter's own files after its base's
        _take_over(folder, out)
    config = read_json(checkpoint.folder / "config.json") | stored.written()
    (out / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", "utf-8")
    _write(checkpoint, out, progress)
    smaller = Checkpoint.read(out)
    if _conditions(smaller) != wanted:
        raise ModelError(f"{source} has files that are read otherwise beside other weights: merge its adapter first.")
    return smaller


def _conditions(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What has to stay as it was."""
    return checkpoint.space, checkpoint.prompts, checkpoint.instruction, checkpoint.dimensions, checkpoint.eos


def _take_over(folder: Path, out: Path) -> None:
    """Without the mode of a file, which may be read-only."""
    for path in folder.iterdir():
        if path.is_file() and _is_side(path):
            shutil.copyfile(path, out / path.name)
    for place in {"1_Pooling", *folders(folder)}:  # a head's has its weights
        inner = folder / place
        if place and is_folder(inner) and inner.resolve().is_relative_to(folder.resolve()):
            shutil.copytree(inner, out / place, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _is_side(path: Path) -> bool:
    """Whether a file says something of a model, and not where its weights are."""
    others = ("config.json", "adapter_", "model.safetensors", "pytorch_model")
    return (path.suffix in SIDE or path.stem in ("LICENSE", "NOTICE")) and not path.name.startswith(others)


def _write(checkpoint: Checkpoint, out: Path, progress: Callable[[int, int], None]) -> None:
    """Files of SHARD bytes, and which tensor is where."""
    files: list[Path] = []
    places: dict[str, int] = {}
    total = 0
    for shard in _shards(checkpoint, progress):
        places |= dict.fromkeys(shard, len(files))
        total += sum(tensor.nbytes for tensor in shard.values())
        files.append(out / f"{len(files)}.part")
        try:
            save_file(shard, files[-1], {"format": "pt"})
        except SafetensorError as error:  # a full disk, for one, which is no OSError there
            raise OSError(str(error)) from None
        shard.clear()  # or the next one is made beside it
    names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    if len(files) == 1:
        names = ["model.safetensors"]
    else:
        index = {"metadata": {"total_size": total}, "weight_map": {key: names[file] for key, file in places.items()}}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    for file, name in zip(files, names, strict=True):
        file.rename(out / name)


def _shards(checkpoint: Checkpoint, progress: Callable[[int, int], None]) -> Iterator[dict[str, torch.Tensor]]:
    """All tensors by their names, SHARD bytes at a time."""
    shard: dict[str, torch.Tensor] = {}
    size = read = 0
    for name, tensor, done in _tensors(checkpoint):
        if size and size + tensor.nbytes > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size, read = size + tensor.nbytes, read + done
        progress(read, checkpoint.weights.size)
    yield shard


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor, int]]:
    """Name, tensor, and the bytes that were read for it."""
    network = bare(checkpoint)
    read, plain = Reading(network, checkpoint), Tensors()
    linear = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)}
    parts: dict[Entry, list[str]] = {}
    for name in read.names:
        parts.setdefault(read.entry(name), []).append(name)  # rows of one tensor in their order
    for key, entry in checkpoint.weights.items():
        names = parts.get(entry, [])
        if names and linear.issuperset(names):
            made = [read.coded(name, Codes()) for name in names]
            yield key, torch.cat([codes for codes, _ in made]), entry.size
            yield key + SCALE, torch.cat([scales for _, scales in made]), 0
            read.release(names[0])
        elif names or key.startswith(LATENT):  # not the heads of other tasks
            yield key, plain.get(entry), entry.size


def nearness(checkpoint: Checkpoint, smaller: Checkpoint, threads: int) -> Nearness:
    """Of the vectors of real code. ModelError where int8 would be too far from fp32."""
    budget = int(WORK / checkpoint.weights.count)
    most = max(LEAST_TOKENS, min(TOKENS, budget // 4, checkpoint.max_tokens))
    texts = samples(max(1, min(COMPARED, budget // most)))
    cosines = int8_cosines(checkpoint, smaller, texts, most, threads)
    near = Nearness.of({"code": cosines})
    if near.worst < LEAST_COSINE:
        raise ModelError(
            f"{checkpoint.name} loses too much in int8 ({near}, wanted {LEAST_COSINE} in the mean): use it in bf16."
        )
    return near
