"""Search: a query becomes lists of candidates, one fused and ranked order, and hits that say why.

Knows the Store contract and no store, and takes the query's vector as it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from embedcode.search import asked as reading
from embedcode.search import fuse as fusion
from embedcode.search import places
from embedcode.search.forms import with_forms
from embedcode.search.rank import ALL, FORMS, FRAMES, KIND, Ranked, rank, verbatim
from embedcode.store.contract import Scored, Searchable
from embedcode.store.terms import query_terms
from embedcode.types import Filter, Hit

if TYPE_CHECKING:
    from embedcode.types import Floats

POOL = 100
"""Candidates of each list: 200 are no better on the benchmark's tuning half (nDCG@10 .679 against .681)."""
RANKED = 70
"""Of the fused candidates, how many the rules see at once: 100 are no better, and cost 1 to 2 ms more."""
HELD = 60
"""Candidates that hold a name asked alone, by its whole form: its definition may be one line of a long chunk."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What a query looks for: words, a unit vector [dim], or both."""

    text: str = ""
    vector: Floats | None = None
    asked: str = ""
    """What a person wrote, which the rules read; without it, as for code as a query, no rule moves anything."""


def search(
    store: Searchable, signals: Signals, k: int, where: Filter | None = None, rules: frozenset[str] = ALL
) -> list[Hit]:
    """The k best chunks by the signals given, best first; `rules` are the names of those that may move them."""
    rules = rules if signals.asked.strip() else frozenset()
    asked = reading.read(signals.asked)
    lexical = lexical_candidates(store, signals.text, max(k, POOL), where, FORMS in rules) if signals.text else []
    dense = store.dense(signals.vector, max(k, POOL), where) if signals.vector is not None else []
    named = places.at(store, asked.frames, where) if FRAMES in rules else []
    if signals.text and asked.alone and verbatim.__name__ in rules:
        named += [c.id for c in store.lexical({asked.alone: 1.0}, HELD, where)]
    words = {c.id: c.score for c in lexical}
    vectors = {c.id: c.score for c in dense}
    if signals.vector is not None and (lexical or named):
        rest = [id for id in {**words, **dict.fromkeys(named)} if id not in vectors]
        at, rows = store.vectors(rest)
        vectors |= dict(zip((rest[i] for i in at), map(float, rows @ signals.vector), strict=True))
    name = KIND in rules and not asked.sentence
    order = fusion.fuse(words, vectors, fusion.NAME_DENSE_WEIGHT if name else fusion.DENSE_WEIGHT, named)
    word_ranks = {c.id: rank for rank, c in enumerate(lexical, 1)}
    sure = set(named)
    order = [*order[:RANKED], *sorted(order[RANKED:], key=lambda one: one[0] not in sure)]
    best: list[Ranked] = []
    start, stop = 0, RANKED + sum(id in sure for id, _ in order[RANKED:])
    # The rules see as many whatever k is, so that a larger one only adds hits behind those of a smaller one.
    while start < len(order) and len(best) < k:
        least = best[-1].score if best else inf
        for one in rank(asked, _candidates(store, order[start:stop]), rules):
            one.score = min(one.score, least)
            best.append(one)
        start, stop = stop, stop + RANKED
    hits: list[Hit] = []
    for one in best[:k]:
        why = [f"words #{word_ranks[one.id]} ({words[one.id]:.2f})"] if one.id in words else []
        why += [f"vector ({vectors[one.id]:.3f})"] if one.id in vectors else []
        hits.append(Hit(one.chunk, one.score, (*why, *one.fired)))
    return hits


def _candidates(store: Searchable, order: Sequence[tuple[int, float]]) -> list[Ranked]:
    """Without the chunks that went away between the lists and now."""
    chunks = store.get([id for id, _ in order])
    return [Ranked(id, chunk, score) for (id, score), chunk in zip(order, chunks, strict=True) if chunk is not None]


def lexical_candidates(
    store: Searchable, text: str, k: int, where: Filter | None = None, forms: bool = False
) -> list[Scored]:
    """The k best chunks by words; with `forms`, by other forms of them too."""
    terms = query_terms(text)
    return store.lexical(with_forms(terms) if forms else terms, k, where)
