"""Port: the socket that a server of ours listens on, and how many connections its process may have."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress

WAITING = 2048
"""Connections that may wait, in the system, to be accepted."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once; port 0 is a free one. OSError where it cannot be had.

    asyncio turns Nagle's algorithm off only for sockets that name their protocol, which those of create_server() do
    not. With it a client on a connection that it keeps waits 40 ms for each answer, until its system acknowledges the
    head and the body may follow: 44 ms for an answer that takes 1, measured here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # all addresses are those of IPv4 too
    listener = socket.create_server((host, port), family=family, backlog=WAITING, dualstack_ipv6=both)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones have it from here
    return listener


def raise_limit() -> int:
    """Let this process have as many files open as it may ask for, and say how many: each connection is one, and the
    usual 1,024 were used up before as many requests could be refused."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # not all that a system calls its limit can be had
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
