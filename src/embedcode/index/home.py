"""Where indexes lie, which repositories they are of, and how they are deleted. Opens none of them."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from embedcode import settings as configuration
from embedcode.errors import StoreError, UsageError
from embedcode.files import checkout, upwards
from embedcode.index import locks
from embedcode.index.locks import Lock
from embedcode.store.faults import explained, noted_root
from embedcode.types import digest

_NAMED = re.compile("-[0-9a-f]{12}$")
"""Which home_of() gives a folder."""
_HELD = ("index.sqlite", "root", "updated", "background.log", "lexical", "dense")
"""One of which is in it, or a lock, also where not all could be deleted."""
_CACHED = re.compile(r".+\.(sqlite(-wal|-shm)?|damaged)|[0-9a-f]{32}\.lock")
"""The files of `store/cache.py`."""


class Freed(NamedTuple):
    """What was deleted, or would be."""

    what: str
    bytes: int
    root: str
    """Of an index: the repository that it is of, as far as it is known; else ""."""
    kept: str
    """What kept it, or some of it, from being deleted; else ""."""


def clean(path: Path | None, vectors: bool, dry_run: bool, gone: bool = False) -> list[Freed]:
    """Delete the index of `path` (None: of every root, and what else can be made again), and with `vectors` the
    cache. With `gone` and no path: the indexes alone of roots that are no longer there."""
    settings = configuration.load()
    if path is None:
        found = sorted(settings.indexes.iterdir()) if settings.indexes.is_dir() else []
        folders = [folder for folder in found if _is_index(folder)]
    else:
        place = path.resolve()
        # The index of a repository that was itself deleted is known by the path it had.
        folders = [home_of(settings.indexes, root_of(place, settings.indexes) if place.exists() else place)]
        if not folders[0].is_dir() and not vectors:
            raise UsageError(
                f"{path} {'has' if place.exists() else 'does not exist and has'} no index: check the path."
            )
    folders = [folder for folder in folders if folder.is_dir()]
    if gone:
        folders = [folder for folder in folders if _is_gone(noted_root(folder))]
    elif path is None:
        kept = configuration.DERIVED + (configuration.DERIVED_VECTORS if vectors else ())
        folders += [place for pattern in kept for place in sorted(settings.home.glob(pattern))]
    going = {folder: [folder] for folder in folders}
    if vectors and settings.vectors.is_dir():
        cached = sorted(place for place in settings.vectors.iterdir() if _CACHED.fullmatch(place.name))
        going |= {settings.vectors: cached} if cached else {}
    freed = []
    for folder, places in going.items():
        before, why = sum(map(size, places)), ""
        root = noted_root(folder) if folder.parent == settings.indexes else ""
        if not dry_run:
            if folder.parent == settings.indexes:
                with suppress(StoreError):  # nobody may look who is at it: then it is hardly ours to delete, either
                    locks.stop_background(Lock(folder, "background"))
            why = next(filter(None, [_delete(place) for place in places]), "")
            before -= sum(map(size, places))
            if folder == settings.vectors:
                with suppress(OSError):  # others have put something there
                    folder.rmdir()
        freed.append(Freed(str(folder), before, root, why))
    return freed


def _is_index(folder: Path) -> bool:
    """Whether it is a folder of ours: in the home that was chosen there may be others."""
    if not _NAMED.search(folder.name):
        return False
    try:
        return any(place.name in _HELD or place.suffix == ".lock" for place in folder.iterdir())
    except OSError as error:
        return isinstance(error, PermissionError)  # which then keeps it from being deleted, and that is said


def _delete(place: Path) -> str:
    """Delete what can be; says what kept the rest, "" where all is gone."""
    try:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)  # the first error has ended it before the rest
        if os.path.lexists(place):
            return (error.strerror or str(error)).lower()
    return ""


def _is_gone(root: str) -> bool:
    """Whether there is no such place; not where nobody may look, or nothing was noted."""
    try:
        Path(root).stat()
    except (FileNotFoundError, NotADirectoryError):
        return bool(root)
    except (OSError, ValueError):
        pass
    return False


def root_of(place: Path, indexes: Path) -> Path:
    """The nearest ancestor with .git, else with an index of all that is in it, else the folder itself.

    Never the user's home folder or / on the way to something inside.
    """
    indexed = (folder for folder in upwards(place) if _is_whole(home_of(indexes, folder)))
    return checkout(place) or next(indexed, None) or (place if place.is_dir() else place.parent)


def home_of(indexes: Path, root: Path) -> Path:
    return indexes / f"{root.name[:40] or 'root'}-{digest(str(root)).hex()[:12]}"


def holds_index(home: Path) -> bool:
    """StoreError where nobody may look, as in a home that a run by root has left."""
    with explained(home):
        return (home / "index.sqlite").exists()


def _is_whole(home: Path) -> bool:
    """Whether an update has ended there; the index of a folder that was refused or interrupted is not. StoreError as
    above."""
    with explained(home):
        return (home / "updated").exists()


def size(folder: Path) -> int:
    """Of all files in it, or of the file itself."""
    total = 0
    inside = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    for path in (folder, *inside):
        with suppress(OSError):  # a derived file that was just replaced
            total += path.stat().st_size if path.is_file() else 0
    return total
