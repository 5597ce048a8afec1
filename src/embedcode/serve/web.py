"""`embedcode web`: the page and the search API as one application on 127.0.0.1, for whoever holds its token.

A page of any site, and any process on this computer, can send requests to a local port. So what is asked of the API
needs a token; the Host has to be ours, or a site could point its own name here and read the answers; and the page
runs no script but its own, whatever a repository's files and names hold.
"""

from __future__ import annotations

import logging
import secrets
import signal
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

from embedcode.serve import pages, search_api
from embedcode.serve.body import Bodies
from embedcode.serve.indexes import Indexes
from embedcode.serve.kept import Kept
from embedcode.serve.patience import Patient
from embedcode.serve.port import listen
from embedcode.serve.problem import ProblemError, raised, respond

HOST = "127.0.0.1"
GRACE_SECONDS = 1
"""For requests that are being answered when a signal comes."""

_log = logging.getLogger("embedcode")


def serve(path: Path, port: int, announce: Callable[[str, str], None]) -> None:
    """Answer on 127.0.0.1 until SIGINT or SIGTERM; port 0 is a free one.

    `announce` gets two links once connections are taken: one that stays good, and one that is good once, to be handed
    to another program where others can see it. UsageError for a path that is none, and for a port that is taken.
    """
    kept = Kept(path)
    listener = listen(HOST, port)
    port = listener.getsockname()[1]
    guard = Guard(port)
    config = uvicorn.Config(
        application(kept, guard),
        http=Patient,
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
        return respond(raised(request, error))

    app = Starlette(
        routes=[
            pages.route("/", "index.html"),
            *pages.assets(),
            *search_api.routes(Indexes({kept.index.root.name: kept}), Bodies(search_api.MOST_BYTES)),
        ],
        middleware=[Middleware(guard.around)],
        exception_handlers={HTTPException: refused, ProblemError: refused},
    )
    app.router.redirect_slashes = False  # every path answers in one shape
    return app


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
            headers, extra, started = Headers(scope=scope), dict(pages.HEADERS), False

            async def sending(message: Message) -> None:
                nonlocal started
                if message["type"] == "http.response.start":
                    started = True
                    MutableHeaders(raw=message["headers"]).update(extra)
                await send(message)

            try:
                self._check(headers)
                if scope["path"].startswith("/v1/"):
                    self._authorise(headers, extra)
                await app(scope, receive, sending)
            except ProblemError as problem:
                await respond(problem)(scope, receive, sending)
            except Exception as error:
                said = f"unexpected {type(error).__name__}"
                _log.error("%s: %s", scope["path"], said, exc_info=_log.isEnabledFor(logging.DEBUG))
                if not started:
                    await respond(ProblemError(500, f"{said}: see what the server printed"))(scope, receive, sending)

        return guarded

    def _check(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host.lower() not in self._hosts:
            raise ProblemError(
                403, f"{host[:100]!r} is not the host of this server: use the link that it printed.", code="host"
            )
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            raise ProblemError(403, f"requests from {origin[:100]} are not answered.", code="origin")

    def _authorise(self, headers: Headers, extra: dict[str, str]) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if secrets.compare_digest(given, self.token.encode()):
            return
        if self.once and secrets.compare_digest(given, self.once.encode()):
            self.once = ""
            extra["X-Token"] = self.token
            return
        raise ProblemError(
            401, "this needs the token of this server: use the link that `embedcode web` printed.", code="invalid_token"
        )
