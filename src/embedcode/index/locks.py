"""Locks between processes that explain themselves, and the background `index` that holds one. Knows no store.

A lock is the operating system's, so it ends with its process, however that dies; a note beside it says whose it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from filelock import FileLock, Timeout

from embedcode.errors import BusyError
from embedcode.files import make_private
from embedcode.index.report import Running
from embedcode.store.faults import explained

_SAID = "embedcode: "
"""With which the sentence begins that a process ends with when it fails."""
BACKGROUND = "EMBEDCODE_IN_BACKGROUND"
"""Set in the environment of a background process."""
NICENESS = 10
START_SECONDS = 1.0
"""How long a background process waits for its lock: who looks whether it is free holds it for an instant."""
STOP_SECONDS = 5.0


def in_background() -> bool:
    """Whether this process is the background `index`."""
    return BACKGROUND in os.environ


class Lock:
    """One exclusive lock on a name in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        with explained(folder):
            make_private(folder)
        self._lock = FileLock(folder / f"{name}.lock")
        self._note = folder / f"{name}.json"

    @contextmanager
    def held(self, seconds: float, work: str) -> Iterator[None]:
        """Wait up to `seconds`; BusyError then names the process that holds it and says how to end it."""
        if not self.try_acquire(seconds):
            holder = self.holder()
            who = f"process {holder.pid}" if holder and holder.pid else "another process"
            raise BusyError(f"{who} is still {work}: wait until it is done, or end that process.")
        try:
            yield
        finally:
            self.release()

    def try_acquire(self, seconds: float = 0.0) -> bool:
        with explained(self._folder):
            try:
                self._lock.acquire(timeout=seconds, poll_interval=0.02)
            except Timeout:
                return False
            try:
                self._note.write_text(json.dumps({"pid": os.getpid(), "started": time.time()}), "utf-8")
            except OSError:
                self.release()
                raise
        return True

    def release(self) -> None:
        # The note before the lock goes: one without its process would name another. On Windows it stays while another
        # process reads it, which then finds the lock free.
        with suppress(OSError):
            self._note.unlink()
        self._lock.release()

    def holder(self) -> Running | None:
        """The process that holds the lock now.

        Without a note nobody does, or has for a moment only. With one the lock itself is asked: a killed process leaves
        its note, and its number may be another's by now. Asked while it is free, it would be held from who wants it.
        """
        if self._lock.is_locked:
            return Running(os.getpid(), time.time())
        with explained(self._folder):
            if not self._note.exists():
                return None
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return self._noted()
            self.release()  # with the note of a process that was killed
        return None

    def _noted(self) -> Running:
        try:
            note = json.loads(self._note.read_text("utf-8"))
            return Running(int(note["pid"]), float(note["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Running(0, time.time())  # taken this instant: its note is being written


def start_background(root: Path, lock: Lock, log: Path) -> bool:
    """Start one niced `index --wait` for `root`, which takes `lock`, unless one holds it.

    True if one was started; what keeps it from its work it writes to `log`.
    """
    if lock.holder():
        return False
    environment = os.environ | {BACKGROUND: "1"}
    with explained(log.parent), log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "embedcode", "index", str(root), "--wait", "--yes"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    if hasattr(os, "setpriority"):
        with suppress(PermissionError):  # it is as nice as this process at least: only root may ask for less
            os.setpriority(os.PRIO_PROCESS, child.pid, max(os.getpriority(os.PRIO_PROCESS, 0), NICENESS))
    # Wait for the lock, so that `status` right after sees it and a second start finds it held.
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and not lock.holder():
        if child.poll() is not None:
            return child.returncode == 0  # it is done already, or could not begin
        time.sleep(0.02)
    Thread(target=child.wait, daemon=True).start()  # in a server that runs for days an ended child would stay a zombie
    return True


def trouble(lock: Lock, log: Path) -> str:
    """What the last background process said of its end, if it failed and none holds `lock` now; else ""."""
    if lock.holder():
        return ""
    try:
        last = log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
    except OSError:
        return ""
    return last.removeprefix(_SAID) if last.startswith(_SAID) else ""


def stop_background(lock: Lock) -> bool:
    """End the background process that holds `lock`; True if there was one. Batches it finished are committed."""
    # Windows has one way only.
    for tried, end in enumerate((signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))):
        holder = lock.holder()
        if holder is None or not _is_background(holder.pid):
            return tried > 0
        try:
            os.kill(holder.pid, end)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if lock.holder() is None:
                return True
            time.sleep(0.02)
    return True


def _is_background(pid: int) -> bool:
    """Whether it is a background `index`, and not a process that got the number of one that died."""
    if pid in (0, os.getpid()):
        return False
    try:
        return f"{BACKGROUND}=1".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return not Path("/proc/self/environ").exists()  # elsewhere the note has to do
