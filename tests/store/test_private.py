"""What is stored holds the text of the sources: nobody else may look into it, whatever the umask."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedcode.store.cache import VectorCache
from embedcode.store.sqlite import SqliteStore
from embedcode.types import Chunk, File, digest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")

DIM = 16


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(top: Path) -> dict[str, str]:
    folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
    return {str(folder.relative_to(top)): oct(folder.stat().st_mode & 0o777) for folder in folders}


def test_all_folders_of_an_index_are_private(tmp_path: Path) -> None:
    chunk = Chunk("r", "a.py", 1, 1, "python", "", "alpha")
    with SqliteStore.open(tmp_path / "home" / "indexes" / "r", DIM) as store:
        with store.begin() as transaction:
            transaction.upsert(File("a.py", "r", "python", "code", 1, 1, b""), [chunk], [digest("alpha")])
            transaction.put_vectors([digest("alpha")], np.full((1, DIM), 0.25, np.float32))
            transaction.commit()
        store.maintain()
    found = modes(tmp_path / "home")
    assert {".", "indexes", "indexes/r", "indexes/r/lexical", "indexes/r/dense"} <= set(found)
    assert set(found.values()) == {"0o700"}, found


def test_all_folders_of_the_cache_are_private(tmp_path: Path) -> None:
    VectorCache(tmp_path / "home" / "vectors" / "space.sqlite", DIM).close()
    assert modes(tmp_path / "home") == {".": "0o700", "vectors": "0o700"}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """It is the user's: EMBEDCODE_HOME may name any."""
    (tmp_path / "home").mkdir(mode=0o755)
    SqliteStore.open(tmp_path / "home" / "index", DIM).close()
    assert modes(tmp_path / "home") == {".": "0o755", "index": "0o700"}
