"""Traces: what a collector gets of a started server, that it holds no text, and that without the variables there is
nothing of it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tritonclient.grpc import service_pb2

from embedcode.serve import kserve, telemetry
from embedcode.serve.telemetry import Telemetry, Tracing

from .serving import MODEL, PATIENCE, Server, environment, serving

SECRET = "the launch code is xyzzy"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Collector:
    """Takes what an OTLP exporter sends."""

    port: int
    bodies: list[bytes] = field(default_factory=list)

    def spans(self, trace: str, *names: str) -> dict[str, list[Any]]:
        """Those of a trace by their names, once there are some of each; a request's comes after those of its parts."""
        end = time.monotonic() + PATIENCE
        while True:
            found: dict[str, list[Any]] = {}
            for body in list(self.bodies):
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for span in (span for scope in resource.scope_spans for span in scope.spans):
                        if span.trace_id.hex() == trace:
                            found.setdefault(span.name, []).append(span)
            if found.keys() >= set(names):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.05)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            made.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Collector(server.server_address[1])
        Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    with serving(tmp_path_factory.mktemp("traced"), "--grpc-port", "0", **variables) as server:
        yield server


def values(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_request_is_in_its_callers_trace_with_its_stages_and_no_text(server: Server, collector: Collector) -> None:
    _, trace, above, _ = CALLER.split("-")
    texts = [SECRET, "a session " * 100, SECRET, "more"]
    status, headers, _ = server.send(
        "/v1/embeddings",
        {"model": MODEL, "input": texts, "input_type": "passage", "user": "xyzzy-user"},
        traceparent=CALLER,
    )
    assert status == 200
    found = collector.spans(trace, "POST /v1/embeddings")
    (request,), (tokenise,), (queue,) = found["POST /v1/embeddings"], found["tokenise"], found["queue"]
    assert request.parent_span_id.hex() == above
    assert all(one.parent_span_id == request.span_id for one in (tokenise, queue, *found["batch"]))
    told = values(request)
    assert (told["http.request.method"], told["http.route"]) == ("POST", "/v1/embeddings")
    assert (told["http.response.status_code"], told["embedcode.inputs"], told["embedcode.lane"]) == (200, 4, "passage")
    assert sum(values(batch)["embedcode.texts"] for batch in found["batch"]) == 3
    assert sum(values(batch)["embedcode.tokens"] for batch in found["batch"]) > 200
    for one in (tokenise, queue, *found["batch"]):
        assert request.start_time_unix_nano - 2e6 <= one.start_time_unix_nano <= one.end_time_unix_nano
        assert one.end_time_unix_nano <= request.end_time_unix_nano + 2e6
    (line,) = [event for event in server.events() if event.get("id") == headers["x-request-id"]]
    assert line["trace_id"] == trace
    assert all(b"xyzzy" not in body for body in collector.bodies)


def test_a_refusal_and_an_unknown_path_say_nothing_of_what_was_sent(server: Server, collector: Collector) -> None:
    trace = "1" * 32
    given = {"traceparent": f"00-{trace}-{'2' * 16}-01"}
    assert server.send("/v1/embeddings", {"model": "xyzzy", "input": SECRET}, **given)[0] == 404
    assert server.send("/xyzzy", **given)[0] == 404
    assert server.send("/v1/health/ready", **given)[0] == 200
    found = collector.spans(trace, "POST /v1/embeddings", "GET")
    assert found.keys() == {"POST /v1/embeddings", "GET"}  # and health is asked too often
    assert values(found["GET"][0])["http.response.status_code"] == 404
    assert all(b"xyzzy" not in body for body in collector.bodies)


def test_a_caller_that_is_not_traced_is_not(server: Server, collector: Collector) -> None:
    trace = "3" * 32
    assert server.send("/v1/models", traceparent=f"00-{trace}-{'2' * 16}-00")[0] == 200
    after = "4" * 32
    assert server.send("/v1/models", traceparent=f"00-{after}-{'2' * 16}-01")[0] == 200
    collector.spans(after, "GET /v1/models")
    assert collector.spans(trace) == {}


def test_grpc_is_traced_and_the_service_is_named(server: Server, collector: Collector) -> None:
    assert server.process.stdout is not None
    place = server.process.stdout.readline().strip().removeprefix("grpc://")
    trace = "5" * 32
    request = service_pb2.ModelInferRequest(model_name="embedcode_small")
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(SECRET)) + SECRET.encode())
    with grpc.insecure_channel(place) as channel:
        metadata = (("traceparent", f"00-{trace}-{'2' * 16}-01"),)
        call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
        call(request.SerializeToString(), metadata=metadata, timeout=PATIENCE)
    found = collector.spans(trace, f"{kserve.SERVICE}/ModelInfer")
    (span,) = found[f"{kserve.SERVICE}/ModelInfer"]
    assert values(span)["rpc.method"] == "ModelInfer"
    assert "tokenise" in found
    resources = [one for body in collector.bodies for one in ExportTraceServiceRequest.FromString(body).resource_spans]
    told = values(resources[0].resource)
    assert (told["service.name"], told["deployment.environment"]) == ("embedcode", "test")


def test_a_collector_that_does_not_answer_holds_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=place, OTEL_BSP_SCHEDULE_DELAY="50") as server:
            for _ in range(5):
                assert server.embed(SECRET)[0] == 200
                time.sleep(0.1)
            start = time.monotonic()
            assert server.end() == 0
            assert time.monotonic() - start < 30
            assert "xyzzy" not in server.log.read_text()


# ---- whether there are any ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "on", "said"),
    [
        ({}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False, "no traces are sent: .*'zipkin'.*set otlp"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            False,
            "no traces are sent: .*'grpc'",
        ),
    ],
)
def test_the_standard_variables_switch_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on: bool, said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told: list[dict[str, Any]] = []
    made = telemetry.configured(lambda event, level="info", **fields: told.append(fields))
    made.stop()
    assert isinstance(made, Tracing) is on
    assert [bool(re.search(said, one["trouble"])) for one in told] == ([True] if said else [])


def test_off_it_imports_nothing_and_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = """if True:
        import json, os, sys
        from embedcode.serve import server, telemetry
        told = []
        tell = lambda event, level, **fields: told.append(fields["trouble"])
        telemetry.configured(tell)
        loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
        os.environ["OTEL_TRACES_EXPORTER"] = "otlp"
        sys.modules["opentelemetry.sdk"] = None
        sys.modules["opentelemetry.exporter"] = None
        off = type(telemetry.configured(tell)).__name__
        print(json.dumps([loaded, off, told]))
    """
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, check=True)
    loaded, off, told = json.loads(done.stdout)
    assert (loaded, off) == ([], "Telemetry")
    assert "pip install '.[telemetry]'" in told[0]


def test_spans_in_memory() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced = Tracing(provider)

    async def one(status: int) -> Any:
        with traced.request("POST", "/v1/embeddings", {}, {}):
            with traced.stage("tokenise"):
                await asyncio.sleep(0)
            here = traced.here()
            traced.answered(status, {"lane": "query", "error": SECRET})
            return here

    async def both() -> list[Any]:
        return await asyncio.gather(one(200), one(500))

    with ThreadPoolExecutor(1) as pool:  # in this thread the browser of other tests keeps a loop running
        first, second = pool.submit(asyncio.run, both()).result()
    traced.batch([first, second, first], 0.25, texts=3)
    traced.waited("queue", 1.0, 2.0)  # of nobody
    with pytest.raises(KeyError), traced.request("GET", "", {}, {}):
        raise KeyError(SECRET)
    spans = exporter.get_finished_spans()
    batches = [span for span in spans if span.name == "batch"]
    assert {span.parent.span_id for span in batches if span.parent} == {first.span_id, second.span_id}
    assert all(abs((span.end_time or 0) - (span.start_time or 0) - 250_000_000) < 1e6 for span in batches)
    requests = {span.context.span_id: span for span in spans if span.kind is SpanKind.SERVER and span.context}
    assert len(requests) == 3
    assert requests[first.span_id].status.status_code is StatusCode.UNSET
    assert requests[second.span_id].status.status_code is StatusCode.ERROR
    assert first.trace_id != second.trace_id
    assert SECRET not in "".join(span.to_json() for span in spans)
    assert [span.name for span in spans].count("queue") == 0


def test_off_nothing_is_noted() -> None:
    off, note = Telemetry(), dict[str, Any]()
    with off.request("GET", "/", {}, note), off.stage("tokenise"):
        off.answered(200, note)
    assert (off.here(), note) == (None, {})
