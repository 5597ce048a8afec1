"""Pairs in JSON lines: what is written is read again, and what is broken is named, counted and skipped."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcode.data import pairs
from embedcode.data.convert import convert
from embedcode.errors import UsageError
from embedcode.types import Pair

LittleDisk = Callable[[int], AbstractContextManager[None]]
PAIR = Pair("read a file", ("def read(): ...", "x"), ("def write(): ...",), "docstring", "python", "pkg 1.0", "MIT")
texts = st.text(st.characters(), min_size=1).filter(str.strip)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    few = Pair("q", ("p",))
    assert pairs.write(tmp_path / name, [PAIR, few]) == 2
    assert list(pairs.read(tmp_path / name)) == [PAIR, few]
    raw = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(raw) if name.endswith("gz") else raw).splitlines()
    assert json.loads(lines[1]) == {"query": "q", "positives": ["p"]}
    assert json.loads(lines[0])["licence"] == "MIT"


@given(texts, st.lists(texts, min_size=1), st.lists(texts))
def test_any_text_survives(query: str, positives: list[str], negatives: list[str]) -> None:
    pair = Pair(query, tuple(positives), tuple(negatives))
    line = pairs.line(pair)
    assert line.count(b"\n") == 1
    assert pairs.parse(line) == pair


def test_a_lone_surrogate_survives() -> None:
    pair = Pair("q", ("\udcff",))
    assert pairs.parse(pairs.line(pair)) == pair


def test_broken_lines_are_named_counted_and_skipped(tmp_path: Path) -> None:
    broken = {
        '{"query": "q", ': "not JSON",
        "[" * 100_000: "not JSON",
        "[1]": "not an object",
        '{"query": "q"}': "no 'positives'",
        '{"query": " ", "positives": ["p"]}': "no 'query'",
        '{"query": "q", "positives": "p"}': "'positives' must be a list of texts, not 'p'",
        '{"query": "q", "positives": [""]}': "'positives' must be a list of texts, not ['']",
        '{"query": 3, "positives": ["p"]}': "'query' must be text, not 3",
        '{"query": "q", "positives": ["p"], "negative": []}': "unknown field 'negative'; did you mean 'negatives'?",
        '{"query": "\xff"': "not JSON",
    }
    file = tmp_path / "pairs.jsonl"
    with file.open("wb") as out:
        for line in broken:
            out.write(line.encode("latin-1") + b"\n" + pairs.line(PAIR) + b"\n")  # blank lines do not count
    bad = pairs.Bad()
    assert list(pairs.read(file, bad)) == [PAIR] * len(broken)
    assert bad.lines == len(broken)
    expected = [f"{file}, line {3 * i + 1}: {why}" for i, why in enumerate(broken.values())]
    assert bad.examples == expected[: pairs.EXAMPLES]
    for line, why in broken.items():
        with pytest.raises(ValueError, match="^" + why.replace("[", r"\[").replace("?", r"\?")):
            pairs.parse(line.encode("latin-1"))


def test_a_line_without_end_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl.gz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        for _ in range(10):  # a megabyte of the file holds 200
            out.write(b"x" * pairs.LONGEST_LINE)
        out.write(b"\n" + pairs.line(PAIR))
    bad = pairs.Bad()
    tracemalloc.start()
    assert list(pairs.read(file, bad)) == [PAIR]
    assert tracemalloc.get_traced_memory()[1] < 5 * pairs.LONGEST_LINE
    tracemalloc.stop()
    assert bad.examples == [f"{file}, line 1: more than 16 MB on one line"]


def test_a_file_without_a_pair_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("what?\nno\n")
    with pytest.raises(UsageError, match=r"pairs\.jsonl holds no pair: .*line 1: not JSON"):
        list(pairs.read(file))
    file.write_text("")
    assert list(pairs.read(file)) == []


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.jsonl cannot be read \(no such file"):
        list(pairs.read(tmp_path / "no.jsonl"))
    pairs.write(tmp_path / "p.jsonl.gz", [Pair(str(i), (str(i * i),)) for i in range(1000)])
    raw = (tmp_path / "p.jsonl.gz").read_bytes()
    for bad in (b"not gzip", raw[: len(raw) // 2], raw[:10] + b"\xff" * 20 + raw[30:]):
        (tmp_path / "p.jsonl.gz").write_bytes(bad)
        with pytest.raises(UsageError, match=r"p\.jsonl\.gz cannot be read"):
            list(pairs.read(tmp_path / "p.jsonl.gz"))
        with pytest.raises(UsageError, match=r"p\.jsonl\.gz cannot be read"):
            list(convert(tmp_path / "p.jsonl.gz", "query", "positives", PAIR, pairs.Bad()))


def test_equal_pairs_give_equal_files_whenever_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs.write(tmp_path / "a.jsonl.gz", [PAIR] * 100)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    pairs.write(tmp_path / "b.jsonl.gz", [PAIR] * 100)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, name: str, little_disk: LittleDisk) -> None:
    file = tmp_path / name
    pairs.write(file, [PAIR])
    with (
        little_disk(5_000),
        pytest.raises(UsageError, match=rf"{name} cannot be written \(file too large\): free some space"),
    ):
        pairs.write(file, (Pair(str(i), (str(i * i),)) for i in range(10_000)))
    assert list(pairs.read(file)) == [PAIR]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_error_of_the_block_is_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), pairs.writing(tmp_path / "p.jsonl") as put:
        put(PAIR)
        raise ConnectionError
    assert list(tmp_path.iterdir()) == []
