"""An embedding server on loopback, with vectors of its own making, in the shapes of NIM and of OpenAI's API."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is, is no property: a busy one failed tests that hold.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Training first: its files are the longest, and at the end one process would have them and the other nothing."""
    items.sort(key=lambda item: item.path.parent.name != "train")


DIM = 64
LIMIT = 200
"""Words that a text may have."""
FIELDS = {
    "nim": {"model", "input", "input_type", "encoding_format", "embedding_type", "dimensions", "truncate", "user"},
    "openai": {"model", "input", "encoding_format", "dimensions", "user"},
}

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Asked:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    connection: int
    """Port of the client's end."""
    at: float


@dataclass
class EmbeddingServer:
    """Answers as `kind` does; `answer` may be replaced by a test, for one request or for all."""

    kind: str = "nim"
    models: list[str] = field(default_factory=lambda: ["nvidia/nv-embedcode-7b-v1"])
    dim: int = DIM
    floats: bool = False
    """Send lists of numbers also to who asks for base64."""
    metadata: dict[str, Any] | None = None
    delay: float = 0.0
    key: str = ""
    answer: Callable[[Asked], Reply | None] = lambda asked: None
    """None for the usual answer."""
    asked: list[Asked] = field(default_factory=list)
    most: int = 0
    """Requests that were under way together."""
    url: str = ""
    http: Any = None
    connections: set[socket.socket] = field(default_factory=set)

    def stop(self) -> None:
        """As when its process ends."""
        self.http.shutdown()
        self.http.server_close()
        self.drop()

    def drop(self) -> None:
        """Close the connections there are."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def embeddings(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == "/v1/embeddings"]

    def vector(self, text: str, role: str | None) -> np.ndarray:
        """Counts of hashed words, not of unit length; a role adds a word of its own."""
        counts = np.zeros(self.dim)
        for word in [*re.findall(r"[a-z]+", text.lower()), *([f"role {role}"] if role else [])]:
            counts[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % self.dim] += 1
        return counts + 0.25

    def reply(self, asked: Asked) -> Reply:
        if (given := self.answer(asked)) is not None:
            return given
        if self.key and asked.headers.get("Authorization") != f"Bearer {self.key}":
            return self.error(401, f"Incorrect API key provided: {asked.headers.get('Authorization')}")
        if asked.path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.models]
            return 200, {}, json.dumps({"object": "list", "data": data}).encode()
        if asked.path == "/v1/metadata" and self.metadata is not None:
            return 200, {}, json.dumps(self.metadata).encode()
        if asked.path == "/v1/embeddings":
            return self.embed(asked.body)
        return self.error(404, "Not Found")

    def embed(self, body: dict[str, Any]) -> Reply:
        name, role = str(body["model"]), body.get("input_type")
        for suffix in ("query", "passage"):
            if name.endswith(f"-{suffix}"):
                name, role = name.removesuffix(f"-{suffix}"), suffix
        if name not in self.models and body["model"] not in self.models:
            return self.error(404, f"The model `{name}` does not exist.")
        unknown = sorted(body.keys() - FIELDS[self.kind])
        if unknown:
            return self.error(400, f"Unrecognized request argument supplied: {unknown[0]}")
        if self.kind == "nim" and role not in ("query", "passage"):
            wanted = "from one of `passage` or `query` but none was provided."
            return self.error(400, f"The model expects an input_type {wanted}")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        kept = []
        for text in texts:
            words = text.split()
            if len(words) > LIMIT and body.get("truncate", "NONE") == "NONE":
                if self.kind == "openai":
                    return self.error(400, f"This model's maximum context length is {LIMIT} tokens.")
                return self.error(400, f"Input length {len(words)} exceeds maximum allowed token size {LIMIT}")
            kept.append(words[-LIMIT:] if body.get("truncate") == "START" else words[:LIMIT])
        size = body.get("dimensions", self.dim)
        if size not in (self.dim, self.dim // 2):
            return self.error(400, f"dimensions {size} is not supported")
        vectors = [self.vector(" ".join(words), role)[:size] for words in kept]
        return self.vectors(vectors, floats=self.floats or body.get("encoding_format") != "base64")

    def vectors(self, vectors: list[Any], floats: bool = True, model: str = "") -> Reply:
        def packed(vector: Any) -> Any:
            if floats:
                return [None if number is None else float(number) for number in vector]
            return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()

        data = [{"object": "embedding", "index": i, "embedding": packed(v)} for i, v in enumerate(vectors)]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        whole = {"object": "list", "data": data, "model": model or self.models[0], "usage": usage}
        return 200, {}, json.dumps(whole).encode()

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
        """NIM's body and OpenAI's."""
        if self.kind == "nim":
            body: dict[str, Any] = {"object": "error", "message": message, "type": "invalid_request_error"}
        else:
            body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        return status, headers or {}, json.dumps(body).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served: EmbeddingServer
    under_way = 0
    mutex = threading.Lock()

    def setup(self) -> None:
        super().setup()
        self.served.connections.add(self.connection)

    def finish(self) -> None:
        self.served.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self.respond({})

    def do_POST(self) -> None:
        self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def respond(self, body: dict[str, Any]) -> None:
        asked = Asked(self.path, body, dict(self.headers), self.client_address[1], time.monotonic())
        served = self.served
        with self.mutex:
            served.asked.append(asked)
            type(self).under_way += 1
            served.most = max(served.most, self.under_way)
        try:
            time.sleep(served.delay)
            status, headers, raw = served.reply(asked)
        finally:
            with self.mutex:
                type(self).under_way -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:  # a client that has gone
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EmbeddingServer]]:
    """serve("openai", dim=32, ...): a server that runs until the test ends. No proxy and no key are set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "EMBEDCODE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with ExitStack() as running:

        def serve(kind: str = "nim", port: int = 0, **options: Any) -> EmbeddingServer:
            served = EmbeddingServer(kind, **options)
            served.http = http = Quiet(
                ("127.0.0.1", port), type("Of", (Handler,), {"served": served, "mutex": threading.Lock()})
            )
            thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            running.callback(thread.join)
            running.callback(served.stop)
            served.url = f"http://127.0.0.1:{http.server_address[1]}"
            return served

        yield serve
