"""POST /v1/embeddings: bytes to an Asked, an Answer to bytes. The embedder works; the guard says who may ask."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode.serve.answer import Answer
from embedcode.serve.answering import Call, answered, patience
from embedcode.serve.asked import LARGE_BODY, Asked, read
from embedcode.serve.body import GONE, Bodies, Held, Holding
from embedcode.serve.embedder import Embedder
from embedcode.serve.keys import asker


class GoneError(Exception):
    """The caller has left."""


def route(embedder: Embedder, bodies: Bodies) -> Route:
    async def embed(request: Request, holding: Holding) -> Response:
        since = asyncio.get_running_loop().time()
        body = await bodies.read(request, holding)
        if len(body) > LARGE_BODY:
            asked = await asyncio.to_thread(read, body, embedder.model)
        else:
            asked = read(body, embedder.model)

        def write(answer: Answer) -> bytes:
            return render(answer, asked, embedder, request.state.id)

        call = Call(since, asker(request), holding, request.state.note, patience(request.headers))
        try:
            content, headers = await answered(embedder, asked, call, write, lambda work: _unless_gone(request, work))
        except GoneError:
            return Response(status_code=GONE)
        holding(len(content))
        return Response(content, 200, headers, "application/json")

    return Route("/v1/embeddings", Held(bodies, embed), methods=["POST"])


async def _unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
    """What `work` gives; GoneError, and the work ended, where the caller goes before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        return await working
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def render(answer: Answer, asked: Asked, embedder: Embedder, request_id: str) -> bytes:
    """The body of an answer. Row by row, so that no call holds the interpreter for long."""
    packed = np.ascontiguousarray(answer.packed(asked))
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
        receipt = {"index": index, **entry.receipt}
        if index in answer.doubled:
            receipt["prompt_twice"] = True
        yield receipt
