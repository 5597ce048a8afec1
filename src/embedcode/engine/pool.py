"""Pool: threads of the process that asks for them. Knows nothing of their work."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor


class Pool:
    """Threads do not follow into a process that was forked, and it would wait for those of its parent for ever."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._of: dict[int, ThreadPoolExecutor] = {}

    @property
    def own(self) -> ThreadPoolExecutor:
        """Of this process; made when it is first asked for."""
        if self._of.keys() != {os.getpid()}:
            self._of = {os.getpid(): ThreadPoolExecutor(self._threads, thread_name_prefix="embedcode")}
        return self._of[os.getpid()]
