"""Engine: the life of the process that computes: it is ready, hangs and is killed, dies and is started again, or is of
no use any more, since it would compute with another model than the server tells of. Knows no request.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable
from typing import Any

from embedcode import __version__
from embedcode.engine.encoder import LocalEncoder
from embedcode.engine.graph import GOLDEN_COSINE
from embedcode.serve import silence
from embedcode.serve.asked import Model
from embedcode.serve.engine_process import EngineProcess
from embedcode.serve.metrics import Metrics
from embedcode.serve.silence import Silence
from embedcode.serve.worker import Facts, Load

RESTART_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pause before an engine that died is started again, by how often it died before it was ready."""
FIRST_SECONDS = 5
"""That one which has not been ready yet is said to take."""

KILLED = "killed: memory ran out, mostly, which the kernel's log or the container's state (OOMKilled) would say"
"""What may be said of one that ended by SIGKILL; `engine hangs` is noted before, where it was us."""


class Engine:
    def __init__(
        self,
        load: Load,
        encoder: LocalEncoder,
        model: Model,
        metrics: Metrics,
        told: Callable[[str, tuple[Any, ...]], None],
        work: Callable[[], tuple[int, float]],
    ) -> None:
        """`told` gets what the process says (engine_process.py), once that is known here; `work` gives the tokens that
        it has, and the seconds that they should take."""
        self.process = EngineProcess(load, self._hear)
        self.ready = False
        self.facts: Facts | None = None
        """Of the last one that was ready."""
        self.trouble = ""
        """Why it is not there, if it is not."""
        self.unusable: asyncio.Future[str] | None = None
        """Is set to what keeps the model from ever being ready, or from being so again."""
        self.restarts = 0
        self.note: Callable[..., None] = lambda event, level="info", **fields: None
        """Is told what happens to it: an event, a level, and fields."""
        self._encoder = encoder
        self._model = model
        self._metrics = metrics
        self._told = told
        self._work = work
        self._silence = Silence(encoder.builds)
        self._deaths = 0
        self._pause_ends = 0.0

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.unusable = loop.create_future()
        self.process.start()
        loop.call_later(silence.LOOK_SECONDS, self._look)

    @property
    def over(self) -> bool:
        """None will be ready any more."""
        return self.unusable is not None and self.unusable.done()

    @property
    def wait(self) -> int:
        """Seconds after which one that is not ready may be."""
        seconds = int(self.facts.seconds) + 1 if self.facts else FIRST_SECONDS
        return seconds + math.ceil(max(0.0, self._pause_ends - time.monotonic()))

    def ended(self, code: int | None, **fields: Any) -> None:
        """Note that one has died, with what is known of why, and of the next."""
        self.note(
            "engine ended",
            "warning",
            code=code,
            pid=self.process.pid,
            trouble=self.trouble or (KILLED if code == -signal.SIGKILL else ""),
            **fields,
            restarts=self.restarts,
            next_seconds=None if self.over else max(0, round(self._pause_ends - time.monotonic())),
        )

    def _look(self) -> None:
        """Kill one that hangs, its pipe open, at work or as it loads: it is then one that died."""
        tokens, should = self._work()
        hangs = False
        if self.ready and tokens:
            hangs = self._silence.hangs(should)
        elif self.ready or time.monotonic() <= self._pause_ends:
            self._silence.end()  # it has nothing to do
        elif self.facts is not None:
            hangs = self._silence.hangs(self.facts.seconds)
        else:
            hangs = self._silence.hangs_at_first(self.process.moved)
        if hangs:
            self.note("engine hangs", "error", seconds=round(self._silence.seconds), tokens=tokens)
            self._silence.end()
            self.process.kill()
        asyncio.get_running_loop().call_later(silence.LOOK_SECONDS, self._look)

    def _hear(self, what: str, rest: tuple[Any, ...]) -> None:
        self._silence.end()
        match what:
            case "ready":
                self._is_ready(rest[0])
            case "broken" | "unusable":
                self.trouble = rest[0]
                if what == "unusable" and self.facts is None:
                    self._end(rest[0])
            case "died":
                self._died()
        self._told(what, rest)

    def _is_ready(self, facts: Facts) -> None:
        for what, found, known in (
            (f"the files of {self._model.name} have", (facts.space, facts.dim), (self._encoder.space, self._model.dim)),
            ("embedcode has", facts.version, __version__),
        ):
            if found != known:  # and what it computes would be told as this one's
                self._end(f"{what} changed since this server was started: start it anew.")
                return
        if facts.cosine is not None and not facts.cosine >= GOLDEN_COSINE:  # nan too
            self.note("other vectors", "warning", build=facts.build, golden_cosine=round(facts.cosine, 4))
        if self.facts is not None:
            self.note("engine started again", load_seconds=round(facts.seconds, 2))
        self.facts = facts
        self.trouble = ""
        self._deaths = 0
        self.ready = True

    def _end(self, said: str) -> None:
        if self.unusable and not self.unusable.done():
            self.unusable.set_result(said)

    def _died(self) -> None:
        self.ready = False
        if self.over:
            return
        pause = RESTART_SECONDS[min(self._deaths, len(RESTART_SECONDS) - 1)]
        self._deaths += 1
        self._pause_ends = time.monotonic() + pause
        self.restarts += 1
        self._metrics.restarts.inc()
        asyncio.get_running_loop().call_later(pause, self.process.start)
