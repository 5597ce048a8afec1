"""The files of a checkout: which are there (`walk`), what one of them says (`read`), and why others were left out.

`walk` streams, holds one folder's names per level, and costs one stat a file; it opens nothing but ignore files, so
an unchanged tree costs no reading. `Reach` is where it goes, for who watches that. `read` opens one file and judges it
by content. Knows no chunks, languages or stores, and needs no git: ignore rules are in `ignore`, built-in exclusions in
`exclude`.

Symbolic links are never followed: what they lead to inside the root is walked anyway, what lies outside is not the
user's choice, and so there are no loops.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedcode.errors import UsageError
from embedcode.files import OPEN_FLAGS, is_file
from embedcode.index import exclude
from embedcode.index.ignore import Rules, common_dir, git_dir, repository_rules, verdict
from embedcode.settings import MAX_FILE_BYTES, REPOSITORY_FILE
from embedcode.types import digest

OWN_IGNORE = ".embedcodeignore"
GIT_IGNORE = ".gitignore"

READ_TRIES = 4
"""Reads of a file that changes under the reader before it is left for the next update."""

READ_PAUSE = 0.01
"""Seconds between them: longer than a plain save takes."""

MAX_STRAY = 0.05
"""Share of control bytes above which bytes that are not UTF-8 are not text either (of random bytes it is 0.1); also of
undecodable characters behind a byte order mark."""

NAMED = 1_000
"""Paths named of each reason: two million pictures beside the code were 160 MB of notes, which each status read."""

IGNORED = "ignored by"
EXTRA = "an extra pattern"
TOO_LARGE = "larger than"
LINK = "symbolic link"
SPECIAL = "not a regular file"
BAD_NAME = "file name is not valid UTF-8"
DENIED = "permission denied"
GONE = "disappeared while it was read"
CHANGING = "kept changing while it was read"
UNREADABLE = "cannot be read"
"""By a fault of the system, such as a drive that is away, which says nothing of the file."""
BINARY = "binary content"
OURS = "index or cache of embedcode"
WORKTREE = "another worktree of this repository"

_RULING = frozenset({GIT_IGNORE, OWN_IGNORE, REPOSITORY_FILE, ".git"})
"""Names that decide on others, whatever is decided on them: `.git` begins a repository, where rules start afresh."""

_NO_CURE = frozenset({SPECIAL, BAD_NAME, GONE, CHANGING, BINARY, OURS}) | exclude.FIRM

_OPEN_FLAGS = OPEN_FLAGS | getattr(os, "O_NOFOLLOW", 0)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_PLAIN = bytes(set(range(0x20, 0x100)) | set(b"\t\n\r\f\b\x1b"))

# Only families of one or two bytes a character that leave line feeds alone: escape codecs and idna are codecs too.
_DECLARED = re.compile(
    rb"coding[:=]\s*[\"']?((?:latin|iso-?8859|cp|windows-|koi8|gb|big5|euc|shift|sjis|mac)[\w.-]*)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to index. `path` is relative to the root, with forward slashes; `repo` is the folder name of the
    innermost repository around it."""

    path: str
    absolute: Path
    size: int
    stamp: int
    repo: str
    wanted: bool = False
    """Named by the user with "!" in an ignore file of ours: its content is taken although generated or minified."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was left out; a folder's path ends in "/" and stands for all below it."""

    path: str
    reason: str


class LeftOut:
    """What was left out of a checkout: the first NAMED paths of each reason, and by reason how many there are more."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.more: dict[str, int] = {}
        self._counts = Counter[str]()

    def add(self, path: str, reason: str) -> None:
        """A path that was not added before."""
        self._counts[reason] += 1
        if self._counts[reason] <= NAMED:
            self.named[path] = reason
        else:
            self.more[reason] = self._counts[reason] - NAMED


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a file, the digest of its raw bytes, and the size and stamp that belong to exactly those bytes."""

    text: str
    digest: bytes
    size: int
    stamp: int
    changed_ns: int
    """When it was last written or replaced."""


@dataclass(frozen=True, slots=True)
class _Options:
    extra: Rules
    max_bytes: int
    ours: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder being walked: what is left of its entries, and the rules that hold in it, in rising precedence."""

    prefix: str
    repo: str
    git: tuple[Rules, ...]
    own: tuple[Rules, ...]
    shared: frozenset[Path]
    """What the repositories that it lies in share with their worktrees; but not bare ones, which have no files of their
    own that a worktree could repeat."""
    names: frozenset[str]
    entries: Iterator[os.DirEntry[str]]


def walk(
    root: Path, *, max_bytes: int = MAX_FILE_BYTES, extra_ignore: Sequence[str] = (), ours: Sequence[Path] = ()
) -> Iterator[Found | Skipped]:
    """Every file below `root`, folder by folder in name order, or why it or its folder is left out.

    .gitignore files, .git/info/exclude and the user's git ignore file hold as in git, in a folder without .git too; in
    a nested repository they start afresh, and another worktree of the same one is left out: it is the same code again,
    with an index of its own. .embedcodeignore files stand above them and above the built-in exclusions,
    and `extra_ignore`, lines in the same syntax, above those: a line with "!" takes a file or folder back, but not
    credentials, version control data, a file above `max_bytes`, or `ours`, the folders where indexes and vectors lie.
    Raises UsageError at once when `root` is not a readable folder.
    """
    return _walk(_top(root), _options(extra_ignore, ours, max_bytes))


def _walk(top: _Folder, options: _Options) -> Iterator[Found | Skipped]:
    stack = [top]
    while stack:
        entry = next(stack[-1].entries, None)
        if entry is None:
            stack.pop()
            continue
        visited = _visit(stack[-1], entry, options)
        if isinstance(visited, _Folder):
            stack.append(visited)
        else:
            yield visited


class Reach:
    """Where walk() goes, as of when this is made: the folders it enters, and what in them it looks at."""

    def __init__(self, root: Path, *, extra_ignore: Sequence[str] = (), ours: Sequence[Path] = ()) -> None:
        """Lists folders, and opens nothing but ignore files. UsageError as walk() raises it."""
        self._options = _options(extra_ignore, ours)
        self._folders: dict[str, _Folder] = {}
        waiting = [(str(root.resolve()), _top(root))]
        while waiting:
            path, folder = waiting.pop()
            self._folders[path] = folder
            for entry in folder.entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        inner = _visit(folder, entry, self._options)
                        if isinstance(inner, _Folder):
                            waiting.append((entry.path, inner))

    @property
    def folders(self) -> Set[str]:
        """Absolute paths."""
        return self._folders.keys()

    def covers(self, path: str) -> bool:
        """Whether what happens at this absolute path can change what walk() finds, by its place and name."""
        parent, name = os.path.split(path)
        folder = self._folders.get(parent)
        if folder is None:
            return path in self._folders  # the root
        if name in _RULING:
            return True
        if path in self._options.ours:
            return False
        try:
            kinds = [stat.S_ISDIR(Path(path).lstat().st_mode)]
        except OSError:  # it is gone, and may have been either
            kinds = [False, True]
        return any(_name_reason(folder, name, is_dir, self._options)[0] is None for is_dir in kinds)


def _options(extra_ignore: Sequence[str], ours: Sequence[Path], max_bytes: int = MAX_FILE_BYTES) -> _Options:
    extra = Rules("\n".join(extra_ignore), EXTRA)
    return _Options(extra, max_bytes, frozenset(str(folder.resolve()) for folder in ours))


def _top(root: Path) -> _Folder:
    try:
        return _enter(root.resolve(), "", "", (), (), frozenset())
    except FileNotFoundError as error:
        raise UsageError(f"{root} does not exist; check the path.") from error
    except NotADirectoryError as error:
        raise UsageError(f"{root} is not a folder; give the folder that holds the code.") from error
    except OSError as error:
        reason = _io_reason(error).removeprefix(f"{UNREADABLE}: ")
        raise UsageError(f"{root} cannot be read ({reason}); check who may read it.") from error


def _enter(
    absolute: Path,
    prefix: str,
    repo: str,
    git: tuple[Rules, ...],
    own: tuple[Rules, ...],
    shared: frozenset[Path],
) -> _Folder:
    """List a folder and add its own rules; the top, and any folder with a .git, begins a repository."""
    with os.scandir(absolute) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    names = frozenset(entry.name for entry in entries)
    if not prefix or ".git" in names:
        repo = _printable(absolute.name)
        git = tuple(rules for rules in repository_rules(absolute, prefix) if rules)
        if is_file(git_dir(absolute / ".git") / "index"):
            shared |= {common_dir(absolute / ".git")}
    # As git does, an ignore file is read only where it is a file itself, not a link.
    regular = {
        entry.name
        for entry in entries
        if entry.name in (GIT_IGNORE, OWN_IGNORE) and entry.is_file(follow_symlinks=False)
    }
    if GIT_IGNORE in regular:
        git = (*git, Rules.read(absolute / GIT_IGNORE, prefix + GIT_IGNORE, prefix))
    if OWN_IGNORE in regular:
        own = (*own, Rules.read(absolute / OWN_IGNORE, prefix + OWN_IGNORE, prefix))
    return _Folder(prefix, repo, git, own, shared, names, iter(entries))


def _visit(folder: _Folder, entry: os.DirEntry[str], options: _Options) -> Found | Skipped | _Folder:
    path = folder.prefix + entry.name
    try:
        if entry.is_symlink() or _is_junction(entry):
            return Skipped(_printable(path), LINK)
        is_dir = entry.is_dir(follow_symlinks=False)
        if is_dir:
            path += "/"
        if not _is_utf8(entry.name):
            return Skipped(_printable(path), BAD_NAME)
        if entry.path in options.ours:
            return Skipped(path, OURS)
        reason, wanted = _name_reason(folder, entry.name, is_dir, options)
        if reason is not None:
            return Skipped(path, reason)
        if is_dir:
            inner = _enter(Path(entry.path), path, folder.repo, folder.git, folder.own, folder.shared)
            reason = None if wanted else exclude.content_reason(inner.names)
            if not wanted and ".git" in inner.names and common_dir(Path(entry.path, ".git")) in folder.shared:
                reason = WORKTREE
            return inner if reason is None else Skipped(path, reason)
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(_printable(path), _io_reason(error))
    if not stat.S_ISREG(status.st_mode):
        return Skipped(path, SPECIAL)
    if status.st_size > options.max_bytes:
        return Skipped(path, _too_large(options.max_bytes))
    return Found(path, Path(entry.path), status.st_size, _stamp(status), folder.repo, wanted)


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """What leads to another folder on Windows, and is no symbolic link to it."""
    if os.name != "nt":
        return False
    tag: int = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return tag == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)


def _name_reason(folder: _Folder, name: str, is_dir: bool, options: _Options) -> tuple[str | None, bool]:
    """Why the rules and the name leave an entry out, if they do, and whether the user asked for it by name."""
    built_in = exclude.folder_reason(name, folder.names) if is_dir else exclude.file_reason(name)
    if built_in in exclude.FIRM:
        return built_in, False
    path = folder.prefix + name
    decided = verdict((*folder.own, options.extra), path, name, is_dir)
    wanted = decided is not None and decided.negated
    if decided is None:
        decided = verdict(folder.git, path, name, is_dir)
    if decided is not None and not decided.negated:
        return f"{IGNORED} {decided.source}: {decided.text}", False
    return (None if wanted else built_in), wanted


def read(found: Found, *, max_bytes: int = MAX_FILE_BYTES) -> Source | Skipped:
    """The text of a file, or why its content leaves it out. Never raises, never waits on a pipe or a device.

    UTF-8, or UTF-16 and UTF-32 by their byte order mark, or the encoding a comment at the top declares, or else
    Windows-1252 with U+FFFD for what it does not define: line feeds stay where they are, whatever the encoding was.
    """
    try:
        stable = _read_stable(found.absolute, max_bytes)
    except OSError as error:
        return Skipped(found.path, _io_reason(error))
    if isinstance(stable, str):
        return Skipped(found.path, stable)
    raw, status = stable
    text = decode(raw)
    if text is None:
        return Skipped(found.path, BINARY)
    reason = exclude.text_reason(found.path, text)
    if reason is not None and (reason in exclude.FIRM or not found.wanted):
        return Skipped(found.path, reason)
    changed_ns = status.st_ctime_ns  # not that of writing, which may be set to any time, but that of setting it
    if os.name == "nt":  # where it is the time of creation
        changed_ns = max(changed_ns, status.st_mtime_ns)
    return Source(text, digest(raw), status.st_size, _stamp(status), changed_ns)


def _read_stable(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result] | str:
    """The bytes of a file with a status that holds before and after they were read, or the reason there are none."""
    for _ in range(READ_TRIES):
        with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return SPECIAL
            raw = file.read(max_bytes + 1)
            after = os.fstat(file.fileno())
        if len(raw) > max_bytes:
            return _too_large(max_bytes)
        if before.st_mtime_ns == after.st_mtime_ns and before.st_size == after.st_size == len(raw):
            return raw, after
        time.sleep(READ_PAUSE)
    return CHANGING


def decode(raw: bytes) -> str | None:
    """The text of a file's bytes, without a byte order mark; None when they are not text."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            text = raw.decode(encoding, "replace")
            return None if "\0" in text or text.count("\ufffd") > MAX_STRAY * len(text) else text
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if len(raw.translate(None, _PLAIN)) > MAX_STRAY * len(raw):
        return None
    declared = _DECLARED.search(b"\n".join(raw.split(b"\n", 2)[:2]))
    if declared is not None:
        try:
            text = raw.decode(declared[1].decode("ascii"))
            if text.count("\n") == raw.count(b"\n"):  # EBCDIC code pages have another line feed
                return text
        except (LookupError, ValueError):
            pass
    return raw.decode("cp1252", "replace")


def explain_nothing(skipped: Mapping[str, str], more: Mapping[str, int] | None = None) -> str:
    """One sentence for a walk that found no file: how much was left out and why, an example of each, the cure. `more`
    are those that are not named, by reason."""
    if not skipped:
        return "No file to index: the folder is empty; give the folder that holds the code."
    groups: dict[str, list[str]] = {}
    for path, reason in sorted(skipped.items(), key=lambda item: (not item[0].endswith("/"), item[0])):
        groups.setdefault(reason.partition(":")[0], []).append(path)
    counts = Counter({reason: len(paths) for reason, paths in groups.items()})
    for reason, count in (more or {}).items():
        counts[reason.partition(":")[0]] += count
    by_size = [(reason, groups[reason]) for reason, _ in counts.most_common() if reason in groups]
    listed = "; ".join(f'{counts[reason]:,} left out as "{reason}", such as {paths[0]}' for reason, paths in by_size)
    cures = (cure for reason, paths in by_size if (cure := _cure(reason, paths[0])) is not None)
    return f"No file to index: {listed}; {next(cures, 'give a folder that holds source text')}."


def _cure(reason: str, path: str) -> str | None:
    """What brings a file or folder left out for this reason in; None where nothing does."""
    if reason == f"{IGNORED} {EXTRA}":
        return "drop the extra pattern"
    if reason == DENIED:
        return f"let this user read {path}"
    if reason == UNREADABLE:
        return f"run again when {path} can be read"
    if reason == LINK:
        return f"give the folder that {path} leads to"
    if reason.startswith(IGNORED) and reason.endswith(f"/{OWN_IGNORE}"):  # it stands above the one at the top
        return f"change the line of {reason.removeprefix(IGNORED).strip()} that leaves {path} out"
    if reason in _NO_CURE or reason.startswith(TOO_LARGE):
        return None
    line = "!/" + re.sub(r"([\\*?\[])", r"\\\1", path)
    return f"to take one back, write a line such as {line} into {OWN_IGNORE} at the top"


def _stamp(status: os.stat_result) -> int:
    """Another one where a file was written or replaced since. Of both its times: mtime goes with a file that takes the
    place of another, and can be set; ctime is that of its creation on Windows. Without the number of its inode, which
    network file systems may give anew at any time."""
    return hash((status.st_mtime_ns, status.st_ctime_ns))  # of numbers it is the same in every process


def _too_large(max_bytes: int) -> str:
    return f"{TOO_LARGE} {max_bytes / 1e6:g} MB" if max_bytes >= 100_000 else f"{TOO_LARGE} {max_bytes:,} bytes"


def _io_reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return DENIED
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return GONE
    if error.errno == errno.ELOOP:
        return LINK
    if error.errno == errno.ENXIO:
        return SPECIAL
    return f"{UNREADABLE}: {(error.strerror or type(error).__name__).lower()}"


def _is_utf8(name: str) -> bool:
    """Whether a name as the system gives it, with surrogates for stray bytes, can be stored and printed."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    """A path with its stray bytes spelled out, as `caf\\xe9.py`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
