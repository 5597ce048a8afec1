"""A source to its docstring pairs: opened, its licence found, its files extracted, copies dropped.

A source enters only when no evaluation uses it (never.toml, by the names of its file and folder) and its own licence
file grants an allowed licence, unless it is the user's own. Knows no list of sources and no download.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedcode.data import docstrings, examples, licences, never, sources
from embedcode.data.archives import Left, Member, stream
from embedcode.data.docstrings import Extracted, File
from embedcode.errors import UsageError
from embedcode.index import git
from embedcode.index.workers import Workers
from embedcode.types import Pair

NEVER = "never trained on"
NO_LICENCE = "no licence file"
UNKNOWN_LICENCE = "licence not of the allow-list"
FOREIGN_HEADER = "file under another licence"
FOREIGN_FOLDER = "folder under another licence"
COPIES = "copy of another function"


@dataclass(slots=True)
class Mined:
    """What one source gave."""

    source: str
    licence: str = ""
    refused: str = ""
    """Why the whole source was refused; then there are no pairs."""
    pairs: list[Pair] = field(default_factory=list)
    files: int = 0
    """That were parsed and may be used."""
    left: Left = field(default_factory=Left)
    """Files left out."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Functions left out."""


def extract(file: File) -> Extracted:
    """The pairs of a file, by its kind."""
    return docstrings.extract(file) if examples.kind(file.path) is None else examples.extract(file)


def workers(cores: int) -> Workers[File, Extracted]:
    """Processes that extract(): never this one, which a parser could take with it."""
    return Workers(cores, extract, docstrings.lost, least=1)


def mine(
    path: Path, name: str, workers: Workers[File, Extracted], own: bool = False, known_as: tuple[str, ...] = (),
    tasks: Collection[str] = (docstrings.TASK,),
) -> Mined:  # fmt: skip
    """The pairs of a source called `name`, of functions, of documentation or both. `own` takes it whatever its licence;
    `known_as` are other names of it that never.toml may list.

    UsageError for what archives.stream() refuses.
    """
    mined = Mined(name)
    if entry := never.load().first((*known_as, *names(path))):
        mined.refused = f"{NEVER}: {entry.why}"
        return mined
    reader = _Reader(path, name, mined, own, tasks)
    found = list(workers.done(reader))  # the licence of a folder may come behind its files
    if not reader.settle():
        return mined
    seen: set[bytes] = set()
    foreign = tuple(reader.foreign)
    for path_inside, extracted in zip(reader.paths, found, strict=True):
        if path_inside.startswith(foreign):
            mined.left.add(FOREIGN_FOLDER, path_inside)
            continue
        mined.files += 1
        mined.dropped += extracted.refused
        for pair, known in zip(extracted.pairs, extracted.prints, strict=True):
            if known in seen:
                mined.dropped[COPIES] += 1
            else:
                seen.add(known)
                mined.pairs.append(replace(pair, licence=mined.licence))
    return mined


class _Reader:
    """The files of a source that pairs are made from. Stops early where a licence file is met that is not allowed;
    settle() at the end."""

    def __init__(self, path: Path, name: str, mined: Mined, own: bool, tasks: Collection[str]) -> None:
        self._path, self._name, self._mined = path, name, mined
        self._own, self._tasks = own, tasks
        self._tops: set[str] = set()
        """Of an archive, its outermost folders but for metadata."""
        self._licences: dict[str, str] = {}
        self.paths: list[str] = []
        """Of the files given, in their order."""
        self.foreign: set[str] = set()
        """Folders, with a slash behind, whose own licence file is not of the allow-list."""

    def __iter__(self) -> Iterator[File]:
        archive = not self._path.is_dir()
        for member in stream(self._path, self._mined.left, always=self._always):
            if archive and "/" in member.path and not licences.is_metadata(top := member.path.partition("/")[0]):
                self._tops.add(top)
            if licences.is_own(member.path, self._top):
                self._licences[member.path] = member.text
                if not (self._own or licences.of_part(member.path) or licences.known(member.text)):
                    return
            elif self._is_foreign(member):
                self.foreign.add(member.path.rpartition("/")[0] + "/")
            elif (file := self._file(member)) is not None:
                self.paths.append(file.path)
                yield file

    def _always(self, path: str) -> bool:
        """Whether a file is wanted in whatever folder."""
        return licences.may_be(path) or (examples.TASK in self._tasks and examples.is_description(path))

    def _is_foreign(self, member: Member) -> bool:
        """Whether it is the licence of its folder, and not of the allow-list. Code may be called so, documentation too:
        the text of a LICENSE.md is the licence."""
        if self._own or not licences.of_folder(member.path) or docstrings.language(member.path, member.text):
            return False
        return not licences.known(member.text)

    def _file(self, member: Member) -> File | None:
        task = docstrings.TASK if examples.kind(member.path) is None else examples.TASK
        if task not in self._tasks or (task == docstrings.TASK and not docstrings.language(member.path, member.text)):
            return None
        if not self._own and licences.foreign_header(member.text):
            self._mined.left.add(FOREIGN_HEADER, member.path)
            return None
        return File(member.path, member.text, self._name)

    @property
    def _top(self) -> str:
        """The one folder that holds all of an archive, so far; a file may stand beside it."""
        return next(iter(self._tops)) if len(self._tops) == 1 else ""

    def settle(self) -> bool:
        """Whether the source enters."""
        mined = self._mined
        # The licence of a folder beside which another came later is that of a part.
        self._licences = {path: text for path, text in self._licences.items() if licences.is_own(path, self._top)}
        mined.licence = licences.of(self._licences) or ""
        if entry := self._renamed():
            mined.refused = f"{NEVER}: {entry.why}"
        elif not (self._own or mined.licence):
            mined.refused = UNKNOWN_LICENCE if self._licences else NO_LICENCE
        return not mined.refused

    def _renamed(self) -> never.Entry | None:
        """What never.toml has on the one folder that holds all of an archive, which itself may be called anything. Not
        data sets: they are called as folders are, `apps`."""
        found = map(never.load().find, sources.file_names(self._top)) if self._top else ()
        return next((entry for entry in found if entry is not None and entry.kind == "repository"), None)


_REMOTE = re.compile(r"(?:(?!file:)[\w+.-]+://[^/\s]*/|(?:[^/@:\s]+@)?[\w.-]+:(?!//))/*(?P<name>\S+?)/?(?:\.git)?/?")
"""Where a clone is from, unless it is a folder of this machine."""


def names(path: Path) -> tuple[str, ...]:
    """What a source may be known as: by its file name, and by where a repository was cloned from."""
    known = sources.file_names(path.resolve().name)
    origin = _origin(path)
    return (*known, origin) if origin else known


def called(paths: Sequence[Path]) -> list[str]:
    """What pairs call each of several sources: `git:OWNER/NAME` where it is a clone from elsewhere, else as its file or
    folder is called, after those above it where several have the same name.

    UsageError for two clones of one repository, or a source that is given twice: splits are made by source.
    """
    found = list(map(_called, paths))
    whole = [path.resolve() for path in paths]
    for name in {name for name in found if found.count(name) > 1}:
        same = [number for number, other in enumerate(found) if other == name]
        first, second = (str(paths[number]) for number in same[:2])
        if name.startswith("git:") or len({whole[number] for number in same}) < len(same):
            raise UsageError(f"{first} and {second} are one source, {name}: give it once.")
        depth = 2
        while len({whole[number].parts[-depth:] for number in same}) < len(same):
            depth += 1
        for number in same:
            found[number] = _word("/".join(whole[number].parts[-depth:]))
    return found


def _called(path: Path) -> str:
    remote = _REMOTE.fullmatch(_origin(path))
    if remote and not _git(path, "rev-parse", "--show-prefix"):  # else a folder in a clone
        return f"git:{remote['name']}"
    path = path.resolve()
    return _word(path.name.removesuffix(".git") or path.parent.name)


def _word(name: str) -> str:
    """Behind a blank stands a version."""
    return "-".join(name.split())


def _origin(path: Path) -> str:
    return _git(path, "config", "--get", "remote.origin.url")


def _git(path: Path, *arguments: str) -> str:
    """What git says of a repository; nothing where there is none."""
    try:
        said = git.ask(path, *arguments, needed_by="mining a repository") if path.is_dir() else None
    except UsageError:
        said = None
    return (said or "").strip()
