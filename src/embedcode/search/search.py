"""Search: a query becomes lists of candidates, one fused and ranked order, and hits that say why.

Knows the Store contract and no store, and takes the query's vector as it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcode.search import asked as reading
from embedcode.search import fuse as fusion
from embedcode.search import places
from embedcode.search.forms import with_forms
from embedcode.search.rank import ALL, FORMS, FRAMES, KIND, Ranked, rank
from embedcode.store.contract import Scored, Searchable
from embedcode.store.terms import query_terms
from embedcode.types import Filter, Hit

if TYPE_CHECKING:
    from embedcode.types import Floats

POOL = 100
"""Candidates of each list: 200 are no better on the benchmark's tuning half (nDCG@10 .679 against .681)."""
RANKED = 60
"""Of the fused candidates, how many the rules see: 100 are no better, and cost 1 to 2 ms more."""


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
    words = {c.id: c.score for c in lexical}
    vectors = {c.id: c.score for c in dense}
    if signals.vector is not None and (lexical or named):
        rest = [id for id in {**words, **dict.fromkeys(named)} if id not in vectors]
        at, rows = store.vectors(rest)
        vectors |= dict(zip((rest[i] for i in at), map(float, rows @ signals.vector), strict=True))
    name = KIND in rules and not asked.sentence
    order = fusion.fuse(words, vectors, fusion.NAME_DENSE_WEIGHT if name else fusion.DENSE_WEIGHT, named)
    word_ranks = {c.id: rank for rank, c in enumerate(lexical, 1)}
    # A chunk that went away between the lists and now is left out, so ask for a few more.
    best = order[: max(k + 20, RANKED)]
    best += [one for one in order[len(best) :] if one[0] in named]
    chunks = store.get([id for id, _ in best])
    candidates = [
        Ranked(id, chunk, score) for (id, score), chunk in zip(best, chunks, strict=True) if chunk is not None
    ]
    hits: list[Hit] = []
    for one in rank(asked, candidates, rules)[:k]:
        why = [f"words #{word_ranks[one.id]} ({words[one.id]:.2f})"] if one.id in words else []
        why += [f"vector ({vectors[one.id]:.3f})"] if one.id in vectors else []
        hits.append(Hit(one.chunk, one.score, (*why, *one.fired)))
    return hits


def lexical_candidates(
    store: Searchable, text: str, k: int, where: Filter | None = None, forms: bool = False
) -> list[Scored]:
    """The k best chunks by words; with `forms`, by other forms of them too."""
    terms = query_terms(text)
    return store.lexical(with_forms(terms) if forms else terms, k, where)
