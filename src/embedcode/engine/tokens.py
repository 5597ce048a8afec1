"""Strings to the ids an encoder reads, from a `tokenizer.json`, with receipts. The one adapter to `tokenizers`.

The time for a text is bounded by the limit and not by its length: of a long one two windows are read, one shorter than
the other. Where a text is cut off shows in its last tokens only, so that what both windows agree on is what reading it
whole and then cutting gives: with spaces or without, as in minified code, base64 or Chinese. Where the widest window
has fewer tokens than the limit, as of a blank or of a word of megabytes, the rest of the text is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from embedcode.engine.given import number_of, truncate_of
from embedcode.errors import ModelError, UsageError
from embedcode.types import InputError, Tokens, Truncate

if TYPE_CHECKING:
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.spec import Spec

WINDOW = 16
"""Characters a token of the limit that are read at first: code has 3 to 4, English 4 to 5."""
WHOLE = 16_384
"""Up to so many characters a text is read whole, and its receipt is exact: it takes some milliseconds."""
TOGETHER = 64
"""Texts that the tokenizer reads in one call, for which it gives up Python's lock, so that others work beside it. Text
by text it keeps the lock, and 15 threads before a card read as fast as one: 1,536 texts in .44 s."""
WIDER = 4
"""Times, where a window has too few tokens, or its border shows in them."""
WIDENED = 2
"""Times that a window is made wider: 256 K characters for 512 tokens. BERT's vocabulary has one token for a word of any
length, and 4 MB of one letter, read whole, took 4.6 s of the thread that queries wait for."""


@dataclass(frozen=True, slots=True)
class _Read:
    """Ids of a text without special tokens; `length` is of the whole text, an estimate where only a window was read."""

    prompt: list[int]
    ids: list[int]
    length: int
    estimated: bool = False


class TextTokenizer:
    def __init__(self, path: Path, max_tokens: int, eos: str = "", rows: int = 0) -> None:
        """`eos` is put at the end of every text, where the tokenizer itself does not. `rows` of the network's table of
        tokens, where it is known: special tokens beyond it are read as plain text."""
        self.path = path
        self._max_tokens = max_tokens
        self._eos = eos
        self._rows = rows
        self._loading = Lock()

    @cached_property
    def _model(self) -> Any:
        with self._loading:  # readers come together, and from Python 3.12 on cached_property has no lock
            if "_model" not in self.__dict__:
                self.__dict__["_model"] = self._loaded()
            return self.__dict__["_model"]

    def _loaded(self) -> Any:
        from tokenizers import Tokenizer

        # Threads of its own would take the engine's cores, and it warns of them where a process is forked later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            model = Tokenizer.from_file(str(self.path))
            if self._rows and any(number >= self._rows for number in model.get_added_tokens_decoder()):
                model = Tokenizer.from_str(without_rowless(self.path, self._rows))
        except Exception as error:
            raise ModelError(f"{self.path} is no usable tokenizer.json ({error}): install the model again.") from None
        model.no_truncation()
        model.no_padding()
        return model

    @cached_property
    def vocabulary(self) -> int:
        """One more than the highest id; ids may have gaps."""
        return max(self._model.get_vocab().values(), default=-1) + 1

    def id_of(self, token: str) -> int | None:
        found: int | None = self._model.token_to_id(token)
        return found

    def puts(self, id: int) -> bool:
        """Whether it stands before every text."""
        return id in self._special[0]

    @cached_property
    def _special(self) -> tuple[list[int], list[int]]:
        """Ids before and after every text."""
        plain = self._model.encode("a", add_special_tokens=False)
        inner = list(plain.ids)
        whole = list(self._model.post_process(plain).ids)
        start = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
        before, after = whole[:start], whole[start + len(inner) :]
        if self._eos and (end := self._model.token_to_id(self._eos)) is None:
            raise ModelError(f"{self.path} has no token {self._eos!r}: install the model again.")
        if self._eos and end not in after:
            after = [*after, end]
        return before, after

    def __call__(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        prompt: str,
        truncate: Truncate,
        max_tokens: int | None,
        first: int = 0,
    ) -> list[Tokens | InputError]:
        """One entry per input, in order; `prompt` is put before each string. Token ids are taken as they are.

        Errors count inputs from `first`. A prompt is never cut off: START cuts the text behind it. UsageError where
        `max_tokens` leaves no room beside prompt and special tokens.
        """
        truncate = truncate_of(truncate)
        limit = self._max_tokens if max_tokens is None else min(number_of("max_tokens", max_tokens), self._max_tokens)
        least = sum(map(len, self._special)) + (len(self._ids_of(prompt)) if prompt else 0)
        if least >= self._max_tokens:
            raise UsageError(
                f"the prompt has {least:,} tokens and the model reads {self._max_tokens:,}: shorten its instruction."
            )
        if limit <= least:
            raise UsageError(f"max_tokens {max_tokens} leaves no room for a text: give at least {least + 1}.")
        out: list[Tokens | InputError] = []
        for (index, text), whole in zip(enumerate(inputs, first), self._whole(inputs, prompt, limit), strict=True):
            if isinstance(text, str):
                out.append(self._text(index, prompt, printable(text), truncate, limit, whole))
            elif isinstance(text, list | tuple) and set(map(type, text)) <= {int}:
                out.append(self._ids(index, text, truncate, limit))
            else:
                out.append(InputError(index, f"Input {index} is a {type(text).__name__}: give a string."))
        return out

    def _whole(self, inputs: Sequence[Any], prompt: str, limit: int) -> Iterator[Any]:
        """The encoding of each text that is read whole; None for the others, and for what is no text."""
        for start in range(0, len(inputs), TOGETHER):
            part = inputs[start : start + TOGETHER]
            size = _size(limit - sum(map(len, self._special)))
            short = [isinstance(text, str) and len(text) <= size for text in part]
            texts = [prompt + printable(text) for text, is_short in zip(part, short, strict=True) if is_short]
            read = iter(self._model.encode_batch(texts, add_special_tokens=False))
            yield from (next(read) if is_short else None for is_short in short)

    def places(self, prompt: str, text: str) -> list[tuple[int, int]]:
        """(first, last + 1) character behind each id of a text that is read whole; (0, 0) for prompt and specials."""
        before, after = self._special
        encoding = self._model.encode(prompt + text, add_special_tokens=False)
        own = len(prompt)
        inner = [(max(0, a - own), b - own) if b > own else (0, 0) for a, b in encoding.offsets]
        return [(0, 0)] * len(before) + inner + [(0, 0)] * len(after)

    def _text(
        self, index: int, prompt: str, text: str, truncate: Truncate, limit: int, whole: Any
    ) -> Tokens | InputError:
        before, after = self._special
        room = limit - len(before) - len(after)
        read = self._read(prompt, text, room, truncate) if whole is None else _read(whole, prompt)
        original = read.length + len(before) + len(after)
        if original > limit and truncate is Truncate.NONE:
            return too_long(index, original, limit)
        room -= len(read.prompt)
        kept = read.ids[-room:] if truncate is Truncate.START else read.ids[:room]
        ids = (*before, *read.prompt, *kept, *after)
        if not ids:
            return InputError(index, f"Input {index} has no tokens for this model: leave it out.")
        return Tokens(ids, original, len(ids), len(before) + len(read.prompt) if prompt else 0, read.estimated)

    def _read(self, prompt: str, text: str, room: int, truncate: Truncate) -> _Read:
        """Of a long text."""
        for times in range(WIDENED + 1):
            size = _size(room) * WIDER**times
            if size >= len(text):
                return _read(self._encoded(prompt + text)[0], prompt)
            window = self._last if truncate is Truncate.START else self._first
            if (read := window(prompt, text, room, size)) is not None:
                return read
        part = text[-size:] if truncate is Truncate.START else text[:size]
        read = _read(self._encoded(prompt + part)[0], prompt)
        length = max(read.length * len(text) // size, room + 1)  # what was not read counts as cut off
        return _Read(read.prompt, read.ids, length, estimated=True)

    def _first(self, prompt: str, text: str, room: int, size: int) -> _Read | None:
        """From the beginning; None where a window has so few tokens that the text might fit, or its end shows in what
        is kept."""
        long, short = self._encoded(prompt + text[:size], prompt + text[: _shorter(size)])
        if len(short.ids) <= room or long.ids[:room] != short.ids[:room]:
            return None
        own = _prompt_tokens(long, prompt)
        ids = long.ids[own:]
        return _Read(long.ids[:own], ids, own + len(ids) * len(text) // size, estimated=True)

    def _last(self, prompt: str, text: str, room: int, size: int) -> _Read | None:
        """From the end, as `_first`."""
        head = self._first(prompt, text, 0, size) if prompt else _Read([], [], 0)
        if head is None:
            return None
        room -= len(head.prompt)
        long, short = self._encoded(text[-size:], text[-_shorter(size) :])
        if len(short.ids) <= room or long.ids[-room:] != short.ids[-room:]:
            return None
        length = len(head.prompt) + len(long.ids) * len(text) // size
        return _Read(head.prompt, long.ids, length, estimated=True)

    def _encoded(self, *texts: str) -> list[Any]:
        """By the call that gives up Python's lock, whatever their number."""
        encodings: list[Any] = self._model.encode_batch(texts, add_special_tokens=False)
        return encodings

    def _ids_of(self, text: str) -> list[int]:
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids

    def _ids(self, index: int, ids: Sequence[int], truncate: Truncate, limit: int) -> Tokens | InputError:
        if not ids:
            return InputError(index, f"Input {index} is an empty list: leave it out, or send a text.")
        if len(ids) > limit and truncate is Truncate.NONE:
            return too_long(index, len(ids), limit)
        if min(ids) < 0 or max(ids) >= self.vocabulary:  # in what is cut off too: all are another tokenizer's
            return InputError(index, f"Input {index} has token ids outside 0..{self.vocabulary - 1}: send its text.")
        kept = tuple(ids[-limit:] if truncate is Truncate.START else ids[:limit])
        return Tokens(kept, len(ids), len(kept))


def of_checkpoint(checkpoint: Checkpoint) -> TextTokenizer:
    return TextTokenizer(checkpoint.tokenizer, checkpoint.max_tokens, checkpoint.eos, checkpoint.rows)


def of_export(spec: Spec) -> TextTokenizer:
    return TextTokenizer(spec.folder / "tokenizer.json", spec.max_tokens, spec.eos)


def without_rowless(path: Path, rows: int) -> str:
    """A tokenizer.json, less the special tokens that a table of `rows` has no row for, such as EmbeddingGemma's
    `<image_soft_token>`, whose network has only ever seen text. As it is where there are none, or `rows` is 0."""
    text = path.read_text("utf-8")
    tokenizer = json.loads(text)
    added = tokenizer.get("added_tokens") or []
    kept = [token for token in added if not rows or token["id"] < rows or not token["special"]]
    return text if kept == added else json.dumps(tokenizer | {"added_tokens": kept}, ensure_ascii=False)


def _size(room: int) -> int:
    """Characters up to which a text is read whole, where `room` tokens of it are used."""
    return max(WHOLE, WINDOW * room)


def _shorter(size: int) -> int:
    """Of the second of two windows. Three quarters, and an odd number less: a run of one letter that is paired from its
    beginning would look alike at its end in two windows that differ by a power of two."""
    return size - (size // 4 | 1)


def _read(encoding: Any, prompt: str) -> _Read:
    ids, own = encoding.ids, _prompt_tokens(encoding, prompt)
    return _Read(ids[:own], ids[own:], len(ids))


def _prompt_tokens(encoding: Any, prompt: str) -> int:
    """Tokens that lie in the prompt; the space at its end is the text's, as NV-Embed-v2 counts."""
    size = len(prompt.rstrip(" "))
    return sum(end <= size for _, end in encoding.offsets) if prompt else 0


def too_long(index: int, original: int, limit: int) -> InputError:
    # The first sentence is NVIDIA's, which clients match.
    return InputError(
        index,
        f"{_exceeds(original, limit)} (input {index}): shorten it, or set truncate to END or START.",
    )


def file_too_long(cut: Tokens) -> str:
    """What is to be said of a file for late chunking, which is read whole or not at all; `cut` is what was read."""
    return f"{_exceeds(cut.original, cut.used)}: it is a file that is read in one pass; give fewer parts of it."


def _exceeds(original: int, limit: int) -> str:
    return f"Input length {original} exceeds maximum allowed token size {limit}"


def printable(text: str) -> str:
    """The text with lone surrogates replaced: they have no UTF-8 form, which the tokenizer needs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
