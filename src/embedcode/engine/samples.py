"""Samples: real code that is on every machine, to calibrate and compare on: files of the Python standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

SIZE = 750
"""Characters: some 200 tokens of code."""


def samples(count: int, first: int = 0) -> list[str]:
    """Up to `count` texts, spread evenly over the files; another `first` gives others."""
    texts = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = file.read_text("utf-8", "replace")
        texts += [f"{file.name}\n{part}" for part in (text[:SIZE], text[len(text) // 2 :][:SIZE]) if part.strip()]
    step = max(1, len(texts) // count)
    return texts[first::step][:count]
