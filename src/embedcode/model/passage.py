"""How a chunk becomes the string that is embedded. Part of an encoder's `space`: change FORMAT with the function."""

from __future__ import annotations

from embedcode.types import digest

FORMAT = "path symbol text/1"


def passage(path: str, symbol: str, text: str) -> str:
    """The path, the symbol where there is one, then the lines of a chunk without blank ones at the end.

    The full path is part of the published file-retrieval recipe (Nemotron-CORTEXA, ICML 2025); the symbol tells the
    second half of a long function whose it is.
    """
    return f"{path} {symbol}\n{text.rstrip()}" if symbol else f"{path}\n{text.rstrip()}"


def vector_key(text: str, space: str) -> bytes:
    """16 bytes naming the vector of this exact string in this space, the same in every checkout."""
    return digest(text, space)
