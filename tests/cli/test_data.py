"""`data`: pairs from sources, what is in them, and which may not be trained on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcode.data import pairs
from embedcode.types import Pair

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
LICENCE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
CODE = """def area(shape, scale):
    width = shape.width * scale
    return width * shape.height * scale + shape.border
"""
GOOD = Pair("Opens a file.", ("def open_file(path):\n    return path.open()\n",), licence="MIT", source="x 1")
COPY = Pair("Something of some shape.", (CODE,), licence="MIT", source="x 1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pkg"
    folder.mkdir()
    for number, word in enumerate(("width", "height", "depth")):
        (folder / f"m{number}.py").write_text(
            f'def f{number}(shape):\n    """Computes the {word} of a shape."""\n'
            f"    total = 0\n    for part in shape:\n        total += part.{word}\n    return total\n"
        )
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "compute the area"}\n')
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": CODE}) + "\n")
    (folder / "qrels.tsv").write_text("q\td\t1\n")
    return folder


def test_docstrings_of_a_folder(source: Path, tmp_path: Path, call: Run) -> None:
    out = tmp_path / "pairs.jsonl.gz"
    done = call("data", "docstrings", str(source), "-o", str(out))
    assert done.returncode == 1 and b"no licence file" in done.stdout
    (source / "LICENSE").write_text(LICENCE)
    done = call("data", "docstrings", str(source), "-o", str(out), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["languages"] == {"python": 3}
    words = ("width", "height", "depth")
    assert {pair.query for pair in pairs.read(out)} == {f"Computes the {word} of a shape." for word in words}
    assert {pair.licence for pair in pairs.read(out)} == {"Apache-2.0"}


def test_code_of_ones_own_needs_no_licence(source: Path, tmp_path: Path, call: Run) -> None:
    assert call("data", "docstrings", str(source), "-o", str(tmp_path / "p.jsonl"), "--own").returncode == 0
    assert len(list(pairs.read(tmp_path / "p.jsonl"))) == 3


@pytest.mark.parametrize("name", ["missing", "a.txt"])
def test_what_is_no_source_is_refused_and_nothing_written(name: str, tmp_path: Path, call: Run) -> None:
    (tmp_path / "a.txt").write_text("a")
    done = call("data", "docstrings", name, "-o", "p.jsonl")
    assert done.returncode == 2 and b"is no folder and no source archive" in done.stderr
    assert not (tmp_path / "p.jsonl").exists()


def test_check_drops_what_overlaps_and_says_so(evaluation: Path, tmp_path: Path, call: Run) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl.gz"
    pairs.write(file, [GOOD, COPY])
    with file.open("a") as more:
        more.write("{broken\n")
    done = call("data", "check", str(file), "--eval", str(evaluation), "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 1
    assert (record["pairs"], record["overlapping"], record["bad_lines"]) == (2, 1, 1)
    assert b"line 3: not JSON" in done.stderr
    done = call("data", "check", str(file), "--eval", str(evaluation), "--out", str(out))
    assert done.returncode == 0 and b"1 of 2 pairs may not be trained on" in done.stdout
    assert list(pairs.read(out)) == [GOOD]
    assert call("data", "check", str(out), "--eval", str(evaluation)).returncode == 0


def test_check_names_what_has_no_licence(tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD, Pair("a b c", ("x",), licence="GPL-3.0")])
    done = call("data", "check", "p.jsonl")
    assert done.returncode == 1 and b"1 pairs without a licence of the allow-list" in done.stdout


def test_stats_and_merge(tmp_path: Path, call: Run) -> None:
    pairs.write(tmp_path / "p.jsonl", [GOOD, COPY, COPY])
    assert b"pairs: 3" in call("data", "stats", "p.jsonl").stdout
    assert json.loads(call("data", "merge", "p.jsonl", "-o", "q.jsonl", "--json").stdout)["pairs"] == 2
    assert json.loads(call("data", "stats", "q.jsonl", "--json").stdout)["pairs"] == 2
    assert call("data", "stats", "missing.jsonl").returncode == 2
