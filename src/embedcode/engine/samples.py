"""Samples: real code that is on every machine, to calibrate and compare on: files of the Python standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from embedcode.engine.encoder import LocalEncoder
from embedcode.types import Role, Tokens, Truncate

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


def tokenised(encoder: LocalEncoder, texts: Sequence[str], most: int) -> list[Tokens]:
    """As passages of at most `most` tokens, without those that cannot be encoded."""
    entries = encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END, max_tokens=most)
    return [entry for entry in entries if isinstance(entry, Tokens)]
