"""Toml: an entry that is a table of its own, such as `[mcp_servers.NAME]`.

put() appends it, after an empty line where the text ends with a line end, so that take() can undo that to the byte.
Knows no files and no assistants.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from embedcode.serve.syntax import Where

_HEADER = re.compile(r"^[ \t]*\[[^\r\n]*\][ \t]*(?:#[^\r\n]*)?\r?$", re.MULTILINE)
_EMPTY_LINE_BEFORE = re.compile(r"(?:\A|\n)\r?\n\Z")
_LINE_END = re.compile(r"\r?\n")


class Toml:
    def parse(self, text: str) -> dict[str, Any]:
        """Floats as they are written, since nan would not equal itself."""
        try:
            return tomllib.loads(text, parse_float=str)
        except RecursionError:
            raise ValueError("it is nested too deep") from None

    def put(self, text: str | None, where: Where, value: Mapping[str, object]) -> str:
        """Not valid where the entry is there in another form, such as dotted keys."""
        if text is None:
            return _table(where, value, "\n") + "\n"
        line_end = "\r\n" if "\r\n" in text else "\n"
        table = _table(where, value, line_end)
        if spans := _spans(text, where):
            start, end = spans[0]
            return text[:start] + table + text[end:]
        return text + line_end + table + (line_end if text.endswith("\n") or not text else "")

    def take(self, text: str, where: Where) -> str | None:
        """Without the tables in it, too; the same text where it is there in another form."""
        outer, key = where
        if text == self.put(None, where, self.parse(text)[outer][key]):
            return None
        for start, end in reversed(_spans(text, where)):
            lead, rest = text[:start], text[end:]
            line_end = _LINE_END.match(rest)
            if _EMPTY_LINE_BEFORE.search(lead) or not line_end:
                lead = lead.removesuffix("\n").removesuffix("\r")
            text = lead + rest[line_end.end() if line_end else 0 :]
        return text


def _table(where: Where, value: Mapping[str, object], line_end: str) -> str:
    """Without the last line end. JSON's strings and arrays of strings are TOML's too."""
    lines = [f"{key} = {json.dumps(item, ensure_ascii=False, default=str)}" for key, item in value.items()]
    return line_end.join([f"[{'.'.join(where)}]", *lines])


def _spans(text: str, where: Where) -> list[tuple[int, int]]:
    """From where to where the table and those in it go, without the last line end.

    Comments and empty lines before the next header are the next table's.
    """
    outer, key = (rf"""["']?{re.escape(name)}["']?""" for name in where)
    wanted = re.compile(rf"[ \t]*\[{{1,2}}[ \t]*{outer}[ \t]*\.[ \t]*{key}[ \t]*[.\]]")
    starts = [found.start() for found in _HEADER.finditer(text)]
    spans = []
    for start, stop in pairwise([*starts, len(text)]):
        if wanted.match(text, start):
            lines = text[start:stop].split("\n")
            while not lines[-1].strip() or lines[-1].lstrip().startswith("#"):
                lines.pop()
            spans.append((start, start + len("\n".join(lines).removesuffix("\r"))))
    return spans
