"""Do one kind of work many times on all cores, in processes of our own. Knows nothing of the work.

Not multiprocessing: its workers run the caller's main script again, which breaks `Index.update()` in a plain script,
and one that dies takes the pool with it. Here a parser that crashes on a file costs that file.
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
from itertools import islice
from queue import SimpleQueue
from typing import IO, Any, Generic, Self, TypeVar

J = TypeVar("J")
R = TypeVar("R")

FEW = 100
"""Files up to which workers are not worth starting: one takes 0.2 s."""
PARCEL = 16
"""Jobs sent at a time."""
AHEAD = 4
"""Parcels for each process that may be done before the first is taken: the memory that a slow file can cost."""
_SIZE = struct.Struct("<Q")


class Workers(Generic[J, R]):
    """Up to `cores` processes; without start(), or with fewer cores than `least`, the calling process does the work."""

    def __init__(
        self, cores: int, work: Callable[[J], R], lost: Callable[[J, str], R], parcel: int = PARCEL, least: int = 2
    ) -> None:
        """`work` is a function of a module; `lost` gives a result for a job at which a process died, and why."""
        self._cores = cores
        self._least = least
        self._work = work
        self._lost = lost
        self._parcel = parcel
        self._idle: SimpleQueue[_Worker[J, R]] = SimpleQueue()
        self._all: list[_Worker[J, R]] = []

    def start(self) -> None:
        """Start them, if they are not running."""
        if not self._all and self._cores >= self._least:
            self._all = [_Worker(self._work, self._lost) for _ in range(self._cores)]
            for worker in self._all:
                self._idle.put(worker)

    def done(self, jobs: Iterable[J]) -> Iterator[R]:
        """Every job's result, in order, as it is done; jobs are taken some parcels ahead, and the processes stay."""
        if not self._all:
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
        self._all = []
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
        self._closed = False

    def ask(self, parcel: Sequence[J]) -> list[R]:
        try:
            return self._exchange(parcel)
        except (OSError, EOFError):
            self._renew()
            return [self._alone(job) for job in parcel]

    def close(self) -> None:
        self._closed = True
        self._process.kill()
        self._process.communicate()

    def _alone(self, job: J) -> R:
        if self._closed:
            return self._lost(job, "interrupted")
        try:
            return self._exchange([job])[0]
        except (OSError, EOFError):
            self._renew()
            return self._lost(job, "the parser crashed on it")

    def _renew(self) -> None:
        """Another process after a failure. The old one may have closed its pipes and not quite be dead yet."""
        if not self._closed:
            self._process.kill()
            self._process.communicate()
            self._process = self._start()

    def _exchange(self, parcel: Sequence[J]) -> list[R]:
        assert self._process.stdin is not None and self._process.stdout is not None
        _send(self._process.stdin, (self._work, list(parcel)))
        results: list[R] = _receive(self._process.stdout)
        return results

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: or Python would import from the folder the user stands in, which may be a stranger's repository.
        command = [sys.executable, "-P", "-c", "from embedcode.index.workers import serve; serve()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def serve() -> None:
    """The worker's side: parcels from stdin, results to stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    while True:
        try:
            work, jobs = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _send(sys.stdout.buffer, [work(job) for job in jobs])
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
