"""Port: the socket that a server of ours listens on."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once; port 0 is a free one. OSError where it cannot be had.

    asyncio turns Nagle's algorithm off only for sockets that name their protocol, which those of create_server() do
    not. With it a client on a connection that it keeps waits 40 ms for each answer, until its system acknowledges the
    head and the body may follow: 44 ms for an answer that takes 1, measured here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones have it from here
    return listener
