"""Instances: the files a patch edits are those that git says, and a row that is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate import instances

ROW = {
    "instance_id": "acme__shop-1",
    "repo": "acme/shop",
    "base_commit": "a" * 40,
    "problem_statement": "It fails.",
    "patch": "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "instances.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_the_edited_files_are_those_git_names(repository: Any) -> None:
    git = repository("r")
    git.write("a.py", "one\n-- a/fake.py\ntwo\n")
    git.write("moved.py", "".join(f"line {i}\n" for i in range(20)))
    git.write("kept name.py", "".join(f"row {i}\n" for i in range(20)))
    git.write("gone.py", "gone\n")
    git.write("é.py", "accent\n")
    git.write('quo"te.py', "quote\n")
    before = git.commit()
    git.write("a.py", "one\n++ b/other.py\ntwo\n")
    (git.root / "moved.py").rename(git.root / "there.py")
    (git.root / "kept name.py").rename(git.root / "other name.py")
    git.write("other name.py", "".join(f"row {i}\n" for i in range(19)) + "changed\n")
    (git.root / "gone.py").unlink()
    git.write("é.py", "accents\n")
    git.write('quo"te.py', "quotes\n")
    git.write("new.py", "new\n")
    after = git.commit()
    raw = git("diff", "-M", "--name-status", "-z", before, after).split("\0")
    expected, fields = set(), iter(raw)
    for kind in fields:
        if not kind:
            break
        path = next(fields)
        if kind[0] == "R":
            next(fields)
        if kind[0] != "A":
            expected.add(path)
    patch = git("diff", "-M", before, after) + "\n"
    assert "rename from moved.py" in patch and "--- a/fake.py" in patch  # the removed line that looks like a head
    assert set(instances.edited(patch)) == expected
    assert len(expected) == 6


def test_the_same_of_json_lines_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [ROW, ROW | {"instance_id": "acme__shop-2", "version": "1"}]
    found = instances.read(written(tmp_path, *rows))
    table = pyarrow.Table.from_pylist([{"version": "", **row} for row in rows])
    parquet.write_table(table, tmp_path / "instances.parquet")
    assert instances.read(tmp_path / "instances.parquet") == found
    assert [(one.id, one.gold) for one in found] == [("acme__shop-1", ("x.py",)), ("acme__shop-2", ("x.py",))]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2, is not JSON"),
        ([], "line 2, is no object"),
        (ROW, "has the instance_id 'acme__shop-1' again"),
        (ROW | {"instance_id": "b", "problem_statement": " \n"}, r"line 2, \(b\) has an empty problem_statement"),
        (ROW | {"instance_id": "b", "problem_statement": None}, "has None for 'problem_statement'"),
        (ROW | {"instance_id": "b", "base_commit": "--all"}, "has the base_commit '--all'"),
        (ROW | {"instance_id": "b", "repo": "../shop"}, "has the repo '../shop'"),
        (ROW | {"instance_id": "b", "patch": "nothing"}, "no unified diff"),
        (ROW | {"instance_id": "b", "patch": "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+a\n"}, "edits no file"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        instances.read(written(tmp_path, ROW, row))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist: give JSON lines"):
        instances.read(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="has no instance"):
        instances.read(written(tmp_path))
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"cannot be read \(.*\): give JSON lines or a .parquet file"):
        instances.read(tmp_path / "bad.parquet")
