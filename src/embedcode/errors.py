"""What can go wrong, as few classes as callers need to tell apart. A message is one sentence: the value and the cure.

Inside, code raises these plainly; the CLI maps them to exit code 2, a server to a status.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EmbedcodeError(Exception):
    """Base of every error a user may see."""


class UsageError(EmbedcodeError):
    """The request cannot be carried out as it was put: a path, a flag, a query, a setting."""


class UnwritableError(UsageError):
    """The disk takes no more: no fault of what was being read, so a run over many sources ends with it."""


class EncodeError(EmbedcodeError):
    """A text cannot be embedded; `index` is its place in the call."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def behind(self, others: int) -> EncodeError:
        """The same of a call in which `others` texts come before those of this one."""
        index = self.index + others
        return EncodeError(renumbered(str(self), self.index, index), index)


class ModelError(EmbedcodeError):
    """A model cannot be loaded or gives unusable vectors."""


class StoreError(EmbedcodeError):
    """An index cannot be read or written: damaged, locked, newer, of another space, disk full."""


class DamagedError(StoreError):
    """SQLite finds that the index is no database, or a broken one: nothing but making it again helps."""


class BusyError(StoreError):
    """Another process has been at the same work for longer than one was ready to wait; trying again later helps."""


def line(error: BaseException) -> str:
    """What a library says of a fault, for a place within a sentence."""
    return " ".join(str(error).split())[:200]


def why(error: BaseException) -> str:
    """The same in the system's words, where it has some."""
    return (getattr(error, "strerror", None) or line(error) or "cut short").lower()


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Inside, UsageError for a package that is not installed, and that the extra of this name brings."""
    try:
        yield
    except ImportError as error:
        cure = f"run `pip install '.[{name}]'` in your clone of embedcode"
        raise UsageError(f"this needs {error.name or error}; {cure}") from None


def renumbered(message: str, old: int, new: int) -> str:
    """What is said of an input, of a call in which it has another place."""
    return message.replace(f"(input {old})", f"(input {new})", 1).replace(f"Input {old} ", f"Input {new} ", 1)
