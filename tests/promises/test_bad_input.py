"""Whatever a person gives or whatever happened to the files: a right answer, or one sentence with the cure."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode.model.spec import DEFAULT

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

QUERY = "forget the session of a visitor"


def assert_one_sentence(done: Done, *parts: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("embedcode: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def assert_right(done: Done, path: str = "shop/session.py", said: str = "") -> None:
    assert (done.returncode, done.stderr) == (0, said), done
    assert path in done.stdout.splitlines()[0]


# ---- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["search", "text"], ["index"], ["status"], ["clean"], ["index", "--stop"]])
@pytest.mark.parametrize("path", ["nowhere", "nowhere/in/it", "./no\udce9where"])
def test_a_path_that_does_not_exist(call: Run, verb: list[str], path: str) -> None:
    assert_one_sentence(call(*verb, path), "no", "where")


def without_rights() -> None:
    """Make the superuser, whom tests run as in containers, as powerless over files as anybody."""
    if os.geteuid() == 0:
        drop_from_bounding_set, override, search = 24, 1, 2
        libc = ctypes.CDLL(None)
        for capability in (override, search):
            assert libc.prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])
def test_a_folder_that_may_not_be_read(run: Run, tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "a.py").write_text("x = 1\n")
    closed.chmod(mode)
    try:
        for verb in (["search", "text"], ["index"]):
            done = run(*verb, str(closed), preexec_fn=without_rights)
            assert_one_sentence(done, "closed", "ermission denied")
    finally:
        closed.chmod(0o700)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
@pytest.mark.parametrize("closed", ["folder", "file.py"])
def test_what_may_not_be_read_inside_is_left_out_until_it_may(run: Run, tmp_path: Path, closed: str) -> None:
    root = tmp_path / "r"
    for path in ("open.py", "file.py", "folder/inner.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("word = 1\n")
    mode = (root / closed).stat().st_mode
    (root / closed).chmod(0)
    try:
        done = run("index", str(root), "--json", preexec_fn=without_rights)
        (report,) = json.loads(done.stdout)["indexes"]
        assert (done.returncode, report["files"]) == (0, 2)
        assert list(report["skipped"].values()) == ["permission denied"]
    finally:
        (root / closed).chmod(mode)
    done = run("search", "word", str(root), "--json", "--mode", "lexical", preexec_fn=without_rights)
    assert {hit["path"] for hit in json.loads(done.stdout)["hits"]} == {"open.py", "file.py", "folder/inner.py"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_home_that_may_not_be_written(run: Run, indexed: Path, home: Path, tmp_path: Path) -> None:
    for folder in [home, *home.rglob("*")]:
        folder.chmod(0o500 if folder.is_dir() else 0o400)
    try:
        done = run("search", QUERY, str(indexed), preexec_fn=without_rights)
        assert_one_sentence(done, str(home), "writ")
        done = run("index", str(tmp_path), env={"EMBEDCODE_HOME": str(home / "new")}, preexec_fn=without_rights)
        assert_one_sentence(done, str(home), "writ")
    finally:
        for folder in [home, *home.rglob("*")]:
            folder.chmod(0o700)


# ---- an index that does not fit ----------------------------------------------------------------------------------


def test_an_index_of_a_newer_format(call: Run, indexed: Path, index_folder: Path) -> None:
    with sqlite3.connect(index_folder / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert_one_sentence(
        call("search", QUERY, str(indexed), "--mode", "lexical"), "newer embedcode", "upgrade embedcode"
    )
    assert call("clean", str(indexed)).returncode == 0
    assert_right(call("search", QUERY, str(indexed), "--mode", "lexical"))


def test_an_index_of_another_space(call: Run, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEFAULT, model, symlinks=True, copy_function=os.link)
    (model / "meta.json").unlink()
    meta = json.loads((DEFAULT / "meta.json").read_text())
    (model / "meta.json").write_text(json.dumps(meta | {"weights_sha256": "0" * 64, "name": "another"}))
    monkeypatch.setenv("EMBEDCODE_MODEL", str(model))
    cure = "use that one, or run `embedcode clean"
    assert_one_sentence(call("search", QUERY, str(indexed)), "another model", "embedcode-small", cure)
    assert_one_sentence(call("index", str(indexed)), cure)
    assert call("clean", str(indexed)).returncode == 0
    assert_right(call("search", QUERY, str(indexed)))


@pytest.mark.parametrize("model", ["no-such-folder", "ftp://example.org/model", "/dev/null"])
def test_a_model_that_is_none(call: Run, indexed: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_MODEL", model)
    assert_one_sentence(call("search", QUERY, str(indexed)), "is no folder and no name on the hub", "give one")


def test_a_model_that_computes_wrongly_here_costs_the_vectors_not_the_answer(
    run: Run, indexed: Path, tmp_path: Path
) -> None:
    """As a processor would that saturates: its vector of the known text is another one."""
    model, new = tmp_path / "model", tmp_path / "new"
    shutil.copytree(DEFAULT, model, symlinks=True, copy_function=os.link)
    (model / "meta.json").unlink()
    meta = json.loads((DEFAULT / "meta.json").read_text())
    golden = meta["golden"] | {"vector": [-value for value in meta["golden"]["vector"]]}
    (model / "meta.json").write_text(json.dumps(meta | {"golden": golden}))
    shutil.copytree(indexed, new)
    for root in (indexed, new):
        done = run("search", QUERY, str(root), env={"EMBEDCODE_MODEL": str(model)})
        assert done.returncode == 0
        assert "shop/session.py" in done.stdout.splitlines()[0]
        assert "this answer is by words alone: " in done.stderr
        assert_one_sentence(
            run("search", QUERY, str(root), "--mode", "dense", env={"EMBEDCODE_MODEL": str(model)}), "embedcode doctor"
        )


# ---- disks and damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kilobytes", [0, 4, 40])
def test_a_disk_that_is_full(run: Run, call: Run, indexed: Path, home: Path, kilobytes: int) -> None:
    """Files may not grow above so many kilobytes: the write-ahead log, the derived files, the cache, in turn."""
    new = home.parent / "repository"
    shutil.copytree(indexed, new)
    text = "".join(f"def word{i}(value):\n    return {i} * value\n\n\n" for i in range(400))
    for number in range(4):
        (new / f"large{number}.py").write_text(f"# {number}\n{text}")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, resource.RLIM_INFINITY))

    done = run("search", QUERY, str(new), "--mode", "lexical", preexec_fn=limit)
    assert_one_sentence(done, str(home), "run again")
    assert any(word in done.stderr for word in ("space", "disk"))
    assert_right(call("search", QUERY, str(indexed)))
    assert_right(call("search", QUERY, str(new), "--mode", "lexical"))


@pytest.mark.parametrize("how", ["noise", "zeros", "short", "empty", "text"])
def test_a_damaged_index(call: Run, indexed: Path, index_folder: Path, how: str) -> None:
    path = index_folder / "index.sqlite"
    raw = path.read_bytes()
    damaged = {
        "noise": random.Random(7).randbytes(len(raw)),
        "zeros": raw[:100] + bytes(len(raw) - 100),
        "short": raw[: len(raw) // 3],
        "empty": b"",
        "text": b"this is not a database\n" * 1000,
    }
    path.write_bytes(damaged[how])
    if how != "empty":  # an empty file is a new index, which is filled on the way
        assert_one_sentence(call("status", str(indexed)), "damaged", f"run `embedcode clean {indexed}`")
        only = call("search", QUERY, str(indexed), "--mode", "lexical", "--no-update")
        assert_one_sentence(only, "damaged", f"run `embedcode clean {indexed}`", "index again")
    assert_right(call("search", QUERY, str(indexed), "--mode", "lexical"))


@pytest.mark.parametrize("seed", range(5))
def test_noise_in_one_page_is_never_a_crash(call: Run, indexed: Path, index_folder: Path, seed: int) -> None:
    path, chance = index_folder / "index.sqlite", random.Random(seed)
    raw = bytearray(path.read_bytes())
    start = chance.randrange(len(raw) // 4096) * 4096 + chance.choice([0, 8, 100, 2000])
    raw[start : start + 64] = chance.randbytes(64)
    path.write_bytes(raw)
    for arguments in (
        ["search", QUERY, str(indexed), "--mode", "lexical"],
        ["status", str(indexed)],
        ["index", str(indexed)],
    ):
        done = call(*arguments)
        assert done.returncode in (0, 1, 2), done
        if done.returncode == 2:
            assert_one_sentence(done)
    assert call("clean", str(indexed)).returncode == 0
    assert_right(call("search", QUERY, str(indexed), "--mode", "lexical"))


def derived(folder: Path) -> list[Path]:
    return sorted(path for name in ("lexical", "dense") for path in (folder / name).rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["folders", "files", "stamps", "short", "noise", "empty"])
def test_derived_files_lost_or_damaged(call: Run, indexed: Path, index_folder: Path, how: str) -> None:
    before = call("search", QUERY, str(indexed), "--json").stdout
    files = derived(index_folder)
    assert len(files) > 8
    if how == "folders":
        shutil.rmtree(index_folder / "lexical")
        shutil.rmtree(index_folder / "dense")
    for path in files if how != "folders" else []:
        stamp = path.name in ("stamp.json", "lock")
        match how:
            case "files" if not stamp:
                path.unlink()
            case "stamps" if stamp:
                path.unlink()
            case "short" if not stamp:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            case "noise":
                path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
            case "empty":
                path.write_bytes(b"")
    done = call("search", QUERY, str(indexed), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["hits"] == json.loads(before)["hits"]


def test_a_damaged_vector_cache(call: Run, indexed: Path, home: Path) -> None:
    (cache,) = (home / "vectors").glob("*.sqlite")
    cache.write_bytes(b"noise" * 5000)
    copy = home.parent / "copy"
    shutil.copytree(indexed, copy)
    done = call("search", QUERY, str(copy), "--wait")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "session.py" in done.stdout.splitlines()[0]


def test_a_search_does_not_wait_for_who_writes(call: Run, indexed: Path, index_folder: Path) -> None:
    """Another process holds the write lock of the store; nothing has changed, so nothing is to be written."""
    connection = sqlite3.connect(index_folder / "index.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert_right(call("search", QUERY, str(indexed)))
    assert time.monotonic() - started < 10
    connection.close()


# ---- queries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
def test_a_query_of_100_kilobytes(call: Run, indexed: Path, mode: str) -> None:
    query = QUERY + "\n" + "".join(f"  at frame{number}, column {number}\n" for number in range(4000))
    assert len(query) > 100_000
    said = "" if mode == "lexical" else "the query's vector is of the first 512 of its 30,960 tokens\n"
    assert_right(call("search", query, str(indexed), "--mode", mode), said=said)


def test_code_of_two_megabytes(call: Run, indexed: Path) -> None:
    done = call("search", "--code", "-", str(indexed), stdin=b"x = 1\n" * 350_000)
    assert_one_sentence(done, "2,100,000 characters", "give at most 1,000,000")


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_an_empty_query(call: Run, indexed: Path, query: str) -> None:
    assert_one_sentence(call("search", query, str(indexed)), "the query is empty", "embedcode search")


def test_a_query_that_is_not_utf8(run: Run, indexed: Path) -> None:
    assert_right(run("search", b"forget the session of a visitor caf\xe9 \xff\xfe", str(indexed)))


def test_code_that_is_not_utf8(call: Run, indexed: Path) -> None:
    code = b"def invalidate_session(store, session_id):\n    # vergi\xdf\n    store.delete(session_id)\n"
    assert_right(call("search", "--code", "-", str(indexed), stdin=code))


@pytest.mark.parametrize("query", ["!?#", "\u200b", "🙂", "a AND (b OR", "--", "zyzzyva"])
def test_a_query_without_a_known_word(call: Run, indexed: Path, query: str) -> None:
    done = call("search", "--mode", "lexical", "--", query, str(indexed))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


# ---- files -------------------------------------------------------------------------------------------------------


def test_files_in_other_encodings(call: Run, tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    text = "def größe(wert):\n    return straße(wert)\n"
    (root / "latin.py").write_bytes(text.encode("latin-1"))
    (root / "wide.py").write_bytes(text.replace("größe", "länge").encode("utf-16"))
    (root / "stray.py").write_bytes(b"caf\xe9_word = '\xff\xfe\x81'\n")
    (root / os.fsdecode(b"name\xe9.py")).write_text("name_word = 1\n")
    assert_right(call("search", "größe straße", str(root), "--mode", "lexical"), "latin.py")
    assert_right(call("search", "länge", str(root), "--mode", "lexical"), "wide.py")
    assert_right(call("search", "café_word", str(root)), "stray.py")
    assert "not valid UTF-8" in call("status", "-v", str(root)).stdout


def test_a_file_that_changes_while_it_is_read(call: Run, tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    (root / "steady.py").write_text("steady_word = 1\n")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (root / "growing.py").write_text("".join(f"line{i} = {number}\n" for i in range(number % 500)))
            (root / "new.tmp").write_text(f"swapped = {number}\n" * (number % 300))
            (root / "new.tmp").replace(root / "swapped.py")
            (root / f"brief{number % 5}.py").write_text("brief = 1\n")
            (root / f"brief{(number + 2) % 5}.py").unlink(missing_ok=True)
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            assert_right(call("search", "steady_word", str(root), "--mode", "lexical"), "steady.py")
    finally:
        stop.set()
        writer.join()
    (root / "growing.py").write_text("final_word = 1\n")
    (root / "swapped.py").write_text("settled_word = 1\n")
    assert_right(call("search", "final_word", str(root), "--mode", "lexical"), "growing.py")
    assert_right(call("search", "settled_word", str(root), "--mode", "lexical"), "swapped.py")
    hits = json.loads(call("search", "line1", str(root), "--mode", "lexical", "--json").stdout or "{}")
    assert not hits.get("hits")
