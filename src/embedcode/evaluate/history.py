"""The files of a repository at the base commits of many issues: every distinct version cut once, on all cores.

A version is a path with the content it has somewhere; most commits share most of theirs. Reads git by plumbing. Knows
no query and no ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedcode.errors import UsageError
from embedcode.evaluate.choices import Files
from embedcode.evaluate.cut import Cut, Cutting, Field, Job, cut, lost
from embedcode.evaluate.instances import Instance
from embedcode.evaluate.postings import Postings
from embedcode.index import exclude
from embedcode.index.git import Entry, Repository
from embedcode.index.workers import Workers
from embedcode.search.rank import is_test
from embedcode.settings import MAX_FILE_BYTES

JOB_BYTES = 2_000_000
"""Of one job: versions of one path that one process cuts at a time."""
PARCEL = 4
"""Jobs sent to a process at a time; with what is kept ahead, some tens of MB."""

Told = Callable[[int, int], None]
"""How many of how many versions are read."""


@dataclass(slots=True)
class Commit:
    """The units of the files of one commit, in the order in which an index of it would number them."""

    units: NDArray[np.int32]
    """Places in the History; one that a file holds twice is here twice."""
    starts: NDArray[np.int32]
    """First line of each."""
    files: int
    left_out: dict[str, int] = field(default_factory=dict)
    """Files that hold no text to rank, by reason."""


@dataclass(slots=True)
class History:
    """The distinct units of one repository and where each commit has them. Lists are by unit."""

    repo: str
    paths: list[str]
    path: list[int]
    """Place in `paths`."""
    languages: list[str]
    """By path."""
    symbols: list[str]
    lines: list[int]
    texts: list[str]
    """What is embedded; empty where it was not wanted."""
    postings: dict[Field, Postings]
    commits: dict[str, Commit]
    versions: int
    """Distinct pairs of path and content."""

    @property
    def units(self) -> int:
        return len(self.path)

    def present(self, commit: Commit) -> NDArray[np.float64]:
        """[units]: how often each is in the commit."""
        return np.bincount(commit.units, minlength=self.units).astype(np.float64)


def read(
    repository: Repository,
    repo: str,
    instances: Sequence[Instance],
    cutting: Cutting,
    files: Files,
    tests: bool,
    cores: int,
    told: Told = lambda done, total: None,
) -> History:
    """All that the instances' commits hold. `tests` says whether tests are ranked too.

    UsageError names an instance whose commit does not have a file that its patch edits, or none of whose files is left.
    """
    trees: dict[str, list[Entry]] = {}
    held: dict[str, set[str]] = {}
    for one in instances:
        if one.commit not in trees:
            entries = repository.files(one.commit)
            held[one.commit] = {entry.path for entry in entries}
            trees[one.commit] = sorted(
                (entry for entry in _wanted(entries, files) if tests or not is_test(entry.path)),
                key=lambda entry: entry.path.split("/"),  # the order of a walk
            )
        if absent := sorted(set(one.gold) - held[one.commit]):
            raise UsageError(
                f"{one.id}: {one.repo} has no {absent[0]} at {one.commit}, which the patch edits: correct the instance."
            )
        if not trees[one.commit]:
            raise UsageError(f"{one.id}: {one.repo} has no file to rank at {one.commit}: take other files or tests in.")
    versions: dict[str, dict[str, None]] = {}
    for entries in trees.values():
        for entry in entries:
            versions.setdefault(entry.path, {})[entry.blob] = None
    return _History(repo, cutting).read(repository, versions, trees, cores, told)


class _History:
    """Grows while cuts come in."""

    def __init__(self, repo: str, cutting: Cutting) -> None:
        self._repo = repo
        self._cutting = cutting
        self._paths: list[str] = []
        self._languages: list[str] = []
        self._path: list[int] = []
        self._symbols: list[str] = []
        self._lines: list[int] = []
        self._texts: list[str] = []
        self._postings = {name: Postings() for name in cutting.fields}
        self._units: dict[bytes, int] = {}
        """Of the path that is read now."""
        self._versions: dict[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.int32]] | str] = {}

    def read(
        self,
        repository: Repository,
        versions: Mapping[str, Mapping[str, None]],
        trees: Mapping[str, list[Entry]],
        cores: int,
        told: Told,
    ) -> History:
        total = sum(map(len, versions.values()))
        with Workers(cores, cut, lost, PARCEL) as workers:
            if total > 2 * PARCEL * cores:
                workers.start()
            told(0, total)
            for found in workers.done(self._jobs(repository, versions)):
                self._add(found)
                told(len(self._versions), total)
        for postings in self._postings.values():
            postings.close()
        commits = {commit: self._commit(entries) for commit, entries in trees.items()}
        return History(
            self._repo,
            self._paths,
            self._path,
            self._languages,
            self._symbols,
            self._lines,
            self._texts,
            self._postings,
            commits,
            total,
        )

    def _jobs(self, repository: Repository, versions: Mapping[str, Mapping[str, None]]) -> Iterator[Job]:
        """Blobs that cannot be taken are noted on the way."""
        raws = repository.blobs([blob for blobs in versions.values() for blob in blobs])
        for path, blobs in versions.items():
            names: list[str] = []
            held: list[bytes] = []
            for blob, raw in zip(blobs, raws, strict=False):  # `blobs` first: it ends, and `raws` goes on
                if raw is None or len(raw) > MAX_FILE_BYTES:
                    self._versions[path, blob] = "not in the clone" if raw is None else "too large"
                    continue
                names.append(blob)
                held.append(raw)
                if sum(map(len, held)) > JOB_BYTES:
                    yield Job(path, tuple(names), tuple(held), self._cutting)
                    names, held = [], []
            if names:
                yield Job(path, tuple(names), tuple(held), self._cutting)

    def _add(self, found: Cut) -> None:
        if not self._paths or self._paths[-1] != found.path:  # all jobs of a path come one after another
            self._paths.append(found.path)
            self._languages.append(found.language)
            self._units = {}
        self._languages[-1] = self._languages[-1] or found.language
        places, kept = [], []
        for number, unit in enumerate(found.units):
            if unit.key not in self._units:
                self._units[unit.key] = len(self._path)
                kept.append(number)
                self._path.append(len(self._paths) - 1)
                self._symbols.append(unit.symbol)
                self._lines.append(unit.lines)
                if self._cutting.texts:
                    self._texts.append(unit.text)
            places.append(self._units[unit.key])
        for name, counts in found.counts.items():
            self._postings[name].add(counts, kept)
        for version in found.versions:
            units = np.array([places[number] for number in version.units], np.int32)
            starts = np.array(version.starts, np.int32)
            self._versions[found.path, version.blob] = version.left_out or (units, starts)

    def _commit(self, entries: Sequence[Entry]) -> Commit:
        units, starts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        left_out: dict[str, int] = {}
        for entry in entries:
            version = self._versions[entry.path, entry.blob]
            if isinstance(version, str):
                left_out[version] = left_out.get(version, 0) + 1
            else:
                units.append(version[0])
                starts.append(version[1])
        return Commit(np.concatenate(units), np.concatenate(starts), len(units) - 1, left_out)


def _wanted(entries: Sequence[Entry], files: Files) -> Iterator[Entry]:
    match files:
        case Files.ALL:
            yield from entries
        case Files.PYTHON:
            yield from (entry for entry in entries if entry.path.endswith(".py"))
        case Files.INDEXED:
            yield from _indexed(entries)


def _indexed(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Those that an index would hold, by their names and their folders'. What git tracks is taken though an ignore file
    names it, as git itself does."""
    names: dict[str, set[str]] = {}
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        known = folder in names
        names.setdefault(folder, set()).add(name)
        while folder and not known:
            folder, _, name = folder.rpartition("/")
            known = folder in names
            names.setdefault(folder, set()).add(name)
    taken: dict[str, bool] = {"": True}

    def enters(folder: str) -> bool:
        if folder not in taken:
            above, _, name = folder.rpartition("/")
            out = exclude.folder_reason(name, names[above]) or exclude.content_reason(names[folder])
            taken[folder] = enters(above) and not out
        return taken[folder]

    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if exclude.file_reason(name) is None and enters(folder):
            yield entry
