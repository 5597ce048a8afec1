"""Every system ranks what its name says, and nothing but the texts of a task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcode
from embedcode import Role, settings
from embedcode.engine import memory
from embedcode.errors import ModelError, UsageError
from embedcode.evaluate.beir import Task
from embedcode.evaluate.bm25 import BM25
from embedcode.evaluate.made import peak_mb
from embedcode.evaluate.measure import measure
from embedcode.evaluate.systems import SWITCHES, named, parsed
from embedcode.model.spec import DEFAULT
from embedcode.search.rank import ALL
from embedcode.search.search import Signals, search
from embedcode.store.memory import MemoryStore
from embedcode.types import Chunk, File

TEXTS = {
    f"doc {i}": f"def {verb}_{noun}(self, {noun}):\n    return self.{noun}.{verb}({i % 3})"
    for i, (verb, noun) in enumerate(
        (v, n) for v in ("open", "close", "parse", "send") for n in ("file", "session", "mail")
    )
}
QUERIES = {"a": "parse the mail", "b": "closing sessions", "c": "where is a file opened?", "d": "11"}
TASK = Task("toy", TEXTS, QUERIES, {query: {"doc 0": 1} for query in QUERIES})


def system(name: str, home: Path):
    return named(name, settings.load({"home": str(home), "threads": "1"}))


def nothing(moment: object) -> None: ...


@pytest.mark.parametrize("name", ["lexical", "lexical:plain", "hybrid"])
def test_the_product_ranks_as_its_search_over_the_reference_store_does(name: str, tmp_path: Path) -> None:
    """MemoryStore in fp32 with paths without words; the system's own store is SQLite's, with int8 vectors."""
    encoder = embedcode.load()
    store = MemoryStore(encoder.dim)
    ids = list(TEXTS)
    with store.begin() as transaction:
        for at, text in enumerate(TEXTS.values()):
            path = "!" * (at + 1)
            transaction.upsert(
                File(path, "", "text", "code", 1, 0, b""), [Chunk("", path, 1, 2, "text", "", text)], [b"%d" % at]
            )
        transaction.put_vectors(
            [b"%d" % at for at in range(len(ids))], encoder.encode(list(TEXTS.values()), Role.PASSAGE)
        )
        transaction.commit()
    run = system(name, tmp_path).rank(TASK, 10, nothing).run
    for query, text in QUERIES.items():
        vector = encoder.encode([text], Role.QUERY)[0] if name == "hybrid" else None
        rules = frozenset() if name.endswith("plain") else ALL
        expected = {
            ids[len(h.chunk.path) - 1]: h.score for h in search(store, Signals(text, vector, text), 10, None, rules)
        }
        assert run[query] == pytest.approx(expected, abs=0.02)


def test_a_number_in_a_query_meets_no_documents_number(tmp_path: Path) -> None:
    assert system("lexical", tmp_path).rank(TASK, 10, nothing).run["d"] == {}


def test_a_model_alone_is_every_cosine(tmp_path: Path) -> None:
    encoder = embedcode.load()
    cosines = encoder.encode(list(QUERIES.values()), Role.QUERY) @ encoder.encode(list(TEXTS.values()), Role.PASSAGE).T
    run = system("packaged", tmp_path).rank(TASK, 5, nothing).run
    for query, row in zip(QUERIES, cosines, strict=True):
        best = [list(TEXTS)[at] for at in np.argsort(-row)[:5]]
        assert list(run[query]) == best
        assert list(run[query].values()) == pytest.approx(sorted(row, reverse=True)[:5], abs=1e-5)


def test_bm25s_switches_are_those_of_the_baseline(tmp_path: Path) -> None:
    for name, stem, stop in (("bm25", False, False), ("bm25:stem", True, False), ("bm25:stop,stem", True, True)):
        found = system(name, tmp_path)
        baseline = BM25(list(TEXTS.values()), list(TEXTS), stem=stem, stopwords=stop)
        assert found.rank(TASK, 5, nothing).run == {
            query: dict(baseline.search(text, 5)) for query, text in QUERIES.items()
        }
        assert (found.conditions["stem"], found.conditions["stop words"]) == (stem, not stop)


def test_bm25_keeps_the_first_of_equal_scores_also_at_the_cut() -> None:
    baseline = BM25(["two words", *["word"] * 6, "nothing"], list("hgfedcba"))
    assert [id for id, _ in baseline.search("word", 3)] == list("gfe")
    assert baseline.search("word", 0) == []


@pytest.mark.parametrize(
    ("name", "setting", "label", "place"),
    [
        ("", "", "packaged", str(DEFAULT)),
        ("packaged", "owner/other", "packaged", str(DEFAULT)),
        ("hybrid:packaged", "owner/other", "hybrid", str(DEFAULT)),
        ("", "owner/other", "owner/other", "owner/other"),
        ("hybrid", "owner/other", "hybrid:owner/other", "owner/other"),
        ("dense:owner/one", "owner/other", "owner/one", "owner/one"),
        ("a/model", "", "model", "a/model"),
        (".", "", "HERE", "."),
        ("./packaged", "", "./packaged", "./packaged"),
        ("n" * 300, "", "n" * 300, "n" * 300),
    ],
)
def test_a_name_is_loaded_from_where_its_label_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, setting: str, label: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "model").mkdir(parents=True)
    (tmp_path / "packaged").mkdir()
    asked = parsed(name, setting, SWITCHES, None)
    assert (asked.label, asked.place) == (label.replace("HERE", tmp_path.name), place)


def test_a_result_says_which_weights_it_is_of(tmp_path: Path) -> None:
    chosen = settings.load({"home": str(tmp_path), "threads": "1", "model": "owner/not-there"})
    found = named("packaged", chosen)
    assert found.name == "packaged" and found.conditions["space"] == embedcode.load().space


def test_names_that_are_none(tmp_path: Path) -> None:
    for name, message in (("bm25:fast", "does not know: it knows stem, stop"), ("lexical:x", "it knows plain")):
        with pytest.raises(UsageError, match=message):
            system(name, tmp_path)
    with pytest.raises(UsageError, match="bm25 takes no instruction"):
        named("bm25", settings.load({"home": str(tmp_path)}), "find")


def test_a_query_that_is_a_document_does_not_find_itself(tmp_path: Path) -> None:
    """As in BEIR's ArguAna and Quora: nobody can judge it, and at rank 1 it would cost all others their place."""
    texts = TEXTS | {"titled": "A title\nclose the mail"}
    queries = {"doc 0": TEXTS["doc 0"], "titled": "close the mail ", "doc 1": TEXTS["doc 1"], "doc 2": "open a mail"}
    qrels = {"doc 0": {"doc 1": 1}, "titled": {"doc 5": 1}, "doc 1": {"doc 1": 1}, "doc 2": {"doc 9": 1}}
    task = Task("clones", texts, queries, qrels, {"titled": "close the mail"})
    assert task.own == {"doc 0", "titled"}, "not where it is judged, and not another text of the same id"
    done = measure(system("bm25", tmp_path), task, "again")
    assert done.result.conditions["identical ids"] == "dropped"
    assert [id in done.run[id] for id in queries] == [False, False, True, True]
    assert done.result.values["mrr@10"]["titled"] == 1.0
    many = {f"d{i}": f"word {'more ' * i}" for i in range(130)}
    deep = measure(
        system("bm25", tmp_path),
        Task("n", many, {"d7": many["d7"], "q": "word"}, {"d7": {"d8": 1}, "q": {"d9": 1}}),
        "",
    )
    assert [len(found) for found in deep.run.values()] == [100, 100]
    assert "identical ids" not in measure(system("bm25", tmp_path), TASK, "again").result.conditions


def test_an_instruction_that_is_not_taken_is_told_before_anything_is_embedded(tmp_path: Path, serve: Any) -> None:
    chosen = settings.load({"home": str(tmp_path), "threads": "1"})
    server = serve("openai")
    for name, says in (
        ("packaged", "knows no instruction for a query"),
        ("hybrid", "knows no instruction for a query"),
        (server.url, "does not say that it takes an instruction for a query"),
    ):
        with pytest.raises(ModelError, match=says):
            named(name, chosen, "find")
    assert not (tmp_path / "evaluate").exists()


def test_a_result_says_how_many_texts_were_cut_and_what_a_server_does_not_tell(tmp_path: Path, serve: Any) -> None:
    long = replace(TASK, corpus=TEXTS | {"long": "word " * 600})
    for name in ("packaged", "hybrid", "packaged"):  # the last finds its vectors made
        done = measure(system(name, tmp_path), long, "again").result
        assert done.conditions["cut texts"] == {"documents": 1, "queries": 0}
        assert done.conditions["max_tokens"] == 512
    told = measure(system(serve("nim").url, tmp_path), TASK, "again").result.conditions
    assert (told["max_tokens"], told["cut texts"]) == ("not told", {"documents": "not known", "queries": "not known"})
    assert "cut texts" not in measure(system("bm25", tmp_path), long, "again").result.conditions


def test_words_do_not_answer_for_a_model_that_has_no_vector_of_any_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid = system("hybrid", tmp_path)
    monkeypatch.setattr(hybrid._model.encoder, "encode", _no_query(hybrid._model.encoder.encode))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"hybrid answers no query of toy: .*no query today"):
        measure(hybrid, TASK, "again")


def _no_query(encode: Any) -> Any:
    def fails(texts: Any, role: Role, *rest: Any) -> Any:
        if role is Role.QUERY:
            raise ModelError("no query today")
        return encode(texts, role, *rest)

    return fails


def test_peak_memory_is_that_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory.loading():  # as an engine on torch does: glibc keeps what is freed from then on
        pass
    held = np.ones(25_000_000)  # 200 MB of a task before
    before = peak_mb()
    del held
    told = measure(system("bm25", tmp_path), TASK, "again").result
    assert told.made.get("peak") or told.peak_mb < before - 100
    monkeypatch.setattr("embedcode.evaluate.measure.forget_peak", lambda: False)
    assert measure(system("bm25", tmp_path), TASK, "again").result.made["peak"] == "of the process so far"


def test_a_task_of_one_query_has_figures_and_no_interval(tmp_path: Path) -> None:
    one = Task("one", TEXTS, {"a": "open a file"}, {"a": {"doc 0": 1}})
    done = measure(system("bm25", tmp_path), one, "again")
    assert done.result.metrics["recall@100"] == 1.0
    assert (dict(done.result.intervals), done.result.partial) == ({}, False)
