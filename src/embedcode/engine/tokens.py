"""Strings to the ids an encoder reads, from a `tokenizer.json`, with receipts. The one adapter to `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from embedcode.errors import ModelError, UsageError
from embedcode.types import InputError, Tokens, Truncate


class TextTokenizer:
    def __init__(self, path: Path, max_tokens: int) -> None:
        self._path = path
        self._max_tokens = max_tokens

    @cached_property
    def _model(self) -> Any:
        from tokenizers import Tokenizer

        try:
            model = Tokenizer.from_file(str(self._path))
        except Exception as error:
            raise ModelError(f"{self._path} is no usable tokenizer.json ({error}): install the model again.") from None
        model.no_truncation()
        model.no_padding()
        return model

    @cached_property
    def vocabulary(self) -> int:
        return int(self._model.get_vocab_size())

    @cached_property
    def _special(self) -> int:
        return int(self._model.num_special_tokens_to_add(False))

    def __call__(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], prompt: str, truncate: Truncate, max_tokens: int | None
    ) -> list[Tokens | InputError]:
        """One entry per input, in order; `prompt` is put before each string. Token ids are taken as they are.

        UsageError where `max_tokens` leaves no room beside the special tokens, and for a lone string, which Python
        would take for a list of letters.
        """
        if isinstance(inputs, str | bytes):
            raise UsageError("texts are given as a list: write encode([text], ...) for a single one.")
        limit = self._max_tokens if max_tokens is None else min(max_tokens, self._max_tokens)
        if limit <= self._special:
            raise UsageError(f"max_tokens {max_tokens} leaves no room for a text: give at least {self._special + 1}.")
        out: list[Tokens | InputError] = []
        for index, text in enumerate(inputs):
            if isinstance(text, str):
                out.append(self._text(index, prompt + text, truncate, limit))
            elif isinstance(text, list | tuple) and all(type(i) is int for i in text):
                out.append(self._ids(index, text, truncate, limit))
            else:
                out.append(InputError(index, f"Input {index} is a {type(text).__name__}: give a string."))
        return out

    def _text(self, index: int, text: str, truncate: Truncate, limit: int) -> Tokens | InputError:
        encoding = self._model.encode(printable(text), add_special_tokens=False)
        original = len(encoding.ids) + self._special
        if original > limit:
            if truncate is Truncate.NONE:
                return too_long(index, original, limit)
            encoding.truncate(limit - self._special, direction="left" if truncate is Truncate.START else "right")
        ids = self._model.post_process(encoding).ids
        return Tokens(tuple(ids), original, len(ids))

    def _ids(self, index: int, ids: Sequence[int], truncate: Truncate, limit: int) -> Tokens | InputError:
        if not ids or not all(0 <= i < self.vocabulary for i in ids):
            return InputError(index, f"Input {index} has token ids outside 0..{self.vocabulary - 1}: send its text.")
        if len(ids) > limit and truncate is Truncate.NONE:
            return too_long(index, len(ids), limit)
        kept = tuple(ids[-limit:] if truncate is Truncate.START else ids[:limit])
        return Tokens(kept, len(ids), len(kept))


def too_long(index: int, original: int, limit: int) -> InputError:
    # The first sentence is NVIDIA's, which clients match.
    return InputError(
        index,
        f"Input length {original} exceeds maximum allowed token size {limit} (input {index}): "
        "shorten it, or set truncate to END or START.",
    )


def printable(text: str) -> str:
    """The text with lone surrogates replaced: they have no UTF-8 form, which the tokenizer needs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
