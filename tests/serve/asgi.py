"""An application asked in this process: no socket, no engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any


def ask(app: Any, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """GET, or POST where there is a body: status, headers in lower case, and JSON."""
    return asyncio.run(answered(app, path, body, **headers))


async def answered(
    app: Any, path: str, body: object = None, gone: bool = False, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """The same in a loop that runs; of a caller who has `gone` meanwhile, where it sends no body."""
    content = b"" if body is None else json.dumps(body).encode()
    given = {"host": "localhost", **headers}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        if gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, json.loads(b"".join(one.get("body", b"") for one in sent[1:]) or "null")
