"""POST /v1/embeddings: bytes to an Asked, an Answer to bytes. The embedder works; the guard says who may ask."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode.engine import vectors
from embedcode.serve.answer import Answer
from embedcode.serve.asked import LARGE_BODY, Asked, read
from embedcode.serve.body import GONE, Bodies, Held, Holding
from embedcode.serve.embedder import Embedder
from embedcode.serve.keys import asker
from embedcode.types import Floats

LARGE_ANSWER = 20_000
"""Numbers, from which on an answer is written beside it."""
NUMBER = 16
"""Bytes of a number in an answer, at most: there is room for all of them before any is computed."""
PACKERS: dict[str, Callable[[Floats], NDArray[Any]]] = {
    "float": lambda rows: rows,
    "int8": vectors.to_int8,
    "uint8": vectors.to_uint8,
    "binary": vectors.to_binary,
    "ubinary": vectors.to_ubinary,
}


def route(embedder: Embedder, bodies: Bodies) -> Route:
    async def embed(request: Request, holding: Holding) -> Response:
        loop = asyncio.get_running_loop()
        since = loop.time()
        body = await bodies.read(request, holding)
        if len(body) > LARGE_BODY:
            asked = await asyncio.to_thread(read, body, embedder.model)
        else:
            asked = read(body, embedder.model)
        request.state.note |= asked.note
        embedder.check(asked)  # which embed() does too, and this before there are tasks and room for it
        key = asker(request)
        spend = (lambda tokens: key.spend(tokens, loop.time())) if key is not None else None
        room = NUMBER * embedder.model.dim * len(asked.inputs)
        holding(room)
        answer = await _unless_gone(request, embedder.embed(asked, spend))
        if answer is None:
            return Response(status_code=GONE)
        written = loop.time()
        if answer.vectors.size > LARGE_ANSWER:
            content = await asyncio.to_thread(render, answer, asked, embedder, request.state.id)
        else:
            content = render(answer, asked, embedder, request.state.id)
        holding(len(content) - room)
        request.state.note |= {"tokens": answer.used, "truncated": answer.truncated, "cached": answer.cached}
        headers = {}
        if answer.truncated:
            headers["X-Embedcode-Truncated"] = str(answer.truncated)
        if answer.errors:
            headers["X-Embedcode-Errors"] = str(len(answer.errors))
        now = loop.time()
        embedder.metrics.seconds.labels("respond").observe(now - written)
        embedder.metrics.seconds.labels("total").observe(now - since)
        embedder.metrics.latency.labels(asked.lane.value).observe(now - since)
        return Response(content, 200, headers, "application/json")

    return Route("/v1/embeddings", Held(bodies, embed), methods=["POST"])


async def _unless_gone(request: Request, work: Any) -> Answer | None:
    """What `work` gives; None, and the work ended, where the caller goes before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def render(answer: Answer, asked: Asked, embedder: Embedder, request_id: str) -> bytes:
    """The body of an answer. Row by row, so that no call holds the interpreter for long."""
    rows = vectors.cut(answer.vectors, asked.dimensions) if asked.dimensions else answer.vectors
    packed = np.ascontiguousarray(PACKERS[asked.kind](rows))
    usage = {"prompt_tokens": answer.used, "total_tokens": answer.used}
    own: dict[str, Any] = {"request_id": request_id, "space": embedder.space, "inputs": list(_receipts(answer))}
    if answer.errors:
        own["errors"] = [{"index": error.index, "message": error.message} for error in answer.errors]
    rest = orjson.dumps({"model": embedder.model.name, "usage": usage, "embedcode": own})
    data = b",".join(_row(place, row, asked.encoding) for place, row in zip(answer.places, packed, strict=True))
    return b'{"object":"list","data":[' + data + b"]," + rest[1:]


def _row(index: int, row: NDArray[Any], encoding: str) -> bytes:
    value: Any = row
    if encoding == "base64":
        value = base64.b64encode(row.astype(row.dtype.newbyteorder("<"), copy=False).tobytes()).decode()
    record = {"object": "embedding", "index": index, "embedding": value}
    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)


def _receipts(answer: Answer) -> Iterable[dict[str, Any]]:
    for index, entry in zip(answer.places, answer.tokens, strict=True):
        receipt = {"index": index, "tokens": entry.original, "used": entry.used, "truncated": entry.truncated}
        if entry.estimated:
            receipt["estimated"] = True
        if index in answer.doubled:
            receipt["prompt_twice"] = True
        yield receipt
