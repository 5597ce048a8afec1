"""What the server tells of itself to keys that are for other things than a search, in this process."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from embedcode.serve import keys, openapi, status_api
from embedcode.serve.guard import Guard
from embedcode.serve.journal import Journal
from embedcode.serve.lately import Lately
from embedcode.serve.metrics import Metrics
from embedcode.serve.server import application

from . import doors
from .asgi import ask

SCOPES: dict[str, tuple[str, ...]] = {"person": ("embed", "search"), "indexer": ("embed",), "prometheus": ()}


@pytest.fixture
def app(tmp_path: Path) -> tuple[Any, dict[str, str]]:
    """A server of the index shop, of which errors were told to two keys, and a header of each key."""
    path = tmp_path / "keys.toml"
    made = {name: f"Bearer {keys.add(path, name, scopes)}" for name, scopes in SCOPES.items()}
    embedder, lately = doors.embedder(), Lately()
    for name in ("person", "indexer"):
        lately.answered("/v1/search/file", 404, 0.1, {"key": name}, "id", f"of {name}: till/cash.py is not in shop")
    guard = Guard(
        Journal("error", True, io.StringIO()), Metrics(), frozenset(), frozenset(), keys.Keys(path), lately=lately
    )
    routes = [status_api.route(embedder, lately, ["shop"]), openapi.route(embedder.model, ["shop"], True)]
    return application(list(routes), guard), made


def test_a_key_that_is_for_no_search_is_told_of_no_index(app: tuple[Any, dict[str, str]]) -> None:
    server, made = app
    known = {name: ask(server, "/v1/status", authorization=key)[2]["indexes"] for name, key in made.items()}
    assert known == {"person": ["shop"], "indexer": [], "prometheus": []}
    told = {name: json.dumps(ask(server, "/openapi.json", authorization=key)[2]) for name, key in made.items()}
    assert {name: "shop" in said for name, said in told.items()} == {
        "person": True, "indexer": False, "prometheus": False
    }  # fmt: skip


def test_a_key_that_is_for_no_search_sees_its_own_errors_alone(app: tuple[Any, dict[str, str]]) -> None:
    server, made = app
    found = {name: ask(server, "/v1/status", authorization=key)[2]["errors"] for name, key in made.items()}
    seen = {name: [error["message"].split(":")[0] for error in errors] for name, errors in found.items()}
    assert seen == {"person": ["of indexer", "of person"], "indexer": ["of indexer"], "prometheus": []}
