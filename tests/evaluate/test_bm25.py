"""The BM25 baseline scores by the published formula and finds code by the words in its names."""

from __future__ import annotations

import random
import sys
from collections import Counter
from math import log

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate import bm25
from embedcode.evaluate.bm25 import BM25


def lucene(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """BM25 in the variant Lucene uses since version 8 (Kamphuis et al., 2020), written out over words."""
    documents = [Counter(text.split()) for text in texts]
    average = sum(sum(d.values()) for d in documents) / len(documents)
    scores = []
    for document in documents:
        norm = k1 * (1 - b + b * sum(document.values()) / average)
        score = 0.0
        for term in query.split():
            df = sum(term in d for d in documents)
            score += log(1 + (len(documents) - df + 0.5) / (df + 0.5)) * document[term] / (document[term] + norm)
        scores.append(score)
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_follow_the_formula(seed):
    rng = random.Random(seed)
    vocabulary = [f"{a}{b}" for a in "bcdfgklm" for b in ("ara", "eno", "ilu", "ost", "ume")]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 40))) for _ in range(60)]
    ids = [f"id{i}" for i in range(60)]
    baseline = BM25(texts, ids)
    for _ in range(10):
        query = " ".join(rng.choices(vocabulary, k=rng.randint(1, 6)))
        expected = {id: score for id, score in zip(ids, lucene(texts, query), strict=True) if score > 0}
        found = baseline.search(query, 60)
        assert dict(found) == pytest.approx(expected, rel=1e-5)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        assert baseline.search(query, 3) == found[:3]


def test_words_find_the_identifier_they_are_part_of():
    texts = ["def getUserName(self): pass", "def close_socket(self): pass", "def parse(self): pass"]
    baseline = BM25(texts, ["a", "b", "c"])
    assert [id for id, _ in baseline.search("user name", 3)] == ["a"]
    assert [id for id, _ in baseline.search("closeSocket", 3)] == ["b"]


def test_equal_texts_keep_their_order():
    baseline = BM25(["same words"] * 5 + ["other"], list("edcbaz"))
    assert [id for id, _ in baseline.search("words", 5)] == list("edcba")


def test_stemming_joins_inflections_only_when_asked():
    texts = ["invalidate the session", "open a file"]
    assert BM25(texts, ["a", "b"]).search("sessions invalidated", 2) == []
    assert [id for id, _ in BM25(texts, ["a", "b"], stem=True).search("sessions invalidated", 2)] == ["a"]


def test_stop_words_count_only_when_kept():
    texts = ["the cat of the house", "dogs"]
    assert BM25(texts, ["a", "b"]).search("of the", 2)
    assert BM25(texts, ["a", "b"], stopwords=True).search("of the", 2) == []


@pytest.mark.parametrize("texts", [[], [""], ["--- !!"], ["", "word"]])
def test_texts_without_terms_are_no_error(texts):
    baseline = BM25(texts, [str(i) for i in range(len(texts))], stem=True, stopwords=True)
    assert baseline.search("", 10) == []
    assert baseline.search("unknown", 10) == []
    assert [id for id, _ in baseline.search("word", 10)] == [str(i) for i, text in enumerate(texts) if text == "word"]


def test_ids_must_fit_the_texts():
    with pytest.raises(UsageError, match="2 texts for 1 ids"):
        BM25(["a", "b"], ["x"])
    with pytest.raises(UsageError, match="share an id"):
        BM25(["a", "b"], ["x", "x"])


@pytest.mark.parametrize(("package", "stem"), [("bm25s", False), ("Stemmer", True)])
def test_a_missing_package_is_one_sentence_with_the_cure(monkeypatch, package, stem):
    monkeypatch.setitem(sys.modules, package, None)
    bm25.stemmer.cache_clear()
    with pytest.raises(UsageError, match=rf"^The BM25 baseline needs {package}; run `pip install '\.\[eval\]'`"):
        BM25(["text"], ["id"], stem=stem)
