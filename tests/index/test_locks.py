"""Locks between processes: who holds them is said, a dead process holds none, and background work can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedcode import Index, Mode, Query
from embedcode.errors import BusyError, StoreError
from embedcode.index.locks import Lock, in_background, stop_background
from embedcode.index.report import Step

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]

HOLD = """
import sys, time
from pathlib import Path
from embedcode.index.locks import Lock
with Lock(Path(sys.argv[1]), sys.argv[2]).held(5, "testing"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_note_that_cannot_be_deleted_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, while another process reads it."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError

    lock = Lock(tmp_path, "update")
    assert lock.try_acquire()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        lock.release()
    other = Lock(tmp_path, "update")
    assert other.holder() is None
    assert other.try_acquire()
    other.release()


@contextmanager
def holding(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_lock_is_free_held_and_free_again(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path / "new" / "folder", "work"), Lock(tmp_path / "new" / "folder", "work")
    assert other.holder() is None
    with lock.held(0, "working"):
        assert not other.try_acquire()
        running = other.holder()
        assert running is not None
        assert running.pid == os.getpid()
        assert abs(running.started - time.time()) < 60
        assert Lock(tmp_path / "new" / "folder", "else").try_acquire()
    assert other.holder() is None
    assert other.try_acquire()
    other.release()


def test_looking_at_a_lock_that_nobody_took_does_not_take_it(tmp_path: Path) -> None:
    """Or a process that comes for it in that instant would not get it."""
    assert Lock(tmp_path, "work").holder() is None
    assert not (tmp_path / "work.lock").exists()


def test_a_lock_held_by_another_process_explains_itself(tmp_path: Path) -> None:
    with holding(tmp_path, "update") as process:
        lock = Lock(tmp_path, "update")
        running = lock.holder()
        assert running is not None and running.pid == process.pid
        expected = rf"process {process.pid} is still reading shop: wait until it is done, or end that process"
        with pytest.raises(StoreError, match=expected), lock.held(0.1, "reading shop"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wait_for(lambda: lock.holder() is None, 5)
        with lock.held(1, "reading shop"):
            pass


def test_a_note_that_cannot_be_read_is_no_reason_to_fail(tmp_path: Path) -> None:
    with holding(tmp_path, "update"):
        (tmp_path / "update.json").write_text("not json")
        lock = Lock(tmp_path, "update")
        running = lock.holder()
        assert running is not None and running.pid == 0
        with pytest.raises(StoreError, match=r"^another process is still reading"), lock.held(0, "reading"):
            pass
        assert not stop_background(lock)


def test_a_folder_that_cannot_hold_a_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(StoreError, match=str(folder)):
            Lock(folder, "update").try_acquire()


def test_an_update_waits_for_another_as_long_as_asked_and_says_so(shop: Path, opened: Open) -> None:
    index = opened(shop)
    with (
        holding(index.home, "update") as process,
        pytest.raises(BusyError, match=f"process {process.pid} is still reading {shop}: wait until it is done"),
    ):
        index.update(patience=0.1)
    assert index.update().files == 6


def test_searching_waits_for_nobody(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    with holding(index.home, "update"), holding(index.home, "embed"), holding(index.home, "background") as process:
        assert index.search(Query("session", mode=Mode.LEXICAL))
        running = index.status().running
        assert running is not None and running.pid == process.pid


def test_an_update_watches_another_process_embed_and_takes_over(shop: Path, opened: Open) -> None:
    index = opened(shop)
    steps: list[Step] = []
    with holding(index.home, "embed") as process:

        def progress(step: Step) -> None:
            steps.append(step)
            if step.phase == "embed" and process.poll() is None:
                process.kill()
                process.wait()

        report = index.update(progress=progress)
    assert report.encoded == report.chunks
    embedding = [step for step in steps if step.phase == "embed"]
    assert embedding[0].other == process.pid
    assert embedding[-1].other == 0


# ---- in the background -------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path, write: Write) -> Path:
    """Work for several seconds."""
    lines = "".join(f"    value = value * {line} + offset_{line}\n" for line in range(30))
    return write(tmp_path / "large", {f"part{n}.py": f"def step_{n}(value):\n{lines}" for n in range(200)})


def there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_background_work_can_be_forbidden(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_BACKGROUND", "false")
    index = opened(shop)
    index.update(vectors=False)
    assert not index.start_background()
    assert index.status().running is None
    assert index.update().embedded  # it says nothing about a process of one's own


def test_background_work_is_started_once_seen_and_stopped(large: Path, opened: Open) -> None:
    index = opened(large)
    index.update(vectors=False)
    assert index.status().running is None
    assert not index.stop_background()
    try:
        assert index.start_background()
        running = index.status().running
        assert running is not None
        assert running.pid != os.getpid()
        assert abs(running.started - time.time()) < 60
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, running.pid) == 10
        assert not opened(large).start_background()
        assert wait_for(lambda: index.status().embedded)
    finally:
        assert index.stop_background()
    assert index.status().running is None
    assert wait_for(lambda: not there(running.pid))  # and not as a zombie, of which a server would gather many
    kept = index.status().embedded
    assert 0 < kept < 200
    assert not index.stop_background()
    assert index.search(Query("step 7"))


def test_background_work_comes_to_its_end(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    assert index.start_background()
    assert wait_for(lambda: index.status().running is None)
    status = index.status()
    assert status.embedded == status.chunks > 0
    assert index.search(Query("session", mode=Mode.DENSE))


def test_background_work_waits_a_moment_for_its_lock(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_IN_BACKGROUND", "1")
    index = opened(shop)
    with holding(index.home, "background") as process:
        ending = threading.Timer(0.3, process.kill)
        ending.start()
        assert index.update().files == 6
        ending.join()
    with holding(index.home, "background"), pytest.raises(BusyError, match=f"indexing {shop} in the background"):
        index.update()


def test_background_work_that_cannot_begin_is_not_said_to_go_on(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    with holding(index.home, "background"):
        (index.home / "background.json").unlink()  # as in the instant in which a process has just taken it
        assert not index.start_background()
    assert index.status().trouble.startswith(f"another process is still indexing {shop} in the background: wait")
    assert index.update().embedded
    assert index.status().trouble == ""  # all are there now


def test_background_work_of_a_nice_process_is_as_nice(large: Path, opened: Open) -> None:
    with opened(large) as index:
        index.update(vectors=False)
    start = (
        "import os, sys\nfrom embedcode import Index\nos.nice(15)\n"
        "with Index.open(sys.argv[1]) as index:\n"
        "    assert index.start_background()\n"
        "    print(os.getpriority(os.PRIO_PROCESS, index.status().running.pid))\n"
        "    assert index.stop_background()\n"
    )
    done = subprocess.run([sys.executable, "-c", start, str(large)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("15\n", "")


def test_background_work_leaves_to_another_process_what_that_does(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_IN_BACKGROUND", "1")
    assert in_background()
    index = opened(shop)
    with holding(index.home, "embed"):
        assert index.update().embedded == 0


def test_a_killed_background_process_leaves_a_sound_index(large: Path, opened: Open) -> None:
    index = opened(large)
    index.update(vectors=False)
    index.start_background()
    assert wait_for(lambda: index.status().embedded)
    running = index.status().running
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    assert wait_for(lambda: index.status().running is None)
    assert index.search(Query("step 7", mode=Mode.DENSE))
    assert index.start_background()
    assert index.stop_background()


def test_stopping_ends_no_process_that_is_not_a_background_index(tmp_path: Path) -> None:
    with holding(tmp_path, "background") as process:
        assert not stop_background(Lock(tmp_path, "background"))
        assert process.poll() is None


def test_there_may_be_one_way_only_to_end_a_process(
    large: Path, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(large)
    index.update(vectors=False)
    assert index.start_background()
    monkeypatch.delattr(signal, "SIGKILL")  # as on Windows
    assert not stop_background(Lock(tmp_path, "background"))
    assert index.stop_background()
    assert not index.stop_background()


def test_a_note_ends_with_its_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path, "background")
    assert lock.try_acquire()
    assert (tmp_path / "background.json").exists()
    lock.release()
    assert not (tmp_path / "background.json").exists()
    (tmp_path / "background.json").write_text('{"pid": 1, "started": 0}')  # as a killed process leaves it
    assert lock.holder() is None
    assert not (tmp_path / "background.json").exists()


def test_background_work_is_seen_while_it_still_reads(large: Path, opened: Open) -> None:
    index = opened(large)
    index.update(vectors=False)
    with holding(index.home, "update"):  # so that the background process cannot get beyond reading
        assert index.start_background()
        assert index.status().running is not None
        assert not index.start_background()
        assert index.stop_background()
        assert index.status().running is None
