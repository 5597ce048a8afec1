"""`embedcode web`: the page and the search API as one application on 127.0.0.1, for whoever holds its token.

A page of any site, and any process on this computer, can send requests to a local port. So what is asked of the API
needs a token; the Host has to be ours, or a site could point its own name here and read the answers; and the page
runs no script but its own, whatever a repository's files and names hold.
"""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedcode.errors import UsageError
from embedcode.serve import pages, search_api
from embedcode.serve.kept import Kept
from embedcode.serve.search_api import respond

HOST = "127.0.0.1"
GRACE_SECONDS = 1
"""For requests that are being answered when a signal comes."""


def serve(path: Path, port: int, announce: Callable[[str, str], None]) -> None:
    """Answer on 127.0.0.1 until SIGINT or SIGTERM; port 0 is a free one.

    `announce` gets two links once connections are taken: one that stays good, and one that is good once, to be handed
    to another program where others can see it. UsageError for a path that is none, and for a port that is taken.
    """
    kept = Kept(path)
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used ({(error.strerror or str(error)).lower()}): "
            "give another one, or leave --port out for a free one"
        ) from None
    port = listener.getsockname()[1]
    guard = Guard(port)
    config = uvicorn.Config(
        application(kept, guard),
        access_log=False,
        log_config=None,
        log_level="error",
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes them over, and raises them again when it is done
        signal.signal(number, stop)
    Thread(target=_prepare, args=[kept], daemon=True).start()
    announce(f"http://{HOST}:{port}/#token={guard.token}", f"http://{HOST}:{port}/#token={guard.once}")
    server.run(sockets=[listener])


def _prepare(kept: Kept) -> None:
    """What a first question needs, then the vectors: who opens the page is going to ask."""
    kept.warm()
    kept.finish()


def application(kept: Kept, guard: Guard) -> Starlette:
    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond({"error": f"{request.method} {request.url.path}: {error.detail.lower()}"}, error.status_code)

    return Starlette(
        routes=[*pages.search("/"), *search_api.routes(kept)],
        middleware=[Middleware(guard.around)],
        exception_handlers={HTTPException: refused},
    )


class Guard:
    """Who may ask: requests to our Host, from our own page or none, and of the API those with the token."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self.once = secrets.token_urlsafe(24)
        """Is taken for the token once, and answered with it: a browser's arguments are seen by every user."""
        suffix = "" if port == 80 else f":{port}"
        self._hosts = {HOST + suffix, "localhost" + suffix}

    def around(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            headers = Headers(scope=scope)
            refusal, extra = self._refusal(headers), dict(_HEADERS)
            if refusal is None and scope["path"].startswith("/v1/"):
                refusal = self._unknown(headers, extra)

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(raw=message["headers"]).update(extra)
                await send(message)

            await (refusal or app)(scope, receive, sending)

        return guarded

    def _refusal(self, headers: Headers) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host.lower() not in self._hosts:
            return respond({"error": f"{host!r} is not the host of this server: use the link that it printed."}, 403)
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return respond({"error": f"requests from {origin} are not answered."}, 403)
        return None

    def _unknown(self, headers: Headers, extra: dict[str, str]) -> Response | None:
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if secrets.compare_digest(given, self.token.encode()):
            return None
        if self.once and secrets.compare_digest(given, self.once.encode()):
            self.once = ""
            extra["X-Token"] = self.token
            return None
        error = "this needs the token of this server: use the link that `embedcode web` printed."
        return respond({"error": error}, 401, {"WWW-Authenticate": "Bearer"})


_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
