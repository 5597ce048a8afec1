"""The user's cache of vectors: found again by key, shared by processes, and never in the way when it is damaged."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedcode.store.cache import VectorCache
from embedcode.types import digest

DIM = 48


def keys(count: int, name: str = "k") -> list[bytes]:
    return [digest(f"{name}{number}") for number in range(count)]


def vectors(count: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vectors" / "space.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[VectorCache]:
    cache = VectorCache(path, DIM)
    yield cache
    cache.close()


def test_what_was_put_is_found_by_every_checkout(cache: VectorCache, path: Path) -> None:
    wanted = vectors(1200)
    cache.put(keys(1200), wanted)
    other = VectorCache(path, DIM)
    asked = [*keys(3, "unknown"), *keys(1200)[::-1]]
    at, found = other.get(asked)
    other.close()
    assert at == list(range(3, 1203))
    assert found.dtype == np.float32
    cosines = (found * wanted[::-1]).sum(1)
    assert cosines.min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_nothing_asked_and_nothing_held(cache: VectorCache) -> None:
    for asked in ([], keys(2)):
        at, found = cache.get(asked)
        assert at == []
        assert found.shape == (0, DIM)


def test_the_same_key_twice(cache: VectorCache) -> None:
    first, second = vectors(2)
    cache.put(keys(1), first[None])
    cache.put(keys(1), second[None])
    at, found = cache.get(keys(1) * 3)
    assert at == [0, 1, 2]
    assert float(found[2] @ first) > 0.999


def test_a_vector_of_another_length_is_not_given_out(cache: VectorCache, path: Path) -> None:
    cache.put(keys(2), vectors(2))
    shorter = VectorCache(path, DIM // 2)
    assert shorter.get(keys(2))[0] == []
    shorter.close()


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    match how:
        case "noise":
            path.write_bytes(random.Random(3).randbytes(len(raw)))
        case "header":
            path.write_bytes(b"\0" * 100 + raw[100:])
        case "short":
            path.write_bytes(raw[: len(raw) // 2])
        case "pages":
            path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
        case "empty":
            path.write_bytes(b"")


@pytest.mark.parametrize("how", ["noise", "header", "short", "pages", "empty"])
def test_a_damaged_cache_is_set_aside_and_filled_again(path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong, no error reaches the user; the run after the one that met the damage has a sound cache."""
    cache = VectorCache(path, DIM)
    cache.put(keys(300), vectors(300))
    cache.close()
    damage(path, how)
    with caplog.at_level(logging.CRITICAL, "embedcode"):
        first = VectorCache(path, DIM)
        at, found = first.get(keys(300))
        assert found.shape == (len(at), DIM)
        first.put(keys(300), vectors(300))
        first.close()
        second = VectorCache(path, DIM)
        second.put(keys(300), vectors(300))
        second.close()
    third = VectorCache(path, DIM)
    assert third.get(keys(300))[0] == list(range(300))
    third.close()


@pytest.mark.parametrize("start", [0, 100, 4096])
def test_a_log_left_beside_a_damaged_cache_does_not_damage_the_next(path: Path, start: int) -> None:
    """A killed process leaves its write-ahead log, which SQLite replays into whatever file has the name."""
    cache = VectorCache(path, DIM)
    cache.put(keys(2000, "first"), vectors(2000))
    cache.close()
    code = (
        "import os, sys; from pathlib import Path; import numpy as np; from embedcode.store.cache import VectorCache\n"
        "from embedcode.types import digest\n"
        f"cache = VectorCache(Path(sys.argv[1]), {DIM})\n"
        f"cache.put([digest(f'old{{i}}') for i in range(30)], np.eye(30, {DIM}, dtype='f4') + .1)\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name("space.sqlite-wal").stat().st_size
    path.write_bytes(path.read_bytes()[:start] + b"nonsense" * 8000)
    for _ in range(3):
        cache = VectorCache(path, DIM)
        cache.put(keys(5), vectors(5))
        cache.close()
    cache = VectorCache(path, DIM)
    assert cache.get(keys(5))[0] == [0, 1, 2, 3, 4]
    cache.put(keys(2000, "first"), vectors(2000))
    assert len(cache.get(keys(2000, "first"))[0]) == 2000
    cache.close()


def test_a_place_that_cannot_hold_it_is_only_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = VectorCache(tmp_path / "file" / "space.sqlite", DIM)
    cache.put(keys(2), vectors(2))
    assert cache.get(keys(2))[0] == []
    cache.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "work goes on without it" in caplog.text


def test_two_processes_fill_it_at_once(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from embedcode.store.cache import VectorCache\n"
        "from embedcode.types import digest\n"
        f"cache = VectorCache(Path(sys.argv[1]), {DIM})\n"
        f"rows = np.eye(100, {DIM}, dtype='f4') + .1\n"
        "for part in range(20): cache.put([digest(f'{part}/{i}') for i in range(100)], rows)\n"
        "cache.close()"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    cache = VectorCache(path, DIM)
    assert len(cache.get([digest(f"{part}/{i}") for part in range(20) for i in range(100)])[0]) == 2000
    cache.close()


def test_whoever_makes_it_at_once_has_it(tmp_path: Path) -> None:
    """Three processes meet by the clock at forty new caches: SQLite alone lets some of them fail as locked."""
    code = (
        "import sys, time; from pathlib import Path; from embedcode.store.cache import VectorCache\n"
        "for turn in range(40):\n"
        "    time.sleep(max(0, float(sys.argv[2]) + turn / 30 - time.time()))\n"
        f"    VectorCache(Path(sys.argv[1]) / str(turn) / 'space.sqlite', {DIM}).close()"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path), str(time.time() + 2)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")


def test_a_closed_cache_holds_nothing(cache: VectorCache) -> None:
    cache.put(keys(1), vectors(1))
    cache.close()
    cache.close()
    assert cache.get(keys(1))[0] == []
    assert cache.path.exists()
