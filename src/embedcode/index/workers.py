"""Do one kind of work many times on all cores, in processes of our own. Knows nothing of the work.

Not multiprocessing: its workers run the caller's main script again, which breaks `Index.update()` in a plain script,
and one that dies takes the pool with it. Here a parser that crashes on a file costs that file, and where no other
process can do the work this one does.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from threading import Event
from typing import IO, Any, Generic, Self, TypeVar

from embedcode.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")

FEW = 100
"""Files up to which workers are not worth starting: one takes 0.2 s."""
PARCEL = 16
"""Jobs sent at a time."""
AHEAD = 4
"""Parcels for each process that may be done before the first is taken: the memory that a slow file can cost."""
CRASHED = "the parser crashed on it"
ENDED = "the process that read it was ended"
"""From outside, as by who ran out of memory: that says nothing of the file."""
_FAULTS = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"})
_CRASHES = {-sign for sign in signal.Signals if sign.name in _FAULTS} | {
    *(0xC0000005, 0xC000001D, 0xC0000094, 0xC00000FD, 0xC0000374, 0xC0000409)  # the same, on Windows
}
"""Codes with which a process ends that its own doing has ended."""
_DEATH_SECONDS = 5.0
"""From when its pipes close to when a process has ended."""
_SIZE = struct.Struct("<Q")


class Workers(Generic[J, R]):
    """Up to `cores` processes; without start(), or with fewer cores than `least`, the calling process does the work."""

    def __init__(
        self, cores: int, work: Callable[[J], R], lost: Callable[[J, str], R], parcel: int = PARCEL, least: int = 2
    ) -> None:
        """`work` is a function of a module; `lost` gives a result for a job at which a process died twice, and why:
        CRASHED or ENDED. With fewer than `least` cores this process does it, and where `least` is 1 never
        once start() was called."""
        self._cores = cores
        self._least = least
        self._work = work
        self._lost = lost
        self._parcel = parcel
        self._idle: SimpleQueue[_Worker[J, R]] = SimpleQueue()
        self._all: list[_Worker[J, R]] = []
        self._started = False

    def start(self, certain: bool = False) -> None:
        """Start them, if they are not running; where it is `certain` that they are needed, whatever `least` says."""
        if self._started or (self._cores < self._least and not certain):
            return
        self._started = True  # once: where none can be started, the next file would try it again
        if getattr(sys, "frozen", False) or not sys.executable:  # there is no Python to start, but an application
            return
        with suppress(OSError):  # no room for one more process: those that there are do it
            while len(self._all) < self._cores:
                self._all.append(_Worker(self._work, self._lost))
                self._idle.put(self._all[-1])

    def apart(self) -> bool:
        """Whether other processes do the work. Where one has not even come up, as where it does not find the package
        that this one was told the place of, they end, and the work is done here."""
        if not all(worker.is_up() for worker in self._all):
            self.close()
        return bool(self._all)

    def done(self, jobs: Iterable[J]) -> Iterator[R]:
        """Every job's result, in order, as it is done; jobs are taken some parcels ahead, and the processes stay."""
        started = self._started
        if not self.apart():
            if started and self._least == 1:
                raise UsageError("no process can be started to read files: run again later.")
            yield from map(self._work, jobs)
            return
        left = iter(jobs)
        pool = ThreadPoolExecutor(self._cores)
        waiting: deque[Future[list[R]]] = deque()
        try:
            while parcel := list(islice(left, self._parcel)):
                waiting.append(pool.submit(self._ask, parcel))
                if len(waiting) > AHEAD * self._cores:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            self.close()  # what is under way ends at once: its answer can no longer come
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, parcel: Sequence[J]) -> list[R]:
        idle = self._idle  # close() takes another, in which those that it ended are not
        worker = idle.get()
        try:
            return worker.ask(parcel)
        finally:
            idle.put(worker)

    def close(self) -> None:
        for worker in self._all:
            worker.close()
        self._all, self._started = [], False
        self._idle = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker(Generic[J, R]):
    """A process that works on parcels; started again when it dies."""

    def __init__(self, work: Callable[[J], R], lost: Callable[[J, str], R]) -> None:
        self._work = work
        self._lost = lost
        self._process = self._start()
        self._up = False
        self._closed = Event()

    def is_up(self) -> bool:
        """Whether it has imported what its work needs; waits until that is known."""
        with suppress(OSError, EOFError):
            self._greeted()
        return self._up

    def ask(self, parcel: Sequence[J]) -> list[R]:
        try:
            return self._exchange(parcel)
        except (OSError, EOFError):
            self._renew()
            return [self._alone(job) for job in parcel]

    def close(self) -> None:
        self._closed.set()
        self._process.kill()
        self._process.communicate()

    def _alone(self, job: J) -> R:
        if self._closed.is_set():
            return self._lost(job, ENDED)
        try:
            return self._exchange([job])[0]
        except (OSError, EOFError):
            return self._lost(job, CRASHED if self._renew() in _CRASHES else ENDED)

    def _renew(self) -> int:
        """Another process after a failure; returns the code with which the old one has ended. It may have closed its
        pipes and not quite be dead yet."""
        if self._closed.is_set():
            return 0
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_SECONDS)
        self._process.kill()
        self._process.communicate()
        code = self._process.returncode
        if self._closed.is_set():  # meanwhile
            return code
        try:
            self._process = self._start()
        except OSError as error:
            raise UsageError(f"no process can be started to read files ({error.strerror}): run again later.") from None
        self._up = False
        return code

    def _exchange(self, parcel: Sequence[J]) -> list[R]:
        self._greeted()
        assert self._process.stdin is not None and self._process.stdout is not None
        _send(self._process.stdin, list(parcel))
        results: list[R] = _receive(self._process.stdout)
        return results

    def _greeted(self) -> None:
        """EOFError where it could not come up."""
        if not self._up:
            assert self._process.stdout is not None
            self._up = _receive(self._process.stdout)

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: or Python would import from the folder the user stands in, which may be a stranger's repository.
        command = [sys.executable, "-P", "-c", _SERVE]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        with suppress(OSError):  # it is gone already, which is_up() finds
            _send(process.stdin, self._work)
        return process


_SERVE = """try:
    from embedcode.index.workers import serve
except ImportError:  # that it is not up says so
    raise SystemExit(1) from None
serve()
"""


def serve() -> None:
    """The worker's side: from stdin the work, which has what it needs imported, then parcels, until stdin ends; to
    stdout that it is up, then results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        work = _receive(sys.stdin.buffer)
    except (EOFError, ImportError):
        return
    answer: object = True
    while True:
        try:
            _send(sys.stdout.buffer, answer)
            answer = [work(job) for job in _receive(sys.stdin.buffer)]
        except EOFError:
            return
        except BrokenPipeError:  # who asked was killed: its end says so, and a traceback of ours says nothing
            os._exit(1)  # what is still in the buffer would raise again at a usual end


def _send(pipe: IO[bytes], value: object) -> None:
    raw = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    pipe.write(_SIZE.pack(len(raw)) + raw)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    raw = pipe.read(size)
    if len(raw) < size:
        raise EOFError
    return pickle.loads(raw)
