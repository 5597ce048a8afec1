"""Endpoint: JSON over HTTP to one server: connections kept alive, retries, limits, and one sentence for what fails.

On the standard library, since the base install has no HTTP client. Knows no embeddings.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import ssl
import time
import weakref
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from threading import Event
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from embedcode.engine.address import Address
from embedcode.errors import ModelError

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
DENIED = (401, 403)
PATIENCE = 60.0
"""Seconds in which an overloaded server is asked again: rate limits are counted by the minute."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before asking again, doubled each time, where the server names none (Retry-After)."""
QUICK, REST = 1.0, 30.0
"""A request without an answer that took more than so many seconds is followed by none for so many: who waits for each
of several, as before an answer to a search, would wait for nothing."""
CONNECT_SECONDS = 10.0
FIRST_SECONDS = 2.0
"""The same of a server that has not answered yet: who waits for its vector may have an answer without it."""
ANSWER_SECONDS = 120.0
"""What NIM gives a request by itself."""
MOST_BYTES = 64_000_000
"""Of one answer: 64 vectors of 8,192 numbers take 12 MB written out."""
_OF_SIZE = re.compile(
    r"too large to process|exceeds? maximum allowed|(?:maximum|model's) context|context (?:length|size)"
)
READ, SHOWN = 3_000, 300
"""Characters of a server's own words that are looked at, and shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    value: Any
    """The parsed JSON, which is an object in every answer that is ok; the text where it is none."""
    words: str
    """The server's own message, in one line."""

    @property
    def ok(self) -> bool:
        return self.status == 200 and isinstance(self.value, dict)

    @property
    def of_an_input(self) -> bool:
        """Whether it is about one of the inputs, which is the same the next time, whatever its status: by the field
        that it names, as OpenAI does, by a place, as our own server, or by its words: llama.cpp says 500 of a text of
        more tokens than its physical batch."""
        body = self.value if isinstance(self.value, dict) else {}
        error, detail = body.get("error"), body.get("detail")
        named = isinstance(error, dict) and error.get("param") == "input"
        placed = isinstance(detail, dict) and type(detail.get("index")) is int
        return named or placed or (self.status != 429 and _OF_SIZE.search(self.words) is not None)

    @property
    def said(self) -> str:
        """Status and message, as a user is shown them."""
        reason = http.client.responses.get(self.status, "")
        return ": ".join(filter(None, (f"{self.status} {reason}".strip(), self.words[:SHOWN])))


class Call:
    """Requests that another thread may end together, whatever they wait for."""

    def __init__(self) -> None:
        self._ended = Event()
        self.connections: set[http.client.HTTPConnection] = set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def end(self) -> None:
        self._ended.set()
        for connection in list(self.connections):
            with suppress(OSError, TypeError):  # not connected yet, or not any more
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def pause(self, seconds: float) -> None:
        self._ended.wait(seconds)


class Endpoint:
    """Safe to use from several threads. `key` is sent as a bearer token, to this address only, and never shown."""

    def __init__(self, address: Address, key: str) -> None:
        self.address = address
        self._key = key
        self._kept: dict[int, deque[http.client.HTTPConnection]] = {os.getpid(): deque()}
        self._answers: bool | None = None
        """Whether it did when it was last asked; None before."""
        self._rest: tuple[float, ModelError] | None = None
        """Until when it is not asked, and why."""
        self._answered = 0.0
        """When it last did, whatever it said."""
        weakref.finalize(self, _close, self._kept)

    def ask(self, path: str, body: Mapping[str, Any] | None = None, call: Call | None = None) -> Answer:
        """The answer to a GET, or to a POST of `body`.

        Overload (RETRIED) is waited for within PATIENCE, a lost connection too if the server has answered before; a
        server that was waited for in vain is then asked once only, until it answers, and one that took long to give no
        answer at all not before REST is over. ModelError where none comes. What another status means, or any of one
        input, is the caller's; a redirect is not followed, since it would take the texts along.
        """
        call = call or Call()
        if (rest := self._rest) is not None and time.monotonic() < rest[0]:
            raise ModelError(str(rest[1]))
        # Code may hold lone surrogates, which are no UTF-8.
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        until = time.monotonic() + (0.0 if self._answers is False else PATIENCE)
        pause = FIRST_PAUSE
        while True:
            told: float | None = None
            begun, silent = time.monotonic(), False
            try:
                status, headers, raw = self._exchange(path, data, call)
            except (OSError, http.client.HTTPException) as error:
                # Of several requests at a time one may be lost, as by a proxy, where the others have answers.
                silent = time.monotonic() > begun + QUICK and self._answered < begun
                problem = self._unreachable(TimeoutError() if call.ended else error)
                answered = self._answers is True and not call.ended
                worthwhile = answered and isinstance(error, ConnectionError | http.client.HTTPException)
            else:
                self._answered = time.monotonic()
                answer = self._answer(status, headers, raw)
                if status not in RETRIED or answer.of_an_input:
                    self._answers, self._rest = True, None
                    return answer
                told = _retry_after(headers.get("Retry-After"))
                problem = self._overloaded(answer, told)
                worthwhile = True
            wait = pause * random.uniform(0.5, 1) if told is None else max(told, 0.1)
            pause = min(2 * pause, LONGEST_PAUSE)
            if not worthwhile or time.monotonic() + wait > until:
                self._answers = False
                if silent:
                    self._rest = time.monotonic() + REST, problem
                raise problem
            call.pause(wait)
            if call.ended:
                self._answers = False
                raise problem

    def denied(self, answer: Answer) -> ModelError:
        """For the statuses of DENIED."""
        cure = "check EMBEDCODE_API_KEY" if self._key else "set EMBEDCODE_API_KEY"
        return ModelError(f"{self.address.url} denies access ({answer.said}): {cure}.")

    def _exchange(self, path: str, data: bytes | None, call: Call) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body, over a connection that is kept for the next request."""
        connection = self._taken()
        call.connections.add(connection)
        try:
            kept = connection.sock is not None
            try:
                answer = self._over(connection, path, data, call)
            except (ConnectionError, http.client.HTTPException):
                if not kept or call.ended:
                    raise
                connection.close()  # closed by the server while it was idle
                answer = self._over(connection, path, data, call)
        except BaseException:
            connection.close()
            raise
        finally:
            call.connections.discard(connection)
        self._idle.append(connection)
        return answer

    def _over(
        self, connection: http.client.HTTPConnection, path: str, data: bytes | None, call: Call
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        if connection.sock is None:
            connection.timeout = CONNECT_SECONDS if self._answers else FIRST_SECONDS
            connection.connect()
        if call.ended:
            raise ConnectionAbortedError
        connection.sock.settimeout(ANSWER_SECONDS)
        target = f"{self.address.base}{path}"
        if self._proxy and self.address.scheme == "http":  # it wants the whole URL
            target = f"{self.address.url}{path}"
        with suppress(BrokenPipeError):  # a server may answer, and close, before it has read all
            connection.request("GET" if data is None else "POST", target, data, self._headers)
        until = time.monotonic() + ANSWER_SECONDS
        with connection.getresponse() as response:
            raw = bytearray()
            while block := response.read(65_536):
                raw += block
                if len(raw) > MOST_BYTES:
                    limit = f"{MOST_BYTES / 1e6:g} MB"
                    raise ModelError(
                        f"{self.address.url} sends more than {limit}: check that an embedding server is there."
                    )
                if time.monotonic() > until:
                    raise TimeoutError
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            if response.will_close:
                connection.close()
            return response.status, response.headers, bytes(raw)

    @property
    def _idle(self) -> deque[http.client.HTTPConnection]:
        """Connections of this process: one that was forked would read the answers of the other."""
        return self._kept.setdefault(os.getpid(), deque())

    @cached_property
    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"embedcode/{version('embedcode')}",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if self._proxy and self.address.scheme == "http":
            headers |= _credentials(self._proxy)
        return headers

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @cached_property
    def _proxy(self) -> SplitResult | None:
        return self.address.proxy()

    def _taken(self) -> http.client.HTTPConnection:
        with suppress(IndexError):
            return self._idle.pop()
        proxy = self._proxy
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (self.address.host, self.address.port)
        if self.address.scheme == "http":
            return http.client.HTTPConnection(host, port)
        secure = http.client.HTTPSConnection(host, port, context=self._tls)
        if proxy:
            secure.set_tunnel(self.address.host, self.address.port, _credentials(proxy))
        return secure

    def _answer(self, status: int, headers: http.client.HTTPMessage, raw: bytes) -> Answer:
        value: Any
        try:
            value = json.loads(raw)
            words = _words(value)
        except (ValueError, RecursionError):
            value = words = raw.decode("utf-8", "replace")
        if 300 <= status < 400:
            to = urlsplit(str(headers.get("Location", "")))
            words = f"it redirects to {to.scheme}://{to.netloc.rpartition('@')[2]}{to.path}"
        words = _line(words[:READ])
        return Answer(status, value, words.replace(self._key, "…") if self._key else words)  # servers repeat it

    def _overloaded(self, answer: Answer, told: float | None) -> ModelError:
        later = f"after {told:.0f} s, as it asks" if told else "later"
        return ModelError(f"{self.address.url} is overloaded or not ready ({answer.said}): try again {later}.")

    def _unreachable(self, error: OSError | http.client.HTTPException) -> ModelError:
        url = self.address.url
        through = f" through the proxy {self._proxy.hostname}" if self._proxy else ""
        match error:
            case ssl.SSLCertVerificationError():
                cure = "set SSL_CERT_FILE to the certificate of its authority, if you trust it"
                return ModelError(f"{url} shows a certificate that is not trusted ({error.verify_message}): {cure}.")
            case ssl.SSLError():
                cure = "check the address; is it http://?"
                return ModelError(f"{url} does not speak TLS ({error.reason or error}): {cure}")
            case socket.gaierror():
                return ModelError(f"{url} cannot be found{through} ({error.strerror}): check the address.")
            case TimeoutError():
                cure = "check the address, or that the server is not stuck"
                return ModelError(f"{url} gives no answer{through} in time: {cure}.")
            case ConnectionRefusedError():
                return ModelError(f"{url} refuses the connection{through}: start the server, or check the port.")
        what = _line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        return ModelError(f"{url} cannot be reached{through} ({what}): check the address and the server.")


def _close(kept: dict[int, deque[http.client.HTTPConnection]]) -> None:
    connections = kept.get(os.getpid(), deque())
    while connections:
        connections.pop().close()


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None


def _words(value: Any) -> str:
    """The message in an error's body: OpenAI's, NIM's and FastAPI's shapes, or plain text."""
    if isinstance(value, dict):
        if "msg" in value:
            place = value.get("loc")
            return f"{'.'.join(map(str, place)) if isinstance(place, list) else 'request'}: {value['msg']}"
        found = next((_words(value[name]) for name in ("message", "error", "detail") if value.get(name)), "")
        param = value.get("param")
        return f"{found} ({param})" if isinstance(param, str) and param not in found else found
    if isinstance(value, list):
        return "; ".join(map(_words, value[:4]))
    return str(value)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".:")
