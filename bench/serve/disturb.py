"""What a server meets beside good requests: callers who leave, bodies that are too large or no JSON, slow readers.

Each is sent a few times a second by a thread of its own until the block ends. Knows no server but its port.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

OVERSIZE = 33_000_000
"""Bytes that are announced; above the default limit."""


def _post(port: int, body: bytes, length: int | None = None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
    return connection


def _status(connection: socket.socket) -> str:
    head = b""
    while b"\r\n" not in head and (block := connection.recv(4096)):
        head += block
    return head.split(b" ", 2)[1].decode() if head.count(b" ") >= 2 else "closed"


def leaves(port: int, body: bytes, draw: random.Random) -> str:
    with _post(port, body):
        time.sleep(draw.uniform(0, 0.2))
    return "left"


def half_a_body(port: int, body: bytes, draw: random.Random) -> str:
    with _post(port, body[: len(body) // 2], len(body)):
        time.sleep(draw.uniform(0, 0.2))
    return "left"


def oversize(port: int, body: bytes, draw: random.Random) -> str:
    with _post(port, body, OVERSIZE) as connection:
        return _status(connection)


def bad_json(port: int, body: bytes, draw: random.Random) -> str:
    cut = bytearray(body[: draw.randrange(1, len(body))])
    cut[draw.randrange(len(cut))] = draw.randrange(256)
    with _post(port, bytes(cut)) as connection:
        return _status(connection)


def slow_reader(port: int, body: bytes, draw: random.Random) -> str:
    with _post(port, body) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            time.sleep(0.1)
            if not connection.recv(256):
                break
    return "read slowly"


def slow_head(port: int, body: bytes, draw: random.Random) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for byte in b"POST /v1/embeddings HTTP/1.1\r\nHost":
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    return "left"


KINDS: tuple[Callable[[int, bytes, random.Random], str], ...] = (
    leaves, half_a_body, oversize, bad_json, slow_reader, slow_head,
)  # fmt: skip


@contextmanager
def disturbing(port: int, bodies: list[str]) -> Iterator[Counter[str]]:
    """Counts of kinds with their outcomes, complete when the block has ended."""
    counts: Counter[str] = Counter()
    over = Event()

    def one(seed: int, kind: Callable[[int, bytes, random.Random], str]) -> None:
        draw = random.Random(seed)
        while not over.is_set():
            try:
                outcome = kind(port, draw.choice(bodies).encode(), draw)
            except OSError as error:
                outcome = type(error).__name__
            counts[f"{kind.__name__}: {outcome}"] += 1
            over.wait(draw.uniform(0.2, 0.8))

    threads = [Thread(target=one, args=[seed, kind], daemon=True) for seed, kind in enumerate(KINDS)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join(40)
