"""Two processes index one repository and are killed at random, again and again: it answers as a fresh index does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedcode import Index, Mode, Query
from embedcode.engine.graph import GraphEncoder
from embedcode.types import Chunk

ALL = 1000
"""Hits asked for: more than there are chunks, so that ties are never cut in two."""
EXACT = 1e-5
"""Of scores from 0 to about 1; cosines are rounded to 6 decimals."""
NEAR = {Mode.DENSE: EXACT, Mode.LEXICAL: 0.1, Mode.HYBRID: 0.05}
"""Deleted chunks count in the statistics of BM25 until the lexical data are made anew, which is when a tenth of their
rows are dead (DEAD_SHARE). In twelve runs that moved a lexical score by at most .06, a hybrid one by .02."""
QUERIES = [
    "where are old sessions invalidated?",
    "let rec fold_orders",
    "parseInvoice7",
    "retry the upload with a growing pause\n  File order_3.nim, line 12, in sendOrder3",
]


@dataclass
class Answers:
    files: dict[str, bytes]
    chunks: dict[str, list[Chunk]]
    hits: dict[tuple[Mode, str], dict[tuple[str, int], float]]
    """For a query in a mode, the score of each hit, which is known by its path and first line."""


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


def answers(root: Path, home: Path, encoder: GraphEncoder) -> tuple[Answers, Answers]:
    """All that a user can see: after a plain update, and once more with the derived data made anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCODE_HOME", str(home))
        with Index.open(root, encoder) as index:
            report = index.update()
            assert report.embedded == report.chunks
            assert not report.failed
            plain = _answers(index)
            index.store.maintain(rebuild=True)
            return plain, _answers(index)


def _answers(index: Index) -> Answers:
    files = {path: file.digest for path, file in index.store.files().items()}
    return Answers(
        files,
        {path: [chunk for _, chunk in index.store.chunks_of(path)] for path in files},
        {
            (mode, query): {
                (hit.chunk.path, hit.chunk.start_line): hit.score
                for hit in index.search(Query(query, mode=mode, top_k=ALL))
            }
            for query in QUERIES
            for mode in Mode
        },
    )


def assert_same(found: Answers, expected: Answers, tolerance: dict[Mode, float]) -> None:
    """The same files, chunks and hits, and scores within the tolerance of their mode."""
    assert found.files == expected.files
    assert found.chunks == expected.chunks
    for (mode, query), hits in expected.hits.items():
        other = found.hits[mode, query]
        assert other.keys() == hits.keys(), (mode, query)
        for hit, score in hits.items():
            assert other[hit] == pytest.approx(score, abs=tolerance[mode]), (mode, query, hit)


def kill_at_random(root: Path, home: Path, kills: int, files: int, rng: random.Random, edits: int) -> None:
    """Change files, start two processes and kill each, until `kills` of them were at work when they were killed."""
    env = os.environ | {"EMBEDCODE_HOME": str(home), "EMBEDCODE_THREADS": "2", "XDG_CONFIG_HOME": str(home)}
    command = [sys.executable, "-m", "embedcode", "index", str(root), "--wait"]
    hit = 0
    while hit < kills:
        for number in rng.sample(range(files), edits):
            write(root, number, rng.randrange(5, 3_000))  # rarely one whose vectors are cached
        pair = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        for process in pair:
            wait_until_at_work(process, home)
            time.sleep(rng.uniform(0, 1.0))
            working = process.pid in holders(home)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), errors
            hit += working and process.returncode == -signal.SIGKILL


def wait_until_at_work(process: subprocess.Popen[bytes], home: Path) -> None:
    """A process starts for .5 s and may then be done in .3 s: kills at a random time would mostly miss."""
    deadline = time.monotonic() + 5
    while process.poll() is None and process.pid not in holders(home) and time.monotonic() < deadline:
        time.sleep(0.01)


def holders(home: Path) -> set[int]:
    """The processes that read or embed now, rather than start, wait for each other or end."""
    found = set()
    for note in home.glob("indexes/*/*.json"):
        with contextlib.suppress(OSError, ValueError):  # being written, or just removed
            found.add(json.loads(note.read_text())["pid"])
    return found


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
def encoder() -> GraphEncoder:
    from embedcode import load

    return load(threads=2)


def test_killed_indexers_leave_an_index_that_answers_as_a_fresh_one(tmp_path: Path, encoder: GraphEncoder) -> None:
    # More than a hundred files, so that other processes help to read.
    kill_and_compare(tmp_path, encoder, kills=3, files=105, edits=40, rng=random.Random(5))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_while_files_change(tmp_path: Path, encoder: GraphEncoder) -> None:
    kill_and_compare(tmp_path, encoder, kills=50, files=400, edits=40, rng=random.Random())


def kill_and_compare(
    tmp_path: Path, encoder: GraphEncoder, kills: int, files: int, edits: int, rng: random.Random
) -> None:
    root, home = tmp_path / "repository", tmp_path / "home"
    for number in range(files):
        write(root, number, 0)
    kill_at_random(root, home, kills, files, rng, edits)
    answers(root, home, encoder)
    # Few enough edits that nothing is made anew: the next answers are from an index with deleted rows.
    for number in rng.sample(range(files), files // 20):
        write(root, number, 4)
    (root / source(3, 0)[0]).unlink(missing_ok=True)
    found, found_anew = answers(root, home, encoder)
    expected, expected_anew = answers(root, tmp_path / "fresh", encoder)
    assert_same(found, expected, NEAR)
    assert_same(found_anew, expected_anew, dict.fromkeys(Mode, EXACT))
    if Path("/proc/self/environ").exists():
        assert at_work(root) == []
