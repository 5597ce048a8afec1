"""Guard: what every request passes: a request id, the Host it is for, its key, the line in the journal, the counts.

The Host has to be one of ours, or a page of any site could point its own name here and read the answers.
Knows no route.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedcode.serve.journal import Journal
from embedcode.serve.metrics import Metrics
from embedcode.serve.problem import ProblemError, respond

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
QUIET = ("/v1/health/", "/v1/metrics", "/metrics")
"""Asked every few seconds by machines: logged at debug."""

_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::\d+)?")


class Guard:
    def __init__(self, journal: Journal, metrics: Metrics, hosts: frozenset[str], paths: frozenset[str]) -> None:
        """`hosts` without their port; empty lets every one in. `paths` are those counted by their name."""
        self._journal = journal
        self._metrics = metrics
        self._hosts = hosts
        self._paths = paths

    def around(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            headers = Headers(scope=scope)
            given = headers.get("x-request-id", "")
            request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
            state = scope.setdefault("state", {})
            state.update(id=request_id, note={})
            since, status = time.monotonic(), 0

            async def sending(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    sent = MutableHeaders(raw=message["headers"])
                    sent["X-Request-Id"] = request_id
                    for name, value in HEADERS.items():
                        sent.setdefault(name, value)
                await send(message)

            try:
                self._check(headers)
                await app(scope, receive, sending)
            except ProblemError as problem:
                await respond(problem, request_id)(scope, receive, sending)
            except asyncio.CancelledError:
                status = status or 499
                raise
            except Exception as error:
                self._report(error, request_id, scope["path"])
                if not status:
                    ours = ProblemError(500, "The server made a mistake; its log has more under this request id.")
                    await respond(ours, request_id)(scope, receive, sending)
            finally:
                self._count(scope, status, time.monotonic() - since, request_id, state["note"])

        return guarded

    def _check(self, headers: Headers) -> None:
        """ProblemError 403 for what a page of another site, or another name for this address, has sent."""
        if not self._hosts:
            return
        host = headers.get("host", "")
        if _bare(host) not in self._hosts:
            raise ProblemError(
                403,
                f"{host[:100]!r} is not a host of this server: use its address, or start it with --allowed-host.",
                code="host",
            )
        origin = headers.get("origin")
        if origin is not None and _bare(origin.partition("://")[2]) not in self._hosts:
            raise ProblemError(403, f"Requests from pages of {origin[:100]!r} are not answered.", code="origin")

    def _report(self, error: Exception, request_id: str, path: str) -> None:
        # Without the message, which may hold what was sent.
        frames = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self._journal.write("mistake", "error", id=request_id, path=path, type=type(error).__name__, frames=frames)

    def _count(self, scope: Scope, status: int, seconds: float, request_id: str, note: Mapping[str, Any]) -> None:
        path = scope["path"]
        self._metrics.requests.labels(path if path in self._paths else "other", str(status)).inc()
        level = "debug" if path.startswith(QUIET) else "info"
        client = scope.get("client")
        self._journal.write(
            "request",
            level,
            id=request_id,
            method=scope["method"],
            path=path[:200],
            status=status,
            ms=round(seconds * 1000, 1),
            client=client[0] if client else "",
            **note,
        )


def _bare(host: str) -> str:
    found = _HOST.fullmatch(host.lower())
    return found[1].strip("[]") if found else ""
