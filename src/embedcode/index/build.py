"""Bring a store's files and chunks up to date with a checkout: only what changed is read, cut and written.

Knows the walk, the chunker and the Store contract; makes no vectors and no ranking.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from embedcode.errors import UsageError
from embedcode.index.chunk import CHUNKER_VERSION
from embedcode.index.exclude import RULES_VERSION
from embedcode.index.prepare import Job, Prepared, lost, prepare
from embedcode.index.report import Progress, Step
from embedcode.index.walk import CHANGING, DENIED, GONE, Found, Skipped, explain_nothing, walk
from embedcode.index.workers import FEW, Workers
from embedcode.model.passage import FORMAT
from embedcode.settings import Settings
from embedcode.store.contract import Store

MANY_FILES = 200_000
"""More is nearly always a folder given by mistake; --yes is asked for once, the index remembers it."""
COMMIT_SECONDS = 2.0
"""What a kill can lose."""
FIRST_SECONDS = 0.3
"""Until the first commit: who may not wait for the reading can then search what has been read."""
PASSING = frozenset({DENIED, GONE, CHANGING})
"""Reasons that size and stamp do not show to be over: such a file is opened again at the next update. One that kept
changing stays in the index as it was."""
Unreadable = list[Any]
"""[reason, size, stamp, wanted] of a file that its content left out: it is not opened again until these change."""


@dataclass
class Changes:
    """What an update found and did."""

    files: int = 0
    changed: int = 0
    removed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Refresher:
    """Lets the store derive its lexical data in a thread, while the next files are read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def again(self) -> None:
        """Start a refresh unless one is running; one that failed raises here."""
        if self._running is not None and not self._running.done():
            return
        if self._running is not None:
            self._running.result()
        self._running = self._pool.submit(self._store.refresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def bring_up_to_date(
    store: Store, root: Path, space: str, settings: Settings, progress: Progress | None, yes: bool
) -> Changes:
    """Walk `root`, and write what is new, changed or gone into `store`, a batch every few seconds."""
    version = f"{CHUNKER_VERSION}/{FORMAT}/{space}"
    manifest = store.meta().manifest
    known = store.files()
    if not known:
        # At once, so that an interrupted first run goes on where it ended.
        manifest = {**manifest, "version": version, "rules": RULES_VERSION}
        note(store, manifest)
    fresh = manifest.get("version") == version
    judged = manifest.get("rules") == RULES_VERSION
    unreadable: dict[str, Unreadable] = json.loads(manifest.get("unreadable", "{}")) if fresh else {}
    changes = Changes(failed=json.loads(manifest.get("failed", "{}")) if fresh else {})
    present: set[str] = set()
    still: dict[str, Unreadable] = {}
    passing: dict[str, str] = {}
    wanted: list[str] = []
    wanted_before = set(json.loads(manifest.get("wanted", "[]")))
    jobs: list[Job] = []
    with Workers(settings.threads, prepare, lost) as workers:
        for found in _files(root, settings, changes, yes or "many" in manifest):
            present.add(found.path)
            before, reason = known.get(found.path) if fresh else None, unreadable.get(found.path)
            if found.wanted:
                wanted.append(found.path)
            seen = before and (before.size, before.stamp, before.repo) == (found.size, found.stamp, found.repo)
            if judged and seen and (found.path in wanted_before) == found.wanted:
                continue
            # Other rules on content may let a file in or out, but not one that crashed the parser.
            standing = judged or found.path in changes.failed
            if standing and reason and reason[1:] == [found.size, found.stamp, found.wanted]:
                still[found.path] = reason
                continue
            same = before.digest if before and before.repo == found.repo else None
            jobs.append(Job(found, same, settings.max_file_bytes, space))
            if len(jobs) > FEW:
                workers.start()  # they come up while the walk goes on
        if len(present) > MANY_FILES and "many" not in manifest:
            note(store, {"many": "yes"})
        changes.failed = {path: failure for path, failure in changes.failed.items() if path in present}
        for item in _written(store, workers.done(jobs), len(jobs), progress, changes.failed):
            if item.failed and item.file is None:  # not tried again until it changes: it would crash this process
                still[item.found.path] = [item.failed, item.found.size, item.found.stamp, item.found.wanted]
            elif item.skipped in PASSING:
                passing[item.found.path] = item.skipped
            elif item.skipped:
                still[item.found.path] = [item.skipped, item.found.size, item.found.stamp, item.found.wanted]
            changes.changed += item.chunks is not None
    changes.skipped |= {path: str(reason[0]) for path, reason in still.items()} | passing
    present -= still.keys() | {path for path, reason in passing.items() if reason != CHANGING or path not in known}
    changes.files = len(present)
    gone = [path for path in known if path not in present]
    changes.removed = len(gone)
    if gone:
        with store.begin() as transaction:
            transaction.delete(gone)
            transaction.commit()
    notes = {
        "version": version,
        "rules": RULES_VERSION,
        "failed": json.dumps(changes.failed),
        "unreadable": json.dumps(still),
        "skipped": json.dumps(changes.skipped),
        "wanted": json.dumps(wanted),
    }
    if any(manifest.get(name) != value for name, value in notes.items()):
        note(store, notes)
    if not changes.files:
        raise UsageError(explain_nothing(changes.skipped))
    return changes


def _written(
    store: Store, items: Iterator[Prepared], total: int, progress: Progress | None, failed: dict[str, str]
) -> Iterator[Prepared]:
    """The same items, written in batches; what lexical search needs is derived while the next are prepared.

    `failed` is kept up to date with them: a file that failed to be cut stays in it until its content has changed.
    """
    start = last = time.monotonic()
    pause = FIRST_SECONDS
    chunks = 0
    batch: list[Prepared] = []
    with Refresher(store) as refresher:
        try:
            for done, item in enumerate(items, 1):
                batch.append(item)
                if item.failed:
                    failed[item.found.path] = item.failed
                elif item.chunks is not None or item.skipped:
                    failed.pop(item.found.path, None)
                chunks += len(item.chunks or ())
                now = time.monotonic()
                if now - last > pause:
                    _write(store, batch, failed)
                    refresher.again()
                    last, pause = time.monotonic(), COMMIT_SECONDS
                if progress is not None:
                    progress(Step("read", done, total, chunks, 0, now - start))
                yield item
        finally:  # also when interrupted
            _write(store, batch, failed)


def _files(root: Path, settings: Settings, changes: Changes, yes: bool) -> Iterator[Found]:
    count = 0
    ours = (settings.indexes, settings.vectors)
    for item in walk(root, max_bytes=settings.max_file_bytes, extra_ignore=settings.ignore, ours=ours):
        if isinstance(item, Skipped):
            changes.skipped[item.path] = item.reason
            continue
        count += 1
        if count > MANY_FILES and not yes:
            raise UsageError(
                f"{root} holds more than {MANY_FILES:,} files: give the repository's own folder, "
                "ignore what is data in .embedcodeignore, or run `embedcode index --yes` there."
            )
        yield item


def _write(store: Store, batch: list[Prepared], failed: Mapping[str, str]) -> None:
    """Commit what was prepared, and empty the batch."""
    if any(item.file for item in batch):
        with store.begin() as transaction:
            for item in batch:
                if item.file is not None and item.chunks is not None and item.keys is not None:
                    transaction.upsert(item.file, item.chunks, item.keys)
                elif item.file is not None:
                    transaction.touch(item.file)
            transaction.set_manifest({"failed": json.dumps(failed)})  # at once: who is killed does not cut them again
            transaction.commit()
    batch.clear()


def note(store: Store, values: Mapping[str, str]) -> None:
    """Merge values into the manifest, which is what an index remembers of itself."""
    with store.begin() as transaction:
        transaction.set_manifest(values)
        transaction.commit()
