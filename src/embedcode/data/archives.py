"""A source (folder, git repository, archive) as a stream of its text files, with a count of what was left out.

Nothing is ever unpacked to the disk. An archive that tries to be something else is refused as a whole: one that
unpacks to more than it may (a bomb), or that names a path outside itself. Links, binary files, vendored folders and
files too large are left out and counted. Knows no language and no licence.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from embedcode.errors import UsageError
from embedcode.index import exclude, git, walk, words

TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".crate", ".gem")
ZIP_NAMES = (".zip", ".whl", ".jar", ".nupkg", ".egg", ".vsix")
NAMES = TAR_NAMES + ZIP_NAMES

ESCAPES = "path outside the archive"
LINK = "link"
ENCRYPTED = "encrypted"
PACKED = "packed in a way that is not bounded"
TESTS = "tests"

LONGEST_HEADER = 1 << 20
"""Bytes of all that a tar says of one member, such as a long name: 20 MB in memory where they are many attributes."""
_VENDORED = words("extern external externals deps bundled _vendored subprojects submodules vendors thirdparties")
"""What sources of packages call what they took from others, beside the names that an index leaves out anyway."""
_TEST_FOLDERS = words("""
    test tests testing __tests__ spec specs testdata test-data test_data fixtures testsuite unittest unittests testcases
    androidtest jvmtest commontest
""")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may be. The largest honest source seen is under half of each."""

    bytes: int = 4 << 30
    """Of all its members, unpacked: Chromium's sources would not pass, the Linux kernel's (1.5 GB) do."""
    ratio: int = 100
    """Unpacked to packed. Sources pack to a fifth; xz on repetitive tables comes to a thirtieth."""
    members: int = 500_000
    file: int = 1_000_000
    """Bytes of one file; what is larger is generated or data, and is left out."""


LIMITS = Limits()
_FREE = 64 << 20
"""Bytes unpacked before the ratio counts: a small archive of zeros does no harm."""


@dataclass(frozen=True, slots=True)
class Member:
    """A text file of a source. `path` is relative, with forward slashes, as the source has it."""

    path: str
    text: str


@dataclass(slots=True)
class Left:
    """Files left out, by reason, with one example each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, path)


def is_source(path: Path) -> bool:
    """Whether stream() takes it, by its name."""
    return path.is_dir() or path.name.lower().endswith(NAMES)


def stream(
    source: Path,
    left: Left | None = None,
    limits: Limits = LIMITS,
    tests: bool = False,
    always: Callable[[str], bool] = lambda path: False,
) -> Iterator[Member]:
    """The text files of a source, in its order. Tests are left out unless asked for; paths that are `always` wanted
    are taken whatever their name.

    A folder is walked as an index walks it, with its ignore files; a bare git repository is read at HEAD. UsageError,
    also after some members: for what is no source, cannot be read, unpacks to more than `limits`, or names a path
    outside itself.
    """
    left = Left() if left is None else left
    if source.is_dir():
        members = _bare(source, left, limits) if _is_bare(source) else _folder(source, left, limits)
    elif source.name.lower().endswith(ZIP_NAMES):
        members = _guarded(source, _zip(source, left, limits))
    elif source.name.lower().endswith(TAR_NAMES):
        members = _guarded(source, _tar(source, left, limits))
    elif not source.exists():
        raise UsageError(f"{source} does not exist; check the path.")
    else:
        raise UsageError(f"{source} is no source: give a folder, a git repository or one of {', '.join(NAMES)}.")
    for path, raw in members:
        reason = None if always(path) else name_reason(path, tests)
        if reason is None:
            text = walk.decode(raw) if isinstance(raw, bytes) else raw
            reason = walk.BINARY if text is None else exclude.text_reason(path, text)
            if reason is None and text is not None:
                yield Member(path, text)
        if reason is not None:
            left.add(reason, path)


def name_reason(path: str, tests: bool) -> str | None:
    """Why a path is left out by its names: as an index has it, and for being a test or somebody else's."""
    *folders, name = path.split("/")
    for folder in folders:
        lower = folder.lower()
        if (reason := exclude.folder_reason(folder, ())) is not None:
            return reason
        if lower in _VENDORED:
            return exclude.VENDORED
        if not tests and (lower in _TEST_FOLDERS or lower.endswith((".tests", ".test"))):
            return TESTS
    if not tests and _is_test(name):
        return TESTS
    return exclude.file_reason(name)


def _is_test(name: str) -> bool:
    stem = name.partition(".")[0]
    return (
        stem.startswith("test_")
        or stem.endswith(("_test", "_spec", "Test", "Tests", "TestCase"))
        or ".test." in name
        or ".spec." in name
    )


# ---- kinds of source ---------------------------------------------------------------------------------------------


def _folder(root: Path, left: Left, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    for item in walk.walk(root, max_bytes=limits.file):
        read = item if isinstance(item, walk.Skipped) else walk.read(item, max_bytes=limits.file)
        if isinstance(read, walk.Skipped):
            left.add(read.reason, read.path)
        else:
            yield item.path, read.text


def _is_bare(root: Path) -> bool:
    return (root / "HEAD").is_file() and (root / "objects").is_dir() and (root / "refs").is_dir()


def _bare(root: Path, left: Left, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    """By `ls-tree` and `cat-file`, not `git archive`, which runs the filters that a configuration names."""
    listed = git.ask(root, "ls-tree", "-r", "-z", "--full-tree", "HEAD", needed_by="mining a repository")
    if listed is None:
        raise UsageError(f"{root} has no commit at HEAD that git can read: run `git fsck` there.")
    wanted: list[tuple[str, str]] = []
    for entry in filter(None, listed.split("\0")):
        head, _, path = entry.partition("\t")
        mode, kind, name = head.split()
        if kind != "blob" or mode == "120000":
            left.add(LINK, path)
        else:
            wanted.append((path, name))
    for (path, _), raw in zip(wanted, git.blobs(root, (name for _, name in wanted), limits.file), strict=True):
        if raw is None:
            left.add(_too_large(limits), path)
        else:
            yield path, raw


def _zip(file: Path, left: Left, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    meter = _Meter(file, limits)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _checked(file, info.filename)
            meter.member()
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind and not stat.S_ISREG(kind):
                left.add(LINK, path)
            elif info.flag_bits & 1:
                left.add(ENCRYPTED, path)
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                left.add(PACKED, path)  # bzip2 and LZMA unpack at once whatever they hold, however little is asked for
            elif info.file_size > limits.file:  # not unpacked, so it need not be honest
                left.add(_too_large(limits), path)
            else:
                with archive.open(info) as member:
                    raw = member.read(limits.file + 1)  # what the directory claims is not believed
                meter.add(len(raw))
                if len(raw) > limits.file:
                    left.add(_too_large(limits), path)
                else:
                    yield path, raw


def _tar(file: Path, left: Left, limits: Limits, inner: IO[bytes] | None = None) -> Iterator[tuple[str, bytes | str]]:
    meter = _Meter(file, limits)
    with inner or file.open("rb") as packed, _unpacked(packed) as unpacked:
        given = _Given(file, unpacked)
        with tarfile.open(fileobj=cast(IO[bytes], given), mode="r:") as archive:
            # tarfile passes over a member by unpacking it, so that its size has to be counted before that.
            counted = 0
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it would keep every header
                archive.pax_headers = {}  # those of the whole archive, which may be set again before every member
                path = _checked(file, info.name)
                meter.member()
                meter.add(max(info.size, archive.offset - counted))
                counted = archive.offset
                if info.isreg():
                    given.left = limits.bytes
                    yield from _member(file, left, limits, archive, info, path, inner is not None)
                elif not info.isdir():
                    left.add(LINK if info.issym() or info.islnk() else walk.SPECIAL, path)
                given.left = LONGEST_HEADER


def _member(
    file: Path, left: Left, limits: Limits, archive: tarfile.TarFile, info: tarfile.TarInfo, path: str, inside: bool
) -> Iterator[tuple[str, bytes | str]]:
    if path in ("data.tar.gz", "data.tar.xz") and not inside:  # a gem keeps its files in there
        yield from _tar(file, left, limits, archive.extractfile(info))
    elif info.size > limits.file:
        left.add(_too_large(limits), path)
    else:
        yield path, _read(archive, info, limits.file)


def _unpacked(packed: IO[bytes]) -> IO[bytes]:
    head = packed.read(6)
    packed.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(packed))
    if head.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(packed))
    if head.startswith((b"\xfd7zXZ", b"]\0\0")):
        return cast(IO[bytes], lzma.open(packed))
    return packed


class _Given:
    """What tarfile reads from: it gives up to `left` bytes. tarfile takes the whole of a long name, of attributes or of
    a sparse file's map, and of what is about these, before anyone can count it."""

    def __init__(self, file: Path, unpacked: IO[bytes]) -> None:
        self._file = file
        self.left = LONGEST_HEADER
        self.read_from, self.seek, self.tell, self.seekable = (
            unpacked.read, unpacked.seek, unpacked.tell, unpacked.seekable,
        )  # fmt: skip

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise UsageError(
                f"{self._file} says more than {LONGEST_HEADER / 1e6:,.0f} MB of one member: refused as an archive bomb."
            )
        self.left -= size
        return self.read_from(size)


def _read(archive: tarfile.TarFile, info: tarfile.TarInfo, most: int) -> bytes:
    member = archive.extractfile(info)
    assert member is not None
    with member:
        raw = member.read(most)
    if len(raw) < min(info.size, most):
        raise tarfile.ReadError("unexpected end of data")
    return raw


def _guarded(file: Path, members: Iterator[tuple[str, bytes | str]]) -> Iterator[tuple[str, bytes | str]]:
    """What the libraries raise for a damaged archive, as one sentence."""
    damaged: tuple[Any, ...] = (
        OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError,
        ValueError, OverflowError, RecursionError,
    )  # fmt: skip
    while True:
        try:
            member = next(members)
        except StopIteration:
            return
        except damaged as error:
            why = str(error).partition(":\n")[0] or "cut short"
            raise UsageError(f"{file} cannot be read ({why}): fetch the archive again.") from None
        yield member


class _Meter:
    """Counts what an archive unpacks to, and refuses what is more than it may be."""

    def __init__(self, file: Path, limits: Limits) -> None:
        self._file, self._limits = file, limits
        self._packed = max(file.stat().st_size, 1)
        self._bytes = self._members = 0

    def member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise UsageError(f"{self._file} has more than {self._limits.members:,} files: refused as an archive bomb.")

    def add(self, size: int) -> None:
        self._bytes += size
        most = min(self._limits.bytes, max(_FREE, self._limits.ratio * self._packed))
        if self._bytes > most:
            raise UsageError(
                f"{self._file} ({self._packed / 1e6:,.1f} MB) unpacks to more than {most / 1e6:,.0f} MB: "
                "refused as an archive bomb."
            )


def _checked(file: Path, name: str) -> str:
    """A member's path, relative and without `.`; UsageError for one that leads outside."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        raise UsageError(f"{file} names {name[:200]!r}, a {ESCAPES}: refused.")
    return "/".join(parts)


def _too_large(limits: Limits) -> str:
    return f"{walk.TOO_LARGE} {limits.file / 1e6:g} MB"
