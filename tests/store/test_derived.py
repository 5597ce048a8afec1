"""Derived data deleted, cut off, overwritten, too old or of another store: the same answers come back."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedcode.errors import StoreError
from embedcode.store import dense, derived
from embedcode.store.sqlite import SqliteStore
from embedcode.types import Chunk, File, Filter, digest

DIM = 16
SIDES = ["lexical", "dense"]


def write(store: SqliteStore, number: int, text: str) -> None:
    path = f"f{number}.py"
    chunk = Chunk("r", path, 1, 1, "python", "", f"shared {text} {'pad ' * (number % 5)}")
    key = digest(chunk.text)
    row = np.random.default_rng(number).standard_normal((1, DIM)).astype(np.float32)
    with store.begin() as transaction:
        transaction.upsert(File(path, "r", "python", "code", 1, 1, digest(text)), [chunk], [key])
        transaction.put_vectors([key], row / np.linalg.norm(row))
        transaction.commit()


def answers(store: SqliteStore) -> tuple[object, object]:
    query = np.full(DIM, DIM**-0.5, np.float32)
    return store.lexical({"shared": 1.0, "first": 2.0}, 100), store.dense(query, 100)


def rounded(found: object) -> list[tuple[int, float]]:
    return sorted((one.id, round(one.score, 4)) for one in found)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "index"
    with SqliteStore.open(folder, DIM) as store:
        for number in range(40):
            write(store, number, "first" if number < 10 else "second")
        answers(store)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


def files_of(side: Path) -> list[Path]:
    return sorted(path for path in side.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "lock")


def replace(path: Path, data: bytes) -> None:
    """As another file: a thread of tantivy may still have the first one mapped, and would die of a shorter one."""
    path.unlink()
    path.write_bytes(data)


def overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(20):
        if data:
            data[random.randrange(len(data))] ^= random.randrange(1, 256)
    replace(path, data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: replace(path, b""),
    "cut": lambda path: replace(path, path.read_bytes()[: path.stat().st_size // 2]),
    "overwritten": overwrite,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("side", SIDES)
def test_each_file_may_be_damaged(folder: Path, side: str, damage: str) -> None:
    with SqliteStore.open(folder, DIM) as store:
        expected = answers(store)
    for position in range(len(files_of(folder / side))):
        path = files_of(folder / side)[position]
        DAMAGE[damage](path)
        with SqliteStore.open(folder, DIM) as store:
            assert answers(store) == expected, path.name


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("side", SIDES)
def test_damage_is_found_when_catching_up_too(folder: Path, side: str, damage: str) -> None:
    with SqliteStore.open(folder, DIM) as store:
        write(store, 50, "first")
        DAMAGE[damage](max(files_of(folder / side), key=lambda path: path.stat().st_size))
        lexical, found = answers(store)
        assert len(rounded(lexical)) == len(rounded(found)) == 41


@pytest.mark.parametrize("side", SIDES)
def test_a_folder_deleted_under_an_open_store(folder: Path, side: str) -> None:
    with SqliteStore.open(folder, DIM) as store:
        expected = answers(store)
        shutil.rmtree(folder / side)
        assert answers(store) == expected
        write(store, 0, "third")
        assert [len(rounded(found)) for found in answers(store)] == [40, 40]


@pytest.mark.parametrize("side", SIDES)
def test_a_kill_before_the_stamp_is_written_doubles_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """A process that has the data open does not look at them again before it adds to them."""
    query = np.full(DIM, DIM**-0.5, np.float32)

    def ids(store: SqliteStore) -> list[int]:
        found = store.lexical({"shared": 1.0}, 100) if side == "lexical" else store.dense(query, 100)
        return sorted(one.id for one in found)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with SqliteStore.open(folder, DIM) as store, SqliteStore.open(folder, DIM) as killed:
        ids(store)
        write(killed, 70, "first")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(derived.Derived, "_finish", die)
            ids(killed)
        assert len(set(ids(store))) == len(ids(store)) == 41


def test_a_stamp_that_another_process_reads_is_replaced_a_moment_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that is open cannot be replaced."""
    tries: list[int] = []
    replacing = Path.replace

    def held(path: Path, target: Path) -> Path:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "in use")
        return replacing(path, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(derived, "REPLACE_PAUSE", 0.0)
    with SqliteStore.open(folder, DIM) as store:
        write(store, 71, "first")
        assert len(rounded(answers(store)[0])) == 41


def test_old_data_catch_up(folder: Path) -> None:
    old = folder.parent / "old"
    shutil.copytree(folder, old)
    with SqliteStore.open(folder, DIM) as store:
        write(store, 3, "second")
        write(store, 60, "first")
        with store.begin() as transaction:
            transaction.delete(["f20.py"])
            transaction.commit()
        expected = [rounded(found) for found in answers(store)]
    for side in SIDES:
        shutil.rmtree(folder / side)
        shutil.copytree(old / side, folder / side)
    stamps = [folder / side / "stamp.json" for side in SIDES]
    folders = [json.loads(stamp.read_text())["folder"] for stamp in stamps]
    with SqliteStore.open(folder, DIM) as store:
        assert [rounded(found) for found in answers(store)] == expected
    assert [json.loads(stamp.read_text())["folder"] for stamp in stamps] == folders, "rebuilt, not caught up"


def test_to_catch_up_reads_what_was_there_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    checksum = derived.checksum

    def counted(path: Path, size: int | None = None) -> tuple[int, int]:
        found = checksum(path, size)
        read.append(found[0])
        return found

    monkeypatch.setattr(derived, "checksum", counted)
    there = held(folder)
    with SqliteStore.open(folder, DIM) as store:
        write(store, 99, "first")
        answers(store)
    assert there <= sum(read) <= held(folder) + 4000  # the two lists in JSON are read twice
    monkeypatch.undo()
    before = files_of(folder / "lexical")
    with SqliteStore.open(folder, DIM) as store:
        assert len(answers(store)[0]) == 41  # type: ignore[arg-type]
    assert files_of(folder / "lexical") == before  # as sound as it was written


def held(folder: Path) -> int:
    """Bytes of derived data."""
    files = (path for side in SIDES for path in files_of(folder / side) if path.name != "stamp.json")
    return sum(path.stat().st_size for path in files)


def test_data_older_than_the_history_are_rebuilt(folder: Path) -> None:
    old = folder.parent / "old"
    shutil.copytree(folder, old)
    with SqliteStore.open(folder, DIM) as store:
        with store.begin() as transaction:
            transaction.delete([f"f{number}.py" for number in range(5)])
            transaction.commit()
        store.maintain()
        store.maintain()
        write(store, 60, "first")
        expected = [[id for id, _ in rounded(found)] for found in answers(store)]
    for side in SIDES:
        shutil.rmtree(folder / side)
        shutil.copytree(old / side, folder / side)
    with SqliteStore.open(folder, DIM) as store:
        assert [[id for id, _ in rounded(found)] for found in answers(store)] == expected


def test_a_restored_backup_does_not_use_data_of_its_former_future(folder: Path) -> None:
    backup = (folder / "index.sqlite").read_bytes()
    with SqliteStore.open(folder, DIM) as store:
        for number in range(100, 104):
            write(store, number, "first future")
        answers(store)
    (folder / "index.sqlite").write_bytes(backup)
    with SqliteStore.open(folder, DIM) as store:
        assert [len(rounded(found)) for found in answers(store)] == [40, 40]
        answers(store)
    with SqliteStore.open(folder, DIM) as store:
        for number in range(100, 106):
            write(store, number, "second life")
        answers(store)
    (folder / "index.sqlite").write_bytes(backup)
    with SqliteStore.open(folder, DIM) as store:
        for number in range(200, 208):  # now past the stamp's number, on another branch of history
            write(store, number, "third life")
        for found in answers(store):
            paths = {chunk.path for chunk in store.get([id for id, _ in rounded(found)]) if chunk}
            assert paths == {f"f{number}.py" for number in (*range(40), *range(200, 208))}


def test_a_new_store_does_not_use_data_of_the_one_before(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    with SqliteStore.open(folder, DIM) as store:
        for number in range(40):
            write(store, number, "third")
        assert store.lexical({"first": 1.0}, 10) == []
        assert len(store.lexical({"third": 1.0}, 100)) == len(store.dense(np.ones(DIM, np.float32), 100)) == 40


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"format": 1}', '{"format": 99, "folder": "x"}', "\0\xff"]
)
def test_a_stamp_that_says_nothing(folder: Path, side: str, text: str) -> None:
    with SqliteStore.open(folder, DIM) as store:
        expected = answers(store)
    (folder / side / "stamp.json").write_text(text, encoding="latin-1")
    with SqliteStore.open(folder, DIM) as store:
        assert answers(store) == expected


@pytest.mark.parametrize("side", SIDES)
def test_data_of_another_format_are_rebuilt(folder: Path, side: str) -> None:
    stamp = folder / side / "stamp.json"
    before = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**before, "format": 99}))
    with SqliteStore.open(folder, DIM) as store:
        assert [len(rounded(found)) for found in answers(store)] == [40, 40]
    after = json.loads(stamp.read_text())
    assert after["format"] != 99
    assert after["folder"] != before["folder"]


def test_one_sub_folder_is_left_after_a_rebuild(folder: Path) -> None:
    (folder / "lexical" / "7-left-by-a-killed-process").mkdir()
    with SqliteStore.open(folder, DIM) as store:
        store.maintain(rebuild=True)
    for side in SIDES:
        assert len([path for path in (folder / side).iterdir() if path.is_dir()]) == 1


def test_many_deletions_lead_to_a_rebuild(folder: Path) -> None:
    with SqliteStore.open(folder, DIM) as store:
        for turn in range(3):
            with store.begin() as transaction:
                transaction.delete([f"f{number}.py" for number in range(10 * turn, 10 * turn + 10)])
                transaction.commit()
            answers(store)
    for side in SIDES:
        assert json.loads((folder / side / "stamp.json").read_text())["rows"] < 40


def test_dense_search_does_not_depend_on_where_blocks_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Filter(paths=("f1*", "f7.py", "f30.py"))
    query = np.full(DIM, DIM**-0.5, np.float32)
    with SqliteStore.open(folder, DIM) as store:
        expected = [store.dense(query, k, limit) for k in (1, 5, 100) for limit in (None, where)]
        for rows in (1, 3, 7, 64):
            monkeypatch.setattr(dense, "BLOCK_BYTES", rows * DIM * 4)
            assert [store.dense(query, k, limit) for k in (1, 5, 100) for limit in (None, where)] == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_said_so(folder: Path) -> None:
    shutil.rmtree(folder / "lexical")
    folder.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="make the folder writable"), SqliteStore.open(folder, DIM) as store:
            answers(store)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("side", SIDES)
def test_a_folder_that_cannot_be_made_is_said_so(folder: Path, side: str) -> None:
    shutil.rmtree(folder / side)
    (folder / side).write_text("in the way")
    with pytest.raises(StoreError, match="check the folder"), SqliteStore.open(folder, DIM) as store:
        answers(store)
