"""Overlap by content: near duplicates as brute force finds them, and pairs that copy an evaluation set."""

from __future__ import annotations

import json
import os
import random
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedcode.data import minhash, pairs, runs
from embedcode.data.holdout import HeldOut
from embedcode.data.merge import merge
from embedcode.data.overlap import Evaluations, Report, allowed, source_names
from embedcode.data.stats import stats
from embedcode.errors import UsageError
from embedcode.evaluate import beir
from embedcode.types import Pair

WORDS = [f"word{i}" for i in range(300)]
CODE = (
    "def area(shape, scale):\n    width = shape.width * scale\n    return width * shape.height * scale + shape.border\n"
)


def similarity(one: list[str], other: list[str]) -> float:
    """Jaccard's over multisets, by its definition."""
    a, b = Counter(one), Counter(other)
    return sum((a & b).values()) / sum((a | b).values())


def family(seed: int = 1) -> list[list[str]]:
    """Texts as lists of words: random ones, each with copies changed a little or a lot."""
    random.seed(seed)
    texts = []
    for _ in range(30):
        base = random.choices(WORDS, k=random.randint(5, 60))
        texts.append(base)
        texts += [
            [random.choice(WORDS) if random.random() < share else word for word in base]
            for share in (0.0, 0.05, 0.1, 0.15, 0.3, 0.6)
        ]
    return texts


def test_near_duplicates_are_those_of_brute_force() -> None:
    texts = family()
    index = minhash.Index()
    for text in texts:
        index.add(minhash.elements(" ".join(text)))
    expected, found = set(), set()
    for i, text in enumerate(texts):
        expected |= {
            (i, j)
            for j, other in enumerate(texts)
            if similarity(text, other) >= 0.8 and len(text) >= 10 and len(other) >= 10
        }
        found |= {(i, j) for j, _ in index.near(minhash.elements(" ".join(text)))}
    assert len(expected) > 400
    assert found <= expected
    assert len(found) >= 0.995 * len(expected)


def sketches(texts: Iterable[str]) -> NDArray[np.uint32]:
    return np.stack([minhash.sketch(minhash.elements(text)) for text in texts])


def test_signatures_estimate_the_similarity() -> None:
    texts = family()[:60]
    signatures = sketches(" ".join(text) for text in texts)
    errors = [
        (signatures[i] == signatures[j]).mean() - similarity(texts[i], texts[j])
        for i in range(60)
        for j in range(i)
        if min(len(texts[i]), len(texts[j])) >= 10
    ]
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def test_copies_keep_the_first_of_each_group() -> None:
    texts = family()
    drop = minhash.copies(sketches(" ".join(text) for text in texts))
    for i in np.flatnonzero(drop):
        assert max(similarity(texts[i], texts[j]) for j in range(i)) > 0.65
    for i in np.flatnonzero(~drop):
        assert len(texts[i]) < 10 or max((similarity(texts[i], texts[j]) for j in range(i)), default=0) < 0.95
    few = minhash.copies(sketches(["a b"] * 5))
    assert len(few) == 5 and not few.any()


def test_formatting_and_comments_make_no_difference() -> None:
    other = CODE.replace("    ", "\t").replace("\n    return", "  # a remark\n\n\treturn")
    assert minhash.jaccard(minhash.elements(CODE), minhash.elements(other)) == 1


# ---- pairs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    queries = [
        {"_id": "q1", "text": "How do I compute the area of a scaled shape?"},
        {"_id": "q2", "text": "sort list"},
    ]
    corpus = [{"_id": "d1", "text": CODE}, {"_id": "d2", "text": "def unrelated(x):\n    return x\n"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return folder


NEAR = CODE.replace("shape.border", "shape.margin")
GOOD = Pair(
    "Opens a file.", ("def open_file(path):\n    return path.open()\n",), (CODE,), source="pypi:x 1", licence="MIT"
)
BAD = {
    ("equal", "positive"): Pair("q w e r", ("def other(): pass", CODE.replace("    ", "  "))),
    ("near", "positive"): Pair("q w e r", (NEAR,)),
    ("equal", "query"): Pair("how do I compute the AREA of a scaled shape", ("x",)),
    ("name", "source"): Pair("q w e r", ("x",), source="pypi:django 5.2"),
}


def test_what_overlaps_is_found_and_says_with_what(evaluation: Path) -> None:
    known = Evaluations([beir.load(evaluation)])
    assert len(known) == 4
    assert known.find(GOOD) is None, "a negative does not cost its pair"
    assert known.find(Pair("sort it", ("x",))) is None, "two words are anybody's"
    for (kind, text), pair in BAD.items():
        found = known.find(pair)
        assert found is not None and (found.kind, found.text) == (kind, text)
    found = known.find(BAD["near", "positive"])
    assert found is not None and found.other == "document d1" and 0.8 <= found.similarity < 1


def asking(*queries: str) -> Evaluations:
    return Evaluations([beir.Task("set", {}, {str(number): text for number, text in enumerate(queries)}, {})])


@pytest.mark.parametrize(
    ("known", "text", "found"),
    [
        ("python check if a variable is iterable", "How to check if a variable is iterable in Python?", True),
        ("python sort list", "how to sort a list in python", True),
        ("find . -type f -iname '*.txt'", "find {{path}} -type f -iname '*.txt'", True),
        ("load json file python dict keys", "load json file python dict keys quickly", True),
        ("sort rows of pandas frame in ascending order", "sort rows of pandas frame in descending order", False),
        ("one two three four five six seven eight nine", "one two three four five six seven eight ten", True),
        ("python sort list", "python sort dict", False),
        ("sort list", "how to sort a list", False),
    ],
)
def test_short_texts_are_compared_by_the_words_that_say_something(known: str, text: str, found: bool) -> None:
    """Of CoSQA's queries behind "how to " 11 of 100 were found."""
    assert (asking("unlike all others here", known).find(Pair(text, ("x",))) is not None) is found
    assert (asking(known).find(Pair("q w e r", ("x", text))) is not None) is found


def test_texts_that_no_rule_can_compare_are_counted() -> None:
    assert asking("sort list", "python sort list", " ".join(WORDS[:40])).least == 1


LONG = """def settle(orders, rates, today):
    totals = {}
    for order in orders:
        if order.due < today and not order.paid:
            rate = rates.get(order.currency, 1.0)
            totals[order.customer] = totals.get(order.customer, 0) + order.amount * rate
    return sorted(totals.items(), key=lambda pair: -pair[1])
"""
OTHERS = "".join(
    f"\n    def step_{n}(self, value):\n        self.log.append({n})\n        return value + {n}\n" for n in range(20)
)


def test_a_function_of_a_benchmark_inside_of_more_code_is_found(evaluation: Path) -> None:
    """As `data history` writes it, beneath its path, and as a method of a class."""
    rows = [{"_id": "d9", "title": "billing/settle.py", "text": LONG}, {"_id": "d8", "title": "a " * 40, "text": CODE}]
    with (evaluation / "corpus.jsonl").open("a") as corpus:
        corpus.writelines(json.dumps(row) + "\n" for row in rows)
    known = Evaluations([beir.load(evaluation)])
    assert len(known) == 6
    within = f"src/a/very/long/path/of/the/file.py\nclass Books:\n{OTHERS}\n" + textwrap.indent(LONG, "    ") + OTHERS
    part = "\n".join(LONG.splitlines()[1:])
    for text, kind in ((within, "inside"), (LONG, "equal"), (CODE, "equal"), (LONG + OTHERS, "inside"), (part, "near")):
        found = known.find(Pair("q w e r", (text,)))
        assert found is not None and (found.kind, found.text) == (kind, "positive")
    assert known.find(Pair("q w e r", (f"class Books:\n{OTHERS}{OTHERS}",))) is None


def test_code_whose_names_were_changed_is_found_and_code_of_the_same_shape_is_not(evaluation: Path) -> None:
    """Of 12 functions of HumanEval with other names none was found."""
    with (evaluation / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "d9", "text": LONG}) + "\n")
    known = Evaluations([beir.load(evaluation)])
    kept = {"def", "for", "in", "if", "and", "not", "return", "lambda"}
    changed = re.sub(r"[a-z_]+", lambda word: word[0] if word[0] in kept else f"v{word[0][::-1]}", LONG)
    assert not {"settle", "orders", "customer"} & set(re.findall(r"\w+", changed))
    for text in (changed, changed + OTHERS):
        found = known.find(Pair("q w e r", (text,)))
        assert found is not None and (found.kind, found.other) == ("renamed", "document d9")
    other = (
        changed.replace("< ", "> ").replace(" + ", " - ").replace("not ", "").replace(".get(", "[").replace("=", "!")
    )
    assert known.find(Pair("q w e r", (other,))) is None
    assert known.find(Pair("q w e r", (OTHERS,))) is None


def test_prose_has_no_runs_without_names() -> None:
    assert not runs.renamed([f"word{n}" for n in range(200)])


def test_documents_with_titles_count_once(evaluation: Path) -> None:
    with (evaluation / "corpus.jsonl").open("a") as corpus:
        for number in range(runs.IDIOM - 10):
            corpus.write(json.dumps({"_id": f"t{number}", "title": f"part {number}", "text": LONG}) + "\n")
    found = Evaluations([beir.load(evaluation)]).find(Pair("q w e r", (LONG + OTHERS,)))
    assert found is not None and found.kind == "inside"


def test_what_many_texts_share_is_nobodys_and_short_texts_are_in_none() -> None:
    index = runs.Index()
    shared = [f"licence{i}" for i in range(40)]
    for number in range(runs.IDIOM + 1):
        index.add(number, runs.kept([*shared, *(f"own{number}_{i}" for i in range(10))]))
    index.add(99, runs.kept([f"short{i}" for i in range(12)]))
    assert index.find(runs.kept([*shared, *(f"other{i}" for i in range(200))])) is None
    assert index.find(runs.kept([f"short{i}" for i in range(12)])) is None


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("pypi:django 5.2", True), ("git:django/django@abc123", True), ("https://github.com/django/django", True),
        ("npm:@vue/core 3.4", True), ("debian:django-tables 1", False), ("npm:lodash 4", False), ("", False),
        ("git:psf/requests", True), ("exercism/python", True),
    ],
)  # fmt: skip
def test_sources_that_are_never_trained_on(source: str, forbidden: bool) -> None:
    assert (Evaluations().find(Pair("q", ("p",), source=source)) is not None) is forbidden, source_names(source)


@pytest.mark.parametrize(
    ("source", "held"),
    [
        ("networkx-3.6-py3-none-any.whl", True), ("networkx-main.zip", True), ("/home/a/networkx-4f6e1d2", True),
        ("python-networkx_3.6.orig.tar.gz", True), ("git:networkx-main@4f6e1d2", True), ("networkx-extra-1.0", False),
    ],
)  # fmt: skip
def test_what_is_held_out_is_known_by_the_name_of_its_archive(source: str, held: bool) -> None:
    known = Evaluations([], HeldOut({"reported": {"python": ["pypi:networkx"]}}).entries())
    assert (known.find(Pair("q", ("p",), source=source)) is not None) is held, source_names(source)


def test_the_report_counts(evaluation: Path) -> None:
    report = Report()
    kept = list(allowed([GOOD, *BAD.values(), GOOD], Evaluations([beir.load(evaluation)]), report))
    assert kept == [replace(GOOD, negatives=())] * 2
    assert (report.pairs, report.forbidden, report.negatives) == (6, 4, 2)
    assert report.by_set["set", "equal", "negative"] == 2
    assert report.by_set["set", "near", "positive"] == 1


def test_stats_count() -> None:
    record = stats([GOOD, GOOD, BAD["near", "positive"]])
    assert record["pairs"] == 3 and record["queries"] == 2
    assert record["licences"] == {"MIT": 2, "(none)": 1}
    assert record["negatives_a_pair"] == {"0": 1, "1": 2}
    assert record["characters"]["query"]["p50"] == len(GOOD.query)


def test_merge_leaves_out_copies(tmp_path: Path) -> None:
    pairs.write(tmp_path / "a.jsonl", [Pair("one two three", (CODE,), language="python")])
    same = [Pair("said of many", (f"def f{i}(x):\n    return x + {i}",), language="python") for i in range(5)]
    again = Pair("One  two three", (CODE + "# x",))
    pairs.write(tmp_path / "b.jsonl", [again, Pair("near words", (NEAR,)), *same])
    put: list[Pair] = []
    record, bad = merge([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], put.append)
    assert record["dropped"] == {
        "same text, other functions": 2, "copy of another pair": 1, "nearly a copy": 1
    }  # fmt: skip
    assert record["pairs"] == 4 and bad.lines == 0
    assert record["dropped_of_files_that_lost_most"] == {f"{tmp_path}/b.jsonl": 4}
    assert [pair.query for pair in put] == ["one two three", *["said of many"] * 3]


def test_merge_keeps_each_question_for_a_text_and_compares_within_a_task(tmp_path: Path) -> None:
    """What `synthesize` asks of pairs was all left out beside them, and an issue beside its commit."""
    mined = [Pair("one two three", (CODE,), task="docstring"), Pair("near words", (NEAR,), task="docstring")]
    asked = [replace(pair, query=f"how to {pair.query}?", task="synthetic-question") for pair in (mined[0], mined[0])]
    asked[1] = replace(asked[1], query="which code does one and two?")
    pairs.write(tmp_path / "mined.jsonl", mined)
    pairs.write(tmp_path / "asked.jsonl", [*asked, replace(asked[0], positives=(NEAR,))])
    put: list[Pair] = []
    record, _ = merge([tmp_path / "mined.jsonl", tmp_path / "asked.jsonl"], put.append)
    assert put == [mined[0], *asked]
    assert record["dropped"] == {"nearly a copy": 2}


def test_merge_refuses_what_cannot_be_read_twice() -> None:
    out, into = os.pipe()
    os.write(into, pairs.line(GOOD))
    os.close(into)
    with pytest.raises(UsageError, match="is not a regular file, and files are read twice"):
        merge([Path(f"/dev/fd/{out}")], print)
    os.close(out)
