"""What Linux tells of a processor: features that rules are made by, and those that a person is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedcode.engine import processor
from embedcode.types import digest

X86 = (
    b"processor\t: 0\nmodel name\t: Xeon\xae 8\nflags\t\t: fpu avx2 avx512f\nvmx flags\t: ept\n\n"
    b"processor\t: 1\nflags\t\t: sse\n"
)
ARM = b"processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp bf16\nCPU part\t: 0xd49\n"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes | None], None]]:
    """Has Linux tell this, or nothing."""

    def forget() -> None:
        processor._rows.cache_clear()
        processor.features.cache_clear()

    def tell(raw: bytes | None) -> None:
        forget()
        path = tmp_path / "cpuinfo"
        monkeypatch.setattr(processor, "CPUINFO", path)
        if raw is not None:
            path.write_bytes(raw)

    yield tell
    forget()


def test_an_x86_is_known_by_its_first_processor(told: Callable[[bytes | None], None]) -> None:
    told(X86)
    assert processor.name() == "Xeon\ufffd 8"
    assert processor.features() == processor.listed() == {"fpu", "avx2", "avx512f"}
    assert processor.gives_bf16() and not processor.computes_bf16() and processor.int8_range() == 64
    # What was measured is kept by these rows as they stand.
    assert processor.identity() == digest("model name\t: Xeon\ufffd 8", "flags\t\t: fpu avx2 avx512f").hex()[:8]


def test_an_arm_has_features_for_a_person_and_none_for_rules_on_x86(told: Callable[[bytes | None], None]) -> None:
    told(ARM)
    assert processor.name() == "" and "asimddp" in processor.listed()
    assert not processor.features() and processor.computes_bf16() and processor.int8_range() == 127


def test_where_nothing_is_told_nothing_is_known(told: Callable[[bytes | None], None]) -> None:
    told(None)
    assert (processor.name(), processor.identity(), processor.features(), processor.listed()) == ("", "", set(), set())
