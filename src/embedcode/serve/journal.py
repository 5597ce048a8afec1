"""Journal: what the server did, a line an event, on stderr: JSON, or words for a person. It knows no text of its own.

Lines are written by a thread of their own: a reader of the log that stands still must not stop the server.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

import orjson

MOST_LINES = 10_000
"""That wait to be written; what comes beyond is counted and left out."""
PAUSE_SECONDS = 0.1
"""Between two times of writing. Lines of a busy server are written together: each waking takes from the engine."""
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Journal:
    def __init__(
        self,
        level: str,
        as_json: bool,
        out: IO[str] | None = None,
        failed: Callable[[str, int], None] = lambda said, lines: None,
    ) -> None:
        """`failed` is told, by the thread that writes, how many lines are not written, and why: nothing where that is
        as it was for those before."""
        self._least = LEVELS[level]
        self._json = as_json
        self._out = out or sys.stderr
        self._failed = failed
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._lost = 0
        self._thread = Thread(target=self._write, daemon=True)
        self._thread.start()

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        if LEVELS[level] < self._least:
            return
        line = written(self._json, event, level, **fields)
        if self._lines.qsize() >= MOST_LINES:
            self._lost += 1
            return
        if self._lost:
            self._lines.put(f'{{"event":"lines lost","count":{self._lost}}}')
            self._lost = 0
        self._lines.put(line)

    def close(self) -> None:
        """Waits a moment for what is still to be written."""
        self._lines.put(None)
        self._thread.join(1)

    def _write(self) -> None:
        trouble, closed = "", False
        while not closed:
            lines = [self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get())
            closed = None in lines
            before, trouble = trouble, ""
            found = [line for line in lines if line is not None]
            try:
                self._out.write("".join(f"{line}\n" for line in found))
                self._out.flush()
            except (OSError, ValueError) as error:
                trouble = str(error)
            if trouble:
                self._failed("" if before else trouble, len(found))
            time.sleep(PAUSE_SECONDS)


def written(as_json: bool, event: str, level: str, **fields: Any) -> str:
    """An event of now as a line of a journal."""
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    if not as_json:
        return f"{now} {level} {event} " + " ".join(f"{name}={value!r}" for name, value in fields.items())
    values = {"time": now, "level": level, "event": event, **fields}
    try:
        return orjson.dumps(values, default=str).decode()
    except TypeError:  # half a surrogate pair, of a path that is no UTF-8
        return json.dumps(values, default=str)


class Lines(logging.Handler):
    """What libraries and other rooms log, as events."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self._journal.write("log", level if level in LEVELS else "error", logger=record.name, said=record.getMessage())
