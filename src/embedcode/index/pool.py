"""One function over many jobs on all cores, in processes of our own. Knows neither the function nor its results.

Not multiprocessing: its workers run the caller's main script again, which breaks `Index.update()` in a plain script,
and one that dies takes the pool with it. Here a parser that crashes on a file costs that file.
"""

from __future__ import annotations

import pickle
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from itertools import islice
from queue import SimpleQueue
from typing import IO, Any, Generic, Self, TypeVar

PARCEL = 16
"""Jobs sent at a time."""
AHEAD = 4
"""Parcels for each process that may be done before the first is taken: the memory that a slow job can cost."""
J = TypeVar("J")
R = TypeVar("R")

_SIZE = struct.Struct("<Q")


class Pool(Generic[J, R]):
    """Up to `cores` processes; without start(), or with one core, the calling process does the work.

    `work` names the function, "module:function"; jobs and results go through pickle. `failed(job, why)` makes the
    result of a job that ended its process, or that was interrupted.
    """

    def __init__(self, cores: int, work: str, failed: Callable[[J, str], R]) -> None:
        self._cores, self._name, self._failed = cores, work, failed
        self._idle: SimpleQueue[_Worker[J, R]] = SimpleQueue()
        self._all: list[_Worker[J, R]] = []

    def start(self) -> None:
        """Start them, if they are not running."""
        if not self._all and self._cores > 1:
            self._all = [_Worker(self._name, self._failed) for _ in range(self._cores)]
            for worker in self._all:
                self._idle.put(worker)

    def map(self, jobs: Iterable[J]) -> Iterator[R]:
        """Every job's result, in order, as it is done. Jobs are taken as they are needed, and the processes stay."""
        if not self._all:
            yield from map(_named(self._name), jobs)
            return
        pool = ThreadPoolExecutor(self._cores)
        waiting: deque[Future[list[R]]] = deque()
        coming = iter(jobs)
        try:
            while parcel := list(islice(coming, PARCEL)):
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

    def _ask(self, parcel: list[J]) -> list[R]:
        worker = self._idle.get()
        try:
            return worker.ask(parcel)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        for worker in self._all:
            worker.close()
        self._all = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker(Generic[J, R]):
    """A process that does parcels; started again when it dies."""

    def __init__(self, work: str, failed: Callable[[J, str], R]) -> None:
        self._name, self._failed = work, failed
        self._process = self._start()
        self._closed = False

    def ask(self, parcel: list[J]) -> list[R]:
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
            return self._failed(job, "interrupted")
        try:
            return self._exchange([job])[0]
        except (OSError, EOFError):
            self._renew()
            return self._failed(job, "the parser crashed on it")

    def _renew(self) -> None:
        """Another process after a failure. The old one may have closed its pipes and not quite be dead yet."""
        if not self._closed:
            self._process.kill()
            self._process.communicate()
            self._process = self._start()

    def _exchange(self, parcel: list[J]) -> list[R]:
        assert self._process.stdin is not None and self._process.stdout is not None
        _send(self._process.stdin, parcel)
        results: list[R] = _receive(self._process.stdout)
        return results

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: or Python would import from the folder the user stands in, which may be a stranger's repository.
        code = f"from embedcode.index.pool import serve; serve({self._name!r})"
        command = [sys.executable, "-P", "-c", code]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def serve(name: str) -> None:
    """The worker's side: parcels from stdin, results to stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    work = _named(name)
    while True:
        try:
            jobs = _receive(sys.stdin.buffer)
        except EOFError:
            return
        _send(sys.stdout.buffer, [work(job) for job in jobs])


def _named(name: str) -> Callable[[Any], Any]:
    module, _, function = name.partition(":")
    found: Callable[[Any], Any] = getattr(import_module(module), function)
    return found


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
