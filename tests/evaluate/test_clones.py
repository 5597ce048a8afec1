"""Clones: a user's are found and only read; ours are made without blobs and completed; what is missing has a cure."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate import clones
from embedcode.evaluate.instances import Instance
from embedcode.index.git import Repository

ABSENT = "0" * 40


def instance(commit: str, id: str = "acme__shop-1") -> Instance:
    return Instance(id, "acme/shop", commit, "words", ("a.py",))


@pytest.mark.parametrize("place", ["acme/shop", "acme__shop", "acme+shop", "shop", "acme__shop.git", "acme+shop/repo"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_clone_is_found_by_any_of_its_names(made: Any, tmp_path: Path, place: str, bare: bool) -> None:
    target = tmp_path / "mine" / place
    subprocess.run(["git", "clone", "-q", *["--bare"] * bare, str(made.git.root), str(target)], check=True)
    found = clones.local("acme/shop", tmp_path / "mine", made.instances)
    assert found.folder == target
    assert {entry.path for entry in found.files(made.instances[0].commit)} == {
        line.partition("\t")[2]
        for line in made.git("ls-tree", "-r", made.instances[0].commit).splitlines()
        if line.startswith("100")
    }


def test_a_folder_that_is_the_clone_itself(made: Any, tmp_path: Path) -> None:
    made.git.root.rename(tmp_path / "shop")
    assert clones.local("acme/shop", tmp_path / "shop", made.instances).folder == tmp_path / "shop"


def test_a_work_tree_is_not_touched(made: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.git.root.rglob("*") if ".git" not in path.parts}
    found = clones.local("acme/shop", made.git.root.parent, made.instances)
    list(found.blobs([entry.blob for entry in found.files(made.instances[0].commit)]))
    after = {path: path.stat().st_mtime_ns for path in made.git.root.rglob("*") if ".git" not in path.parts}
    assert before == after and made.git("status", "--porcelain").splitlines() in ([], [" D deps/other"])


def test_what_is_missing_is_named_with_its_cure(made: Any, tmp_path: Path) -> None:
    folder = made.git.root.parent
    with pytest.raises(UsageError, match=r"has no clone of acme/other, which acme__shop-1 needs: `git clone --bare"):
        clones.local("acme/other", folder, [instance(ABSENT)])
    with pytest.raises(UsageError, match=rf"lacks {ABSENT}, the base commit of acme__shop-1 and of 1 more: `git -C"):
        clones.local("acme/shop", folder, [instance(ABSENT), instance("1" * 40, "acme__shop-2")])
    shallow = tmp_path / "shallow" / "shop"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{made.git.root}", str(shallow)], check=True)
    with pytest.raises(UsageError, match=r"shallow clone: `git -C \S+ fetch --unshallow`"):
        clones.local("acme/shop", shallow.parent, made.instances)
    with pytest.raises(UsageError, match="is no folder"):
        clones.local("acme/shop", tmp_path / "none", made.instances)


def test_a_blob_that_is_missing_is_said_so(made: Any) -> None:
    found = Repository(made.git.root)
    blob = found.files(made.instances[0].commit)[0].blob
    assert found.lacks([made.instances[0].commit, ABSENT]) == [ABSENT]
    one, none, again = found.blobs([blob, ABSENT, blob])
    assert none is None and one == again != b""


def test_more_blobs_than_one_request_holds(made: Any) -> None:
    found = Repository(made.git.root)
    names = [entry.blob for entry in found.files(made.instances[0].commit)] * 60
    sizes = [len(raw or b"") for raw in found.blobs(names)]
    assert len(names) > 512 and sizes == sizes[: len(names) // 60] * 60


def test_ours_is_partial_and_has_what_the_commits_need(made: Any, tmp_path: Path) -> None:
    made.git("config", "uploadpack.allowFilter", "true")
    made.git("config", "uploadpack.allowAnySHA1InWant", "true")
    origin = f"file://{made.git.root}"
    notes: list[str] = []
    cache = tmp_path / "cache"
    first = made.instances[:1]
    found = clones.cached("acme/shop", cache, first, notes.append, origin)
    assert found.partial and "cloning" in notes[0]
    entries = found.files(first[0].commit)
    assert all(raw is not None for raw in found.blobs([entry.blob for entry in entries]))
    last = made.instances[-1].commit
    assert found.missing([last])  # what no instance needs was not fetched
    notes.clear()
    again = clones.cached("acme/shop", cache, made.instances, notes.append, origin)
    assert not again.missing([last]) and not any("cloning" in note for note in notes)
    with pytest.raises(UsageError, match=rf"does not give {ABSENT}, the base commit of acme__shop-1"):
        clones.cached("acme/shop", cache, [instance(ABSENT)], notes.append, origin)


def test_a_partial_clone_of_a_user_is_not_completed(made: Any, tmp_path: Path) -> None:
    made.git("config", "uploadpack.allowFilter", "true")
    mine = tmp_path / "mine" / "shop"
    command = ["git", "clone", "-q", "--bare", "--filter=blob:none", f"file://{made.git.root}", str(mine)]
    subprocess.run(command, check=True)
    with pytest.raises(UsageError, match=r"is a partial clone and lacks \d+ files: clone it without --filter"):
        clones.local("acme/shop", mine.parent, made.instances)


def test_ours_fetches_a_commit_that_no_branch_holds(made: Any, tmp_path: Path) -> None:
    origin = f"file://{made.git.root}"
    clones.cached("acme/shop", tmp_path / "cache", made.instances, lambda text: None, origin)
    made.git("config", "uploadpack.allowAnySHA1InWant", "true")
    made.git("checkout", "-q", "--detach")
    made.git.write("shop/late.py", "late = 1\n")
    made.git("add", "shop/late.py")
    made.git("commit", "-qm", "late")
    late = made.git("rev-parse", "HEAD")
    found = clones.cached("acme/shop", tmp_path / "cache", [instance(late)], lambda text: None, origin)
    blobs = {entry.path: entry.blob for entry in found.files(late)}
    assert list(found.blobs([blobs["shop/late.py"]])) == [b"late = 1\n"]


def test_a_clone_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be cloned"):
        clones.cached("acme/shop", tmp_path / "cache", [instance(ABSENT)], lambda text: None, f"file://{tmp_path}/none")
    assert list((tmp_path / "cache").iterdir()) == []
