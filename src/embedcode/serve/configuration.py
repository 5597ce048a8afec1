"""An assistant's configuration file as it is, and the change that puts our entry in or takes it out.

The file may hold secrets, be a link into somebody's dotfiles, and be written by the assistant at the same time. So a
change is checked by parsing before it is offered, shows nothing but its own lines, and is written in one step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.files import read_small, replacing
from embedcode.serve.assistants import Place

MOST_BYTES = 100_000_000
"""Claude Code keeps its history in the file too: megabytes are usual."""
BOM = "\ufeff"

_BEGUN_KEY = re.compile(r'"\w*\Z')
_PLAIN_LEAD = re.compile(r'\s*\{?\s*(?:"\w+":\s*)?\{?\s*')
_PLAIN_REST = re.compile(r"[\s{}\],]*")


@dataclass(frozen=True, slots=True)
class Change:
    """Of one file: its bytes before and after; None where there is no file."""

    place: Place
    file: Path
    """The file itself, behind any link."""
    before: bytes | None
    after: bytes | None

    def diff(self) -> list[str]:
        """In unified format without context; what an edited line holds beside our entry is left out as `…`."""
        old, new = _lines(self.before), _lines(self.after)
        start = _common(old, new)
        end = _common(old[start:][::-1], new[start:][::-1])
        gone, come = old[start : len(old) - end], new[start : len(new) - end]
        if gone and come:
            gone, come = _without_neighbours(gone, come)
        names = [os.devnull if content is None else str(self.file) for content in (self.before, self.after)]
        head = f"@@ -{_range(start, len(gone))} +{_range(start, len(come))} @@"
        lines = [*(f"-{line}" for line in gone), *(f"+{line}" for line in come)]
        return [f"--- {names[0]}", f"+++ {names[1]}", head, *lines]

    def write(self) -> None:
        """In one step, with the mode the file has. UsageError where it cannot be written or has changed meanwhile."""
        if _read(self.file) != self.before:
            raise UsageError(f"{self.file} has changed meanwhile, and nothing was written: try again")
        folder = self.place.folder
        try:
            if self.after is None:
                self.file.unlink()
            else:
                if folder is not None:
                    folder.mkdir(exist_ok=True)
                with replacing(self.file, 0o666 if self.place.project else 0o600) as file:
                    file.write(self.after)
        except OSError as error:
            raise UsageError(f"{self.file} cannot be written: {error.strerror}; nothing was changed") from None
        finally:
            if folder is not None:
                with suppress(OSError):  # it holds something
                    folder.rmdir()


class Configuration:
    def __init__(self, place: Place) -> None:
        """Read it. UsageError where it cannot be read, parsed, or lies outside its project."""
        self.place = place
        self.file = Path(os.path.realpath(place.file))
        if place.project is not None and not self.file.is_relative_to(place.project):
            raise UsageError(f"{place.file} is a link that leaves the project, to {self.file}: remove the link")
        self._content = _read(self.file)
        try:
            text = None if self._content is None else self._content.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{self.file} is not UTF-8 text; save it as UTF-8") from None
        self._bom = BOM if text is not None and text.startswith(BOM) else ""
        self._text = None if text is None else text.removeprefix(BOM)
        outer, key = place.assistant.where
        servers = self._parsed(self._text).get(outer, {})
        if not isinstance(servers, dict):
            raise UsageError(f"{self.file}: {outer} holds no servers by name; mend it first")
        self.entry: Any = servers.get(key)
        """What stands there under our name; None where nothing does."""

    def putting(self, entry: Mapping[str, object]) -> Change:
        """The change that makes `entry` our entry."""
        assistant = self.place.assistant
        return self._change(assistant.syntax.put(self._text, assistant.where, entry), entry)

    def taking(self) -> Change:
        """The change that removes our entry, which has to be there."""
        assert self._text is not None
        assistant = self.place.assistant
        return self._change(assistant.syntax.take(self._text, assistant.where), None)

    def _change(self, text: str | None, entry: object) -> Change:
        """Checked: all else is as it was, and our entry as it is to be."""
        try:
            found = self._split(text)
        except UsageError:
            found = None
        if found != (self._split(self._text)[0], entry):
            name = ".".join(self.place.assistant.where)
            raise UsageError(f"{self.file} is written in a form that only a person can edit: change {name} by hand")
        try:
            after = None if text is None else (self._bom + text).encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(f"{self.file} is UTF-8, which cannot hold {entry}: use another path") from None
        return Change(self.place, self.file, self._content, after)

    def _split(self, text: str | None) -> tuple[dict[str, Any], object]:
        """All that the text says but for our entry, and our entry."""
        outer, key = self.place.assistant.where
        rest = self._parsed(text)
        servers = dict(rest.pop(outer, {}))
        entry = servers.pop(key, None)
        return {**rest, outer: servers}, entry

    def _parsed(self, text: str | None) -> dict[str, Any]:
        try:
            return {} if text is None else self.place.assistant.syntax.parse(text)
        except ValueError as error:
            raise UsageError(f"{self.file} cannot be parsed ({error}); mend it first") from None


def _read(file: Path) -> bytes | None:
    try:
        return read_small(file, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def _lines(content: bytes | None) -> list[str]:
    """Without their ends, so that a missing one at the end of the file is no change."""
    lines = re.split(r"\r?\n", (content or b"").decode("utf-8"))
    return lines[:-1] if not lines[-1] else lines


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines, or characters of one, are the same from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def _range(start: int, count: int) -> str:
    return f"{start + 1 if count else start},{count}"


def _without_neighbours(gone: Sequence[str], come: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines that were edited: what both sides share of the first and the last is shown only if it is keys and brackets.

    A whole configuration may be one line, with a token in it.
    """
    lead = _BEGUN_KEY.sub("", gone[0][: _common(gone[0], come[0])])
    room = min(len(side[0]) - len(lead) if len(side) == 1 else len(side[-1]) for side in (gone, come))
    length = min(_common(gone[-1][::-1], come[-1][::-1]), room)
    rest = gone[-1][len(gone[-1]) - length :]

    def shown(lines: Sequence[str]) -> list[str]:
        text = "\n".join(lines)
        text = text if _PLAIN_REST.fullmatch(rest) else f"{text.removesuffix(rest)}…"
        text = text if _PLAIN_LEAD.fullmatch(lead) else f"…{text.removeprefix(lead)}"
        return text.replace("……", "…").split("\n")

    return shown(gone), shown(come)
