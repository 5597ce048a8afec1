"""Several processes on one store, and processes that are killed: it then answers as a fresh one does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embedcode.store.sqlite import SqliteStore

SCRIPT = Path(__file__).with_name("index_files.py")
DIM = 16


def start(folder: Path, rounds: int, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), str(rounds), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def answers(folder: Path, rebuild: bool) -> dict[str, object]:
    """What a user sees: no ids. Scores only when rebuilt, as deleted rows count in BM25's statistics until then."""
    with SqliteStore.open(folder, DIM) as store:
        store.maintain(rebuild)
        meta = store.meta()
        seen: dict[str, object] = {
            "counts": (meta.files, meta.chunks, meta.embedded),
            "files": store.files(),
            "chunks": {path: [chunk for _, chunk in store.chunks_of(path)] for path in store.files()},
            "pending": store.pending(10),
        }
        query = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
        dense = store.dense(query / np.linalg.norm(query), 20)
        seen["dense"] = list(zip(store.get([one.id for one in dense]), [one.score for one in dense], strict=True))
        for terms in ({"only5x1": 1.0}, {"word3": 1.0, "shared0": 2.0, "name8": 1.0}, {"version1": 1.0}):
            found = store.lexical(terms, 200)
            texts = store.get([one.id for one in found])
            scores = [round(one.score, 3) if rebuild else 0 for one in found]
            seen[str(terms)] = sorted(zip(map(str, texts), scores, strict=True))
        return seen


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "index"
    finish(start(folder, 1, 0))
    return folder


def test_two_processes_write_one_new_store(tmp_path: Path, fresh: Path) -> None:
    running = [start(tmp_path / "index", 4, seed) for seed in (1, 2)]
    for process in running:
        finish(process)
    for rebuild in (False, True):
        assert answers(tmp_path / "index", rebuild) == answers(fresh, rebuild)


def test_killed_writers_leave_a_sound_store(tmp_path: Path, fresh: Path) -> None:
    rng = random.Random()
    for _ in range(6):
        pair = [start(tmp_path / "index", 1000, rng.randrange(1000)) for _ in range(2)]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in pair:
            time.sleep(rng.uniform(0, 0.3))
            assert process.poll() is None, process.communicate()[1]
            process.send_signal(signal.SIGKILL)
            process.communicate()
    finish(start(tmp_path / "index", 1, 0))
    for rebuild in (False, True):
        assert answers(tmp_path / "index", rebuild) == answers(fresh, rebuild)


def test_threads_share_a_store(fresh: Path) -> None:
    query = np.zeros(DIM, np.float32)
    query[0] = 1.0
    with SqliteStore.open(fresh, DIM) as store:
        expected = (store.lexical({"shared0": 1.0}, 50), store.dense(query, 50), store.get([1, 2, 3]))
        wrong: list[object] = []

        def search() -> None:
            for _ in range(20):
                found = (store.lexical({"shared0": 1.0}, 50), store.dense(query, 50), store.get([1, 2, 3]))
                if found != expected:
                    wrong.append(found)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
