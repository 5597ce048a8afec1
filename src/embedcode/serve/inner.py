"""InnerEncoder: the server's engine as an Encoder (types.py), so that an index it serves needs no second model.

Called from threads that are not the event loop's. What an index is made of (`forward`) takes the lane of passages, and
waits for room; what is encoded is for a search, takes that of queries, and is refused where it would not be there in
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from embedcode.engine.encoder import Conditions, LocalEncoder, accepted
from embedcode.errors import BusyError, EncodeError, ModelError
from embedcode.serve.embedder import Embedder
from embedcode.serve.kept import ANSWER_SECONDS, BATCH_SECONDS, EMBED_SECONDS
from embedcode.serve.problem import ProblemError, loading
from embedcode.serve.queue import Lane
from embedcode.types import Floats, InputError, Role, Tokens, Truncate

QUERY_SECONDS = ANSWER_SECONDS - EMBED_SECONDS - BATCH_SECONDS
"""How long a search may wait for the vector of its query: so it ends, and says why, before its caller gives it up."""


class InnerEncoder:
    def __init__(self, embedder: Embedder, tokenizer: LocalEncoder, loop: asyncio.AbstractEventLoop) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._loop = loop

    @property
    def conditions(self) -> Conditions:
        return self._tokenizer.conditions

    @property
    def dim(self) -> int:
        return self._tokenizer.dim

    @property
    def max_tokens(self) -> int:
        return self._tokenizer.max_tokens

    @property
    def space(self) -> str:
        return self._tokenizer.space

    @property
    def build(self) -> str:
        engine = self._embedder.engine
        if engine.facts is None:
            problem = loading(engine.wait)
            raise ModelError(problem.message) from problem  # with its status
        return engine.facts.build

    def tokenize(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
    ) -> list[Tokens | InputError]:
        return self._tokenizer.tokenize(texts, role, instruction, truncate, max_tokens)

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        return self._compute(tokens, Lane.PASSAGE)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
        dimensions: int | None = None,
    ) -> Floats:
        from embedcode.engine.vectors import cut

        tokens = accepted(self.tokenize(texts, role, instruction, truncate, max_tokens))
        vectors = self._compute(tokens, Lane.QUERY, QUERY_SECONDS)
        return vectors if dimensions is None else cut(vectors, dimensions)

    def _compute(self, tokens: Sequence[Tokens], lane: Lane, seconds: float | None = None) -> Floats:
        import numpy as np

        if not tokens:
            return np.empty((0, self.dim), np.float32)
        try:
            return asyncio.run_coroutine_threadsafe(self._embedder.compute(tokens, lane, seconds), self._loop).result()
        except ProblemError as problem:
            if problem.index is not None:
                raise EncodeError(problem.message, problem.index) from None
            # With its status. An engine that is not there leaves a search its words; one with too much to do does not.
            kind = BusyError if problem.code in ("overloaded", "deadline") else ModelError
            raise kind(problem.message) from problem
        except RuntimeError as error:  # the loop has ended
            raise ModelError(f"the server is going down ({error})") from None
