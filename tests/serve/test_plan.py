"""What a plan makes of an engine that is slow, dies while it is loaded, or cannot compute: in this process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from embedcode import engine, settings
from embedcode.engine import memory
from embedcode.engine.encoder import LocalEncoder
from embedcode.errors import ModelError
from embedcode.serve import engine as life
from embedcode.serve import plan
from embedcode.serve.limits import Limits
from embedcode.serve.options import Options
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Item
from embedcode.types import Role, Tokens

from . import doors


class Words(doors.Words):
    max_tokens = 20

    def tokenize(self, texts: Sequence[str], role: Role, *_: Any) -> list[Tokens]:
        return [Tokens(tuple(map(ord, text[:20])), 20, 20) for text in texts]


class Process(doors.Process):
    """Answers each batch after `seconds`; dies while it is loaded, at its first `deaths` starts, or of each batch."""

    seconds = 0.0
    deaths = 0
    computes = True
    starts = 0

    def start(self) -> None:
        type(self).starts += 1
        told = ("ready", (self.facts,)) if self.starts > self.deaths else ("died", (-9,))
        asyncio.get_running_loop().call_soon(self.told, *told)

    def send(self, lane: Lane, items: Sequence[Item]) -> None:
        rows = ([item.number for item in items], np.ones((len(items), 4), np.float32), 0.01, 0, 0.0)
        told = ("rows", rows) if self.computes else ("died", (-9,))
        asyncio.get_running_loop().call_later(self.seconds, self.told, *told)


def made(monkeypatch: pytest.MonkeyPatch, limits: Limits, **engine: Any) -> plan.Plan:
    monkeypatch.setattr(life, "EngineProcess", type("Process", (Process,), engine))
    monkeypatch.setattr(life, "RESTART_SECONDS", (0.0,))
    monkeypatch.setattr(plan, "SECONDS", 0.3)
    monkeypatch.setattr(plan, "QUERIES", 2)
    return plan.make(doors.embedder(Words(), limits), 1, 0)


def test_a_model_slower_than_the_server_would_wait_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch, Limits(timeout=0.05), seconds=0.1).query_ms >= 100


def test_a_server_of_few_requests_and_tokens_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(monkeypatch, Limits(most_requests=1, most_tokens=50), seconds=0.01)
    assert (found.queue_tokens, found.request_tokens) == (50, 25)
    assert found.tokens_per_second > 0


def test_an_engine_that_dies_while_it_is_loaded_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"the engine ended while it loaded m \(killed\): free memory"):
        made(monkeypatch, Limits(), deaths=1)


def test_an_engine_that_cannot_compute_is_a_sentence_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match=r"m could not be measured \(The engine ended each .* minutes \(input 0\)\): free memory"
    ):
        made(monkeypatch, Limits(), computes=False)


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch) -> LocalEncoder:
    """The packaged model, on a machine with 2 GB free."""
    monkeypatch.setattr(memory, "available", lambda: 2_000_000_000)
    return cast(LocalEncoder, engine.configured(settings.load({})))


@pytest.mark.parametrize("options", [Options(), Options(grpc_port=8001)])
def test_a_server_as_it_comes_fits_where_2_gb_are_free(packaged: LocalEncoder, options: Options) -> None:
    assert 700_000_000 < plan.check(packaged, options) < 2_000_000_000


@pytest.mark.parametrize(
    ("options", "sum_", "cure"),
    [
        (Options(cache_mb=64_000), "64.7", "CACHE_MB"),
        (Options(body_bytes=200_000_000), "3.5", "BODY_BYTES"),
        (Options(body_bytes=60_000_000, grpc_port=0), "2.2", "BODY_BYTES"),
        (Options(max_queue_tokens=100_000_000), "12.8", "MAX_QUEUE_TOKENS"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_one_to_lower(
    packaged: LocalEncoder, options: Options, sum_: str, cure: str
) -> None:
    said = f"{sum_} GB in all, and 2.0 GB are free: lower EMBEDCODE_SERVE_{cure}, or stop something else."
    with pytest.raises(ModelError, match=re.escape(said)):
        plan.check(packaged, options)
