"""What is kept of a server (what is learned of one: test_remote.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedcode.engine.served import Served, keep, kept


def test_a_disk_that_fills_leaves_what_was_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others read it at the same time, and half of it would be nothing."""
    path = tmp_path / "servers" / "a.json"
    before = Served("m", "1", "", 512, False, 8)
    keep(path, before)
    assert kept(path) == before

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    keep(path, Served("m", "2", "", 512, False, 8))
    assert kept(path) == before
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]
