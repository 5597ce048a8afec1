"""Bring a store's files and chunks up to date with a checkout: only what changed is read, cut and written.

Knows the walk, the chunker and the Store contract; makes no vectors and no ranking.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, Self

from embedcode import __version__
from embedcode.errors import UsageError
from embedcode.index.chunk import CHUNKER_VERSION
from embedcode.index.exclude import RULES_VERSION
from embedcode.index.prepare import STALE, Job, Prepared, lost, prepare
from embedcode.index.report import Progress, Step
from embedcode.index.walk import CHANGING, DENIED, GONE, UNREADABLE, Found, LeftOut, Skipped, explain_nothing, walk
from embedcode.index.workers import CRASHED, ENDED, FEW, Workers
from embedcode.model.passage import FORMAT
from embedcode.settings import Settings
from embedcode.store.contract import Store

MANY_FILES = 200_000
"""More is nearly always a folder given by mistake; --yes is asked for once, the index remembers it."""
COMMIT_SECONDS = 2.0
"""What a kill can lose."""
FIRST_SECONDS = 0.3
"""Until the first commit: who may not wait for the reading can then search what has been read."""
KEPT = (CHANGING, UNREADABLE)
"""Reasons, as they begin, that tell nothing of what a file or folder holds: what is indexed of it stays as it was."""
PASSING = (*KEPT, DENIED, GONE)
"""Those that size and stamp do not show to be over: such a file is opened again at the next update."""
CUTTING = "cutting"
"""In the manifest: a process that cut files itself has died at it, or one that was to."""
Unreadable = list[Any]
"""[reason, size, stamp, wanted, version] of a file that its content left out: it is not opened again until these
change. The version is that of the rules on content, or of the program where its parser crashed."""


@dataclass
class Changes:
    """What an update found and did."""

    files: int = 0
    changed: int = 0
    removed: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    away: set[str] = field(default_factory=set)
    """The files and folders that the walk could not look at, and that may be as they were, for all that is known."""
    failed: dict[str, str] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    """Of the chunks of what changed."""


class Caution:
    """Notes before the first file is cut in this process that it is: should a parser take the process with it, the
    next has another one cut, in which that costs the file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.noted = False

    def __call__(self) -> None:
        if not self.noted:
            note(self._store, {CUTTING: "yes"})
            self.noted = True


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
    if manifest.get("version") != version:
        # At once, so that a run that is interrupted goes on where it ended.
        anew = {"version": version, "rules": RULES_VERSION, "unreadable": "{}", "failed": "{}"}
        with store.begin() as transaction:
            for file in store.files().values():
                transaction.touch(replace(file, stamp=STALE))
            transaction.set_manifest(anew)
            transaction.commit()
        manifest = {**manifest, **anew}
    known = store.files()
    judged = manifest.get("rules") == RULES_VERSION
    unreadable: dict[str, Unreadable] = json.loads(manifest.get("unreadable", "{}"))
    changes = Changes(failed=json.loads(manifest.get("failed", "{}")))
    caution = Caution(store)
    died, ended = bool(manifest.get(CUTTING)), False
    present: set[str] = set()
    still: dict[str, Unreadable] = {}
    passing: dict[str, str] = {}
    wanted: list[str] = []
    wanted_before = set(json.loads(manifest.get("wanted", "[]")))
    jobs: list[Job] = []
    with Workers(settings.threads, prepare, lost) as workers:
        for found in _files(root, settings, changes, yes or "many" in manifest):
            present.add(found.path)
            before, noted = known.get(found.path), unreadable.get(found.path)
            if found.wanted:
                wanted.append(found.path)
            seen = before and (before.size, before.stamp, before.repo) == (found.size, found.stamp, found.repo)
            if judged and seen and (found.path in wanted_before) == found.wanted:
                continue
            if noted and noted[:4] == _noted(noted[0], found)[:4]:
                standing = noted == _noted(noted[0], found)
                if not standing and noted[0] == CRASHED:  # of an earlier version: tried again, but not in this process
                    workers.start(certain=True)
                    standing = not workers.apart()
                if standing:
                    still[found.path] = noted
                    continue
            same = before.digest if before and before.repo == found.repo and before.stamp != STALE else None
            jobs.append(Job(found, same, settings.max_file_bytes, space))
            if len(jobs) > FEW or died:
                workers.start(certain=died)  # they come up while the walk goes on
        if len(present) > MANY_FILES and "many" not in manifest:
            note(store, {"many": "yes"})
        away = changes.away
        still |= {path: one for path, one in unreadable.items() if path not in present and _within(path, away)}
        changes.failed = {
            path: failure for path, failure in changes.failed.items() if path in present or _within(path, away)
        }
        items = workers.done(jobs) if workers.apart() else (prepare(job, caution) for job in jobs)
        for item in _written(store, items, len(jobs), progress, changes.failed, caution):
            if item.failed and item.file is None:  # not tried again by this version: it would crash this process
                still[item.found.path] = _noted(item.failed, item.found)
            elif item.skipped.startswith(PASSING):
                passing[item.found.path] = item.skipped
                ended |= item.skipped.endswith(ENDED)
            elif item.skipped:
                still[item.found.path] = _noted(item.skipped, item.found)
            changes.changed += item.chunks is not None
            changes.keys += item.keys or ()
    for path, reason in ({path: str(one[0]) for path, one in still.items()} | passing).items():
        if path not in away:  # else the walk has told of it
            changes.left_out.add(path, reason)
    present -= still.keys() | passing.keys()
    away |= {path for path, reason in passing.items() if reason.startswith(KEPT)}
    absent = [path for path in known if path not in present]
    gone = [path for path in absent if not _within(path, away)]
    changes.files = len(present) + len(absent) - len(gone)
    changes.removed = len(gone)
    left_out = changes.left_out
    if gone and not changes.files and all(reason.startswith(PASSING) for reason in left_out.named.values()):
        # Nothing is deleted: as a rule a drive is away, or a ticket for it has expired.
        kept = f"what is indexed of it is kept: `embedcode clean {quote(str(root))}` deletes it"
        raise UsageError(f"{explain_nothing(left_out.named, left_out.more).rstrip('.')}; {kept}.")
    if gone:
        with store.begin() as transaction:
            transaction.delete(gone)
            transaction.commit()
    notes = {
        "version": version,
        "rules": RULES_VERSION,
        "failed": json.dumps(changes.failed),
        "unreadable": json.dumps(still),
        "skipped": json.dumps(left_out.named),
        "skipped_more": json.dumps(left_out.more),
        "wanted": json.dumps(wanted),
        CUTTING: "yes" if ended else "",
    }
    if any(manifest.get(name) != value for name, value in notes.items()):
        note(store, notes)
    if not changes.files:
        raise UsageError(explain_nothing(left_out.named, left_out.more))
    return changes


def _written(
    store: Store,
    items: Iterator[Prepared],
    total: int,
    progress: Progress | None,
    failed: dict[str, str],
    caution: Caution,
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
                elif item.chunks is not None or (item.skipped and not item.skipped.startswith(KEPT)):
                    failed.pop(item.found.path, None)
                chunks += len(item.chunks or ())
                now = time.monotonic()
                if now - last > pause:
                    _write(store, batch, {"failed": json.dumps(failed)})
                    refresher.again()
                    last, pause = time.monotonic(), COMMIT_SECONDS
                if progress is not None:
                    progress(Step("read", done, total, chunks, 0, now - start))
                yield item
        finally:  # also when interrupted
            _write(store, batch, {"failed": json.dumps(failed)} | ({CUTTING: ""} if caution.noted else {}))


def _files(root: Path, settings: Settings, changes: Changes, yes: bool) -> Iterator[Found]:
    count = 0
    ours = (settings.indexes, settings.vectors)
    for item in walk(root, max_bytes=settings.max_file_bytes, extra_ignore=settings.ignore, ours=ours):
        if isinstance(item, Skipped):
            changes.left_out.add(item.path, item.reason)
            if item.reason.startswith(KEPT):
                changes.away.add(item.path.rstrip("/"))
            continue
        count += 1
        if count > MANY_FILES and not yes:
            raise UsageError(
                f"{root} holds more than {MANY_FILES:,} files: give the repository's own folder, "
                f"ignore what is data in .embedcodeignore, or run `embedcode index --yes {quote(str(root))}`."
            )
        yield item


def _noted(reason: str, found: Found) -> Unreadable:
    version = __version__ if reason == CRASHED else RULES_VERSION
    return [reason, found.size, found.stamp, found.wanted, version]


def _within(path: str, places: Set[str]) -> bool:
    return bool(places) and (path in places or any(str(folder) in places for folder in PurePosixPath(path).parents))


def _write(store: Store, batch: list[Prepared], notes: Mapping[str, str]) -> None:
    """Commit what was prepared, with the notes that go with it, and empty the batch."""
    if CUTTING in notes or any(item.file for item in batch):
        with store.begin() as transaction:
            for item in batch:
                if item.file is not None and item.chunks is not None and item.keys is not None:
                    transaction.upsert(item.file, item.chunks, item.keys)
                elif item.file is not None:
                    transaction.touch(item.file)
            transaction.set_manifest(notes)  # at once: who is killed does not cut again what has failed
            transaction.commit()
    batch.clear()


def note(store: Store, values: Mapping[str, str]) -> None:
    """Merge values into the manifest, which is what an index remembers of itself."""
    with store.begin() as transaction:
        transaction.set_manifest(values)
        transaction.commit()
