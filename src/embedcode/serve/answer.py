"""Answer: what comes of a request for embeddings, before any protocol has put it into words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from embedcode.engine import vectors
from embedcode.serve.asked import Asked
from embedcode.types import Floats, InputError, Tokens

PACKERS: dict[str, Callable[[Floats], NDArray[Any]]] = {
    "float": lambda rows: rows,
    "int8": vectors.to_int8,
    "uint8": vectors.to_uint8,
    "binary": vectors.to_binary,
    "ubinary": vectors.to_ubinary,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors of the inputs that could be embedded, in order, with what became of each."""

    vectors: Floats
    """float32 [n, dim], unit length, not yet cut or packed."""
    places: tuple[int, ...]
    """Which input each row is of."""
    tokens: tuple[Tokens, ...]
    """Receipt of each row."""
    errors: tuple[InputError, ...] = ()
    doubled: tuple[int, ...] = ()
    """Inputs that brought the model's prompt with them."""
    cached: int = 0

    @property
    def used(self) -> int:
        return sum(entry.used for entry in self.tokens)

    @property
    def truncated(self) -> int:
        return sum(entry.truncated for entry in self.tokens)

    def packed(self, asked: Asked) -> NDArray[Any]:
        """The rows, cut and packed as they are asked for."""
        rows = vectors.cut(self.vectors, asked.dimensions) if asked.dimensions else self.vectors
        return PACKERS[asked.kind](rows)
