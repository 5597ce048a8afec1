"""Two processes index one repository and are killed at random, again and again: it answers as a fresh index does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from embedcode import Index, Mode, Query
from embedcode.engine.light import LightEncoder

ALL = 1000
"""Hits asked for: more than there are chunks, so that ties are never cut in two."""
QUERIES = [
    "where are old sessions invalidated?",
    "let rec fold_orders",
    "parseInvoice7",
    "retry the upload with a growing pause\n  File order_3.nim, line 12, in sendOrder3",
]
VERBS = ["parse", "send", "rotate", "invalidate", "retry", "merge", "upload", "audit"]
NOUNS = ["invoice", "order", "session", "ledger", "parcel", "tariff", "visitor", "shipment"]


def source(number: int, version: int) -> tuple[str, str]:
    """(path, text) of a file, in a language nobody tuned on or in Python."""
    verb, noun = VERBS[number % 8], NOUNS[number // 8 % 8]
    name = f"{verb}{noun.title()}{number}"
    remark = f"{verb} every {noun} of version {version}"
    match number % 3:
        case 0:
            head = f"## {remark}\nproc {name}(items: seq[int]): int =\n"
            return f"nim/{noun}_{number}.nim", f"{head}  for item in items:\n    result += item * {number}\n"
        case 1:
            head = f"(* {remark} *)\nlet rec {verb}_{noun}s{number} = function\n"
            return f"lib/{noun}/{noun}_{number}.ml", f"{head}  | [] -> {number}\n  | x :: r -> x + {name} r\n"
    text = "".join(
        f'def {name}_{part}(items):\n    """{remark.capitalize()}."""\n'
        + "".join(f"    items = merge_{part}(items, {line}, {version})\n" for line in range(6))
        + "\n\n"
        for part in range(2)
    )
    return f"app/{noun}_{number}.py", text


def write(root: Path, number: int, version: int) -> None:
    path, text = source(number, version)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    past = time.time() - 3600 + version
    os.utime(root / path, (past, past))


def answers(root: Path, home: Path, encoder: LightEncoder, rebuild: bool) -> dict[str, Any]:
    """All that a user can see. `rebuild` leaves deleted chunks out of the statistics that lexical scores rest on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCODE_HOME", str(home))
        with Index.open(root, encoder) as index:
            report = index.update()
            index.store.maintain(rebuild)
            assert report.embedded == report.chunks
            assert not report.failed
            seen: dict[str, Any] = {"files": {path: file.digest for path, file in index.store.files().items()}}
            seen["chunks"] = {path: [chunk for _, chunk in index.store.chunks_of(path)] for path in seen["files"]}
            for query in QUERIES:
                for mode in Mode:
                    hits = index.search(Query(query, mode=mode, top_k=ALL))
                    seen[f"{mode} {query}"] = sorted(
                        (-round(hit.score, 3), hit.chunk.path, hit.chunk.start_line) for hit in hits
                    )
            return seen


def kill_at_random(root: Path, home: Path, rounds: int, files: int, rng: random.Random, edits: int) -> int:
    """Start two processes a round and kill each; returns how many were still at work."""
    env = os.environ | {"EMBEDCODE_HOME": str(home), "EMBEDCODE_THREADS": "2", "XDG_CONFIG_HOME": str(home)}
    command = [sys.executable, "-m", "embedcode", "index", str(root), "--wait"]
    killed = 0
    for turn in range(rounds):
        for number in rng.sample(range(files), edits):
            write(root, number, rng.randrange(1, 4))
        pair = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        deadline = time.monotonic() + rng.uniform(0.3, 1.5 + turn % 3)
        for process in pair:
            time.sleep(max(0, deadline - time.monotonic()))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), errors
            deadline += rng.uniform(0, 0.3)
    return killed


def at_work(root: Path) -> list[str]:
    """Command lines of the processes that still read this repository, or help one that did."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(root) in (folder / "environ").read_bytes().decode(errors="replace") or str(root) in line:
                found.append(line)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def encoder() -> LightEncoder:
    from embedcode import load

    return load(threads=2)


def test_killed_indexers_leave_an_index_that_answers_as_a_fresh_one(tmp_path: Path, encoder: LightEncoder) -> None:
    root, rng = tmp_path / "repository", random.Random(5)
    for number in range(105):  # enough that other processes help to read
        write(root, number, 0)
    assert kill_at_random(root, tmp_path / "home", 3, 105, rng, edits=0)
    assert answers(root, tmp_path / "home", encoder, False) == answers(root, tmp_path / "fresh", encoder, False)


@pytest.mark.slow
def test_fifty_kills_while_files_change(tmp_path: Path, encoder: LightEncoder) -> None:
    root, rng = tmp_path / "repository", random.Random()
    for number in range(400):
        write(root, number, 0)
    home = tmp_path / "home"
    assert kill_at_random(root, home, 25, 400, rng, edits=40) > 25
    (root / source(3, 0)[0]).unlink()
    assert answers(root, home, encoder, True) == answers(root, tmp_path / "fresh", encoder, True)
    if Path("/proc/self/environ").exists():
        assert at_work(root) == []
