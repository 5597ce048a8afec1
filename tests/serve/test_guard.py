"""What a request passes, in this process: its Host, and what a key may know of indexes it is not for."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from embedcode.engine.encoder import LocalEncoder
from embedcode.serve import keys, model_api, openapi, search_api, status_api
from embedcode.serve.body import Bodies
from embedcode.serve.guard import Guard
from embedcode.serve.indexes import Indexes
from embedcode.serve.inner import InnerEncoder
from embedcode.serve.journal import Journal
from embedcode.serve.kept import Kept
from embedcode.serve.lately import Lately
from embedcode.serve.metrics import Metrics
from embedcode.serve.model_api import About
from embedcode.serve.options import Options
from embedcode.serve.server import application, hosts

from . import doors
from .asgi import ask

SECRET = "def steal(everything)"


class Lost:
    """A repository whose vectors are asked for while there is no engine yet, as an index does."""

    def __init__(self, encoder: InnerEncoder) -> None:
        self._encoder = encoder

    def search(self, *_: Any) -> str:
        return self._encoder.build

    related = search


def serving(options: Options, given: keys.Keys | None = None) -> Any:
    embedder, lately, names = doors.embedder(), Lately(), list(options.index)
    inner = InnerEncoder(embedder, cast(LocalEncoder, doors.Words()), cast(asyncio.AbstractEventLoop, None))
    kept = {name: cast(Kept, Lost(inner)) for name in names}

    def yes(_: Request) -> JSONResponse:
        return JSONResponse({})

    routes = [
        Route("/v1/health/ready", yes),
        Route("/v1/metrics", yes),
        status_api.route(embedder, lately, names),
        openapi.route(embedder.model, names, given is not None),
        *search_api.routes(Indexes(kept), Bodies(1_000_000)),
    ]
    guard = Guard(
        Journal("error", True, io.StringIO()),
        Metrics(),
        hosts(options),
        frozenset(route.path for route in routes),
        given,
        lately=lately,
    )
    return application(list(routes), guard)


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[Any, dict[str, str]]:
    """A server of two indexes, and keys of all, of one and of none of them."""
    path = tmp_path / "keys.toml"
    made = {
        name: f"Bearer {keys.add(path, name, indexes=which)}"
        for name, which in {"all": (), "till": ("till",), "none": ("other",)}.items()
    }
    options = Options(index={"shop": tmp_path / "shop", "till": tmp_path / "till"})
    return serving(options, keys.Keys(path)), made


def test_a_server_that_others_reach_answers_its_names_and_the_local_ones() -> None:
    app = serving(Options(host="0.0.0.0", insecure_bind=True, allowed_hosts=("embed.example",)))
    for host in ("embed.example", "embed.example:8000", "127.0.0.1:8000", "localhost", "[::1]:8000"):
        assert ask(app, "/v1/metrics", host=host)[0] == 200, host
    status, _, answer = ask(app, "/v1/metrics", host="10.1.2.3:8000")
    assert (status, answer["error"]["code"]) == (403, "host")


def test_a_model_is_looked_up_in_any_case_and_counted_under_one_path() -> None:
    embedder = doors.embedder(made=replace(doors.model(), name="nvidia/m"))
    routes = model_api.routes(embedder, About("", ()))
    guard = Guard(
        Journal("error", True, io.StringIO()), embedder.metrics, frozenset(), frozenset(route.path for route in routes)
    )
    app = application(list(routes), guard)
    for name in ("nvidia/m", "NVIDIA/M-Query"):
        assert ask(app, f"/v1/models/{name}")[2]["id"] == name.lower()
    assert ask(app, "/v1/models/another")[0] == 404
    counted = embedder.metrics.text()
    assert b'embedcode_requests_total{path="/v1/models/{name}",status="200"} 2.0' in counted
    assert b'embedcode_requests_total{path="/v1/models/{name}",status="404"} 1.0' in counted


def test_a_slash_at_the_end_is_another_path_and_no_redirect() -> None:
    app = serving(Options(index={"shop": Path("/shop")}))
    for path, body in (("/v1/search/", {"query": "x"}), ("/v1/metrics/", None)):
        status, headers, answer = ask(app, path, body)
        assert (status, answer["error"]["code"]) == (404, "not_found")
        assert "location" not in headers


def test_health_is_told_with_a_slash_at_the_end_too() -> None:
    assert ask(serving(Options()), "/v1/health/ready/", host="10.1.2.3")[0] == 200
    assert ask(serving(Options()), "/v1/health/")[0] == ask(serving(Options()), "/v1/health//")[0] == 404


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("application/json", 503, "being loaded"),
        ("application/json; charset=UTF-8", 503, "being loaded"),
        ("text/plain;charset=utf-8", 503, "being loaded"),
        ("application/x-www-form-urlencoded", 415, "send Content-Type: application/json"),
        ("multipart/form-data; boundary=a", 415, "send Content-Type: application/json"),
        ("application/json; charset=latin-1", 415, "UTF-8"),
    ],
)
def test_a_body_that_says_it_is_no_json_is_refused(kind: str, status: int, said: str) -> None:
    app = serving(Options(index={"shop": Path("/shop")}))
    got, _, answer = ask(app, "/v1/search", {"query": "x"}, **{"Content-Type": kind})
    assert got == status and said in answer["message"]


def test_health_is_told_under_any_name() -> None:
    for options in (Options(), Options(host="0.0.0.0", allowed_hosts=("embed.example",))):
        app = serving(options)
        assert ask(app, "/v1/health/ready", host="10.1.2.3:8000")[0] == 200
        assert ask(app, "/v1/health/ready", host="10.1.2.3", origin="https://evil.example")[0] == 403
        assert ask(app, "/v1/status", host="10.1.2.3:8000")[0] == 403


def test_without_names_a_server_that_others_reach_answers_every_one() -> None:
    assert ask(serving(Options(host="0.0.0.0")), "/v1/metrics", host="10.1.2.3:8000")[0] == 200


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"query": [SECRET]}, "query is a list: send a text."),
        ({"query": {"text": SECRET}}, "query is an object: send a text."),
        ({"query": "x", "paths": SECRET}, "paths is a text: send a list of texts."),
        ({"query": "x", "top_k": SECRET}, "top_k is a text: send a whole number."),
    ],
)
def test_no_message_holds_what_was_sent_in_the_wrong_type(fields: dict[str, Any], said: str) -> None:
    app = serving(Options(index={"shop": Path("/shop")}))
    status, _, answer = ask(app, "/v1/search", fields)
    assert (status, answer["message"]) == (422, said)
    errors = ask(app, "/v1/status")[2]["errors"]
    assert [error["message"] for error in errors] == [said]


def test_a_field_of_a_name_that_cannot_be_written_is_refused_like_any_other() -> None:
    status, _, answer = ask(serving(Options(index={"shop": Path("/shop")})), "/v1/search", {"\ud800": 1})
    assert (status, answer["error"]["param"]) == (422, "?")


@pytest.mark.parametrize(
    ("path", "fields"), [("/v1/search", {"query": "x", "mode": "dense"}), ("/v1/search/related", {"path": "a.py"})]
)
def test_a_search_before_the_engine_is_ready_is_told_when_to_come_back(path: str, fields: dict[str, Any]) -> None:
    status, headers, answer = ask(serving(Options(index={"shop": Path("/shop")})), path, fields)
    assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "5", "not_ready")


def test_a_key_is_told_of_its_indexes_alone(secrets: tuple[Any, dict[str, str]]) -> None:
    app, made = secrets
    status, _, answer = ask(app, "/v1/search", {"query": "x"}, authorization=made["none"])
    assert (status, answer["message"]) == (403, "The key none is not for any index of this server: use one that is.")
    assert "one of shop, till" in ask(app, "/v1/search", {"query": "x"}, authorization=made["all"])[2]["message"]
    for path in ("/v1/status", "/openapi.json", "/v1/search/indexes"):
        known = {name: json.dumps(ask(app, path, authorization=key)[2]) for name, key in made.items()}
        assert {name: "shop" in said for name, said in known.items()} == {"all": True, "till": False, "none": False}
        assert {name: '"till"' in said for name, said in known.items()} == {"all": True, "till": True, "none": False}


def test_a_key_of_some_indexes_sees_its_own_errors_alone(secrets: tuple[Any, dict[str, str]]) -> None:
    app, made = secrets
    for key in made.values():
        ask(app, "/v1/search", {"query": 3}, authorization=key)
    seen = {name: len(ask(app, "/v1/status", authorization=key)[2]["errors"]) for name, key in made.items()}
    assert seen == {"all": 3, "till": 1, "none": 1}
