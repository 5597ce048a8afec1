"""Metrics: what the server counts, under names that stay (docs/serve.md). The one adapter to prometheus-client."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
NOBODY = -1
"""No process has this number."""
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 32768)


class Metrics:
    """A registry of its own, so that two servers in one process do not meet."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line a counter, which nothing reads
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"embedcode_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"embedcode_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"embedcode_{name}", text, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered, by path and status.", "path", "status")
        self.seconds = histogram(
            "stage_seconds", "Time of a request by stage: tokenize, queue, compute, respond, total.", SECONDS, "stage"
        )
        self.latency = histogram("request_seconds", "Time of an embedding request by lane.", SECONDS, "lane")
        self.searches = histogram("search_seconds", "Time of an answered search, by path.", SECONDS, "path")
        self.queue_tokens = gauge("queue_tokens", "Tokens that wait, by lane.", "lane")
        self.running_tokens = gauge("engine_tokens", "Tokens the engine has at hand, by lane.", "lane")
        self.open_requests = gauge("open_requests", "Embedding requests under way.")
        self.batch_tokens = histogram("batch_tokens", "Tokens of the batches sent to the engine.", TOKENS, "lane")
        self.padding = gauge("padding_ratio", "Share of the computed tokens that was padding.")
        self.tokens = counter("tokens", "Tokens computed, by lane.", "lane")
        self.texts = counter("texts", "Texts computed, by lane.", "lane")
        self.dropped = counter("dropped_texts", "Texts not computed, since nobody waited for them any more.")
        self.shared = counter("shared_texts", "Texts that were being computed, or in the request, already.")
        self.hits = counter("cache_hits", "Texts whose vector was in the cache.")
        self.misses = counter("cache_misses", "Texts whose vector was not in the cache.")
        self.cache_bytes = gauge("cache_bytes", "Size of the cache.")
        self.truncated = counter("truncated_texts", "Texts that were cut to the model's limit.")
        self.repaired = counter("repaired_rows", "Rows that were not finite and were computed again alone.")
        self.doubled = counter("doubled_prompts", "Texts that brought the model's prompt with them.")
        self.refused = counter("refused_requests", "Requests refused, by reason.", "reason")
        self.unaudited = counter("audit_unwritten_lines", "Lines of the audit log that could not be written.")
        self.restarts = counter("engine_restarts", "Starts of the engine after the first.")
        self.stale = gauge("certificate_not_taken", "1 while the certificate that lies there cannot be taken.")
        self.ready = gauge("ready", "1 while /v1/health/ready says so.")
        self.rate = gauge("drain_tokens_per_second", "Rate of a busy engine, as measured; Retry-After is of it.")

    def watch(self, pid: Callable[[], int | None]) -> None:
        """Tell of the engine's process what is told of this one: memory, processor time, open files."""
        ProcessCollector("embedcode_engine", lambda: pid() or NOBODY, registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
