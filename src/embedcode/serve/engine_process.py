"""EngineProcess: the engine as a process of its own: started, fed, and started again when it dies. Knows no request.

What it says comes as calls in the event loop. A crash of the engine, or a model that takes all memory, costs the texts
that were being computed and not the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from embedcode.serve import worker
from embedcode.serve.queue import Lane
from embedcode.serve.worker import Item, Load

STOP_SECONDS = 2.0
"""How long an engine may take to end before it is killed."""
MOVES = (9, 11, 12)
"""Of /proc/PID/stat, behind the name: pages read from a disk, and processor time of its own and for it."""


class EngineProcess:
    def __init__(self, load: Load, told: Callable[[str, tuple[Any, ...]], None]) -> None:
        """`told` is called in the event loop that runs at start(): ("ready", Facts), ("rows", ...), ..., ("died",)."""
        self._load = load
        self._told = told
        self._process: Any = None
        self._out: SimpleQueue[tuple[object, ...] | None] = SimpleQueue()
        self._run = 0
        self._stopped = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def moved(self) -> int | None:
        """Grows as it computes or reads its files; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return sum(int(fields[place]) for place in MOVES)
        except (OSError, IndexError, ValueError):
            return None

    def start(self) -> None:
        """Returns at once; what the last process was still to say is not told any more. Nothing after stop(), which a
        timer may not know of: that engine would have nobody to end it, and this process would wait for it."""
        if self._stopped:
            return
        self._run += 1
        self._out = SimpleQueue()
        loop = asyncio.get_running_loop()
        try:
            Thread(target=self._live, args=[loop, self._run, self._out], daemon=True).start()
        except RuntimeError as error:  # there may be no more threads
            self._not_started(loop, self._run, error)

    def send(self, lane: Lane, items: Sequence[Item]) -> None:
        self._out.put(("batch", lane, list(items)))

    def forget(self, numbers: Sequence[int]) -> None:
        """Nobody waits for these any more."""
        self._out.put(("gone", list(numbers)))

    def stop(self) -> None:
        """End it for good, whatever it does. Blocks for at most twice STOP_SECONDS."""
        self._stopped = True
        self._run += 1
        self._out.put(None)
        if (process := self._process) is not None and process.pid is not None:
            process.join(STOP_SECONDS)
            if process.is_alive():
                self.kill()
                process.join(STOP_SECONDS)

    def kill(self) -> None:
        """It is told of as one that has died."""
        if (process := self._process) is not None and process.is_alive():  # else its number may be another's
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _live(self, loop: asyncio.AbstractEventLoop, run: int, out: SimpleQueue[Any]) -> None:
        """The life of one process, in a thread that reads what it says; another writes, since a pipe can be full."""
        context = multiprocessing.get_context("spawn")
        try:
            ours, theirs = context.Pipe()
            arguments = (theirs, self._load)
            process = context.Process(target=worker.run, args=arguments, name="embedcode-engine", daemon=True)
            Thread(target=self._write, args=[ours, out], daemon=True).start()
            process.start()
        except (OSError, RuntimeError) as error:  # no more files, processes or threads: which may pass
            out.put(None)
            self._not_started(loop, run, error)
            return
        self._process = process
        theirs.close()
        try:
            while True:
                what, *rest = ours.recv()
                self._tell(loop, run, what, tuple(rest))
        except (EOFError, OSError):
            pass
        except Exception as error:  # what unpickles is code of another version, where that was installed meanwhile
            self._tell(loop, run, "broken", (f"what it says cannot be read ({type(error).__name__})",))
            process.kill()
        out.put(None)
        process.join()
        self._tell(loop, run, "died", (process.exitcode,))

    def _not_started(self, loop: asyncio.AbstractEventLoop, run: int, error: Exception) -> None:
        self._tell(loop, run, "broken", (f"its process cannot be started ({error})",))
        self._tell(loop, run, "died", (None,))

    def _tell(self, loop: asyncio.AbstractEventLoop, run: int, what: str, rest: tuple[Any, ...]) -> None:
        def telling() -> None:
            if run == self._run:
                self._told(what, rest)

        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(telling)

    @staticmethod
    def _write(pipe: Connection, out: SimpleQueue[Any]) -> None:
        with suppress(OSError):
            while (message := out.get()) is not None:
                pipe.send(message)
            pipe.send(("stop",))  # closing it would not end the other thread's reading
