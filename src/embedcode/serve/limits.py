"""Limits: what a request may ask of the server, by its options. Knows no option."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    timeout: float = 120.0
    """Seconds a request may take."""
    max_tokens: int | None = None
    """Of a text, where fewer than the model reads."""
    most_tokens: int = 0
    most_requests: int = 1024
    batch_texts: int = 256
    cache_bytes: int = 64_000_000
    double_prompts: bool = False
    """Answer a text that brings the model's prompt with it, and only report it."""
