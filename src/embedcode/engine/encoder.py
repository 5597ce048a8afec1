"""LocalEncoder: what every engine on this machine shares: tokenising with prompts, blocks, the Matryoshka cut.

An engine adds `forward`, `space` and `build`. Knows no network and no format of weights.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from threading import Lock
from typing import Any

from embedcode.engine.given import listed, number_of, role_of, spans_of
from embedcode.engine.tokens import TOGETHER, TextTokenizer, file_too_long
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.model.presets import task
from embedcode.settings import cores
from embedcode.types import Floats, InputError, Role, Tokens, Truncate

PROBE = "src/session.py Session.refresh\ndef refresh(self, token):\n    return self.store.renew(token, hours=1)"
NORM = 1e-3
"""How far the length of a vector may be from 1."""
BLOCK = 256
"""Texts that are tokenised while the block before them is computed."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""What has no UTF-8 form, which a tokenizer needs."""

LATE = 2048
"""Tokens a model must read for late chunking: below, a file does not fit."""

Check = tuple[str, str, bool]
"""What was looked at, what was found, and whether that is fine."""


def accepted(entries: Iterable[Tokens | InputError]) -> list[Tokens]:
    """The tokens of all texts; EncodeError for the first text that cannot be encoded."""
    found: list[Tokens] = []
    for entry in entries:
        if isinstance(entry, InputError):
            raise EncodeError(entry.message, entry.index)
        found.append(entry)
    return found


@dataclass(frozen=True, slots=True)
class Conditions:
    """What an encoder needs to know of its model beside the network: names, prompts and sizes."""

    name: str
    dim: int
    max_tokens: int
    prompts: Mapping[Role, str]
    instruction: str = ""
    dimensions: tuple[int, ...] = ()


class LocalEncoder(ABC):
    """An Encoder (types.py) over a tokenizer of its own."""

    def __init__(self, conditions: Conditions, tokenizer: TextTokenizer) -> None:
        self.conditions = conditions
        self._tokenizer = tokenizer
        self._block = BLOCK
        self._counting = Lock()
        self.repaired = 0
        """Rows that were not finite and were computed again alone, in _exact_precision."""

    @property
    def dim(self) -> int:
        return self.conditions.dim

    @property
    @abstractmethod
    def _on_card(self) -> bool:
        """Where it really runs, which `auto` does not say."""

    @cached_property
    def _readers(self) -> int:
        """Threads that tokenise at a time. A card computes faster than one core reads: MiniLM by ten times."""
        return max(1, cores() - 1) if self._on_card else 1

    @property
    def builds(self) -> bool:
        """Whether texts of another length than before may take minutes, once, to build what computes them."""
        return False

    @property
    def max_tokens(self) -> int:
        return self.conditions.max_tokens

    @property
    @abstractmethod
    def space(self) -> str: ...

    @property
    @abstractmethod
    def build(self) -> str: ...

    @abstractmethod
    def forward(self, tokens: Sequence[Tokens]) -> Floats: ...

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer.json."""
        return self._tokenizer.path

    @property
    def _exact_precision(self) -> str:
        """What a row that is not finite is computed in again."""
        return "fp32"

    @property
    def padding(self) -> float:
        """Share of the tokens computed so far that were padding."""
        return 0.0

    @property
    def streams(self) -> int:
        """Calls of `forward`, each of one text, that are worth making at a time; 1 where one call of many is faster."""
        return 1

    @property
    def bulk(self) -> int:
        """Texts that one call of `forward` is worth where there are many, since fewer would take as long."""
        return 1

    def remarks(self) -> list[str]:
        """What a person should know of the vectors computed so far."""
        if not self.repaired:
            return []
        return [f"{self.repaired:,} vectors were not finite and were computed again alone, in {self._exact_precision}"]

    @abstractmethod
    def checks(self) -> list[Check]:
        """What `embedcode doctor` looks at: the model as it is computed on this machine."""

    def tokenize(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
    ) -> list[Tokens | InputError]:
        return self._tokenizer(listed(texts), self._prompt(role, instruction), truncate, max_tokens)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
        dimensions: int | None = None,
    ) -> Floats:
        import numpy as np

        from embedcode.engine.vectors import cut

        texts = listed(texts)
        if dimensions is not None:
            self.check_dimensions(dimensions)
        found, first = [np.empty((0, self.dim), np.float32)], 0
        for block in self._blocks(texts, role, instruction, truncate, max_tokens):
            try:
                found.append(self.forward(block))
            except EncodeError as error:
                raise error.behind(first) from None
            first += len(block)
        vectors = np.concatenate(found)
        return vectors if dimensions is None else cut(vectors, dimensions)

    def late(self, text: str, spans: Sequence[tuple[int, int]]) -> Floats:
        """Late chunking (Günther et al. 2024, arXiv 2409.04701): one pass over a file, one vector for each span of it.

        A span is (first, last + 1) in characters. float32 [spans, dim], unit length; a chunk's vector knows the file
        around it. Its tokens are pooled as the model pools those of a text. ModelError for a model that reads fewer
        than LATE tokens, EncodeError for a text that is too long or a span without a token.
        """
        import numpy as np

        from embedcode.engine.vectors import unit

        if self.max_tokens < LATE:
            raise ModelError(
                f"{self.conditions.name} reads {self.max_tokens} tokens, and late chunking needs {LATE:,}: embed the "
                "chunks one by one."
            )
        if not isinstance(text, str):
            raise UsageError(f"the text of a file is a {type(text).__name__}: give a string.")
        parts = spans_of(spans)
        text = SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)  # two in a row would become one, and move all spans
        (entry,) = accepted(self.tokenize([text], Role.PASSAGE, truncate=Truncate.END))
        if entry.truncated:
            raise EncodeError(file_too_long(entry), 0)
        places = self._tokenizer.places(self._prompt(Role.PASSAGE, None), text)
        inside = _inside(places, parts)
        states = self._states_of(entry, exact=False)
        rows = np.array([self._pooled(states[own], 0) for own in inside], np.float32).reshape(len(parts), self.dim)
        return self._guarded(
            unit(rows), lambda number: self._pooled(self._states_of(entry, exact=True)[inside[number]], 0)
        )

    @abstractmethod
    def _states_of(self, entry: Tokens, exact: bool) -> Any:
        """What is pooled of one text [used, hidden]; `exact` in _exact_precision."""

    @abstractmethod
    def _pooled(self, states: Any, skipped: int) -> Floats:
        """[dim], not yet of unit length, of states [used, hidden] without those of the first `skipped` tokens, if the
        model leaves out its prompt."""

    def _guarded(self, vectors: Floats, again: Callable[[int], Floats]) -> Floats:
        """Vectors whose rows are all of unit length: one that is not is computed `again`, alone, and counted.

        EncodeError for a row that is none the second time either, or that cannot be computed again.
        """
        import numpy as np

        from embedcode.engine.vectors import unit

        for index in map(int, np.flatnonzero(~(abs(np.linalg.norm(vectors, axis=1) - 1) <= NORM))):
            with self._counting:
                self.repaired += 1
            said = f"Input {index} has no finite vector in {self.conditions.name}"
            try:
                vectors[index] = unit(again(index))
            except ModelError as error:  # no room for the weights once more
                raise EncodeError(f"{said}, and cannot be computed again: {error}", index) from None
            if not abs(np.linalg.norm(vectors[index]) - 1) <= NORM:
                raise EncodeError(f"{said}, nor again alone in {self._exact_precision}: leave it out.", index)
        return vectors

    def _described(self) -> Check:
        return ("model", f"{self.conditions.name}, {self.dim} dimensions, {self.max_tokens} tokens", True)

    def _speed(self) -> Check:
        entries = self.tokenize([PROBE] * 32, Role.PASSAGE, truncate=Truncate.END)
        tokens = [entry for entry in entries if isinstance(entry, Tokens)]
        self.forward(tokens)
        start = time.perf_counter()
        self.forward(tokens)
        seconds = time.perf_counter() - start
        return ("speed", f"{sum(entry.used for entry in tokens) / seconds:,.0f} tokens/s", True)

    def _blocks(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None,
        truncate: Truncate,
        max_tokens: int | None,
    ) -> Iterator[list[Tokens]]:
        """The texts' tokens; the next blocks are tokenised beside the caller's work on this one."""
        from collections import deque
        from concurrent.futures import ThreadPoolExecutor

        prompt = self._prompt(role, instruction)

        # Several readers share a block: of 400 texts two would read, and a card wait for both.
        part = self._block if self._readers == 1 else min(TOGETHER, self._block)

        def read(start: int) -> list[Tokens]:
            return accepted(self._tokenizer(texts[start : start + part], prompt, truncate, max_tokens, start))

        if len(texts) <= part:
            yield read(0)
            return
        starts = iter(range(0, len(texts), part))
        with ThreadPoolExecutor(self._readers) as beside:
            first = islice(starts, max(self._readers, self._block // part))
            ahead = deque(beside.submit(read, start) for start in first)
            block: list[Tokens] = []
            while ahead:
                block += ahead.popleft().result()
                ahead.extend(beside.submit(read, start) for start in islice(starts, 1))
                if len(block) >= self._block or not ahead:
                    yield block
                    block = []

    def _prompt(self, role: Role, instruction: str | None) -> str:
        prompt = self.conditions.prompts[role_of(role)]
        if "{instruction}" in prompt:
            return prompt.replace(
                "{instruction}", self.conditions.instruction if instruction is None else task(instruction)
            )
        if instruction is not None:
            raise ModelError(f"{self.conditions.name} knows no instruction for a {role}: leave the instruction out.")
        return prompt

    def check_dimensions(self, dimensions: int) -> None:
        """UsageError where the model does not declare this cut."""
        dimensions, declared = number_of("dimensions", dimensions), self.conditions.dimensions
        if dimensions != self.dim and dimensions not in declared:
            sizes = ", ".join(map(str, declared)) if declared else f"only {self.dim}"
            raise UsageError(
                f"{self.conditions.name} does not declare dimensions {dimensions} (it declares {sizes}): ask for one "
                "of these, or force it by embedcode.cut(vectors, dimensions)."
            )


def _inside(places: Sequence[tuple[int, int]], parts: Sequence[tuple[int, int]]) -> list[slice]:
    """Which tokens each part of a text has; EncodeError for a part without one."""
    own = [number for number, (_, end) in enumerate(places) if end]  # neither of the prompt nor special
    ends = list(accumulate((places[number][1] for number in own), max))
    starts = list(accumulate((places[number][0] for number in reversed(own)), min))[::-1]
    found = []
    for number, (start, end) in enumerate(parts):
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if end <= start or first >= last:  # an empty part within a token has none either
            raise EncodeError(f"Input {number} is the span {start}:{end}, which has no token: leave it out.", number)
        found.append(slice(own[first], own[last - 1] + 1))
    return found
