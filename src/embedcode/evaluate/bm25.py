"""The BM25 baseline: what plain words find, on bm25s, with the index's own tokenizer.

Knows no files, fields or ranking rules: texts in, ranked ids out. It is a yardstick beside the product's lexical
search, not a part of it. The only file that imports bm25s and PyStemmer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from embedcode.errors import UsageError
from embedcode.store.terms import split

K1 = 1.5
B = 0.75
"""The usual values of BM25's two parameters, those of bm25s and of published code-retrieval baselines."""


class BM25:
    """Texts under BM25 in Lucene's variant: idf = ln(1 + (N - df + .5) / (df + .5)), and no factor k1 + 1.

    `stem` reduces terms with Snowball's English stemmer on both sides; `stopwords` drops Lucene's 33 English ones.
    Raises UsageError when the packages of the extra `eval` are missing, or ids and texts do not match.
    """

    def __init__(
        self, texts: Sequence[str], ids: Sequence[str], *, stem: bool = False, stopwords: bool = False
    ) -> None:
        if len(texts) != len(ids):
            raise UsageError(f"There are {len(texts)} texts for {len(ids)} ids; give one id per text.")
        if len(set(ids)) != len(ids):
            raise UsageError("Two texts share an id; make the ids distinct.")
        bm25s = _package("bm25s")
        self._stems: Callable[[list[str]], list[str]] | None = None
        if stem:
            self._stems = stemmer()
        self._dropped = stop_words() if stopwords else frozenset[str]()
        self._ids = list(ids)
        self._index: Any = None
        terms = [self._terms(text) for text in texts]
        if any(terms):
            self._index = bm25s.BM25(method="lucene", k1=K1, b=B)
            self._index.index(terms, show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """The k best (id, score) with a score above 0, best first, equal scores in the order of the texts."""
        known = self._index.get_tokens_ids(self._terms(query)) if self._index else []
        if not known:
            return []
        scores = self._index.get_scores_from_ids(known)
        found = np.flatnonzero(scores > 0)
        if len(found) > k > 0:  # a sort of 300,000 scores takes 25 ms, and a task has thousands of queries
            found = found[scores[found] >= np.partition(scores[found], -k)[-k]]
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        return [(self._ids[i], float(scores[i])) for i in best]

    def _terms(self, text: str) -> list[str]:
        terms = [term for term in split(text) if term not in self._dropped]
        return self._stems(terms) if self._stems else terms


@cache
def stop_words() -> frozenset[str]:
    """Lucene's 33 English ones."""
    return frozenset(_package("bm25s").stopwords.STOPWORDS_EN)


@cache
def stemmer() -> Callable[[list[str]], list[str]]:
    """Snowball's English stemmer, of lists of lower-case words."""
    stems: Callable[[list[str]], list[str]] = _package("Stemmer").Stemmer("english").stemWords
    return stems


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"The BM25 baseline needs {error.name}; run `pip install '.[eval]'` in your clone of embedcode."
        ) from error
