"""Places that a query names: whether a file is the one that was typed, and the chunks that hold the lines of frames.

Knows the Store contract and no store, no words and no scores.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from embedcode.store.contract import Searchable
from embedcode.types import File, Filter

MOST = 10
"""Chunks taken for frames, half from each end: a traceback begins at the one and fails at the other."""
FILES = 3
"""Files taken for a frame: `__init__.py:3` may be any of hundreds, and does not say which."""

_SOURCES = re.compile(r"(?:(?:.*/)?src|lib)/(?=.*/)")
"""A folder of sources is not there where code is installed: src/click/core.py is site-packages/click/core.py."""
_VERSION = re.compile(r"(?:/v\d+)?[@-]v?\d+\.\d[^/]*(?=/)|(?:/-)?/(?:blob|blame)/[^/]+(?=/)")
"""Of a package in a cache (gin@v1.9.1/context.go), and the revision in a permalink."""


def ends(path: str, repo: str, typed: str) -> bool:
    """Whether a path ends in what was typed, or lies in the folder that was typed; either may be the longer one, and
    the longer one of another machine."""
    plain, unversioned = _typed(typed)
    if not plain:
        return False
    if path == plain or path.endswith("/" + plain) or path.startswith(plain + "/"):
        return True
    tails = _tails(path, repo)
    return plain.endswith(tails) or unversioned.endswith(tails)


def at(store: Searchable, frames: Sequence[tuple[str, int]], where: Filter | None = None) -> list[int]:
    """Ids of the chunks that hold the lines of frames, at most MOST, in the order of the frames."""
    files: dict[str, list[File]] = defaultdict(list)
    for file in store.called({_name(path) for path, _ in frames}, where) if frames else ():
        files[_name(file.path)].append(file)
    found: dict[tuple[str, int], None] = {}
    for typed, line in frames:
        fitting = [file.path for file in files[_name(typed)] if ends(file.path, file.repo, typed)]
        # The nearer they are in length, the more of both is the same.
        fitting.sort(key=lambda path: abs(len(path) - len(typed)))
        found |= dict.fromkeys((path, line) for path in fitting[:FILES])
    places = list(found)
    if len(places) > MOST:
        places = places[: MOST // 2] + places[-MOST // 2 :]
    ids = (
        next((id for id, chunk in store.chunks_of(path) if chunk.start_line <= line <= chunk.end_line), None)
        for path, line in places
    )
    return list(dict.fromkeys(id for id in ids if id is not None))


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


@lru_cache(maxsize=1 << 10)
def _typed(typed: str) -> tuple[str, str]:
    """As paths are written here, and without the versions of packages."""
    plain = typed.replace("\\", "/").strip("/").removeprefix("./")
    return plain, _VERSION.sub("", plain)


@lru_cache(maxsize=1 << 14)
def _tails(path: str, repo: str) -> tuple[str, ...]:
    """What a longer path of this file may end in: all of it, and what follows its repository and its sources."""
    above, _, behind = f"/{path}".partition(f"/{repo}/")
    # src/click/core.py of click is in its package, which is called like it.
    below = path if not behind or above.endswith(("/src", "/lib")) else behind
    kept = [path, below] if "/" in below else [path]
    return tuple({"/" + tail for whole in kept for tail in (whole, _SOURCES.sub("", whole, count=1))})
