"""Weights: which tensors a checkpoint folder has and where their bytes lie, from safetensors headers alone.

Reads a few kilobytes of a checkpoint of any size, and finds a file that is missing or cut off before anything is
loaded. Knows no torch and no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from embedcode.errors import ModelError
from embedcode.files import is_file
from embedcode.types import digest

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
MOST_HEADER = 100_000_000
"""As the format's own reader has it."""
SAMPLE = 4096
"""Bytes of a tensor that the fingerprint reads."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: bytes [start, start + size) of `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        return self.count * BYTES[self.dtype]


class Weights(Mapping[str, Entry]):
    """Tensor name to Entry, over all files of a checkpoint."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)
        self.files = tuple(sorted({entry.file for entry in entries.values()}))

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.values())

    @property
    def count(self) -> int:
        """Numbers in all tensors."""
        return sum(entry.count for entry in self.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted({entry.dtype for entry in self.values()}))

    def fingerprint(self) -> str:
        """32 hex digits of every header and of the middle of every tensor.

        Hashing 14 GB whole would take longer than loading it; training changes nearly every number of the tensors it
        touches, which may be few of them, as when a LoRA adapter is merged.
        """
        parts: list[bytes] = []
        for path in self.files:
            own = sorted((entry for entry in self.values() if entry.file == path), key=lambda entry: entry.start)
            with path.open("rb") as file:
                parts.append(file.read(8 + int.from_bytes(file.read(8), "little")))
                for entry in own:
                    file.seek(entry.start + max(0, entry.size - SAMPLE) // 2)
                    parts.append(file.read(min(SAMPLE, entry.size)))
        return digest(*parts).hex()


def read(folder: Path, name: str = "model") -> Weights:
    """The tensors of `name`.safetensors, else of the shards that `name`.safetensors.index.json lists: the order of
    transformers, for a folder that kept the index of other weights.

    ModelError names the file that is missing, cut off or no safetensors file, and a tensor the index promises and no
    shard has.
    """
    index = folder / f"{name}.safetensors.index.json"
    single = folder / f"{name}.safetensors"
    if is_file(single):
        return Weights(_header(single))
    if not is_file(index):
        old = sorted(path.name for path in folder.glob("*.bin"))
        cure = f"convert {old[0]} to safetensors, since a pickle may run code" if old else "download it again"
        raise ModelError(f"{folder} has no {single.name}: {cure}.")
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ModelError(f"{index} lists no weights: download it again.")
    found: dict[str, Entry] = {}
    for file in sorted(set(listed.values())):
        path = folder / str(file)
        if not is_file(path):
            raise ModelError(f"{path} is missing: {index.name} lists it, download it too.")
        found.update(_header(path))
    if lost := sorted(set(listed) - set(found)):
        raise ModelError(f"{lost[0]} is in none of the files that {index} lists: download the checkpoint again.")
    return Weights(found)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file of a checkpoint; ModelError where it is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: give the folder of a checkpoint.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}): download it again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} is no JSON object: download it again.")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """The same; empty for a file that is not there."""
    return read_json(path) if is_file(path) else {}


def _header(path: Path) -> dict[str, Entry]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ModelError(f"{path} is cut off or no safetensors file ({size:,} bytes): download it again.")
            raw = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check who may read it.") from None
    try:
        header = json.loads(raw)
        entries = {
            key: Entry(path, value["dtype"], tuple(value["shape"]), 8 + length + value["data_offsets"][0])
            for key, value in header.items()
            if key != "__metadata__"
        }
        for key, entry in entries.items():
            if entry.dtype not in BYTES:
                raise ModelError(f"{key} in {path} is {entry.dtype}, which is not read here: use bf16 or fp32.")
            if entry.start + entry.size - 8 - length != header[key]["data_offsets"][1]:
                raise ValueError(f"{key} has another size than its shape {list(entry.shape)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} has a damaged header ({error}): download it again.") from None
    end = max((entry.start + entry.size for entry in entries.values()), default=8 + length)
    if end > size:
        raise ModelError(f"{path} is cut off: it has {size:,} bytes of {end:,}, download it again.")
    return entries
