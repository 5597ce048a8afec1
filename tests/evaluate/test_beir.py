"""Tasks are read as they are written, and a broken file is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate.beir import load
from embedcode.evaluate.bm25 import BM25
from embedcode.evaluate.metrics import mean, ndcg_at

HUMANEVAL = Path(__file__).parents[2].parent / "shared" / "data" / "dev" / "humaneval"

FILES = {
    "corpus.jsonl": (
        '{"_id": "c0", "title": "parse", "text": "def parse(): ..."}\n'
        '{"_id": "c1", "title": "", "text": "größe = 1\\u2028größe"}\n'
        "\n"
        '{"_id": "c2", "text": ""}\n'
    ),
    "queries.jsonl": '{"_id": "q0", "text": "how to parse"}\n{"_id": "q1", "text": "size"}\n',
    "qrels.tsv": "query-id\tcorpus-id\tscore\nq0\tc0\t2\nq0\tc1\t0\nq1\tc1\t-1\n",
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_task_is_read_whole(folder):
    task = load(folder)
    assert task.name == "toy"
    assert task.corpus == {"c0": "parse\ndef parse(): ...", "c1": "größe = 1\u2028größe", "c2": ""}
    assert task.queries == {"q0": "how to parse", "q1": "size"}
    assert task.qrels == {"q0": {"c0": 2, "c1": 0}, "q1": {"c1": -1}}


def test_windows_line_ends_a_missing_header_and_beirs_own_place_are_read(folder):
    expected = load(folder).qrels
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_bytes(b"q0\tc0\t2\r\nq0\tc1\t0\r\nq1\tc1\t-1\r\n")
    assert load(folder).qrels == expected


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=r"(corpus|queries)\.jsonl does not exist|qrels.* does not exist"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", '{"_id": "c9", "text": "cut', r"corpus\.jsonl, line 5, is not JSON"),
        ("corpus.jsonl", "[1]", r"corpus\.jsonl, line 5, is no object"),
        ("corpus.jsonl", '{"text": "t"}', r"corpus\.jsonl, line 5, has no _id"),
        ("corpus.jsonl", '{"_id": "c0", "text": "t"}', r"corpus\.jsonl, line 5, has the _id 'c0' again"),
        ("corpus.jsonl", '{"_id": "c9"}', r"corpus\.jsonl, line 5, has None for 'text'"),
        ("queries.jsonl", '{"_id": 7, "text": "t"}', r"queries\.jsonl, line 3, has 7 for '_id'"),
        ("qrels.tsv", "q0\tc7\t1", r"qrels\.tsv, line 5, judges 'c7', which corpus\.jsonl does not have"),
        ("qrels.tsv", "q7\tc0\t1", r"qrels\.tsv, line 5, judges 'q7', which queries\.jsonl does not have"),
        ("qrels.tsv", "q0 c0 1", r"qrels\.tsv, line 5, is not 'query-id TAB corpus-id TAB whole number'"),
        ("qrels.tsv", "q0\tc0\thigh", r"qrels\.tsv, line 5, is not"),
    ],
)
def test_a_broken_line_is_named(folder, name, line, message):
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=message):
        load(folder)


def test_what_is_not_utf8_is_named(folder):
    (folder / "queries.jsonl").write_bytes(b'{"_id": "q0", "text": "\xff"}\n')
    with pytest.raises(UsageError, match=r"queries\.jsonl cannot be read"):
        load(folder)


@pytest.mark.skipif(not HUMANEVAL.is_dir(), reason="the shared development data are not beside this checkout")
def test_bm25_finds_most_of_humaneval():
    task = load(HUMANEVAL)
    assert (len(task.corpus), len(task.queries), len(task.qrels)) == (164, 164, 164)
    baseline = BM25(list(task.corpus.values()), list(task.corpus))
    run = {query: dict(baseline.search(text, 10)) for query, text in task.queries.items()}
    assert mean(ndcg_at(10, run, task.qrels)) > 0.7
