"""Answer: what comes of a request for embeddings, before any protocol has put it into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from embedcode.engine import vectors
from embedcode.serve.asked import Asked
from embedcode.types import Floats, InputError, Tokens


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
        return vectors.packed(self.vectors, asked.kind, asked.dimensions)
