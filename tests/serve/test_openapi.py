"""The server against its own document: requests that fit it and requests that do not, made from /openapi.json.

What fits is answered, or refused as what this model or this index cannot answer (400, 404), never as of another shape.
What does not fit is refused. Either way with a status and a body that the document tells.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from .serving import PATIENCE, Server, serving, shop

FITS = ["2xx", 400, 404]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("openapi")
    with serving(home, "--index", str(shop(home))) as server:
        yield server


def document(server: Server, examples: int) -> Any:
    told = {
        "checks": {"positive_data_acceptance": {"expected-statuses": FITS}},
        "generation": {"max-examples": examples, "deterministic": True},
        "phases": {"fuzzing": {"enabled": True}, "coverage": {"enabled": True}},
    }
    return schemathesis.openapi.from_url(f"{server.address}/openapi.json", config=SchemathesisConfig.from_dict(told))


def test_the_document_has_all_that_is_answered(server: Server) -> None:
    told = server.ask("/openapi.json")[1]
    assert told["openapi"] == "3.1.0"
    health = {"/v1/health/live", "/v1/health/ready"}
    model = {"/v1/models", "/v1/models/{name}", "/v1/metadata", "/v1/manifest", "/v1/license", "/v1/version"}
    search = {"/v1/search", "/v1/search/related", "/v1/search/file", "/v1/search/status", "/v1/search/indexes"}
    assert told["paths"].keys() == {"/v1/embeddings", "/v1/status", "/v1/metrics"} | health | model | search


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_the_document_tells(server: Server, mode: GenerationMode) -> None:
    asked = 0
    for found in document(server, 0).get_all_operations():
        operation = found.ok()
        negative = mode is GenerationMode.NEGATIVE
        if negative and operation.method == "get" and not operation.path_parameters:
            continue  # nothing in it could be wrong

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=10 if operation.method == "post" else 2,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate()

        check()
    assert asked > 30
    assert server.ready()
    assert not [event for event in server.events() if event["event"] in ("mistake", "engine ended")]


@pytest.mark.slow
def test_the_whole_of_schemathesis_finds_nothing(server: Server) -> None:
    """With its coverage phase: each bound, each missing field, each wrong type, and methods that are not told."""
    told = []
    for event in from_schema(document(server, 30)).execute():
        if isinstance(event, events.ScenarioFinished) and event.status in (Status.FAILURE, Status.ERROR):
            for checks in event.recorder.checks.values():
                told += [str(check.failure_info.failure) for check in checks if check.failure_info]
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
    assert told == []


def test_a_method_that_a_path_does_not_have_names_those_it_has(server: Server) -> None:
    for path, allowed in (("/v1/embeddings", {"POST"}), ("/v1/models", {"GET", "HEAD"}), ("/v1/search", {"POST"})):
        connection = server.connect()
        connection.request("DELETE", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        assert (answer.status, {one.strip() for one in answer.headers["Allow"].split(",")}) == (405, allowed)
        assert body["error"]["message"] == body["message"]


def test_a_search_by_vectors_alone_waits_for_an_engine_that_is_started_again(server: Server) -> None:
    asked = {"query": "forget a session", "mode": "dense"}
    end = time.monotonic() + PATIENCE
    while server.ask("/v1/search", asked)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(server.engine(), signal.SIGKILL)
    while server.ready():
        assert time.monotonic() < end
    status, headers, content = server.send("/v1/search", asked | {"query": "another"})
    if status != 200:  # it may be back by now
        assert (status, json.loads(content)["error"]["code"]) == (503, "not_ready")
        assert int(headers["retry-after"]) >= 1
    assert server.ask("/v1/search", {"query": "session", "mode": "lexical"})[0] == 200
    server.wait_ready()
