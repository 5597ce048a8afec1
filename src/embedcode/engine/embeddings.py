"""Embeddings: one request of texts to a server, in the fields that it knows, and its answer as an array.

NIM needs `input_type` and cuts by `truncate`; OpenAI's API knows neither and refuses what it does not know.
Knows no batches and no connection.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from embedcode.engine.endpoint import Answer, Call, Endpoint
from embedcode.engine.served import Served
from embedcode.errors import ModelError
from embedcode.types import Floats, Role, Truncate

OPTIONAL = ("input_type", "truncate", "encoding_format")
"""Fields that a server may refuse; it is then asked without."""
TOO_LONG = re.compile(r"Input length (\d+) exceeds maximum allowed token size (\d+)")

# `input_type=` is pydantic's own word in the errors it writes, and not our field.
_NAMED = {name: re.compile(rf"\b{name}\b(?!=)") for name in OPTIONAL}
_UNKNOWN = re.compile(
    r"(?:unknown|unrecogni[sz]ed|unexpected|unsupported|additional|extra) (?:\w+ )?"
    r"(?:argument|parameter|propert|field|input|name)|argument \S+ is not supported",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\binput[.\[](\d+)")
"""Of one input, as FastAPI and OpenAI's API write it."""


class Embeddings:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.refused: set[str] = set()
        """Fields of OPTIONAL that the server does not know."""

    def post(
        self,
        served: Served,
        texts: Sequence[str],
        role: Role,
        truncate: Truncate,
        call: Call,
        dimensions: int | None = None,
        instruction: str = "",
    ) -> Answer:
        """The answer for texts of one role. A field that the server refuses is left out from then on."""
        body: dict[str, Any] = {
            "model": served.model,
            "input": texts,
            "input_type": role,
            "truncate": truncate,
            "encoding_format": "base64",
        }
        if served.suffixes:
            body["model"] = f"{served.model}-{role}"
            del body["input_type"]
        if dimensions is not None:
            body["dimensions"] = dimensions
        if instruction:
            body["instruction"] = instruction
        while True:
            for name in self.refused & body.keys():
                del body[name]
            answer = self._endpoint.ask("/embeddings", body, call)
            unknown = _unknown(answer) & body.keys()
            if not unknown:
                return answer
            self.refused |= unknown

    def rows(self, answer: Answer, count: int) -> Floats:
        """float32 [count, dim] as they came, in the order of the texts. ModelError for what is no such array."""
        import numpy as np

        data = answer.value.get("data")
        if not isinstance(data, list) or len(data) != count or not all(isinstance(row, dict) for row in data):
            found = len(data) if isinstance(data, list) else "no"
            raise self._wrong(f"gives {found} vectors for {count} texts")
        places = [row.get("index", at) for at, row in enumerate(data)]
        if set(map(repr, places)) != set(map(repr, range(count))):
            raise self._wrong(f"numbers its vectors {str(places)[:60]}")
        rows: list[Any] = [None] * count
        try:
            for place, row in zip(places, data, strict=True):
                rows[place] = _numbers(row.get("embedding"))
            stacked: Floats = np.stack(rows)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._wrong(f"gives no vectors of numbers ({error})") from None
        if stacked.ndim != 2 or not stacked.shape[1]:
            raise self._wrong(f"gives vectors of shape {stacked.shape[1:]}")
        return stacked

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"{self._endpoint.address.url} {what}: report it to who runs the server.")


def place(answer: Answer) -> int | None:
    """Which input a refusal is about, where it says so; ours has a field for it."""
    detail = answer.value.get("detail") if isinstance(answer.value, dict) else None
    told = detail.get("index") if isinstance(detail, dict) else None
    if type(told) is not int and (found := _PLACE.search(answer.words)):
        told = int(found[1])
    return told if type(told) is int and told >= 0 else None


def _numbers(value: object) -> Floats:
    """A list of floats, or the base64 of float32 in little-endian order, as OpenAI sends it."""
    import numpy as np

    if isinstance(value, str):
        return np.frombuffer(b64decode(value, validate=True), "<f4").astype(np.float32)
    with np.errstate(over="ignore"):  # becomes inf, which the encoder guards against
        return np.array(value, np.float32)


def _unknown(answer: Answer) -> set[str]:
    """The optional fields that a refusal is about."""
    if answer.status not in (400, 422) or TOO_LONG.search(answer.words):
        return set()
    named = {name for name, pattern in _NAMED.items() if pattern.search(answer.words)}
    unknown = _UNKNOWN.search(answer.words) or "not permitted" in answer.words
    return named if unknown else named & {"encoding_format"}  # floats serve as well, whatever is wrong with base64
