"""The socket that a server listens on."""

from __future__ import annotations

import socket

import pytest

from embedcode.serve.port import listen


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_all_addresses_of_ipv6_are_those_of_ipv4_too() -> None:
    """An image that listens on [::] was asked for its health at 127.0.0.1, and never was healthy."""
    with listen("::", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 5) as ours:
        assert ours.getpeername()[0] == "127.0.0.1"
