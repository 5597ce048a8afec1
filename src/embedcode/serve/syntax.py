"""Syntax: the contract of what edits one entry in a configuration's text. `jsonc` and `toml` fulfil it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Where = tuple[str, str]
"""The key of the outer object or table, such as mcpServers, and the key of the entry in it."""


class Syntax(Protocol):
    """It is text that is edited: all else in it stays as it is, and take() gives back what was given to put()."""

    def parse(self, text: str) -> dict[str, Any]:
        """What the text says. ValueError, with the line, where it is not valid."""
        ...

    def put(self, text: str | None, where: Where, value: Mapping[str, object]) -> str:
        """A valid text with the entry, new or in place of another; a whole new text for None."""
        ...

    def take(self, text: str, where: Where) -> str | None:
        """A text with the entry, without it; None where put() made all of it."""
        ...
