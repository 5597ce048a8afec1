"""GET /v1/status: the server as its page shows it. For machines there are /v1/health and /v1/metrics."""

from __future__ import annotations

import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode.serve.embedder import Embedder
from embedcode.serve.indexes import searchable
from embedcode.serve.keys import asker
from embedcode.serve.lately import Lately
from embedcode.serve.model_api import WORDS
from embedcode.serve.queue import Lane


def route(embedder: Embedder, lately: Lately, indexes: list[str]) -> Route:
    """`indexes` are the names of those that are served."""

    async def endpoint(request: Request) -> Response:
        key = asker(request)
        lanes = [
            {"name": lane.value, "waiting": embedder.queue.tokens(lane), "running": embedder.at_hand(lane)}
            | lately.latencies(lane)
            for lane in Lane
        ]
        record: dict[str, Any] = {
            "model": embedder.model.name,
            "space": embedder.space,
            "build": embedder.engine.facts.build if embedder.engine.facts else "",
            "dimensions": embedder.model.dim,
            "max_tokens": embedder.max_tokens,
            "ready": embedder.ready,
            "message": WORDS[embedder.stage],
            "uptime": round(time.time() - lately.started, 1),
            "open": embedder.queue.requests,
            "rate": round(embedder.queue.rate.value, 1),
            "per_second": embedder.meter.per_second(),
            "lanes": lanes,
            "cache": embedder.cache,
            "restarts": embedder.engine.restarts,
            "errors": lately.told(key),
            "indexes": searchable(indexes, key),
        }
        return Response(orjson.dumps(record), media_type="application/json")

    return Route("/v1/status", endpoint, methods=["GET"])
