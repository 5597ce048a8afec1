"""What an index says about its work: progress while it goes, a report when it is done, its status in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of long work. `read` counts files; `embed` counts chunks, and tokens as they are embedded."""

    phase: Literal["read", "embed"]
    done: int
    total: int
    chunks: int
    tokens: int
    seconds: float
    """Since the phase began."""
    before: int = 0
    """Of `done`, what was there when it began."""
    other: int = 0
    """The process that does the work, where it is not this one."""


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What an update did. `skipped` maps a path (a folder ends in /) to the reason it was left out; of each reason a
    thousand are named, and `skipped_more` has how many others there are."""

    files: int
    changed: int
    removed: int
    chunks: int
    embedded: int
    """Chunks that have a vector now."""
    encoded: int
    """Vectors computed by this update; the rest were there or came from the cache."""
    cached: int
    tokens: int
    seconds: float
    skipped: Mapping[str, str]
    failed: Mapping[str, str]
    """Files that could not be parsed, now or when they were last read, with the reason; the rest of the index is whole.
    With `vectors` also those that could not be embedded."""
    skipped_more: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    remarks: Sequence[str] = ()
    """What a person should know of the vectors that were computed: in which precision, and why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process at work on this root."""

    pid: int
    started: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one index; `updated` is Unix time, 0 when it was never updated."""

    root: Path
    home: Path
    model: str
    space: str
    files: int
    chunks: int
    embedded: int
    updated: float
    bytes: int
    languages: Mapping[str, int]
    """Files per language."""
    skipped: Mapping[str, str]
    """The reason each file or folder was left out, of the first thousand of each reason."""
    running: Running | None
    """The background `index`."""
    content: Mapping[str, int] = field(default_factory=dict)
    """Files per kind: code, docs, config."""
    repos: Mapping[str, int] = field(default_factory=dict)
    """Files per repository, by its folder's name."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be parsed, or of which a text could not be embedded, with the reason."""
    skipped_more: Mapping[str, int] = field(default_factory=dict)
    """How many others were left out in the whole index, by reason."""
    foreground: Running | None = None
    """Another process that reads or embeds, such as an `index` in a terminal."""
    trouble: str = ""
    """Why vectors lack that nobody makes: what ended the last background process; "" if it is not known."""
