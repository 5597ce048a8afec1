"""Search: a query becomes two candidate lists, one fused order, and hits that say why.

Knows the Store contract and no store, and takes the query's vector as it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcode.search.fuse import fuse
from embedcode.store.contract import Scored, Store
from embedcode.store.terms import query_terms
from embedcode.types import Filter, Hit

if TYPE_CHECKING:
    from embedcode.types import Floats

POOL = 200
"""Candidates of each list; nDCG@10 does not change beyond it on the development sets."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What a query looks for: words, a unit vector [dim], or both."""

    text: str = ""
    vector: Floats | None = None


def search(store: Store, signals: Signals, k: int, where: Filter | None = None) -> list[Hit]:
    """The k best chunks by the signals given, best first."""
    lexical = lexical_candidates(store, signals.text, max(k, POOL), where) if signals.text else []
    dense = store.dense(signals.vector, max(k, POOL), where) if signals.vector is not None else []
    words = {c.id: c.score for c in lexical}
    vectors = {c.id: c.score for c in dense}
    if signals.vector is not None and lexical:
        rest = [c.id for c in lexical if c.id not in vectors]
        at, rows = store.vectors(rest)
        vectors |= dict(zip((rest[i] for i in at), map(float, rows @ signals.vector), strict=True))
    order = fuse(words, vectors) if words and vectors else [(c.id, c.score) for c in lexical or dense]
    word_ranks = {c.id: rank for rank, c in enumerate(lexical, 1)}
    hits: list[Hit] = []
    # A chunk that went away between the lists and now is left out, so ask for a few more.
    best = order[: k + 20]
    for (id, score), chunk in zip(best, store.get([id for id, _ in best]), strict=True):
        if chunk is not None and len(hits) < k:
            why = [f"words #{word_ranks[id]} ({words[id]:.2f})"] if id in words else []
            why += [f"vector ({vectors[id]:.3f})"] if id in vectors else []
            hits.append(Hit(chunk, score, tuple(why)))
    return hits


def lexical_candidates(store: Store, text: str, k: int, where: Filter | None = None) -> list[Scored]:
    """The k best chunks by words."""
    return store.lexical(query_terms(text), k, where)
