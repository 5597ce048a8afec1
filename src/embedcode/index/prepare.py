"""One file from disk to what the store takes: read, recognised, cut into chunks with their vector keys.

Pure work on one file, so it can run in another process (`workers`). Knows no store and no other file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from embedcode.index.chunk import chunk, plain
from embedcode.index.languages import TEXT, language_of
from embedcode.index.walk import UNREADABLE, Found, Skipped, read
from embedcode.index.workers import CRASHED
from embedcode.model.passage import passage, vector_key
from embedcode.store.terms import searchable
from embedcode.types import Chunk, File

RACY_NS = 20_000_000
"""A file written this shortly before it was read may change again within the same time stamp (kernels tick in 4 ms)."""
COARSE_NS = 2_000_000_000
"""The same where times are whole seconds, as HFS+, ext3 and FAT keep them, FAT every other one alone."""
STALE = -1
"""Stamp of a file that is to be cut again whatever its content: none on a disk has it, as no hash of Python is -1."""
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """A file to prepare, and what the index knows of its content (None: nothing that holds)."""

    found: Found
    digest: bytes | None
    max_bytes: int
    space: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Exactly one of: a reason it is left out, a file whose content is as known (chunks None), a file with chunks."""

    found: Found
    skipped: str = ""
    failed: str = ""
    """Why it could not be cut by its syntax; its chunks are then runs of lines."""
    file: File | None = None
    chunks: list[Chunk] | None = None
    keys: list[bytes] | None = None


def embedded_text(chunk: Chunk) -> str:
    """The exact string an encoder gets for a chunk, before its prompt."""
    return passage(chunk.path, chunk.symbol, searchable(chunk.text))


def prepare(job: Job, cutting: Callable[[], None] | None = None) -> Prepared:
    """`cutting` is called before a parser is given the text."""
    found = job.found
    source = read(found, max_bytes=job.max_bytes)
    if isinstance(source, Skipped):
        return Prepared(found, skipped=source.reason)
    language = language_of(found.path, source.text[:_HEAD].encode("utf-8", "replace")) or TEXT
    tick = RACY_NS if source.changed_ns % 1_000_000_000 else COARSE_NS
    racy = abs(time.time_ns() - source.changed_ns) < tick  # far ahead it is of a clock that was set back since
    file = File(
        path=found.path,
        repo=found.repo,
        language=language.name,
        content=language.content,
        size=source.size,
        stamp=0 if racy else source.stamp,
        digest=source.digest,
    )
    if source.digest == job.digest:
        return Prepared(found, file=file)
    if cutting is not None:
        cutting()
    failed = ""
    try:
        chunks = chunk(found.path, source.text, language, found.repo)
    except Exception as error:  # what fails at one file's syntax must cost neither the others nor its text
        failed = f"cut at lines, since its syntax failed ({type(error).__name__}: {error})"
        chunks = plain(found.path, source.text, language, found.repo)
        if isinstance(error, MemoryError | ImportError | OSError) and not isinstance(error, ModuleNotFoundError):
            # Of this process at this moment, and not of the file; a grammar that is not there will not be at the next.
            file = replace(file, stamp=STALE)
    keys = [vector_key(embedded_text(c), job.space) for c in chunks]
    return Prepared(found, failed=failed, file=file, chunks=chunks, keys=keys)


def lost(job: Job, reason: str) -> Prepared:
    """In place of what prepare() would have given."""
    return (
        Prepared(job.found, failed=reason)
        if reason == CRASHED
        else Prepared(job.found, skipped=f"{UNREADABLE}: {reason}")
    )
