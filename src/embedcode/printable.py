"""Printable: what a stranger's repository holds, as text that stays on its line and drives nothing: names, symbols,
ignore rules. For terminals, and for answers whose own words a language model tells from others by their lines."""

from __future__ import annotations

import re

# C0 and C1 controls but tab, and the bidirectional controls, which make code read as what it is not.
UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """One line that cannot drive a terminal: controls as \\n, \\x1b or \\u202e, undecodable bytes as \\udcff."""
    text = UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)
    return text.encode("utf-8", "backslashreplace").decode()
