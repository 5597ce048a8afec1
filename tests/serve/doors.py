"""Parts of a server in this process, without a model: what it tokenises with, and an engine that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from embedcode.engine.encoder import LocalEncoder
from embedcode.serve.asked import Model
from embedcode.serve.embedder import Embedder
from embedcode.serve.limits import Limits
from embedcode.serve.metrics import Metrics
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Facts, Item, Load
from embedcode.types import Role, Tokens

LOAD = Load("m", "auto", "cpu", False, 1, Path("/nowhere"), 100)
FACTS = Facts(4, "s", "b", 1000.0, 0.1, 1.0)


def model(dim: int = 4, query: str = "", passage: str = "", **more: Any) -> Model:
    """By its prompts."""
    return Model("m", dim, (), {Role.QUERY: query, Role.PASSAGE: passage}, **more)


class Words:
    """An encoder's tokenizer: a token for each letter."""

    space = FACTS.space
    max_tokens = 100
    streams = 1
    builds = False

    def tokenize(self, texts: Sequence[str], role: Role, *_: Any) -> list[Tokens]:
        found = [tuple(map(ord, text)) for text in texts]
        return [Tokens(ids, len(ids), len(ids)) for ids in found]


class Process:
    """In the place of an EngineProcess: ready at once, takes what comes, and answers nothing."""

    pid: int | None = None
    moved: int | None = None
    facts = FACTS

    def __init__(self, _: Load, told: Callable[..., None]) -> None:
        self.told = told

    def start(self) -> None:
        self.told("ready", (self.facts,))

    def send(self, lane: Lane, items: Sequence[Item]) -> None: ...

    def forget(self, numbers: Sequence[int]) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


def embedder(words: Any = None, limits: Limits | None = None, made: Model | None = None) -> Embedder:
    encoder = cast(LocalEncoder, words or Words())
    return Embedder(encoder, LOAD, made or model(), limits or Limits(), Metrics())
