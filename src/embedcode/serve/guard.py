"""Guard: what every request passes: a request id, the Host it is for, its key, the line in the journal, the counts.

The Host has to be one of ours, or a page of any site could point its own name here and read the answers.
Knows no route.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedcode.serve.journal import Journal
from embedcode.serve.keys import Key, Keys
from embedcode.serve.lately import Lately
from embedcode.serve.metrics import Metrics
from embedcode.serve.pages import ASSETS, HEADERS
from embedcode.serve.problem import COUNTED, ProblemError, encodable, respond
from embedcode.serve.telemetry import Telemetry

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
HEALTH = "/v1/health/"
"""Says nothing but yes or no, to machines that have no key and call the server by whatever address it has."""
GRPC = "/inference.GRPCInferenceService/"
PROBES = (f"{GRPC}ServerLive", f"{GRPC}ServerReady", f"{GRPC}ModelReady")
QUIET = (HEALTH, "/v1/metrics", "/metrics", *PROBES)
"""Asked every few seconds by machines: logged at debug."""

SEARCHES = ("/v1/search", "/v1/search/related")

OPEN = (HEALTH, *ASSETS)
"""Needs no key: health, and what is the same for every server."""
MODELS = "/v1/models/"
"""And the name of one, which may hold slashes."""
PAGES = ("/", "/docs", "/search")
"""Seen in a browser, which asks for a password: any name, and the key."""
SCOPES = {"/v1/embeddings": "embed", "/v1/search": "search", "/search": "search"}
AUDITED = ("id", "key", "method", "path", "status", "client", "tokens")

LOGGED_TEXTS, LOGGED_CHARACTERS = 8, 200
"""Of a request, where its texts are to be logged."""

_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
"""As they are sent; no route sends one of them."""
_CLOSE = [(b"connection", b"close")]
_ID = re.compile(r"[\w.:=+/@{}-]{1,128}", re.ASCII)
"""What balancers and tracers make: X-Ray's Root=1-..., base64, a GUID in braces."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::\d+)?")


class Guard:
    def __init__(
        self,
        journal: Journal,
        metrics: Metrics,
        hosts: frozenset[str],
        paths: frozenset[str],
        keys: Keys | None = None,
        audit: Journal | None = None,
        lately: Lately | None = None,
        telemetry: Telemetry | None = None,
        log_texts: bool = False,
        overload: int = 429,
    ) -> None:
        """`hosts` without their port; empty lets every one in. `paths` are those counted by their name. `log_texts`
        puts the beginning of what was sent into the journal, and nowhere else. `overload` is answered for 429: NIM's
        is 503."""
        self._journal = journal
        self._metrics = metrics
        self._hosts = hosts
        self._paths = paths
        self._keys = keys
        self._audit = audit
        self._lately = lately
        self._telemetry = telemetry or Telemetry()
        self._log_texts = log_texts
        self._overload = overload
        self._trouble = ""
        for path in (*paths, "other"):  # the first mistake is a rise too, for who watches the counter
            metrics.requests.labels(path, "500")
        self.closing = False
        """Each answer ends its connection, so that a caller comes back to a server that stays."""

    def around(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            # Of two of a name the first counts. Starlette's Headers goes through all of them at each look.
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
            request_id = self.request_id(headers)
            state = scope.setdefault("state", {})
            state.update(id=request_id, note={})
            if scope["path"].startswith(HEALTH):  # some probes are written with a slash at the end
                scope["path"] = HEALTH + scope["path"].removeprefix(HEALTH).removesuffix("/")
            since, status = time.monotonic(), 0

            async def sending(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    own = [(b"x-request-id", request_id.encode()), *_HEADERS, *(_CLOSE if self.closing else ())]
                    if (key := state.get("key")) is not None and key.tokens_per_minute:
                        own += _allowance(key)
                    message["headers"] = [*message["headers"], *own]
                await send(message)

            with self.traced(scope["method"], scope["path"], headers, state["note"]):
                try:
                    self._check(scope["path"], headers)
                    self.admit(scope["path"], headers, state)
                    await app(scope, receive, sending)
                except ProblemError as problem:
                    answer = respond(self.refused(problem, state["note"]), request_id)
                    if problem.status == 401 and scope["path"] in PAGES:
                        answer.headers["WWW-Authenticate"] = 'Basic realm="embedcode: any name, and the key"'
                    await answer(scope, receive, sending)
                except asyncio.CancelledError:
                    status = status or 499
                    raise
                except Exception as error:
                    ours = self.refused(self.mistake(error, request_id, scope["path"]), state["note"])
                    if not status:
                        await respond(ours, request_id)(scope, receive, sending)
                finally:
                    self.count(scope, status, time.monotonic() - since, request_id, state["note"])

        return guarded

    def traced(
        self, method: str, path: str, headers: Mapping[str, str], note: dict[str, Any]
    ) -> AbstractContextManager[None]:
        """The span of a request, which `count` closes the books of."""
        if path.startswith(QUIET):
            return nullcontext()
        return self._telemetry.request(method, self._known(path), headers, note)

    def _known(self, path: str) -> str:
        """What it is called in metrics and traces; empty for none of ours, of which there may be any number."""
        return MODELS + "{name}" if path.startswith(MODELS) else path if path in self._paths else ""

    @staticmethod
    def request_id(headers: Mapping[str, str]) -> str:
        """The caller's, if it looks like one, or a new one."""
        given = headers.get("x-request-id", "")
        return given if _ID.fullmatch(given) else secrets.token_hex(16)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        """ProblemError 403 for what a page of another site, or another name for this address, has sent."""
        host = headers.get("host", "")
        if self._hosts and _bare(host) not in self._hosts and not path.startswith(HEALTH):
            raise ProblemError(
                403,
                f"{host[:100]!r} is not a host of this server: use its address, or start it with --allowed-host.",
                code="host",
            )
        origin = headers.get("origin")
        if origin is not None and _bare(origin.partition("://")[2]) not in (self._hosts or {_bare(host)}):
            raise ProblemError(403, f"Requests from pages of {origin[:100]!r} are not answered.", code="origin")

    def admit(self, path: str, headers: Mapping[str, str], state: dict[str, Any]) -> None:
        """Put the key of a request, by its headers, into its `state` and its note; none where none is needed.

        ProblemError 401 without one, 403 for a key that is not for this. Which indexes it is for, is known where the
        request has been read.
        """
        if self._keys is None or path.startswith(OPEN):
            return
        secret = _secret(headers)
        key = self._keys.find(secret)
        if self._keys.trouble != self._trouble:
            self._trouble = self._keys.trouble
            self._journal.write("keys", "error" if self._trouble else "info", trouble=self._trouble)
        if key is None:
            said = "This server needs a key: send Authorization: Bearer KEY, or api-key: KEY."
            if secret:
                said = "This key is not known here: it was taken out, is another server's, or was not sent whole."
            raise ProblemError(401, said, code="invalid_api_key", reason="key")
        state["note"]["key"] = key.name
        scope = next((scope for start, scope in SCOPES.items() if path.startswith(start)), None)
        if scope is not None and scope not in key.scopes:
            said = f"The key {key.name} is not for {scope}: use one that is."
            raise ProblemError(403, said, code="scope", reason="scope")
        state["key"] = key

    def refused(self, problem: ProblemError, note: dict[str, Any]) -> ProblemError:
        """What a request is to be told, once it is noted and counted."""
        note["error"] = problem.message
        if problem.reason in COUNTED:
            self._metrics.refused.labels(problem.reason).inc()
        if problem.status == 429:
            problem.status = self._overload
        return problem

    def mistake(self, error: Exception, request_id: str, path: str) -> ProblemError:
        """Of ours, which the journal is told of."""
        # Without the message, which may hold what was sent.
        frames = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self._journal.write("mistake", "error", id=request_id, path=path, type=type(error).__name__, frames=frames)
        return ProblemError(500, "The server made a mistake; its log has more under this request id.")

    def unreadable(self, client: tuple[str, int] | None, headers: Mapping[str, str], problem: ProblemError) -> str:
        """What came is no HTTP: TLS on a port without, two lengths, a head without end. Nothing of it is told but its
        id, which is returned."""
        request_id = self.request_id(headers)
        fields = {"id": request_id, "status": problem.status, "reason": problem.reason}
        self._metrics.requests.labels("other", str(problem.status)).inc()
        self._journal.write("not http", "info", **fields, client=client[0] if client else "")
        return request_id

    def count(
        self, scope: Mapping[str, Any], status: int, seconds: float, request_id: str, note: dict[str, Any]
    ) -> None:
        texts: Sequence[str] = note.pop("texts", ())
        path = scope["path"]
        self._metrics.requests.labels(self._known(path) or "other", str(status)).inc()
        if path in SEARCHES and status == 200:
            self._metrics.searches.labels(path).observe(seconds)
        quiet = path.startswith(QUIET)
        level = "debug" if quiet else "info"
        client = scope.get("client")
        fields = {
            "id": request_id,
            "method": scope["method"],
            "path": path[:200],
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": client[0] if client else "",
            **note,
        }
        said = fields.pop("error", "")
        if not quiet:
            self._telemetry.answered(status, note)
        if self._log_texts and texts:
            fields["texts"] = [encodable(text[:LOGGED_CHARACTERS]) for text in texts[:LOGGED_TEXTS]]
        self._journal.write("request", level, **fields)
        if self._audit is not None and ((note.get("key") and not quiet) or status in (401, 403)):
            self._audit.write("used", "info", **{name: fields.get(name) for name in AUDITED})
        if self._lately is not None and path not in PROBES:
            self._lately.answered(path, status, seconds, note, request_id, said)


def _secret(headers: Mapping[str, str]) -> str:
    """The key in the headers: a bearer token, the password that a browser sends, or what Azure's client sends."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if not kind:
        return headers.get("api-key", "").strip()
    if kind.lower() != "basic":
        return value.strip() if kind.lower() == "bearer" else ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _allowance(key: Key) -> list[tuple[bytes, bytes]]:
    """What is left of a quota, as OpenAI's API tells it and its clients read it."""
    left, seconds = key.allowance(time.monotonic())
    told = {"limit": str(key.tokens_per_minute), "remaining": str(left), "reset": f"{seconds}s"}
    return [(f"x-ratelimit-{name}-tokens".encode(), value.encode()) for name, value in told.items()]


def _bare(host: str) -> str:
    found = _HOST.fullmatch(host.lower())
    return found[1].strip("[]") if found else ""
