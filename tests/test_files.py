"""Files that are replaced while others read them, and looks at paths that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedcode.errors import UsageError
from embedcode.files import is_file, is_folder, replacing


def test_a_file_is_replaced_and_a_link_to_one_too(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("old")
    for name in ("new", "old", "link"):
        with replacing(tmp_path / name) as file:
            file.write(b"new")
        assert (tmp_path / name).read_bytes() == b"new" and not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("name", ["folder", "pipe", "link", "/dev/nothing-of-this-name"])
def test_nothing_but_a_file_is_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with pytest.raises(UsageError, match=f"{name} is not a regular file"), replacing(tmp_path / name):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()


def test_a_path_that_cannot_be_is_no_folder_and_no_file(tmp_path: Path) -> None:
    assert is_folder(tmp_path) and is_file(__file__)
    for path in ("x" * 300, tmp_path / ("x" * 300), f"{__file__}/x", "a\0b"):
        assert not is_folder(path) and not is_file(path)
