"""Tokenisers: the tokens of a request, counted off the event loop by threads of each lane, or guessed by its length.

Knows no engine and no queue but the words for having no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from embedcode.engine.encoder import LocalEncoder
from embedcode.engine.tokens import file_too_long
from embedcode.errors import renumbered
from embedcode.serve.asked import Asked, PromptGuard
from embedcode.serve.queue import FullError, Lane
from embedcode.types import InputError, Role, Tokens, Truncate

BLOCK = 32
"""Texts that are tokenised in one go; between two, a request that was dropped ends."""
MOST_TOKENISED = 8192
"""Texts of a lane that are being tokenised at a time, of all requests."""
THREADS = {Role.QUERY: 1, Role.PASSAGE: 2}
"""Of each lane, so that no query waits until bulk requests are tokenised."""
CHARACTERS = 4
"""A token of text or code, at most on the mean."""
REMEMBERED = 100_000
"""Characters behind the mean of tokens a character: one text of a few, whose marks are most of its tokens, moves it by
nothing."""


class Tokenisers:
    def __init__(self, encoder: LocalEncoder, doubled: PromptGuard, max_tokens: int | None) -> None:
        """`max_tokens` of a text, where they are fewer than the model reads."""
        self._encoder = encoder
        self._doubled = doubled
        self._limit = max_tokens
        self._threads = {lane: ThreadPoolExecutor(THREADS[lane], f"tokenise-{lane.value}") for lane in Lane}
        self._at_work = dict.fromkeys(Lane, 0)
        self._density = 1 / CHARACTERS
        """Tokens a character, of what was asked lately."""

    def start(self) -> None:
        """Load the tokenizer, beside whatever else is to be loaded."""
        self._threads[Lane.PASSAGE].submit(self._encoder.tokenize, ["ready"], Role.PASSAGE)

    def stop(self) -> None:
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    def guess(self, asked: Asked) -> int:
        """The tokens that a request seems to have."""
        return int(self._density * self._characters(asked))

    def learn(self, asked: Asked, tokens: int) -> None:
        """What a request had."""
        size = self._characters(asked)
        self._density += (tokens - self._density * size) / (size + REMEMBERED)

    def _characters(self, asked: Asked) -> int:
        """As many as can count: in a request with more of them there are hardly fewer tokens."""
        limit = min(self._encoder.max_tokens, self._limit or self._encoder.max_tokens)
        if asked.ids:
            return sum(CHARACTERS * min(len(ids), limit) for ids in asked.ids)
        return sum(min(len(text), CHARACTERS * limit) for text in asked.texts)

    async def tokenise(self, asked: Asked) -> tuple[list[Tokens | InputError], dict[int, bool]]:
        """Receipts, in order, and the inputs that bring the model's prompt with them, each with whether that is sure.
        FullError."""
        inputs: Sequence[Any] = ["".join(asked.texts)] if asked.late else asked.inputs
        truncate = Truncate.END if asked.late else asked.truncate  # a file that would be cut is refused
        lane = asked.lane
        if self._at_work[lane] + len(inputs) > MOST_TOKENISED and self._at_work[lane]:
            raise FullError(1.0, "tokenize")
        self._at_work[lane] += len(inputs)
        loop = asyncio.get_running_loop()
        entries: list[Tokens | InputError] = []
        doubled: dict[int, bool] = {}

        def work(start: int) -> None:
            block = inputs[start : start + BLOCK]
            found = self._encoder.tokenize(block, asked.role, asked.instruction, truncate, self._limit)
            for offset, (one, entry) in enumerate(zip(block, found, strict=True)):
                index = start + offset
                if index in asked.wrong:
                    entry = InputError(index, asked.wrong[index])
                elif one == "":
                    entry = InputError(index, f"input {index} is empty: leave it out, or send a text.")
                elif isinstance(entry, InputError):
                    entry = InputError(index, renumbered(entry.message, entry.index, index))
                elif asked.late and entry.truncated:
                    entry = InputError(index, file_too_long(entry))
                entries.append(entry)
                if isinstance(one, str) and self._doubled(one):
                    doubled[index] = self._doubled.sure(one)

        try:
            for start in range(0, len(inputs), BLOCK):
                await loop.run_in_executor(self._threads[lane], work, start)
        finally:
            self._at_work[lane] -= len(inputs)
        return entries, doubled
