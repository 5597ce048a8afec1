"""Halves: JSON in which a text holds half a surrogate pair, as of an emoji that a client has cut in two.

Parsers that take UTF-8 at its word refuse it. The MCP SDK's drops such a line, and its caller waits for an answer that
never comes: what is on stdin goes through a pipe here, with U+FFFD for each half.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from threading import Thread

_ESCAPE = re.compile(
    rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2})|.)"
)
"""Each escape of JSON, so that none begins inside of another; the first group is a pair or half of one."""


def mended(line: bytes) -> bytes:
    """With U+FFFD for each half."""
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] and not found[2] else found[0], line)


def mend_stdin() -> None:
    """From now on file descriptor 0 gives mended lines, until it ends."""
    wire = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)

    def copy() -> None:
        with os.fdopen(wire, "rb") as lines, os.fdopen(writing, "wb", buffering=0) as out, suppress(OSError):
            for line in lines:
                out.write(mended(line))

    Thread(target=copy, daemon=True).start()
