"""Telemetry: spans of a request and its stages, where OpenTelemetry's variables ask for them. The one adapter to it.

A request is a span, in its caller's trace if it sends `traceparent`; below it `tokenise`, `queue` (from being taken to
being sent to the engine) and each `batch` of the engine's that had a text of it. No attribute holds anything of a text.
Without the variables nothing of OpenTelemetry is even imported. Knows no protocol and no engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Thread
from typing import Any

from embedcode import __version__

STOP_SECONDS = 2.0
"""For what is still to be sent when the server ends: a collector that does not answer must not hold it."""
TOLD = ("role", "lane", "inputs", "tokens", "truncated", "cached", "key")
"""Of what is noted of a request, on its span."""

_NOTHING = nullcontext()


class Telemetry:
    """Off."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str], note: dict[str, Any]
    ) -> AbstractContextManager[None]:
        """The span of a request, for as long as it is worked on; `note` gets the `trace_id`. An empty `path` is none of
        ours."""
        return _NOTHING

    def answered(self, status: int, note: Mapping[str, Any]) -> None:
        """What the request of this task came to; called inside its span."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A span below that of the request."""
        return _NOTHING

    def waited(self, name: str, since: float, until: float) -> None:
        """The same for what is over, by the event loop's clock."""

    def here(self) -> Any:
        """What `batch` takes for the request of this task; None where it is not traced."""
        return None

    def batch(self, requests: Iterable[Any], seconds: float, **attributes: Any) -> None:
        """A batch that is done just now, below each of the requests that had a text in it."""

    def stop(self) -> None:
        """Sends what there still is. Blocks for a moment."""


class Tracing(Telemetry):
    """On."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import propagate, trace

        self._trace = trace
        self._extract = propagate.extract
        self._provider = provider
        self._tracer = provider.get_tracer("embedcode", __version__)

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str], note: dict[str, Any]) -> Iterator[None]:
        if method == "gRPC":
            service, _, name = path.removeprefix("/").partition("/")
            title = path.removeprefix("/")
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        else:
            title = f"{method} {path}".rstrip()
            attributes = {"http.request.method": method, "http.route": path}
        with self._tracer.start_as_current_span(
            title,
            self._extract(headers),
            self._trace.SpanKind.SERVER,
            {name: value for name, value in attributes.items() if value},
            record_exception=False,  # its words may be of a text
            set_status_on_exception=False,
        ) as span:
            if span.get_span_context().trace_flags.sampled:
                note["trace_id"] = self._trace.format_trace_id(span.get_span_context().trace_id)
            yield

    def answered(self, status: int, note: Mapping[str, Any]) -> None:
        span = self._trace.get_current_span()
        span.set_attribute("http.response.status_code", status)
        span.set_attributes({f"embedcode.{name}": note[name] for name in TOLD if name in note})
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self.here() is None:
            yield
            return
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
            yield

    def waited(self, name: str, since: float, until: float) -> None:
        if self.here() is not None:
            start, end = _wall(since, until)
            self._tracer.start_span(name, start_time=start).end(end)

    def here(self) -> Any:
        found = self._trace.get_current_span().get_span_context()
        return found if found.is_valid and found.trace_flags.sampled else None

    def batch(self, requests: Iterable[Any], seconds: float, **attributes: Any) -> None:
        now = time.monotonic()
        start, end = _wall(now - seconds, now)
        told = {f"embedcode.{name}": value for name, value in attributes.items()}
        for one in {found.span_id: found for found in requests}.values():
            above = self._trace.set_span_in_context(self._trace.NonRecordingSpan(one))
            self._tracer.start_span("batch", above, attributes=told, start_time=start).end(end)

    def stop(self) -> None:
        stopping = Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS)


def configured(tell: Callable[..., None]) -> Telemetry:
    """On where the variables say where traces go. `tell` gets an event, a level and fields where they cannot."""
    given = {name: value.strip() for name, value in os.environ.items() if name.startswith("OTEL_")}
    exporter = given.get("OTEL_TRACES_EXPORTER", "")
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return Telemetry()
    if not exporter and not any(given.get(place) for place in places):
        return Telemetry()
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if exporter not in ("", "otlp") or protocol not in ("", "http/protobuf"):
        wanted = f"OTEL_TRACES_EXPORTER {exporter or 'otlp'!r} with the protocol {protocol or 'http/protobuf'!r}"
        tell("telemetry", "warning", trouble=f"no traces are sent: {wanted} is not there; set otlp and http/protobuf")
        return Telemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        cure = "run `pip install '.[telemetry]'` in your clone of embedcode"
        tell("telemetry", "warning", trouble=f"traces need {error.name}: {cure}, or set OTEL_SDK_DISABLED=true")
        return Telemetry()
    named = given.get("OTEL_SERVICE_NAME") or "service.name=" in given.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": __version__} | ({} if named else {"service.name": "embedcode"})
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _wall(since: float, until: float) -> tuple[int, int]:
    """Two moments on the event loop's clock in nanoseconds since 1970."""
    zero = time.time_ns() - int(time.monotonic() * 1e9)
    return zero + int(since * 1e9), zero + int(until * 1e9)
