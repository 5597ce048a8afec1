"""What may go wrong with the SQLite file: each is one sentence with the cure, and nothing that was finished is lost."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcode.errors import StoreError
from embedcode.store.sqlite import SqliteStore
from embedcode.types import Chunk, File, Filter, digest

DIM = 16


def write(store: SqliteStore, path: str, text: str) -> None:
    chunk = Chunk("r", path, 1, 1, "python", "name", text)
    with store.begin() as transaction:
        transaction.upsert(File(path, "r", "python", "code", 1, 1, digest(text)), [chunk], [digest(text)])
        transaction.put_vectors([digest(text)], np.full((1, DIM), DIM**-0.5, np.float32))
        transaction.commit()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "index"
    with SqliteStore.open(folder, DIM) as store:
        for number in range(60):
            write(store, f"f{number}.py", f"shared only{number} " + "word " * 100)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


def test_maintaining_waits_for_no_reader(folder: Path) -> None:
    with SqliteStore.open(folder, DIM) as store, closing(sqlite3.connect(folder / "index.sqlite")) as reader:
        reader.execute("BEGIN")
        count = reader.execute("SELECT COUNT(*) FROM chunks").fetchone()
        write(store, "new.py", "shared new")
        start = time.monotonic()
        store.maintain()
        assert time.monotonic() - start < 15  # of the 30 seconds that a writer waits for another
        assert reader.execute("SELECT COUNT(*) FROM chunks").fetchone() == count
        reader.rollback()
        store.maintain()
        assert (folder / "index.sqlite-wal").stat().st_size == 0


def one_sentence(error: pytest.ExceptionInfo[StoreError]) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    assert ": " in message


def test_a_newer_format(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match=r"newer embedcode \(format 7, this one reads 1\): upgrade") as error:
        SqliteStore.open(folder, DIM)
    one_sentence(error)


def test_vectors_of_another_length(folder: Path) -> None:
    with pytest.raises(
        StoreError, match=r"vectors of 16 numbers, this model gives 8: .*`embedcode clean PATH`"
    ) as error:
        SqliteStore.open(folder, 8)
    one_sentence(error)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"to be or not to be" * 1000)
    with pytest.raises(StoreError, match=r"damaged .*: run `embedcode clean PATH` and index again") as error:
        SqliteStore.open(tmp_path, DIM)
    one_sentence(error)


def test_a_database_that_is_not_ours(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (tmp_path / "index.sqlite").read_bytes()
    with pytest.raises(StoreError, match="not an index of embedcode"):
        SqliteStore.open(tmp_path, DIM)
    assert (tmp_path / "index.sqlite").read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").touch()
    with SqliteStore.open(tmp_path, DIM) as store:
        assert store.meta().generation == 0


def everything(store: SqliteStore) -> list[Callable[[], object]]:
    return [
        store.meta,
        store.files,
        lambda: store.get(list(range(1, 100))),
        lambda: store.vectors(list(range(1, 100))),
        lambda: store.pending(10),
        lambda: store.chunks_of("f1.py"),
        lambda: store.lexical({"shared": 1.0}, 5, Filter(paths=("f*",))),
        lambda: store.dense(np.full(DIM, DIM**-0.5, np.float32), 5),
        lambda: write(store, "f1.py", "shared"),
        lambda: store.maintain(rebuild=True),
    ]


@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_gives_sentences_only(folder: Path, seed: int, when: str) -> None:
    rng = random.Random(seed)
    path = folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    if seed == 0:
        del data[len(data) // 3 :]
    for _ in range(20 if seed else 0):
        place = rng.randrange(len(data))
        piece = rng.randbytes(rng.choice([1, 64, 4096]))[: len(data) - place]
        data[place : place + len(piece)] = piece
    store = SqliteStore.open(folder, DIM) if when == "while it is open" else None
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    reported = 0
    try:
        store = store or SqliteStore.open(folder, DIM)
        for call in everything(store):
            try:
                call()
            except StoreError as error:
                reported += 1
                assert re.search(r"damaged \(.*\): run `embedcode clean PATH` and index again$", str(error)), error
    except StoreError as error:
        reported += 1
        assert "damaged" in str(error)
    assert reported
    if store:
        store.close()


def test_a_locked_store_names_the_writer(folder: Path) -> None:
    code = f"""
import sqlite3, sys
connection = sqlite3.connect({str(folder / "index.sqlite")!r}, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    who = f"process {holder.pid}" if Path("/proc/locks").exists() else "another process"
    with SqliteStore.open(folder, DIM, timeout=0.1) as store:
        assert len(store.lexical({"shared": 1.0}, 100)) == 60, "readers do not wait for writers"
        with pytest.raises(StoreError, match=f"written by {who}: wait until it has finished or stop it"):
            write(store, "g.py", "late")
        holder.communicate("")
        write(store, "g.py", "late")


def test_a_second_writer_waits(folder: Path) -> None:
    with SqliteStore.open(folder, DIM) as store:
        with store.begin() as transaction:
            other = threading.Thread(target=write, args=(store, "second.py", "second"))
            other.start()
            other.join(0.2)
            assert other.is_alive()
            transaction.set_manifest({"x": "1"})
            transaction.commit()
        other.join(10)
        assert "second.py" in store.files()


def test_a_full_disk_keeps_what_was_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with SqliteStore.open(folder, DIM) as store:
            with pytest.raises(StoreError, match=r"no space left .*: free some and run again") as error:
                for number in range(1000):
                    write(store, f"g{number}.py", f"shared {number} " + "word " * 1000)
            one_sentence(error)
            kept = set(store.files())
            assert "f59.py" in kept
    with SqliteStore.open(folder, DIM) as store:
        assert set(store.files()) == kept
        write(store, "after.py", "shared")
        assert len(store.lexical({"shared": 1.0}, 2000)) == len(kept) + 1


# 30 kB are too few for each of the three kinds of file, in turn.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from embedcode.errors import StoreError
from embedcode.store.sqlite import SqliteStore
from embedcode.types import Chunk, File, digest

store = SqliteStore.open(Path(sys.argv[1]), 16)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def limited(call):
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        call()
    except StoreError as error:
        print(error)
    else:
        print("no error")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

def write():
    text = " ".join(f"word{i}" for i in range(30_000))
    made = [Chunk("r", "big.py", i, i, "python", "", f"shared {text[i * 1000:][:900]}") for i in range(200)]
    keys = [digest(chunk.text) for chunk in made]
    with store.begin() as transaction:
        transaction.upsert(File("big.py", "r", "python", "code", 1, 1, b""), made, keys)
        transaction.put_vectors(keys, np.eye(200, 16, dtype=np.float32) + 0.1)
        transaction.commit()

query = np.ones(16, np.float32)
limited(write)
write()
limited(lambda: store.lexical({"shared": 1.0}, 5))
text = "x" * 5000
with store.begin() as transaction:
    for number in range(1000):
        made = [Chunk("r", f"{number}.py", i, i, "python", "", f"{number} {i}") for i in range(20)]
        transaction.upsert(File(f"{number}.py", "r", "python", "code", 1, 1, b""), made, [digest(b"k")] * 20)
    transaction.put_vectors([digest(b"k")], np.ones((1, 16), np.float32))
    transaction.commit()
limited(lambda: store.dense(query, 5))
print(len(store.lexical({"shared": 1.0}, 1000)), len(store.dense(query, 100_000)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_files_that_cannot_grow(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sqlite, lexical, dense, after = done.stdout.splitlines()
    assert "check that the disk is neither full nor failing and run again" in sqlite
    assert "no space left" in lexical
    assert "no space left" in dense
    assert after == "260 20260"


def test_a_store_deleted_while_it_is_open(folder: Path) -> None:
    with SqliteStore.open(folder, DIM) as store:
        for path in folder.glob("index.sqlite*"):
            path.unlink()
        with pytest.raises(StoreError, match="deleted or replaced while it was in use: run again"):
            store.meta()
        with pytest.raises(StoreError, match="deleted or replaced"):
            write(store, "g.py", "lost")


def test_a_closed_store_says_so(folder: Path) -> None:
    store = SqliteStore.open(folder, DIM)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed: open it again"):
        store.meta()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="make the folder writable"):
            SqliteStore.open(tmp_path / "index", DIM)
    finally:
        tmp_path.chmod(0o700)


def test_a_transaction_that_is_over_refuses_more(folder: Path) -> None:
    with SqliteStore.open(folder, DIM) as store:
        with store.begin() as transaction:
            transaction.commit()
            with pytest.raises(RuntimeError):
                transaction.delete(["f1.py"])
        assert "f1.py" in store.files()


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import embedcode.store", set()),
        ("store.meta()", {"sqlite3"}),
        ("store.lexical({'shared': 1.0}, 5)", {"sqlite3", "tantivy"}),
        ("store.dense(__import__('numpy').ones(16, 'f4'), 5)", {"sqlite3", "numpy"}),
    ],
)
def test_a_warm_search_imports_little(folder: Path, code: str, allowed: set[str]) -> None:
    with SqliteStore.open(folder, DIM) as store:
        store.maintain()
    start = (
        ""
        if code.startswith("import")
        else (
            f"from pathlib import Path; from embedcode.store.sqlite import SqliteStore; "
            f"store = SqliteStore.open(Path({str(folder)!r}), 16)\n"
        )
    )
    ask = "import sys; print({'sqlite3', 'tantivy', 'numpy', 'filelock', 'asyncio', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{start}{code}\n{ask}"], capture_output=True, text=True, check=True)
    assert eval(done.stdout) <= allowed  # noqa: S307
