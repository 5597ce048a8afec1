"""What this processor is, and can as far as it changes how numbers have to be held. Knows no model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from embedcode.types import digest

CPUINFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
BF16 = frozenset({"avx512_bf16", "amx_bf16"})


@cache
def _rows() -> dict[str, str]:
    """What Linux tells of the first processor, each row by its name in lower case; nothing elsewhere."""
    try:
        text = CPUINFO.read_text("utf-8", "replace")
    except OSError:
        return {}
    rows: dict[str, str] = {}
    for row in text.splitlines():
        rows.setdefault(row.partition(":")[0].strip().lower(), row)
    return rows


def _value(name: str) -> str:
    return _rows().get(name, "").partition(":")[2].strip()


def name() -> str:
    """As it is sold; "" where that is not told, as of ARM's."""
    return _value("model name")


def identity() -> str:
    """What tells one x86 generation from another, since a home folder may be shared by machines."""
    rows = _rows()
    return digest(*(rows[name] for name in ("model name", "flags") if name in rows)).hex()[:8] if rows else ""


@cache
def features() -> frozenset[str]:
    """An x86 processor's, as Linux names them; none elsewhere, which counts as unknown below."""
    return frozenset(_value("flags").split())


def listed() -> frozenset[str]:
    """The same of any processor, for a person."""
    return features() or frozenset(_value("features").split())


def computes_bf16() -> bool:
    """Whether it has instructions for products in bf16, without which they are slower than in fp32; unknown counts as
    yes."""
    return not features() or bool(features() & BF16)


def gives_bf16() -> bool:
    """Whether int8 products may give bf16.

    Without AVX-512 oneDNN has no such kernel, and its reference code takes 2,100 ms for what takes 1.7 ms with a result
    in fp32 (100 x 384 x 1536 on two cores with AVX2, torch 2.13).
    """
    return "avx512f" in features()


def int8_range() -> int:
    """The largest code of a weight.

    Without VNNI two products of 8 bits are added in 16, which saturate: 2 x 255 x 64 is the most that fits. Weights up
    to 127 gave a small random network a cosine of .979 to fp32 there.
    """
    return 127 if not features() or features() & VNNI else 64
