"""A load client, as a process of its own: sends prepared bodies to one port of this machine, and says how it went.

    python bench/serve/load.py < plan.json

Reads a plan on stdin and prints one JSON object. Bounded: it ends after `seconds`, or when the bodies are used up.
Knows no server: whoever answers 200 has answered. It writes HTTP by hand on asyncio's streams, since a client library
costs more of the two cores than the request; run.py measures its own cost against null_server.py.

Closed loop: `clients` each send the next body once they have their answer. Open loop: `rate` requests a second, whether
the last ones are answered or not, at Poisson times with a fixed seed; a latency counts from the time at which the
request was due, so that a client that falls behind does not hide it.

Tokens a second are those answered between `warm` and `seconds`, whenever they were asked for: with many clients the
answers to what was asked before are a large part. Statuses and latencies are of requests begun after `warm`.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from typing import Any

CONNECT_SECONDS = 10
ANSWER_SECONDS = 150
MOST_OPEN = 2000
"""Requests under way in an open loop; what is due beyond is counted as not sent."""


class Client:
    """One connection, made when it is needed and kept."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, body: bytes) -> tuple[int, str]:
        """Status, and what Retry-After says. A connection that was closed while it was idle is made anew, once."""
        if self._streams is not None:
            try:
                return await self._exchange(body)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                self.close()
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise
        return await self._exchange(body)

    async def _exchange(self, body: bytes) -> tuple[int, str]:
        async with asyncio.timeout(ANSWER_SECONDS):
            if self._streams is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
            reader, writer = self._streams
            writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            if headers.get("transfer-encoding") == "chunked":
                while size := int((await reader.readline()).strip(), 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
            else:
                await reader.readexactly(int(headers.get("content-length", "0")))
            if headers.get("connection") == "close":
                self.close()
            return int(head.split(" ", 2)[1]), headers.get("retry-after", "")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._bodies = [(body.encode(), tokens) for body, tokens in plan["bodies"]]
        self._next = 0
        self._used = 0
        self._end = time.monotonic() + plan["seconds"]
        self._warm = time.monotonic() + plan.get("warm", 0.0)
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.refused: list[float] = []
        self.tokens = 0
        self.without_retry = 0
        self.not_sent = 0

    async def run(self) -> dict[str, Any]:
        since = max(time.monotonic(), self._warm)
        cpu = time.process_time()
        await (self._open() if self._plan.get("rate") else self._closed())
        passed = time.monotonic() - since
        window = min(time.monotonic(), self._end) - since
        return {
            "seconds": round(passed, 2),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / window, 1),
            "answered": len(self.seconds),
            "statuses": dict(self.statuses),
            "refused_without_retry_after": self.without_retry,
            "not_sent": self.not_sent,
            "bodies_used": self._used,
            "ms": shares(self.seconds),
            "refused_ms": shares(self.refused),
            "client_cpu_seconds": round(time.process_time() - cpu, 2),
            "client_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }

    def _body(self) -> tuple[bytes, int] | None:
        if time.monotonic() >= self._end:
            return None
        if self._next >= len(self._bodies):
            if not self._plan.get("again"):
                return None
            self._next = 0
        self._next += 1
        self._used += 1
        return self._bodies[self._next - 1]

    async def _closed(self) -> None:
        async def one() -> None:
            client = Client(self._plan["port"], self._plan["path"])
            while (body := self._body()) is not None:
                await self._send(client, *body, time.monotonic())
            client.close()

        await asyncio.gather(*(one() for _ in range(self._plan["clients"])))

    async def _open(self) -> None:
        draw = random.Random(self._plan.get("seed", 0))
        free: list[Client] = []
        running: set[asyncio.Task[None]] = set()
        due = time.monotonic()

        async def one(body: bytes, tokens: int, at: float) -> None:
            client = free.pop() if free else Client(self._plan["port"], self._plan["path"])
            await self._send(client, body, tokens, at)
            free.append(client)

        while True:
            due += draw.expovariate(self._plan["rate"])
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if (body := self._body()) is None:
                break
            if len(running) >= MOST_OPEN:
                self.not_sent += 1
                continue
            task = asyncio.create_task(one(*body, due))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)

    async def _send(self, client: Client, body: bytes, tokens: int, since: float) -> None:
        try:
            status, retry = await client.send(body)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            client.close()
            status, retry = 0, ""
            self.statuses[type(error).__name__] += 1
            await asyncio.sleep(0.05)
        now = time.monotonic()
        if status == 200 and self._warm <= now <= self._end:
            self.tokens += tokens
        if since < self._warm:
            return
        if status:
            self.statuses[str(status)] += 1
        if status == 200:
            self.seconds.append(now - since)
        elif status:
            self.refused.append(now - since)
            self.without_retry += not retry
            if self._plan.get("pause"):
                await asyncio.sleep(self._plan["pause"])


def shares(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the most, in milliseconds."""
    found = sorted(seconds)
    if not found:
        return {}
    at = {f"p{share}": found[min(len(found) - 1, len(found) * share // 100)] for share in (50, 95, 99)}
    return {name: round(value * 1000, 1) for name, value in (at | {"most": found[-1]}).items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(json.load(sys.stdin)).run())))
