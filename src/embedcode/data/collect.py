"""Many sources to many pairs, in runs that may be ended at any time: a source that is done is not done again.

In the output folder each source has a record, SOURCE.json, and, where it gave pairs, SOURCE.jsonl.gz; those of its
documentation are in examples/SOURCE.jsonl.gz, those of a repository's commits in commits/SOURCE.jsonl.gz. Archives are
fetched ahead while others are mined, and removed when they are done.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedcode.data import docstrings, examples, history, never, pairs, sources
from embedcode.data.mine import NEVER, Mined, mine
from embedcode.data.mine import workers as extracting
from embedcode.data.sources import Source
from embedcode.errors import UnwritableError, UsageError
from embedcode.files import save_json, writing
from embedcode.types import Pair

AHEAD = 6
"""Archives that wait to be mined."""
UNREADABLE = "archive refused or unreadable"
UNREADABLE_HISTORY = "history refused or unreadable"
COMMITS, EXAMPLES = "commits", "examples"
"""Folders of pairs that are not merged with those of functions."""

Arrived = tuple[Path, str] | never.Entry


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a source."""

    source: str
    registry: str
    name: str
    version: str
    licence: str
    refused: str
    pairs: int
    languages: dict[str, int] = field(default_factory=dict)
    files: int = 0
    left: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    """Of a repository's history, the newest so many were looked at."""
    commit_pairs: int = 0
    commits_skipped: dict[str, int] = field(default_factory=dict)
    commits_refused: str = ""
    """Why the history gave no pairs, where the files did."""
    commits_left: dict[str, int] = field(default_factory=dict)
    """Edited files left out."""
    example_pairs: int | None = None
    """Of the documentation; None where it was not read."""
    seconds: float = 0.0

    def is_of(self, source: Source) -> bool:
        """Whether it is of the version that a list asks for; of a repository a commit is written at any length."""
        asked, had = source.version, self.version
        return asked in ("", had) or (source.registry == "github" and (asked.startswith(had) or had.startswith(asked)))


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of a run: how many sources are done, and the last of them."""

    done: int
    total: int
    pairs: int
    record: Record | None
    failed: str = ""
    """Why the last could not be fetched: it is tried again in the next run."""


def collect(
    wanted: Sequence[Source],
    out: Path,
    cores: int,
    seconds: float | None = None,
    progress: Callable[[Step], None] = lambda step: None,
    commits: int = 0,
    documentation: bool = False,
    patience: float = sources.SECONDS,
) -> bool:
    """Mine what has no record in `out` yet, one of another version, or of an archive that could not be read, which may
    have been cut off; whether all is done. Stops between two sources after `seconds`.

    Of a repository the newest so many commits are paired too, also where it was mined for fewer of them, and with
    `documentation` the examples of a source. A client has `patience` seconds for one archive. UsageError where the disk
    is full; what was done before stays.
    """
    start = time.monotonic()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    known = {(record.registry, record.name): record for record in records(out)}

    def is_done(source: Source) -> bool:
        record = known.get((source.registry, source.name))
        if record is None or not record.is_of(source) or record.refused.startswith(UNREADABLE):
            return False
        if documentation and record.licence and record.example_pairs is None:
            return False
        asked = record.commits or (commits if record.commit_pairs else 0)  # older records do not say it
        return source.registry != "github" or not record.licence or asked >= commits

    waiting = [source for source in wanted if not is_done(source)]
    done, total = len(wanted) - len(waiting), len(wanted)
    again = {(source.registry, source.name) for source in waiting}
    found = sum(record.pairs for place, record in known.items() if place not in again)
    folder = out / "downloads"
    tasks = (docstrings.TASK, examples.TASK) if documentation else (docstrings.TASK,)
    with extracting(cores) as workers:
        for source, arrived in _ahead(waiting, folder, patience):
            if seconds is not None and time.monotonic() - start > seconds:
                return False
            workers.start()
            began = time.monotonic()
            try:
                archive = arrived()
            except UnwritableError:
                raise
            except UsageError as error:
                progress(Step(done, total, found, None, str(error)))
                continue
            if isinstance(archive, never.Entry):
                record = _nothing(source, f"{NEVER}: {archive.why}")
            else:
                path, version = archive
                exact = Source(source.registry, source.name, version)
                try:
                    mined = mine(path, exact.id, workers, known_as=source.known_as, tasks=tasks)
                except UsageError as error:
                    record = _nothing(exact, f"{UNREADABLE}: {error}")
                else:
                    record = _mined(exact, mined, out, documentation)
                    if commits and source.registry == "github" and record.licence:
                        record = _history(record, path, out, commits)
                    before = known.get((source.registry, source.name))
                    if before is not None and record.licence and before.version == record.version:
                        record = _with(record, before, commits, documentation)
            shutil.rmtree(folder / source.file_name, ignore_errors=True)
            _forget(out, source, record)
            save_json(
                out / f"{source.file_name}.json", asdict(record) | {"seconds": round(time.monotonic() - began, 1)}
            )
            done, found = done + 1, found + record.pairs
            progress(Step(done, total, found, record))
    return done == total


def _ahead(waiting: Sequence[Source], folder: Path, patience: float) -> Iterator[tuple[Source, Callable[[], Arrived]]]:
    """Each source with a function that waits for its archive and version, or for why it is never fetched."""
    known = never.load()

    def fetch(source: Source) -> Arrived:
        return known.first(source.known_as) or sources.fetch(source, folder / source.file_name, patience)

    with ThreadPoolExecutor(AHEAD) as pool:
        coming: list[tuple[Source, Future[Arrived]]] = []
        try:
            for source in waiting:
                coming.append((source, pool.submit(fetch, source)))
                if len(coming) > AHEAD:
                    first, future = coming.pop(0)
                    yield first, future.result
            for first, future in coming:
                yield first, future.result
        finally:
            pool.shutdown(cancel_futures=True)


def _mined(source: Source, mined: Mined, out: Path, documentation: bool) -> Record:
    own = [pair for pair in mined.pairs if pair.task == docstrings.TASK]
    said = [pair for pair in mined.pairs if pair.task == examples.TASK]
    for place, some in ((out, own), (out / EXAMPLES, said)):
        if some:
            _write(place, source, some)
    return Record(
        source=source.id,
        registry=source.registry,
        name=source.name,
        version=source.version,
        licence=mined.licence,
        refused=mined.refused,
        pairs=len(own),
        languages=dict(Counter(pair.language for pair in own)),
        files=mined.files,
        left=dict(mined.left.counts),
        dropped=dict(mined.dropped),
        example_pairs=len(said) if documentation else None,
    )


def _write(place: Path, source: Source, found: Iterable[Pair]) -> int:
    """How many pairs of a source there are, in its file in a folder that may have to be made."""
    file = place / f"{source.file_name}.jsonl.gz"
    with writing(file):
        place.mkdir(exist_ok=True)
    return pairs.write(file, found)


def _with(record: Record, before: Record, commits: int, documentation: bool) -> Record:
    """The record with what an earlier run had of the same version and this one was not asked for."""
    if not documentation:
        record = replace(record, example_pairs=before.example_pairs)
    if not commits:
        names = ("commits", "commit_pairs", "commits_skipped", "commits_refused", "commits_left")
        record = replace(record, **{name: getattr(before, name) for name in names})
    return record


def _history(record: Record, clone: Path, out: Path, most: int) -> Record:
    """The record with what the commits of a clone gave; what its files gave stays where the history cannot be read."""
    mined = history.Mined(record.name)
    try:
        found = history.mine(clone, history.tokenizer(), mined, licence=record.licence, most=most)
        count = _write(out / COMMITS, Source(record.registry, record.name), found)
    except UnwritableError:
        raise
    except UsageError as error:
        return replace(record, commits=most, commits_refused=f"{UNREADABLE_HISTORY}: {error}")
    return replace(
        record, commits=most, commit_pairs=count, commits_skipped=dict(mined.skipped), commits_refused=mined.refused,
        commits_left=dict(mined.left),
    )  # fmt: skip


def _forget(out: Path, source: Source, record: Record) -> None:
    """Remove what an earlier run had of a source that gives none now."""
    for count, place in (
        (record.pairs, out),
        (record.commit_pairs, out / COMMITS),
        (record.example_pairs, out / EXAMPLES),
    ):
        if not count:
            (place / f"{source.file_name}.jsonl.gz").unlink(missing_ok=True)


def _nothing(source: Source, why: str) -> Record:
    return Record(source.id, source.registry, source.name, source.version, "", why, 0)


def records(out: Path) -> list[Record]:
    """What is done in an output folder, by name."""
    found = []
    for file in sorted(out.glob("*.json")):
        try:
            found.append(Record(**json.loads(file.read_text("utf-8"))))
        except (ValueError, TypeError):
            raise UsageError(f"{file} is no record of `embedcode data collect`: remove it.") from None
    return found


def summary(done: Sequence[Record]) -> dict[str, Any]:
    """Counts over sources: pairs by language, licence and registry; sources and functions refused, by reason."""
    languages, licences, registries = Counter[str](), Counter[str](), Counter[str]()
    commits, commits_left = Counter[str](), Counter[str]()
    refused, left, dropped = Counter[str](), Counter[str](), Counter[str]()
    said = 0
    for record in done:
        languages.update(record.languages)
        licences[record.licence] += record.pairs
        registries[record.registry] += record.pairs
        refused[record.refused.partition(":")[0] or "taken"] += 1
        commits["pairs"] += record.commit_pairs
        said += record.example_pairs or 0
        commits.update(record.commits_skipped)
        if record.commits_refused:
            commits[record.commits_refused.partition(":")[0]] += 1
        commits_left.update(record.commits_left)
        left.update(record.left)
        dropped.update(record.dropped)

    def ordered(counter: Counter[str]) -> dict[str, int]:
        return {name: count for name, count in counter.most_common() if count}

    return {
        "sources": ordered(refused),
        "pairs": sum(languages.values()),
        "languages": ordered(languages),
        "licences": ordered(licences),
        "registries": ordered(registries),
        "examples": said,
        "commits": ordered(commits),
        "commit_files_left_out": ordered(commits_left),
        "files_left_out": ordered(left),
        "functions_dropped": ordered(dropped),
    }


def found(wanted: Sequence[Source], done: Sequence[Record]) -> list[Source]:
    """The list again, with the versions and licences that were found: without what was refused, and what is not yet
    done as it stands."""
    records = {(record.registry, record.name): record for record in done}
    result = []
    for source in wanted:
        record = records.get((source.registry, source.name))
        if record is None or not record.is_of(source):
            result.append(source)
        elif record.pairs or record.commit_pairs or record.example_pairs:
            result.append(Source(source.registry, source.name, record.version, record.licence))
    return result
