"""Problem: why a request is not answered, in the shapes of NIM and of OpenAI's API at once. Knows no route."""

from __future__ import annotations

import re
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from embedcode.serve.queue import FullError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Type of an error by its status; the others are the request's, below 500, or the server's."""


COUNTED = ("role", "memory", "key", "scope", "draining", "search_quota", "searches")
"""Reasons that the guard counts where a request is answered; the embedder counts its own."""


class ProblemError(Exception):
    """A request that is not answered: `status`, one sentence with the cure, and what it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        index: int | None = None,
        retry_after: int | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = encodable(message)  # a value in it may hold half a surrogate pair
        self.param = None if param is None else encodable(param)  # the name of a field that there is none of, likewise
        self.code = code
        self.index = index
        """Place of the offending input."""
        self.retry_after = retry_after
        self.reason = reason
        """Under which it is counted."""
        self.headers: dict[str, str] = {}
        """Of the answer."""


def encodable(text: str) -> str:
    """The text, with `?` for half a surrogate pair, which has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode()


def overloaded(full: FullError) -> ProblemError:
    what = "This key has used up its tokens" if full.reason == "quota" else "The server has all the work it can take"
    return ProblemError(
        429,
        f"{what}: come back in {full.retry_after} seconds. {full.cure}".rstrip(),
        code="overloaded",
        retry_after=full.retry_after,
        reason=full.reason,
    )


def too_large(cost: int, rate: int, seconds: float) -> ProblemError:
    most = max(1, int(rate * seconds))
    return ProblemError(
        413,
        f"The request has at least {cost:,} tokens, and this server, which was never measured to compute more than "
        f"{rate:,} a second, may take {seconds:g} seconds for it: split it into requests of less than {most:,} tokens.",
        "input",
        "too_large",
    )


def loading(seconds: int) -> ProblemError:
    said = f"The model is being loaded: come back in {seconds} seconds."
    return ProblemError(503, said, code="not_ready", retry_after=seconds)


def leaving() -> ProblemError:
    return ProblemError(
        503,
        "This server is going down: ask another one, or come back.",
        code="draining",
        retry_after=5,
        reason="draining",
    )


def at(problem: ProblemError, index: int) -> ProblemError:
    """A problem of a text, at its place in this request: the engine knew another. One of the server stays as it is."""
    if problem.param != "input":
        return problem
    message = re.sub(r"^Input \d+\b", f"Input {index}", problem.message)
    if message == problem.message:
        message = f"{message.rstrip('.')} (input {index})."
    return ProblemError(problem.status, message, "input", index=index)


def raised(request: Request, error: Exception) -> ProblemError:
    """What a route, or the routing itself, has raised."""
    if isinstance(error, HTTPException):
        said = f"{request.method} {request.scope['path'][:200]}: {error.detail.lower()}."
        problem = ProblemError(error.status_code, said, code="not_found" if error.status_code == 404 else None)
        problem.headers |= error.headers or {}  # which methods there are
        return problem
    assert isinstance(error, ProblemError)
    return error


def respond(problem: ProblemError, request_id: str = "") -> Response:
    kind = _TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    detail: dict[str, Any] = {"request_id": request_id} if request_id else {}
    if problem.index is not None:
        detail["index"] = problem.index
    error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    body = {"object": "error", "message": problem.message, "type": kind, "detail": detail, "error": error}
    sent = dict(problem.headers)
    if problem.retry_after is not None:
        sent["Retry-After"] = str(problem.retry_after)
    if problem.status == 408:  # what is still to come of the body would be read as the next request
        sent["Connection"] = "close"
    if problem.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body), problem.status, sent, "application/json")
