"""Fatal: texts that the engine died of each time it had them, by their keys, so that it does not die of them again.

Not for ever: it may have been killed, or the machine was out of memory, while it happened to have that text. In a
bounded piece of memory. Knows no queue and no engine.
"""

from __future__ import annotations

from collections.abc import Callable

from embedcode.serve.problem import ProblemError

MINUTES = 10
"""For which such a text is refused."""
MOST = 512
"""Of them that are remembered, the latest."""


class Fatal:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def __contains__(self, key: bytes) -> bool:
        return self._until.get(key, -1.0) > self._clock()

    def add(self, key: bytes) -> None:
        self._until.pop(key, None)  # so that the first is the oldest
        self._until[key] = self._clock() + 60 * MINUTES
        if len(self._until) > MOST:
            del self._until[next(iter(self._until))]


def problem() -> ProblemError:
    """Of such a text: one of its request, since who repeats that would have the engine die of it again."""
    said = f"The engine ended each time it computed this text: leave it out, or send it again in {MINUTES} minutes."
    return ProblemError(400, said, "input")
