"""Port: the socket that a server of ours listens on, and how many connections its process may have."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress

from embedcode.errors import UsageError

WAITING = 2048
"""Connections that may wait, in the system, to be accepted."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once; port 0 is a free one. UsageError where it cannot be had.

    asyncio turns Nagle's algorithm off only for sockets that name their protocol, which those of create_server() do
    not. With it a client on a connection that it keeps waits 40 ms for each answer, until its system acknowledges the
    head and the body may follow: 44 ms for an answer that takes 1, measured here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # all addresses are those of IPv4 too
    try:
        listener = socket.create_server((host, port), family=family, backlog=WAITING, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(
            f"{host} port {port} cannot be used ({(error.strerror or str(error)).lower()}): give another --port, or 0 "
            "for a free one"
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted ones have it from here
    return listener


def raise_limit() -> int:
    """Let this process have as many files open as it may ask for, and say how many: each connection is one, and the
    usual 1,024 were used up before as many requests could be refused."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # not all that a system calls its limit can be had
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
