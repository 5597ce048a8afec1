"""Memory: what a checkpoint will take in a precision, and what this process may have, before anything is loaded."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedcode.engine import processor
from embedcode.errors import EncodeError, ModelError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import LATENT
from embedcode.model.spec import LARGE, Spec

PACK = 2048
"""Tokens in one pass: matrix products gain no more by more rows, and activations 14,336 wide take 60 MB each."""
CARD_PACK = 32_768
"""The same on a card, which waits for the launches of a small network at 2,048."""
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where control groups are, and which of them this process is in."""
NAMES = {
    "": ("memory.max", "memory.current", "active_file", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file"),
}
"""Files of a group's limit and use, and fields of memory.stat for cached pages: in version 2, and in version 1."""
LIMITS = {resource.RLIMIT_AS: "VmSize:", resource.RLIMIT_DATA: "VmData:"}
"""Limits of a process, and what /proc/self/status counts against each."""
NUMBER = {"fp32": 4, "bf16": 2, "int8": 1}
"""Bytes of a weight."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
"""Of mallopt(3)."""
BASE = 700_000_000
"""torch, transformers and the allocator's reserve."""

GRAPH = {"onnx": (1.25, 200_000_000), "openvino": (2.0, 300_000_000)}
"""Times the bytes of a graph's files, since weights are laid out anew, and what is needed beside: the library, and
texts of 256 tokens on two threads. Nine exports of 23 M to 596 M parameters took .58 to .98 of it."""


PAIR = {"onnx": (4, 16), "openvino": (0, 6)}
"""Bytes that a graph holds for each pair of a text's tokens: of each head, and for all of them. Measured at 4,096 and
8,192 tokens: 36.7 and 30.6 of layouts with 6 and 4 heads; by OpenVINO, which keeps no scores, 4.4 to 5.5."""
PAIR_CAPPED = {"onnx": (9, 20), "openvino": (0, 12)}
"""The same of a graph whose scores are capped, which is several operators in place of one. Measured at 2,048 and 4,096
tokens of Gemma 2's layout: 54, 88 and 158 with 4, 8 and 16 heads; by OpenVINO 9.8 to 11.5, and 14.4 with 16."""

COPIES, LARGE_COPIES = 5, 3
"""Of the weights in fp32 at the peak of an export; where they go into a file of their own they are written piece by
piece. Measured: 5.0 of 135 M parameters, 2.9 of 596 M, both to OpenVINO. To quantise an export takes no more."""


@contextmanager
def loading() -> Iterator[None]:
    """Inside, have glibc map each large block by itself, and give it back; outside, have it keep what is freed.

    In one heap the weights of a 7B model in int8 took 11.5 GB instead of 8: blocks on their way to int8 left holes that
    the next did not fit. Afterwards each layer's activations would else be mapped, faulted in and given back again.
    """
    _mallopt(((M_MMAP_MAX, 1 << 16), (M_MMAP_THRESHOLD, 1 << 20)))
    try:
        yield
    finally:
        _mallopt(((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20)))


def one_heap() -> None:
    """Have glibc keep one heap for all threads: what one frees, others take.

    A server whose threads tokenise had 68.6 MB for 71.7 after 890 requests, and grew half as fast in the last 200.
    """
    _mallopt([(M_ARENA_MAX, 1)])


def give_back() -> None:
    """Have glibc give back what was freed, which it keeps after `loading`."""
    import ctypes

    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(parameters: Iterable[tuple[int, int]]) -> None:
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    for parameter, value in parameters:
        mallopt(parameter, value)


def halved(precision: str) -> bool:
    """Whether what is not int8 in `precision` is bf16, not fp32."""
    return precision == "bf16" or (precision == "int8" and processor.gives_bf16())


def needed(checkpoint: Checkpoint, precision: str) -> int:
    """Bytes at the peak, loading included: weights, one pass of PACK tokens, and the libraries."""
    hidden, wide = _widths(checkpoint)
    layers, rest = _weights(checkpoint, precision)
    largest = wide * hidden * 4  # one weight on its way to another type
    return layers + rest + states(checkpoint, precision, PACK) + largest + BASE


def spare(checkpoint: Checkpoint, precision: str) -> int:
    """Bytes that are free beside it; below 0 where it does not fit."""
    return available() - needed(checkpoint, precision)


def streamed(checkpoint: Checkpoint, precision: str, pack: int) -> int:
    """The same where one layer after the other is read for each pass of `pack` tokens."""
    layers, rest = _weights(checkpoint, precision)
    layer = layers // max(1, int(checkpoint.config.get("num_hidden_layers", 1)))
    return layer + rest + states(checkpoint, precision, pack) + BASE


def states(checkpoint: Checkpoint, precision: str, tokens: int) -> int:
    """Bytes of what a pass over so many tokens holds beside the weights."""
    hidden, wide = _widths(checkpoint)
    return tokens * (4 * wide + 8 * hidden) * (2 if halved(precision) else 4)


def _weights(checkpoint: Checkpoint, precision: str) -> tuple[int, int]:
    """Bytes of the layers, and of what is held beside them whatever is streamed: the table of tokens, which is never in
    int8, and the latent head, in fp32."""
    table = int(checkpoint.config.get("vocab_size", 0)) * _widths(checkpoint)[0]
    head = sum(one.count for name, one in checkpoint.weights.items() if name.startswith(LATENT))
    layers = checkpoint.weights.count - table - head
    return layers * NUMBER[precision], table * (2 if halved(precision) else 4) + head * 4


def _widths(checkpoint: Checkpoint) -> tuple[int, int]:
    hidden = int(checkpoint.config["hidden_size"])
    return hidden, int(checkpoint.config.get("intermediate_size", 4 * hidden))


def needed_by_graph(spec: Spec) -> int:
    """Bytes at the peak of an exported model."""
    times, beside = GRAPH[spec.format]
    return int(times * sum(path.stat().st_size for path in spec.files)) + beside


def attended(spec: Spec, tokens: int) -> int:
    """Bytes that an exported model holds beside its weights for one text of so many tokens."""
    of_head, beside = (PAIR_CAPPED if spec.capped else PAIR)[spec.format]
    return tokens**2 * (of_head * spec.heads + beside)


def no_room(index: int, tokens: int, need: int, have: int, name: str) -> EncodeError:
    return EncodeError(
        f"Input {index} has {tokens:,} tokens, which need {_gb(need)} of memory beside {name} where {_gb(have)} are "
        "free: cut it by max_tokens and truncate.",
        index,
    )


def available() -> int:
    """Bytes this process may still take, by the system, by each control group it is in, and by its own limits."""
    free = _field(Path("/proc/meminfo"), "MemAvailable:") * 1024
    return max(0, min((free or 1 << 62, *_left_by_groups(), *_left_by_limits())))


def peak_of(pid: int | str | None) -> int:
    """Bytes that a process held at most, files it maps included; "self" is this one. 0 where that cannot be read."""
    return _field(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024


def available_on(card: str) -> int:
    """The same of a card, such as cuda:1; what torch keeps for itself is free too."""
    import torch

    return torch.cuda.mem_get_info(card)[0] + torch.cuda.memory_reserved(card) - torch.cuda.memory_allocated(card)


def _left_by_groups() -> Iterator[int]:
    try:
        rows = OWN.read_text().splitlines()
    except OSError:
        return
    for _, controllers, place in (row.split(":", 2) for row in rows):
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in NAMES:
            continue
        most, current, *files = NAMES[version]
        inner = Path(place.lstrip("/"))
        for folder in (GROUPS / version / group for group in (inner, *inner.parents)):  # an outer one bounds it too
            if limit := _number(folder / most):
                # Pages of files count as used, though they are given back when memory is wanted: all of a checkpoint
                # just read.
                yield limit - _number(folder / current) + sum(_field(folder / "memory.stat", name) for name in files)


def _left_by_limits() -> Iterator[int]:
    for kind, used in LIMITS.items():
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - _field(Path("/proc/self/status"), used) * 1024


def check(checkpoint: Checkpoint, precision: str) -> None:
    """ModelError where the checkpoint will not fit, with what would."""
    need, have = needed(checkpoint, precision), available()
    if need <= have:
        return
    other = next((p for p in ("bf16", "int8") if NUMBER[p] < NUMBER[precision] and needed(checkpoint, p) <= have), "")
    if other:
        cure = f"{other} would need {_gb(needed(checkpoint, other))}, set precision to {other}"
    elif streamed(checkpoint, precision, PACK) <= have:
        cure = "stream its layers from disk, load(..., stream=True) or EMBEDCODE_STREAM=1"
    else:
        cure = "choose a smaller model, since not even one layer of it fits"
    raise ModelError(f"{checkpoint.name} in {precision} needs {_gb(need)} of memory and {_gb(have)} are free: {cure}.")


def stream_pack(checkpoint: Checkpoint, precision: str, most: int) -> int:
    """Tokens in one pass where layers are streamed: `most`, or half of it as often as it takes to fit; ModelError for
    fewer than PACK."""
    have, pack = available(), most
    while pack > PACK and streamed(checkpoint, precision, pack) > have:
        pack //= 2
    if (need := streamed(checkpoint, precision, pack)) > have:
        raise ModelError(
            f"{checkpoint.name} in {precision} needs {_gb(need)} of memory with its layers streamed and {_gb(have)} "
            "are free: choose a smaller model."
        )
    return pack


def card_pack(checkpoint: Checkpoint, precision: str, card: str) -> int:
    """Tokens in one pass on a card: CARD_PACK, or as many as fit beside the weights; ModelError for fewer than PACK."""
    need, have = needed(checkpoint, precision), available_on(card)
    if need > have:
        raise ModelError(
            f"{checkpoint.name} in {precision} needs {_gb(need)} of memory on {card} and {_gb(have)} are free: set "
            "device to cpu, where int8 takes half of bf16, or stream its layers, load(..., stream=True) or "
            "EMBEDCODE_STREAM=1."
        )
    return min(CARD_PACK, PACK + (have - need) // states(checkpoint, precision, 1))


def check_graph(spec: Spec) -> None:
    """ModelError where an exported model will not fit."""
    need, have = needed_by_graph(spec), available()
    if need > have:
        raise ModelError(
            f"{spec.name} needs {_gb(need)} of memory and {_gb(have)} are free: stop something else, or take a smaller "
            "export."
        )


def check_copies(name: str, size: int, done: str, instead: str) -> None:
    """ModelError where the copies of `size` bytes of weights will not fit that are made as a model is `done`."""
    need, have = (LARGE_COPIES if size > LARGE else COPIES) * size + BASE, available()
    if need > have:
        raise ModelError(
            f"{name} needs {_gb(need)} of memory to be {done} and {_gb(have)} are free: have that done on a larger "
            f"machine, or {instead}."
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _field(path: Path, name: str) -> int:
    try:
        rows = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in rows if row.split()[:1] == [name]), 0)


def _number(path: Path) -> int:
    """0 for a file that is not there or says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
