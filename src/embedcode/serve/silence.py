"""Silence: of an engine that has something to do and says nothing, by looks at it; whether it hangs. Pure.

Time in which this process stood still too does not count, since each look is worth the same.
"""

from __future__ import annotations

from dataclasses import dataclass

HANG_SECONDS = 30.0
"""After which an engine that has work and says nothing hangs, at the least."""
BUILD_SECONDS = 1800.0
"""The same of one that may build itself anew for texts of another length: TensorRT takes minutes, once each."""
HANG_TIMES = 20
"""And times what a batch of each thread, or its work, should take: it may be slower than it was, be alone with a long
text, or read all weights for a short one."""
LOAD_SECONDS = 300.0
"""After which one hangs that loads for the first time, which may take long, and has done nothing at all since."""
FIRST_SECONDS = 14_400.0
"""And whatever it does, since it may go round in circles: a model of 7B in fp32 by one slow thread takes about an hour,
two passes of 28 TFLOP each at 20 GFLOP/s."""
LOOK_SECONDS = 3.0
"""Between two looks."""


@dataclass(slots=True)
class Silence:
    builds: bool
    """The engine may build itself anew."""
    seconds: float = 0.0
    _still: float = 0.0
    _moved: int | None = None

    def end(self) -> None:
        self.seconds = self._still = 0.0

    def hangs(self, should: float) -> bool:
        """At a look at one whose work should take so many seconds."""
        self.seconds += LOOK_SECONDS
        return self.seconds > max(BUILD_SECONDS if self.builds else HANG_SECONDS, HANG_TIMES * should)

    def hangs_at_first(self, moved: int | None) -> bool:
        """At a look at one that loads for the first time; `moved` grows with all that it does, None where that is not
        known."""
        self.seconds += LOOK_SECONDS
        self._still += LOOK_SECONDS
        if moved is not None and moved != self._moved:
            self._moved, self._still = moved, 0.0
        most = BUILD_SECONDS if self.builds or moved is None else LOAD_SECONDS
        return self._still > most or self.seconds > FIRST_SECONDS
