"""What a process may still take: what the system and its control group say, files that are only cached left out."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from embedcode.engine import memory
from embedcode.model.spec import Spec

GB = 1 << 30


def group(folder: Path, limit: str, used: int, active: int, inactive: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon {used - active - inactive}\nfile {active + inactive}\ninactive_file {inactive}\nactive_file {active}\n"
        f"active_file_other 7\n"
    )
    return folder


def joined(monkeypatch: pytest.MonkeyPatch, groups: Path, rows: str) -> None:
    own = groups / "own"
    own.write_text(f"{rows}\n")
    monkeypatch.setattr(memory, "GROUPS", groups)
    monkeypatch.setattr(memory, "OWN", own)


def test_a_checkpoint_that_was_just_read_does_not_fill_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(monkeypatch, tmp_path, "0::/")
    group(tmp_path, str(2 * GB), used=2 * GB - 4096, active=GB // 2, inactive=GB)
    assert memory.available() == GB // 2 + GB + 4096


def test_a_group_within_a_group_is_bound_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(monkeypatch, tmp_path, "0::/user/session")
    group(tmp_path / "user", str(GB), used=GB // 2, active=0, inactive=0)
    inner = group(tmp_path / "user" / "session", "max", used=GB // 2, active=0, inactive=0)
    assert memory.available() == GB // 2
    (inner / "memory.max").write_text(f"{GB // 2 + 4096}\n")
    assert memory.available() == 4096


def test_a_group_of_the_first_version_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(monkeypatch, tmp_path, "9:cpu,cpuacct:/\n4:memory:/box\n0::/")
    box = tmp_path / "memory" / "box"
    box.mkdir(parents=True)
    (box / "memory.limit_in_bytes").write_text(f"{2 * GB}\n")
    (box / "memory.usage_in_bytes").write_text(f"{GB}\n")
    (box / "memory.stat").write_text("active_file 1\ntotal_active_file 4096\ntotal_inactive_file 8192\n")
    assert memory.available() == GB + 4096 + 8192


def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(kind: int) -> tuple[int, int]:
        return (GB, GB) if kind == resource.RLIMIT_DATA else (resource.RLIM_INFINITY,) * 2

    monkeypatch.setattr(resource, "getrlimit", limited)
    assert 0 <= memory.available() < GB


@pytest.mark.parametrize(
    ("form", "heads", "tokens", "taken"),
    [("onnx", 8, 2048, 88.5), ("onnx", 16, 2048, 157.5), ("openvino", 4, 4096, 9.8), ("openvino", 8, 2048, 11.5)],
)
def test_a_long_text_of_a_graph_whose_scores_are_capped_needs_what_was_measured(
    tmp_path: Path, form: str, heads: int, tokens: int, taken: float
) -> None:
    """Half of it was told, and a text that fitted by that ended the process."""
    replace(Spec.read(), folder=tmp_path, format=form, heads=heads, capped=True).write()
    assert taken <= memory.attended(Spec.read(tmp_path), tokens) / tokens**2 <= 1.5 * taken


def test_without_a_limit_the_system_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(monkeypatch, tmp_path, "0::/")
    group(tmp_path, "max", used=GB, active=0, inactive=0)
    unlimited = memory.available()
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "none")
    assert unlimited == pytest.approx(memory.available(), rel=0.2)
    assert unlimited > 0


def test_the_peak_of_another_process_is_told_and_none_of_what_is_no_process() -> None:
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # the kernel counts both by thread, and in lumps
    assert 0.9 * ours < memory.peak_of(os.getpid()) < 1.1 * ours
    assert memory.peak_of(None) == 0
