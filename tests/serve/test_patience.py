"""Who leaves an answer unread, in this process, with sockets of ours."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from embedcode.serve.patience import Patient


async def large(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(20_000_000)})


def test_an_unread_answer_is_dropped_though_its_connection_is_closing() -> None:
    closing: list[bool] = []
    lost: list[Exception | None] = []

    class Noting(Patient):
        read_seconds = 0.3

        def _drop(self) -> None:
            closing.append(self.transport.is_closing())
            super()._drop()

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)
            super().connection_lost(exc)

    async def run() -> None:
        # Keep-alive ends at once, as it does before read_seconds in the server.
        config = uvicorn.Config(large, log_config=None, lifespan="off", timeout_keep_alive=0)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Noting(config, ServerState(), {}), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()[:2]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(100):
                if lost:
                    break
                await asyncio.sleep(0.05)
        server.close()

    asyncio.run(run())
    assert closing == [True]
    assert len(lost) == 1
