"""Opening an index for a verb: the path is checked, logging set as configured, the index closed whatever happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from embedcode.cli import output
from embedcode.errors import UsageError

if TYPE_CHECKING:
    from embedcode.index.index import Index


EMPTY_PATH = "the path is empty, as from a variable that is not set: give a folder, or leave it out for the current one"


@contextmanager
def opened(path: str, threads: str | None = None, hint: str = "", model: str | None = None) -> Iterator[Index]:
    """The index of the checkout that holds `path`; `hint` is added where the path does not exist."""
    from embedcode import settings

    for name, value in (("threads", threads), ("model", model)):
        if value is not None:
            # As environment, so that a background process that the index starts is bound by it too.
            os.environ[f"EMBEDCODE_{name.upper()}"] = str(getattr(settings.load({name: value}), name))
    check(path, hint)
    for remark in settings.misspelt():
        output.note(remark)
    from embedcode.index.index import Index

    with closing(Index.open(path)) as index:
        set_logging(settings.load(root=index.root).log_level)
        yield index


def check(path: str, hint: str = "") -> None:
    """UsageError where there is nothing at `path`. An empty one would mean the current folder by accident."""
    if not path:
        raise UsageError(EMPTY_PATH)
    try:
        Path(path).absolute().stat()  # a relative one in a folder that is gone leads nowhere
    except OSError as error:
        raise cannot(path, error, hint) from None


def cannot(path: str, error: OSError, hint: str = "") -> UsageError:
    """For a path that cannot be looked at."""
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    return UsageError(f"{shown}: {(error.strerror or 'unusable').lower()}{hint}")


def set_logging(level: str) -> None:
    """Python already shows warnings on stderr, so logging is set up only for another level."""
    if level != "warning":
        import logging

        logging.basicConfig(level=level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
