"""Retrieval metrics as trec_eval computes them, and bootstrap intervals for what is said about them.

Knows no model, no index and no file format: a run is {query: {document: score}}, judgements are
{query: {document: relevance}}. numpy only.

Conventions, shared by the three metrics:

- A run is ranked by score, highest first; equal scores by document id, highest string first. Scores are compared in
  single precision. Both are trec_eval's, so that an order that the scores do not give is never a model's merit.
- A document is relevant when its relevance is 1 or more. Unjudged documents and those judged 0 or below hold their
  rank and gain nothing.
- Every query with at least one relevant document gets a value; one that the run lacks, or for which it lists
  nothing, gets 0. That is trec_eval's `-c`; without it trec_eval leaves missing queries out of the mean, which
  rewards a system for not answering.
- A query without judgements, or without a relevant document, gets no value. trec_eval gives the latter 0 and counts
  it in its mean; there no system can do better.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from math import fsum, log2

import numpy as np

from embedcode.errors import UsageError

Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]

BLOCK = 1 << 21
"""Draws held in memory at once by a bootstrap: 16 MB of indices."""
ENUMERATED = 15
"""Units of which all 32,768 signs are tried."""
Array = np.ndarray[tuple[int], np.dtype[np.float64]]


def ndcg_at(k: int, run: Run, qrels: Qrels) -> dict[str, float]:
    """Normalised discounted cumulative gain of the first k, per query, in [0, 1]: trec_eval's `ndcg_cut_k`.

    The gain is the relevance itself (linear, not 2^relevance - 1), the discount log2(rank + 1); the ideal ranking is
    of all judged documents of the query, cut at k. Järvelin and Kekäläinen, 2002.
    """
    values = {}
    for query, ranked in _ranked(k, run, qrels):
        ideal = nlargest(k, (gain for gain in qrels[query].values() if gain > 0))
        values[query] = _dcg([qrels[query].get(document, 0) for document in ranked]) / _dcg(ideal)
    return values


def recall_at(k: int, run: Run, qrels: Qrels) -> dict[str, float]:
    """Share of a query's relevant documents that are among the first k, in [0, 1]: trec_eval's `recall_k`.

    A query with more than k relevant documents cannot reach 1.
    """
    values = {}
    for query, ranked in _ranked(k, run, qrels):
        relevant = {document for document, gain in qrels[query].items() if gain > 0}
        values[query] = len(relevant.intersection(ranked)) / len(relevant)
    return values


def mrr_at(k: int, run: Run, qrels: Qrels) -> dict[str, float]:
    """1 / rank of the first relevant document among the first k, else 0: trec_eval's `recip_rank` of a run cut at k."""
    values = {}
    for query, ranked in _ranked(k, run, qrels):
        ranks = (rank for rank, document in enumerate(ranked, 1) if qrels[query].get(document, 0) > 0)
        values[query] = 1 / rank if (rank := next(ranks, 0)) else 0.0
    return values


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries; raises UsageError when there is none."""
    if not values:
        raise UsageError("No query has a relevant document, so there is nothing to average; check the judgements.")
    return fsum(values.values()) / len(values)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval. `p`, of a difference only, is two-sided against "no difference"."""

    mean: float
    low: float
    high: float
    p: float | None = None


def bootstrap(
    values: Mapping[str, float],
    *,
    samples: int = 10_000,
    seed: int = 0,
    clusters: Mapping[str, Hashable] | None = None,
) -> Interval:
    """The mean over queries with its 95 % percentile bootstrap interval (Efron, 1979).

    `clusters` names each query's cluster, such as its repository. Clusters are then drawn whole and a sample's mean
    is over the queries in it: queries of one repository are not independent, and drawing them one by one gives
    intervals that are too narrow. Raises UsageError with fewer than two units to draw.
    """
    centre, means = _resample(values, samples, seed, clusters)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(centre, float(low), float(high))


def paired_bootstrap(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    samples: int = 10_000,
    seed: int = 0,
    clusters: Mapping[str, Hashable] | None = None,
) -> Interval:
    """The mean of a - b over the same queries, with interval and p; arguments as of `bootstrap`.

    p is a permutation test's (Fisher, 1935): how often the mean is as far from 0 when each unit's difference may as
    well have the other sign. Of up to ENUMERATED units all signs are tried, of more `samples`, with one added to count
    and total so that it is never 0. Two units cannot have a p below .5, and five none below .06, where a percentile
    interval of so few can leave 0 out. Raises UsageError when the queries differ.
    """
    if odd := sorted(a.keys() ^ b.keys()):
        raise UsageError(
            f"Only one of the two results has query {odd[0]!r} ({len(odd)} such); compare runs over the same queries."
        )
    differences = {query: a[query] - b[query] for query in a}
    centre, means = _resample(differences, samples, seed, clusters)
    low, high = np.quantile(means, (0.025, 0.975))
    totals, _ = _units(differences, clusters)
    return Interval(centre, float(low), float(high), _sign_flips(totals, samples, seed))


def _ranked(k: int, run: Run, qrels: Qrels) -> list[tuple[str, list[str]]]:
    """The first k documents of each query that has a relevant one, in the order of the judgements."""
    if k < 1:
        raise UsageError(f"A cut-off of {k} ranks nothing; use 1 or more.")
    return [(query, first(k, query, run.get(query, {}))) for query in answerable(qrels)]


def answerable(qrels: Qrels) -> Qrels:
    """Of the queries that have a relevant document, which are those that get a value."""
    return {query: gains for query, gains in qrels.items() if any(gain > 0 for gain in gains.values())}


def first(k: int, query: str, results: Mapping[str, float]) -> list[str]:
    """The first k documents of a query in the order of the figures; whoever shows or writes ranks shows these."""
    with np.errstate(over="ignore"):
        scores = np.fromiter(results.values(), dtype=np.float64, count=len(results)).astype(np.float32)
    if np.isnan(scores).any():
        raise UsageError(f"The run scores a document of query {query!r} as NaN; a score must be a number.")
    return [document for _, document in nlargest(k, zip(scores.tolist(), results, strict=True))]


def _dcg(gains: list[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain > 0)


def _units(values: Mapping[str, float], clusters: Mapping[str, Hashable] | None) -> tuple[Array, Array]:
    """Sum and size of each unit. UsageError for a query without a cluster."""
    if clusters is not None and (lost := sorted(values.keys() - clusters.keys())):
        raise UsageError(f"Query {lost[0]!r} has no cluster ({len(lost)} such); name one for every query.")
    units: dict[Hashable, list[float]] = {}
    for query, value in values.items():
        units.setdefault(query if clusters is None else clusters[query], []).append(value)
    return np.array([fsum(unit) for unit in units.values()]), np.array([len(unit) for unit in units.values()], float)


def _sign_flips(totals: Array, samples: int, seed: int) -> float:
    """How often the sum is as far from 0 when each unit has a sign of its own."""
    count = len(totals)
    far = abs(totals.sum()) - 1e-9 * np.abs(totals).sum()  # the same numbers added in another order are not farther
    if count <= ENUMERATED:
        flipped = np.arange(1 << count)[:, None] >> np.arange(count) & 1
        return float(np.mean(np.abs((1 - 2 * flipped) @ totals) >= far))
    rng = np.random.default_rng(seed)
    found, rows = 1, max(1, BLOCK // count)
    for start in range(0, samples, rows):
        flipped = rng.integers(2, size=(min(rows, samples - start), count), dtype=np.int8)
        found += int((np.abs((1 - 2 * flipped) @ totals) >= far).sum())
    return found / (samples + 1)


def _resample(
    values: Mapping[str, float], samples: int, seed: int, clusters: Mapping[str, Hashable] | None
) -> tuple[float, Array]:
    """The mean, and the means [samples] of as many samples of whole units drawn with replacement."""
    totals, sizes = _units(values, clusters)
    if len(totals) < 2:
        raise UsageError(f"An interval needs two or more independent units to draw from, not {len(totals)}.")
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    rows = max(1, BLOCK // len(totals))
    for start in range(0, samples, rows):
        drawn = rng.integers(len(totals), size=(min(rows, samples - start), len(totals)))
        means[start : start + rows] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return mean(values), means
