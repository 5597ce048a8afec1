"""Chat: one prompt to a language model behind an OpenAI-compatible endpoint. Knows no task, and judges no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedcode.engine.address import Address
from embedcode.engine.endpoint import DENIED, Answer, Call, Endpoint


@dataclass(frozen=True, slots=True)
class Completion:
    answer: Answer
    text: str | None
    """None where the answer is no completion."""
    cut: bool = False
    """At the tokens that were allowed."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    """Of prompt and answer, as the server counts them; None where it does not say."""


class Chat:
    """Safe to use from several threads."""

    def __init__(self, address: Address, key: str) -> None:
        self.address = address
        self.endpoint = Endpoint(address, key)

    def ask(self, model: str, prompt: str, most: int, temperature: float, call: Call | None = None) -> Completion:
        """An answer of at most `most` tokens. ModelError where the server cannot be reached or denies access."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": most,
            "temperature": temperature,
        }
        answer = self.endpoint.ask("/chat/completions", body, call)
        if answer.status in DENIED:
            raise self.endpoint.denied(answer)
        return _read(answer)


def _read(answer: Answer) -> Completion:
    usage = answer.value.get("usage") if isinstance(answer.value, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    text, cut = None, False
    try:
        choice = answer.value["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    if not answer.ok or not isinstance(text, str):
        text = None
    return Completion(answer, text, cut, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
