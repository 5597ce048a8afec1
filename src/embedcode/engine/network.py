"""Network: the stock network of transformers for a checkpoint, its published weights in it, attention packed.

The one adapter to `transformers`. No code of a checkpoint is run, and weights are never held twice: what is stored as
it is computed stays mapped from the file, and what is converted is converted tensor by tensor.
"""

from __future__ import annotations

import mmap
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from embedcode.engine import memory, packed
from embedcode.engine.ahead import Ahead
from embedcode.engine.linear import Codes, Int8Linear
from embedcode.engine.pooling import LatentAttention
from embedcode.errors import ModelError, line
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.int8 import MOST, SCALE
from embedcode.model.weights import Entry

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I8": torch.int8,
}
_PREFIXES = ("embedding_model.", "model.", "bert.", "roberta.")
_OTHERS = re.compile(
    r"^(?:lm_head|pooler|cls|head|decoder|classifier|score|latent_attention_model)\b"
    r"|\b(?:position_ids|token_type_ids|inv_freq|masked_bias)$"
)
"""What a checkpoint may have beside the network: heads for other tasks, and buffers that are computed."""

_LAYER = re.compile(r"(?:encoder\.)?layers?\.\d+")
_NUMBER = re.compile(r"\blayers?\.(\d+)\.")


class Tensors:
    """The bytes of a checkpoint's files as tensors; nothing is read before it is used."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def get(self, entry: Entry, codes: bool = False) -> torch.Tensor:
        """A view of the file. ModelError for int8 where it is not known to be `codes`, which want their scales."""
        if entry.dtype not in _DTYPES or (entry.dtype == "I8" and not codes):
            raise ModelError(f"{entry.file} holds {entry.dtype} weights, which are not read here: use bf16 or fp32.")
        if entry.file not in self._maps:
            try:
                with entry.file.open("rb") as file:
                    self._maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:  # under a limit of the address space, for one, which mapped files count against
                raise ModelError(
                    f"{entry.file} cannot be mapped ({error.strerror}): see that it may be read, and that `ulimit -v` "
                    "leaves room for it."
                ) from None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nor is it written
            flat = torch.frombuffer(
                self._maps[entry.file], dtype=_DTYPES[entry.dtype], count=entry.count, offset=entry.start
            )
        return flat.view(entry.shape)

    def release(self, entry: Entry) -> None:
        """Give back the memory of a tensor that has been converted; it is read again where it is used again."""
        start = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
        self._maps[entry.file].madvise(mmap.MADV_DONTNEED, start, entry.start + entry.size - start)


def build(checkpoint: Checkpoint, precision: str, device: torch.device, layers: int = 0, stream: bool = False) -> Any:
    """The network [1, T] ids -> states [1, T, hidden], in `precision` fp32, bf16 or int8.

    `layers` > 0 builds only the first ones, for a trial. `stream` keeps no layer: each is read from the checkpoint as
    a pass reaches it and given up behind it, so that memory holds one layer beside the states.
    """
    network = bare(checkpoint, layers)
    _compute_buffers(network, device)  # before there are maps in int8, whose weights transformers would look for
    room = 0 if stream else memory.spare(checkpoint, precision)
    filling = _Filling(network, checkpoint, precision, device, layers, room)
    blocks = [(name, part) for name, part in network.named_modules() if _LAYER.fullmatch(name)] if stream else []
    for name, block in blocks:
        block.register_forward_pre_hook(lambda part, _, name=name: filling.refill(part, name))
        block.register_forward_hook(lambda part, *_, name=name: filling.empty(part, name))
    filling.fill(network, "", tuple(f"{name}." for name, _ in blocks))
    return network.eval().requires_grad_(False)


def bare(checkpoint: Checkpoint, layers: int = 0) -> Any:
    """The network without weights, on the meta device."""
    packed.register()
    with torch.device("meta"):
        network = _stock(checkpoint, layers)
    if hasattr(network, "pooler"):
        network.pooler = None
    return network


def fuse(network: Any) -> None:
    """Have each RMS norm (arXiv 1910.07467) be one kernel, for a card: as written it reads and writes its states, in
    fp32, six times."""
    for module in network.modules():
        if hasattr(module, "variance_epsilon"):  # Gemma's, which adds 1 to its weight, has none
            module.forward = partial(_rms_norm, module)


def _rms_norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(states, module.weight.shape, module.weight, module.variance_epsilon)


def _stock(checkpoint: Checkpoint, layers: int) -> Any:
    from transformers import AutoConfig, AutoModel

    kind = checkpoint.family
    fields = deepcopy(dict(checkpoint.config))  # transformers writes into what it is given, rope_scaling for one
    if layers:
        fields["num_hidden_layers"] = layers
        if isinstance(kinds := fields.get("layer_types"), list):
            fields["layer_types"] = kinds[:layers]
    try:
        config = AutoConfig.for_model(kind.model_type, **fields)
        config.is_causal = checkpoint.causal
        config.use_cache = False
        network = AutoModel.from_config(config, attn_implementation=packed.NAME)
    except Exception as error:
        what = line(error)
        raise ModelError(
            f"{checkpoint.folder / 'config.json'} gives no {kind.model_type} network ({what}): download it again."
        ) from None
    for module in network.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = checkpoint.causal
    return network


class Reading:
    """The parameters of a network, by their names in it, from a checkpoint's files: adapters merged, int8 restored."""

    def __init__(self, network: Any, checkpoint: Checkpoint, layers: int = 0) -> None:
        self._tensors = Tensors()
        self._sources = _sources(network, checkpoint, layers)
        self._lora = _lora(checkpoint, self._sources, self._tensors, layers)
        self._most = checkpoint.stored.most if checkpoint.stored else MOST
        self._scales = _scales(checkpoint)

    @property
    def names(self) -> Iterable[str]:
        return self._sources

    def entry(self, name: str) -> Entry:
        """Where it lies."""
        return self._sources[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        entry, rows = self._sources[name]
        return entry.shape if rows is None else (rows.stop - rows.start, *entry.shape[1:])

    def is_view(self, name: str) -> bool:
        """Whether it is read as it lies in the file."""
        return name not in self._lora and self.entry(name) not in self._scales

    def __call__(self, name: str) -> torch.Tensor:
        tensor = _restored(*self._stored(name))
        if name in self._lora:
            a, b, scale = self._lora[name]
            tensor = tensor.float() + scale * (b.float() @ a.float())
        return tensor

    def coded(self, name: str, codes: Codes) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 codes [out, in] of a weight, until `codes` gives the next, and its scales [out, 1]."""
        tensor, scales = self._stored(name)
        if scales is not None and name not in self._lora:
            return codes.stored(tensor, scales, self._most)
        return codes.weight(self(name))

    def stays(self, name: str) -> bool:
        """Whether whoever quantised the others left this weight as it was."""
        return bool(self._scales) and self.entry(name) not in self._scales

    def release(self, name: str) -> None:
        self._tensors.release(self.entry(name))

    def _stored(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As it lies in the file, and the scales [out, 1] of what is int8 there."""
        entry, rows = self._sources[name]
        found, scales = _with_scales(self._tensors, entry, self._scales)
        return (found, scales) if rows is None else (found[rows], None if scales is None else scales[rows])


class _Filling:
    """Puts a checkpoint's weights into a network on the meta device, and takes them out again."""

    def __init__(
        self, network: Any, checkpoint: Checkpoint, precision: str, device: torch.device, layers: int, room: int
    ) -> None:
        self._read = Reading(network, checkpoint, layers)
        self._ahead = Ahead((self._read.entry(name) for name, _ in network.named_parameters()), room)
        self._codes = Codes() if precision == "int8" else None
        self._replaced: dict[str, list[tuple[str, torch.nn.Module]]] = {}
        """By the name of a part, its maps that int8 ones stand for, still without weights."""
        self._dtype = torch.bfloat16 if memory.halved(precision) else torch.float32
        self._device = device
        self._folder = checkpoint.folder

    def fill(self, part: torch.nn.Module, name: str, without: tuple[str, ...] = ()) -> None:
        """All parameters of `part`, which is called `name` in the network, but those under the names `without`."""
        prefix = f"{name}." if name else ""
        for inner, module in list(part.named_modules()):
            place = prefix + inner
            if without and f"{place}.".startswith(without):
                continue
            key = f"{place}.weight"
            if self._codes and isinstance(module, torch.nn.Linear) and not self._read.stays(key):
                self._expect(key, module.weight)
                weight, scales = self._read.coded(key, self._codes)
                bias = self._as_shaped(f"{place}.bias", module.bias) if module.bias is not None else None
                part.set_submodule(inner, Int8Linear(weight, scales, bias, self._dtype, self._codes))
                self._replaced.setdefault(name, []).append((inner, module))
                self._read.release(key)
                continue
            for parameter, old in list(module.named_parameters(recurse=False)):
                key = f"{place}.{parameter}".lstrip(".")
                read = self._as_shaped(key, old)
                converted = read.to(self._device, self._dtype)
                if converted is not read or not self._read.is_view(key):
                    self._read.release(key)
                setattr(module, parameter, torch.nn.Parameter(converted, requires_grad=False))

    def refill(self, part: torch.nn.Module, name: str) -> None:
        """`fill` in the midst of a pass. Of a 7B in fp32 the heap grew by .6 GB a layer, and held 23 GB in the end."""
        with memory.loading():
            self.fill(part, name)

    def empty(self, part: torch.nn.Module, name: str) -> None:
        """The opposite of `fill`; pages of the file are given back too, or they count as this process's own."""
        for inner, module in self._replaced.pop(name, []):
            part.set_submodule(inner, module)
        part.to("meta")
        for key in self._read.names:
            if key.startswith(f"{name}."):
                self._read.release(key)

    def _as_shaped(self, key: str, old: torch.Tensor) -> torch.Tensor:
        self._expect(key, old)
        return self._read(key)

    def _expect(self, key: str, old: torch.Tensor) -> None:
        """That a parameter is read now, in the place of `old`; ModelError where it has another shape."""
        self._ahead.wanted(self._read.entry(key))
        if (shape := self._read.shape(key)) != tuple(old.shape):
            raise ModelError(
                f"{key} in {self._folder} has shape {list(shape)}, the network needs {list(old.shape)}: "
                "config.json and weights are of two models, download both again."
            )


def _compute_buffers(network: Any, device: torch.device) -> None:
    """Buffers are in no checkpoint: the network's own initialisation computes them."""
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, torch.empty_like(buffer, device=device))
    with torch.no_grad():
        network.initialize_weights()


def _sources(network: Any, checkpoint: Checkpoint, layers: int) -> Mapping[str, tuple[Entry, slice | None]]:
    """Parameter name to the tensor that fills it, and the rows of it; ModelError for one too few or too many."""
    wanted = {name: tuple(p.shape) for name, p in network.named_parameters()}
    found: dict[str, tuple[Entry, slice | None]] = {}
    for key, entry in checkpoint.weights.items():
        if _beyond(key, layers) or _is_scales(key, checkpoint):
            continue
        name = key
        for pattern, replacement in checkpoint.family.renamed:
            name = re.sub(pattern, replacement, name)
        places: list[tuple[str, slice | None]] = [(name, None)]
        for part, others in checkpoint.family.split.items():
            if part in name:
                rows = entry.shape[0] // len(others)
                places = [
                    (name.replace(part, other), slice(number * rows, (number + 1) * rows))
                    for number, other in enumerate(others)
                ]
        for name, cut in places:
            place = next((n for n in _unprefixed(name) if n in wanted), None)
            if place is None and not any(map(_OTHERS.search, _unprefixed(key))):
                raise ModelError(
                    f"{key} in {entry.file} has no place in a {checkpoint.architecture}: config.json and weights "
                    "are of two models, download both again."
                )
            if place is not None:
                found[place] = (entry, cut)
    if lost := [name for name in wanted if name not in found]:
        raise ModelError(f"{checkpoint.folder} has no weights for {lost[0]}: download the checkpoint again.")
    return found


def _with_scales(
    tensors: Tensors, entry: Entry, scales: Mapping[Entry, Entry]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A tensor as it lies in the file, and in fp32 [out, 1] the scales of one in int8."""
    found = tensors.get(entry, codes=entry in scales)
    return found, tensors.get(scales[entry]).float().view(-1, 1) if entry in scales else None


def _restored(tensor: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
    return tensor if scales is None else tensor.float().mul_(scales)


def _is_scales(key: str, checkpoint: Checkpoint) -> bool:
    return key.endswith(SCALE) and key.removesuffix(SCALE) in checkpoint.weights


def _scales(checkpoint: Checkpoint) -> Mapping[Entry, Entry]:
    """Weight to its scales, where weights are int8."""
    found = {}
    for key, entry in checkpoint.weights.items():
        if entry.dtype != "I8":
            continue
        scales, count = checkpoint.weights.get(key + SCALE), entry.shape[0] if len(entry.shape) == 2 else 0
        if scales is None or not count or scales.count != count:
            what = "is not there" if scales is None else f"has shape {list(scales.shape)}"
            raise ModelError(
                f"{key} in {entry.file} is int8 of shape {list(entry.shape)} and wants a scale for each of its rows in "
                f"{key}{SCALE}, which {what}: download it again."
            )
        found[entry] = scales
    return found


def _beyond(key: str, layers: int) -> bool:
    """Whether a key is of a layer that is not built."""
    layer = _NUMBER.search(key) if layers else None
    return layer is not None and int(layer[1]) >= layers


def _unprefixed(name: str) -> Iterator[str]:
    yield name
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            yield name.removeprefix(prefix)


def _lora(
    checkpoint: Checkpoint, sources: Mapping[str, tuple[Entry, slice | None]], tensors: Tensors, layers: int
) -> Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Parameter name to A [r, in], B [out, r] and the scale."""
    if checkpoint.adapter is None:
        return {}
    found = {}
    for key, entry in checkpoint.adapter.weights.items():
        name = re.sub(r"^base_model\.(?:model\.)?", "", key)
        if not name.endswith(".lora_A.weight"):
            if not name.endswith(".lora_B.weight"):
                raise ModelError(f"{key} in {entry.file} is no part of a LoRA adapter: merge it with peft first.")
            continue
        other = checkpoint.adapter.weights.get(key.replace(".lora_A.", ".lora_B."))
        if other is None:
            raise ModelError(f"{entry.file} has {key} and no lora_B beside it: download it again.")
        if _beyond(name, layers):
            continue
        name = name.removesuffix(".lora_A.weight") + ".weight"
        place = next((n for n in _unprefixed(name) if n in sources), None)
        if place is None or (other.shape[0], entry.shape[1]) != sources[place][0].shape:
            raise ModelError(
                f"{key} in {entry.file} fits no weight of {checkpoint.folder}: adapter and base are of two models."
            )
        found[place] = (tensors.get(entry), tensors.get(other), checkpoint.adapter.scale)
    return found


def latent(checkpoint: Checkpoint, device: str = "cpu") -> LatentAttention:
    """The head of NV-Embed-v2, in fp32."""
    tensors = Tensors()
    prefix = LatentAttention.PREFIX
    all_scales, weights = _scales(checkpoint), {}
    for name, entry in checkpoint.weights.items():
        if name.startswith(prefix) and not _is_scales(name, checkpoint):
            weights[name] = _restored(*_with_scales(tensors, entry, all_scales)).to(device)
    return LatentAttention(weights, checkpoint.head)


def heads(checkpoint: Checkpoint, device: str = "cpu") -> Sequence[tuple[torch.Tensor, torch.Tensor | None, str]]:
    """Weight, bias and activation of each dense head, in fp32."""
    tensors = Tensors()
    found = []
    for one in checkpoint.dense:
        bias = one.weights.get("linear.bias")
        weight = tensors.get(one.weights["linear.weight"]).float().to(device)
        found.append((weight, None if bias is None else tensors.get(bias).float().to(device), one.activation))
    return found
