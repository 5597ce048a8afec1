"""Recent: vectors of texts that were asked for not long ago, by their tokens, in a bounded piece of memory.

The key is of the exact ids and of the encoder's space, so that a hit is the vector that would be computed.
Knows no queue; that one text is computed once for all who ask at the same time is the embedder's.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

from embedcode.types import Floats, Tokens, digest

BESIDE = 250
"""Bytes that an entry takes beside its numbers."""


def key(tokens: Tokens, space: str) -> bytes:
    return digest(array("i", tokens.ids).tobytes(), str(tokens.prompt), space)


class Recent:
    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> Floats | None:
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: Floats) -> None:
        """`vector` [dim] must be an array of its own: a row of a larger one would keep all of it."""
        if key in self._vectors or vector.nbytes + BESIDE > self._most:
            return
        self._vectors[key] = vector
        self.bytes += vector.nbytes + BESIDE
        while self.bytes > self._most:
            _, old = self._vectors.popitem(last=False)
            self.bytes -= old.nbytes + BESIDE
