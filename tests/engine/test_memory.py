"""What a process may still take: what the system and its control group say, files that are only cached left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcode.engine import memory

GB = 1 << 30


def group(folder: Path, limit: str, used: int, active: int, inactive: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon {used - active - inactive}\nfile {active + inactive}\ninactive_file {inactive}\nactive_file {active}\n"
        f"active_file_other 7\n"
    )
    return folder


def test_a_checkpoint_that_was_just_read_does_not_fill_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GROUP", group(tmp_path, str(2 * GB), used=2 * GB - 4096, active=GB // 2, inactive=GB))
    assert memory.available() == GB // 2 + GB + 4096


def test_without_a_limit_the_system_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GROUP", group(tmp_path, "max", used=GB, active=0, inactive=0))
    unlimited = memory.available()
    monkeypatch.setattr(memory, "GROUP", tmp_path / "none")
    assert unlimited == pytest.approx(memory.available(), rel=0.2)
    assert unlimited > 0
