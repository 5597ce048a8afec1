"""Metrics equal trec_eval's, and intervals mean what they say."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG

from embedcode.errors import UsageError
from embedcode.evaluate.metrics import bootstrap, mean, mrr_at, ndcg_at, paired_bootstrap, recall_at

DOCUMENTS = [*(f"d{i}" for i in range(12)), "D1", "é", "ü", "文", "a/b.py", "a/b.pyi"]
SCORES = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0 + 1e-12, -1.0, 0.5, 1e300, -1e300, 3e-46]),
    st.floats(-10, 10, allow_nan=False),
)
RUNS = st.dictionaries(
    st.sampled_from([f"q{i}" for i in range(5)]),
    st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1, max_size=18),
    min_size=1,
)
QRELS = st.dictionaries(
    st.sampled_from([f"q{i}" for i in range(5)]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-2, 4), min_size=1, max_size=12),
    min_size=1,
)


def trec_eval(measure, run, qrels):
    """trec_eval's values, through ir_measures, of the queries that have a relevant document.

    trec_eval counts gains above 0 only, but its Python binding writes out of bounds on negative judgements: it gets 0.
    """
    floored = {query: {document: max(gain, 0) for document, gain in judged.items()} for query, judged in qrels.items()}
    calculated = {m.query_id: m.value for m in ir_measures.pytrec_eval.iter_calc([measure], floored, run)}
    return {
        query: calculated.get(query, 0.0)
        for query, judged in qrels.items()
        if any(gain > 0 for gain in judged.values())
    }


@settings(max_examples=150, deadline=None)
@given(RUNS, QRELS, st.sampled_from([1, 2, 3, 5, 10, 100]))
def test_ndcg_and_recall_equal_trec_eval(run, qrels, k):
    assert ndcg_at(k, run, qrels) == pytest.approx(trec_eval(nDCG @ k, run, qrels), abs=1e-9)
    assert recall_at(k, run, qrels) == pytest.approx(trec_eval(R @ k, run, qrels), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(RUNS, QRELS, st.sampled_from([1, 2, 3, 5, 10, 100]))
def test_mrr_equals_trec_eval_of_the_cut_run(run, qrels, k):
    uncut = trec_eval(RR, run, qrels)
    assert mrr_at(1000, run, qrels) == pytest.approx(uncut, abs=1e-9)
    cut = {query: value if value * k >= 1 - 1e-9 else 0.0 for query, value in uncut.items()}
    assert mrr_at(k, run, qrels) == pytest.approx(cut, abs=1e-9)


def test_equal_scores_rank_the_higher_document_id_first():
    run = {"q": {"d10": 1.0, "d9": 1.0, "d2": 1.0 + 1e-12}}
    assert mrr_at(10, run, {"q": {"d9": 1}}) == {"q": 1.0}
    assert mrr_at(10, run, {"q": {"d2": 1}}) == {"q": 0.5}, "single precision: 1 + 1e-12 is a tie"
    assert mrr_at(10, run, {"q": {"d10": 1}}) == {"q": pytest.approx(1 / 3)}


def test_a_worked_example_with_grades():
    run = {"q": {"a": 4.0, "b": 3.0, "c": 2.0, "unjudged": 5.0}}
    qrels = {"q": {"a": 1, "b": -1, "c": 3, "missed": 2}}
    gained = 1 / math.log2(3) + 3 / math.log2(5)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at(10, run, qrels) == {"q": pytest.approx(gained / ideal)}
    assert recall_at(10, run, qrels) == {"q": pytest.approx(2 / 3)}
    assert recall_at(2, run, qrels) == {"q": pytest.approx(1 / 3)}


def test_queries_without_results_count_zero_and_those_without_relevant_documents_do_not_count():
    run = {"answered": {"d": 1.0}, "empty": {}, "unjudged": {"d": 1.0}, "hopeless": {"d": 1.0}}
    qrels = {"answered": {"d": 1}, "empty": {"d": 1}, "absent": {"d": 1}, "hopeless": {"d": 0, "e": -1}, "none": {}}
    expected = {"answered": 1.0, "empty": 0.0, "absent": 0.0}
    for metric in (ndcg_at, recall_at, mrr_at):
        assert metric(10, run, qrels) == expected
    assert mean(expected) == pytest.approx(1 / 3)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(UsageError, match="cut-off of 0"):
        ndcg_at(0, {}, {"q": {"d": 1}})
    with pytest.raises(UsageError, match="'q' as NaN"):
        recall_at(3, {"q": {"d": math.nan}}, {"q": {"d": 1}})
    with pytest.raises(UsageError, match="No query"):
        mean(ndcg_at(3, {}, {"q": {"d": 0}}))


def test_bootstrap_interval_has_the_width_of_the_standard_error():
    values = {str(i): float(v) for i, v in enumerate(np.random.default_rng(1).normal(0.6, 0.2, 400))}
    sample = np.array(list(values.values()))
    interval = bootstrap(values)
    error = sample.std() / math.sqrt(len(sample))
    assert interval.mean == pytest.approx(sample.mean())
    assert interval.low == pytest.approx(sample.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(sample.mean() + 1.96 * error, abs=0.1 * error)
    assert interval.p is None
    assert bootstrap(values) == interval, "the same seed gives the same interval"


def test_pairing_sees_a_small_steady_gain_that_unpaired_intervals_hide():
    rng = np.random.default_rng(2)
    before = {str(i): float(v) for i, v in enumerate(rng.uniform(0, 1, 200))}
    after = {query: value + float(rng.normal(0.02, 0.03)) for query, value in before.items()}
    assert bootstrap(before).high > bootstrap(after).low
    gain = paired_bootstrap(after, before)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.p is not None and gain.p < 0.001
    loss = paired_bootstrap(before, after)
    assert (loss.mean, loss.p) == (pytest.approx(-gain.mean), pytest.approx(gain.p, abs=1e-3))


def test_p_is_one_for_equal_runs_and_roughly_uniform_without_a_difference():
    same = {str(i): i / 10 for i in range(10)}
    assert paired_bootstrap(same, same).p == 1.0
    rng = np.random.default_rng(3)
    zeros = {str(i): 0.0 for i in range(60)}
    small = sum(
        (paired_bootstrap({q: float(rng.normal()) for q in zeros}, zeros, samples=400).p or 0) < 0.05
        for _ in range(300)
    )
    assert 4 <= small <= 30, "5 % of 300, give or take"


def test_clusters_are_drawn_whole():
    # Ten repositories whose queries all behave alike: 1,000 queries hold no more evidence than 10.
    per_cluster = np.random.default_rng(4).normal(0.5, 0.2, 10)
    values = {f"{c}-{i}": float(per_cluster[c]) for c in range(10) for i in range(100)}
    clusters = {query: query.split("-")[0] for query in values}
    one_each = bootstrap({str(c): float(v) for c, v in enumerate(per_cluster)})
    whole = bootstrap(values, clusters=clusters)
    single = bootstrap(values)
    assert whole.high - whole.low == pytest.approx(one_each.high - one_each.low, rel=0.1)
    assert whole.high - whole.low > 5 * (single.high - single.low)


def test_clusters_weigh_by_their_queries():
    values = {"a1": 1.0, "a2": 1.0, "a3": 1.0, "b1": 0.0}
    interval = bootstrap(values, clusters={"a1": "a", "a2": "a", "a3": "a", "b1": "b"})
    assert (interval.mean, interval.low, interval.high) == (0.75, 0.0, 1.0)


def test_p_is_that_of_the_signs_of_whole_units():
    def p(*gains, each=4):
        values = {f"{unit}-{at}": gain for unit, gain in enumerate(gains) for at in range(each)}
        clusters = {query: query.partition("-")[0] for query in values}
        return paired_bootstrap(values, dict.fromkeys(values, 0.0), clusters=clusters).p

    assert p(0.2, 0.3) == 0.5, "two repositories, whatever the number of their queries"
    assert p(0.3, 0.3, 0.3, 0.3, 0.3) == 2 / 32
    assert p(0.3, 0.2, 0.1, -0.05) == 4 / 16, "as far are these signs and all four of one, either way round"
    many = {str(i): 0.1 for i in range(20)}
    assert paired_bootstrap(many, dict.fromkeys(many, 0.0)).p == pytest.approx(1 / 10_001)
    rng = np.random.default_rng(5)
    gains = {str(i): float(rng.normal(0.2, 0.5)) for i in range(15)}
    zeros = dict.fromkeys(gains, 0.0)
    exact = paired_bootstrap(gains, zeros).p
    more = paired_bootstrap(gains | {"even": 0.0}, zeros | {"even": 0.0}).p
    assert more == pytest.approx(exact, abs=0.02), "drawn, where there are too many to try"


def test_bootstrap_refuses_what_it_cannot_judge():
    with pytest.raises(UsageError, match="Only one of the two results has query 'b'"):
        paired_bootstrap({"a": 1.0}, {"a": 1.0, "b": 0.0})
    with pytest.raises(UsageError, match="two or more independent units"):
        bootstrap({"a": 1.0, "b": 0.0}, clusters={"a": 1, "b": 1})
    with pytest.raises(UsageError, match="'b' has no cluster"):
        bootstrap({"a": 1.0, "b": 0.0}, clusters={"a": 1})
