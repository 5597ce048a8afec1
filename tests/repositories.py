"""Repositories to be searched and mined, and the environment of programs that are started on them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def git(root: Path, *arguments: str) -> str:
    """What git says. Who commits needs no settings of their own."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def environment(home: Path, **more: str) -> dict[str, str]:
    """With a home of its own, and no settings of whoever runs the tests."""
    strange = ("EMBEDCODE_", "XDG_", "NIM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return kept | {"EMBEDCODE_HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")} | more
