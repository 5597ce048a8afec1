"""Keep an index fresh: what changes in a checkout is read and embedded as it changes.

The one adapter to `watchfiles`. It is given the folders that the walk enters and no others: a build in an ignored
folder then costs nothing, and neither dependencies nor what symbolic links lead to are watched. Knows no terminal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from embedcode.errors import BusyError, EmbedcodeError, UsageError
from embedcode.index.index import Index
from embedcode.index.report import Progress, Report, Step
from embedcode.index.walk import Reach

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

QUIET_SECONDS = 0.2
"""A burst is over when nothing has changed for so long: a save by renaming, a formatter, a checkout of a branch."""
BURST_SECONDS = 2.0
"""And after so long in any case, since some files never rest."""
LOOK_SECONDS = 60.0
"""So often all files are looked at although no change was reported: a network drive reports none, and git's own files,
which may hold ignore rules, are not watched."""
POLL_SECONDS = 5.0
"""And so often where the system has no more watches to give."""
PATIENCE = 2.0
"""Seconds to wait for another process that reads the same checkout, before that is said."""


class _Burst(Exception):  # noqa: N818 (none)
    """Something has changed while vectors were made."""


def watch(
    index: Index, remark: Callable[[str], None], progress: Progress | None = None, yes: bool = False
) -> Iterator[Report]:
    """Bring the index up to date, and again after each burst of changes. It ends only by an error or an interrupt.

    Yields a report when what has changed was read and, if few, got its vectors; and one more when many vectors are in.
    A burst that comes before that is read first. One that changes nothing gives no report; one that another process
    has read gives a report in which nothing has changed.
    Raises what Index.update raises at first, but waits for another process that reads; and UsageError when the root is
    gone. What stands in the way later is tried again with the next burst, and `remark` is given the sentence.
    """
    index.check_root()
    begun = polled = False
    seen = -1
    said: list[str] = []
    while True:
        if begun and not os.path.isdir(index.root):  # noqa: PTH112 (raises nothing)
            raise UsageError(f"{index.root} is gone, so there is nothing left to watch: start again where the code is.")
        troubles: list[str] = []
        pause = LOOK_SECONDS
        try:
            index.reload()
        except UsageError as error:
            troubles.append(f"{error}; until then the settings from before hold")
        with closing(_changes(index, polled)) as changes:
            if changes.trouble:
                troubles.append(changes.trouble)
                polled = True
            try:
                for report in _refreshed(index, changes, seen, progress, yes):
                    begun = True
                    yield report
                seen = index.store.meta().generation
            except BusyError as busy:
                troubles.append(f"{str(busy).partition(':')[0]}: waiting for it")
                pause = 0.0
            except EmbedcodeError as error:
                if not begun:
                    raise
                troubles.append(str(error))
            for trouble in troubles:
                if trouble not in said:
                    remark(trouble)
            said = troubles
            index.close()  # and opened anew at the next burst: another process may clean it in between
            changes.wait(pause)


def _changes(index: Index, polled: bool) -> Changes:
    """Where the ignore files cannot be read, which the update then says, only the clock tells when to look again."""
    try:
        return Changes(index, polled)
    except EmbedcodeError:
        return Changes(index, polled=True)


def _refreshed(index: Index, changes: Changes, seen: int, progress: Progress | None, yes: bool) -> Iterator[Report]:
    """`seen` is the generation of the store that the last report was about."""
    start = time.monotonic()
    report = index.update(vectors=False, progress=progress, yes=yes, patience=PATIENCE)
    lacking = index.embed_few(told=lambda _: None)  # the update below raises the same
    meta = index.store.meta()
    if report.changed or report.removed or meta.generation != seen:
        yield replace(report, embedded=meta.embedded, seconds=time.monotonic() - start)
    if not lacking:
        return

    def told(step: Step) -> None:
        if progress is not None:
            progress(step)
        if step.phase == "embed" and changes.have_come():
            raise _Burst

    try:
        report = index.update(progress=told, yes=yes, patience=PATIENCE)
    except _Burst:
        return
    if report.changed or report.removed or report.encoded or report.cached:
        yield report


class Changes:
    """What happens from now on to what the walk finds. Where that is not reported, or `polled`, there may be changes
    every POLL_SECONDS."""

    def __init__(self, index: Index, polled: bool = False) -> None:
        self.trouble = ""
        """Why they cannot be reported, and what can be done."""
        self._made = time.monotonic()
        self._came = False
        self._watcher: RustNotify | None = None
        if polled:
            return
        before = _reach(index)
        self._place(list(before.folders))
        self._reach = _reach(index)
        # A folder that came while the watches were being placed has none.
        self._came = not self._reach.folders <= before.folders

    def have_come(self) -> bool:
        """Whether there were any, without waiting."""
        self._came = self._came or self._next(0.001, 0.001)
        return self._came

    def wait(self, seconds: float) -> None:
        """Until a burst of them is over, or none has come for so long. KeyboardInterrupt at a signal that raises."""
        if self._came:
            self._next(QUIET_SECONDS, QUIET_SECONDS)  # the rest of the burst
        end = time.monotonic() + seconds
        while not self._came and (left := end - time.monotonic()) > 0:
            self._came = self._next(QUIET_SECONDS, left)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def _next(self, quiet: float, seconds: float) -> bool:
        """Wait for changes for so long, then until it was quiet for so long; whether any of them counts."""
        if self._watcher is None:
            left = max(0.0, self._made + POLL_SECONDS - time.monotonic())
            time.sleep(min(seconds, left))
            return left <= seconds
        quiet_ms, milliseconds = (max(1, int(1000 * value)) for value in (quiet, seconds))  # 0 would be for ever
        found = self._watcher.watch(int(1000 * BURST_SECONDS), quiet_ms, milliseconds, None)
        if found == "signal":
            raise KeyboardInterrupt
        return isinstance(found, set) and any(self._reach.covers(path) for _, path in found)

    def _place(self, folders: list[str]) -> None:
        """Linux watches single folders. Elsewhere the system reports on all below one, at no cost for each."""
        from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

        below = sys.platform != "linux"
        try:
            # The root comes first. The last argument would have errors passed over, not only those of permission.
            places = folders[:1] if below else folders
            self._watcher = RustNotify(places, False, False, int(1000 * POLL_SECONDS), below, False)
        except FileNotFoundError:  # a folder that has gone since it was listed; the next round lists them again
            return
        except (OSError, WatchfilesRustInternalError, UnicodeError) as error:
            reason = str(error).partition(" about ")[0].rstrip(".")
            self.trouble = (
                f"changes in {folders[0]} are not reported ({reason}), so it is looked at every {POLL_SECONDS:g} s; "
                "the limits are fs.inotify.max_user_watches and max_user_instances, see `sysctl fs.inotify`"
            )


def _reach(index: Index) -> Reach:
    found = index.settings
    return Reach(index.root, extra_ignore=found.ignore, ours=(found.indexes, found.vectors))
