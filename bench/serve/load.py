"""A load client, as a process of its own: sends prepared bodies to one port of this machine, and says how it went.

    python bench/serve/load.py < plan.json

Reads a plan on stdin and prints one JSON object. Bounded: it ends after `seconds`, or when the bodies are used up.
Knows no server: whoever answers 200 has answered. It writes HTTP by hand on plain sockets, one loop for all of them:
asyncio's streams cost more of the two cores than a refusal costs the server. run.py measures its own cost against
null_server.py.

Closed loop: `clients` each send the next body once they have their answer. Open loop: `rate` requests a second, whether
the last ones are answered or not, at Poisson times with a fixed seed; a latency counts from the time at which the
request was due, so that a client that falls behind does not hide it.

Tokens a second are those answered between `warm` and `seconds`, whenever they were asked for: with many clients the
answers to what was asked before are a large part. Statuses and latencies are of requests begun after `warm`.
"""

from __future__ import annotations

import heapq
import json
import random
import resource
import selectors
import socket
import sys
import time
from collections import Counter
from typing import Any

CONNECT_SECONDS = 10
ANSWER_SECONDS = 150
MOST_OPEN = 2000
"""Requests under way in an open loop; what is due beyond is counted as not sent."""
BLOCK = 1 << 20


class Connection:
    """One request at a time, on a socket that is made when it is needed and kept."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self.socket: socket.socket | None = None
        self.request = b""
        self.tokens = 0
        self.since = 0.0
        self.begun = 0.0
        self.kept = False
        """Whether it was used before: one that was closed while it was idle is made anew, once."""
        self._got = b""

    def send(self, body: bytes, tokens: int, since: float) -> None:
        self.request = f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.tokens, self.since, self.begun = tokens, since, time.monotonic()
        self.kept = self.socket is not None
        self._out()

    def again(self) -> None:
        self.close()
        self.kept = False
        self._out()

    def _out(self) -> None:
        self._got = b""
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self._port), CONNECT_SECONDS)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(ANSWER_SECONDS)
        self.socket.sendall(self.request)

    def read(self) -> tuple[int, str] | None:
        """Status, and what Retry-After says, once the answer is there. ConnectionError where it ends before."""
        assert self.socket is not None
        block = self.socket.recv(BLOCK)
        if not block:
            raise ConnectionResetError
        self._got += block
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if headers.get("transfer-encoding") == "chunked":
            if not body.endswith(b"0\r\n\r\n"):
                return None
        elif len(body) < int(headers.get("content-length", "0")):
            return None
        self.kept = False
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split(" ", 2)[1]), headers.get("retry-after", "")

    @property
    def untouched(self) -> bool:
        """Nothing of an answer has come."""
        return not self._got

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._bodies = [(body.encode(), tokens) for body, tokens in plan["bodies"]]
        self._next = 0
        self._used = 0
        self._end = time.monotonic() + plan["seconds"]
        self._warm = time.monotonic() + plan.get("warm", 0.0)
        self._ready = selectors.DefaultSelector()
        self._running: set[Connection] = set()
        self._free: list[Connection] = []
        self._due: list[tuple[float, int]] = []
        """Times at which a client asks, and a number that tells equal ones apart."""
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.refused: list[float] = []
        self.tokens = 0
        self.without_retry = 0
        self.not_sent = 0

    def run(self) -> dict[str, Any]:
        since = max(time.monotonic(), self._warm)
        cpu = time.process_time()
        self._loop()
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

    def _loop(self) -> None:
        rate = self._plan.get("rate")
        draw = random.Random(self._plan.get("seed", 0))
        for number in range(1 if rate else self._plan["clients"]):
            self._ask_at(time.monotonic() + (draw.expovariate(rate) if rate else 0.0), number)
        looked = time.monotonic()
        while self._due or self._running:
            while self._due and self._due[0][0] <= time.monotonic():
                at, number = heapq.heappop(self._due)
                if (body := self._body()) is None:
                    self._due.clear()
                elif rate and len(self._running) >= MOST_OPEN:
                    self.not_sent += 1
                else:
                    self._ask(*body, at)
                if rate and body is not None:
                    self._ask_at(at + draw.expovariate(rate), number)
            left = self._due[0][0] - time.monotonic() if self._due else 1.0
            for key, _ in self._ready.select(min(1.0, max(0.0, left))):
                self._read(key.data)
            if (now := time.monotonic()) > looked + 1:
                looked = now
                for one in [one for one in self._running if now > one.begun + ANSWER_SECONDS]:
                    self._failed(one, TimeoutError())

    def _ask_at(self, at: float, number: int) -> None:
        heapq.heappush(self._due, (at, number))

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

    def _ask(self, body: bytes, tokens: int, since: float) -> None:
        one = self._free.pop() if self._free else Connection(self._plan["port"], self._plan["path"])
        self._running.add(one)
        before = one.socket
        try:
            one.send(body, tokens, since)
        except OSError as error:
            self._lost(one, before, error)
            return
        self._listen(one, before)

    def _listen(self, one: Connection, before: socket.socket | None) -> None:
        if one.socket is not before and one.socket is not None:
            self._ready.register(one.socket, selectors.EVENT_READ, one)

    def _read(self, one: Connection) -> None:
        before = one.socket
        assert before is not None
        if one not in self._running:  # it was closed while it was idle
            self._ready.unregister(before)
            one.close()
            return
        try:
            found = one.read()
        except OSError as error:
            self._lost(one, before, error)
            return
        if found is None:
            return
        if one.socket is None:
            self._ready.unregister(before)
        self._answered(one, *found)

    def _lost(self, one: Connection, before: socket.socket | None, error: OSError) -> None:
        """A connection that was closed while it was idle is made anew."""
        if before is not None:
            self._ready.unregister(before)
        if not (one.kept and one.untouched):
            one.close()
            self._failed(one, error)
            return
        try:
            one.again()
        except OSError as second:
            one.close()
            self._failed(one, second)
            return
        self._listen(one, None)

    def _failed(self, one: Connection, error: OSError) -> None:
        if one.socket is not None:
            self._ready.unregister(one.socket)
            one.close()
        self.statuses[type(error).__name__] += 1
        self._running.discard(one)
        self._free.append(one)
        if not self._plan.get("rate"):
            self._ask_at(time.monotonic() + 0.05, id(one))

    def _answered(self, one: Connection, status: int, retry: str) -> None:
        now, pause = time.monotonic(), 0.0
        self._running.discard(one)
        self._free.append(one)
        if status == 200 and self._warm <= now <= self._end:
            self.tokens += one.tokens
        if one.since >= self._warm:
            self.statuses[str(status)] += 1
            (self.seconds if status == 200 else self.refused).append(now - one.since)
            self.without_retry += status != 200 and not retry
        if status != 200:
            pause = self._plan.get("pause", 0.0)
        if not self._plan.get("rate"):
            self._ask_at(now + pause, id(one))


def shares(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the most, in milliseconds."""
    found = sorted(seconds)
    if not found:
        return {}
    at = {f"p{share}": found[min(len(found) - 1, len(found) * share // 100)] for share in (50, 95, 99)}
    return {name: round(value * 1000, 1) for name, value in (at | {"most": found[-1]}).items()}


if __name__ == "__main__":
    print(json.dumps(Load(json.load(sys.stdin)).run()))
