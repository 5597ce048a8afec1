"""One line on the terminal that says how far long work is; elsewhere only, and once, that another process does it.

Plain control sequences instead of rich.progress: importing that costs more than a search.
"""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from embedcode.cli import output
from embedcode.printable import printable

if TYPE_CHECKING:
    from embedcode.index.report import Step

REDRAW_SECONDS = 0.1
CLEAR_LINE = "\r\x1b[2K"


class ProgressLine:
    """A `Progress` to hand to an index, used in a `with` block that wipes the line when the work is over."""

    def __init__(self) -> None:
        self._live = output.is_terminal(sys.stderr)
        self._drawn = 0.0
        self._told = False

    def __call__(self, step: Step) -> None:
        if self._live:
            self.draw(described(step))
        elif step.other and not self._told:
            self._told = True
            output.note(described(step))

    def draw(self, text: str) -> None:
        """Unless it was drawn a moment ago, or nobody looks."""
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(CLEAR_LINE + printable(text)[:width])
            sys.stderr.flush()

    def wipe(self) -> None:
        """Before anything else is printed."""
        if self._drawn:
            self._drawn = 0.0
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()


def described(step: Step) -> str:
    """Files or chunks done, their rate, and the time that is left at that rate."""
    if step.phase == "read":
        parts = [f"reading {step.done:,} of {step.total:,} files", f"{step.chunks:,} chunks"]
    else:
        who = f"process {step.other} is " if step.other else ""
        parts = [f"{who}embedding {step.done:,} of {step.total:,} chunks"]
        if step.tokens and step.seconds > 0:
            parts.append(f"{step.tokens / step.seconds:,.0f} tokens/s")
    # A rate measured over less than half a second, or over nothing, promises nonsense.
    done = step.done - step.before
    if done > 0 and step.seconds > 0.5:
        left = step.seconds / done * (step.total - step.done)
        parts.append(f"{output.duration(left)} left")
    return ", ".join(parts)
