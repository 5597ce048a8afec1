"""Search in repositories: every system on the same queries, with intervals, and what each ranking rule is worth.

    python bench/repo_search/prepare.py --archives ARCHIVES --repos REPOS
    python bench/repo_search/run.py queries --half tuning --repos REPOS --semble E/bin/python --out results.json
    python bench/repo_search/commits.py prepare --clones CLONES --trees TREES
    python bench/repo_search/run.py commits --clones CLONES --trees TREES --semble E/bin/python --out results.json
    python bench/repo_search/run.py issues --instances FILE --clones CLONES --trees TREES --out results.json

E is made from bench/env/semble.txt; FILE is ../shared/data/dev/swebench-lite-dev/instances.jsonl. A hit answers a query
when it shares a line with the label (`place`), or is in its file (`file`). nDCG@10 counts the first such hit, so that a
system is not rewarded for returning it twice; for commits and issues, files are ranked by their best hit. Indexes lie
in --home and are used again. `--ablation` measures ours alone, once without each rule.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import commits
import swebench
from prepare import repositories
from systems import TOP, Answers, Ours, Place, bm25_chunks, bm25_files, ripgrep, semble

import corpus
import record
from embedcode import Index
from embedcode.evaluate.metrics import Interval, bootstrap, mean, mrr_at, ndcg_at, paired_bootstrap, recall_at
from embedcode.search.rank import ALL
from embedcode.settings import MAX_FILE_BYTES

QUERIES = Path(__file__).with_name("queries")
NONE: frozenset[str] = frozenset()
OURS = {
    "words": (True, False, NONE),
    "words ranked": (True, False, ALL),
    "vectors": (False, True, NONE),
    "words and vectors": (True, True, NONE),
    "words and vectors ranked": (True, True, ALL),
}
BEST = "words and vectors ranked"
SEMBLE = "semble (no model)"
FILES = "BM25, files"
"""Has no places within a file."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, where it is asked, what answers it, and what it is counted under."""

    id: str
    repo: str
    root: Path
    query: str
    targets: tuple[Place, ...]
    groups: tuple[str, ...]


Runs = dict[str, dict[str, list[Place]]]
"""System to query id to ranked places."""


def from_queries(repos: Path, half: str) -> list[Asked]:
    found = []
    for repository in repositories():
        if half not in (repository.half, "all"):
            continue
        for line in (QUERIES / f"{repository.name}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            target = Place(row["path"], row["start_line"], row["end_line"])
            groups = (f"kind {row['kind']}", f"language {repository.language}")
            found.append(Asked(row["id"], row["repo"], repos / row["repo"], row["query"], (target,), groups))
    return found


def from_commits(clones: Path, trees: Path) -> list[Asked]:
    return [
        _asked(issue, trees / issue.repo.replace("/", "+"), f"language {commits.LANGUAGES[issue.repo]}")
        for issue in commits.issues(clones)
    ]


def from_issues(instances: Path, clones: Path, trees: Path) -> tuple[list[Asked], list[str]]:
    found, left_out = swebench.issues(instances, clones, trees)
    return [_asked(issue, trees / issue.id) for issue in found], left_out


def _asked(issue: commits.Issue, root: Path, *groups: str) -> Asked:
    targets = tuple(Place(path, 1, 1 << 30) for path in issue.paths)
    return Asked(issue.id, issue.repo, root, issue.query, targets, (f"repository {issue.repo}", *groups))


def answered(asked: Sequence[Asked], args: argparse.Namespace) -> tuple[Runs, dict[str, list[float]]]:
    """Every system's places, and its milliseconds a query in each repository."""
    runs: Runs = {}
    times: dict[str, list[float]] = {}
    for root in dict.fromkeys(one.root for one in asked):
        here = [one for one in asked if one.root == root]
        queries = [one.query for one in here]

        def note(name: str, answers: Answers, here: list[Asked] = here) -> None:
            runs.setdefault(name, {}).update({one.id: places for one, places in zip(here, answers.places, strict=True)})
            times.setdefault(name, []).append(answers.milliseconds)

        with Index.open(root) as index:
            index.update()
            ours = Ours(index)
            ours.answers(queries[:5], True, True)  # warm
            if args.ablation:
                note(BEST, ours.answers(queries, True, True))
                for rule in sorted(ALL):
                    note(f"without {rule}", ours.answers(queries, True, True, ALL - {rule}))
                    note(f"only {rule}", ours.answers(queries, True, True, frozenset({rule})))
            else:
                note("ripgrep", ripgrep(root, queries))
                note(FILES, bm25_files(ours.chunks(), queries))
                note("BM25, chunks", bm25_chunks(ours.chunks(), queries))
                if args.semble:
                    note(SEMBLE, semble(args.semble, root, queries))
            for name, (words, vectors, rules) in OURS.items():
                if not args.ablation or name != BEST:
                    note(name, ours.answers(queries, words, vectors, rules))
        print(f"{root.name}: {len(here)} queries", file=sys.stderr, flush=True)
    return runs, times


def scored(asked: Sequence[Asked], run: Mapping[str, Sequence[Place]], whole: bool) -> dict[str, dict[str, float]]:
    """A run as metrics read it: an answer is the document of its target, everything else a document of its own."""
    scores: dict[str, dict[str, float]] = {}
    for one in asked:
        documents: dict[str, float] = {}
        for place in run[one.id]:
            met = next((f"target {n}" for n, t in enumerate(one.targets) if _meets(place, t, whole)), None)
            name = met or (place.path if whole else str(place))
            if name not in documents:
                documents[name] = float(TOP - len(documents))
        scores[one.id] = documents
    return scores


def _meets(place: Place, target: Place, whole: bool) -> bool:
    lines = whole or (place.start_line <= target.end_line and target.start_line <= place.end_line)
    return place.path == target.path and lines


def table(asked: Sequence[Asked], runs: Runs, times: Mapping[str, Sequence[float]], whole: bool) -> dict[str, Any]:
    """Per system: nDCG@10, recalls, MRR, milliseconds, lines of a hit, and groups, whose intervals are over queries."""
    qrels = {one.id: {f"target {n}": 1 for n in range(len(one.targets))} for one in asked}
    clusters = {one.id: one.repo for one in asked}
    groups: dict[str, list[str]] = {}
    for one in asked:
        for group in one.groups:
            groups.setdefault(group, []).append(one.id)
    rows: dict[str, Any] = {}
    values: dict[str, dict[str, float]] = {}
    firsts: dict[str, dict[str, float]] = {}
    shown = {name: run for name, run in runs.items() if whole or name != FILES}
    for name, run in shown.items():
        scores = scored(asked, run, whole)
        values[name] = ndcg = ndcg_at(10, scores, qrels)
        firsts[name] = recall_at(1, scores, qrels)
        interval = bootstrap(ndcg, clusters=clusters)
        lines = [p.end_line - p.start_line + 1 for places in run.values() for p in places[:10] if p.end_line < 1 << 29]
        rows[name] = {
            "ndcg@10": _round(interval.mean), "interval": _interval(interval),
            **{f"recall@{k}": _round(mean(recall_at(k, scores, qrels))) for k in (1, 5, 10)},
            "mrr@10": _round(mean(mrr_at(10, scores, qrels))),
            "ms": record.short(sum(times[name]) / len(times[name])),
            "lines_a_hit": record.short(sum(lines) / len(lines)) if lines else None,
            "groups": {group: _round(fmean(ndcg[id] for id in ids)) for group, ids in sorted(groups.items())},
        }  # fmt: skip
    for name in shown:
        if name != BEST:
            by_query = paired_bootstrap(values[BEST], values[name])
            by_repository = paired_bootstrap(values[BEST], values[name], clusters=clusters)
            rows[name]["best_minus_this"] = {
                "mean": _round(by_query.mean), "interval": _interval(by_query),
                "recall@1": _interval(paired_bootstrap(firsts[BEST], firsts[name])),
                "interval_clustered": _interval(by_repository),
                "groups": {
                    group: _interval(paired_bootstrap(_of(ids, values[BEST]), _of(ids, values[name])))
                    for group, ids in sorted(groups.items()) if len(ids) > 1
                },
            }  # fmt: skip
    return rows


def _of(ids: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    return {id: values[id] for id in ids}


def _interval(interval: Interval) -> list[float]:
    return [_round(interval.low), _round(interval.high)]


def _round(value: float) -> float:
    return round(value, 4)


def show(rows: Mapping[str, Any]) -> None:
    print(f"{'':<28}{'nDCG@10':>8}  {'95 %':<15}{'R@1':>6}{'R@10':>6}{'ms':>8}  best - this, clustered")
    for name, row in rows.items():
        low, high = row["interval"]
        less = row.get("best_minus_this")
        than = (
            f"{less['mean']:+.3f} [{less['interval_clustered'][0]:+.3f}, {less['interval_clustered'][1]:+.3f}]"
            if less
            else ""
        )
        print(
            f"{name:<28}{row['ndcg@10']:>8.3f}  {f'{low:.3f} {high:.3f}':<15}"
            f"{row['recall@1']:>6.3f}{row['recall@10']:>6.3f}{row['ms']:>8}  {than}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="set", required=True)
    for verb in ("queries", "commits", "issues"):
        added = verbs.add_parser(verb)
        added.add_argument("--home", type=Path, required=True, help="where indexes are kept between runs")
        added.add_argument("--semble", type=Path, help="Python of semble's environment; its row is left out without")
        added.add_argument("--ablation", action="store_true")
        added.add_argument("--runs", type=Path, help="write every system's places here")
        added.add_argument("--out", type=Path, required=True)
        if verb == "queries":
            added.add_argument("--repos", type=Path, required=True)
            added.add_argument("--half", choices=("tuning", "reported", "all"), default="tuning")
        else:
            added.add_argument("--clones", type=Path, required=True)
            added.add_argument("--trees", type=Path, required=True)
        if verb == "issues":
            added.add_argument("--instances", type=Path, required=True)
    args = parser.parse_args()
    result: dict[str, Any] = record.context() | {"set": args.set, "max_file_bytes": MAX_FILE_BYTES}
    corpus.own_settings(args.home.resolve(), args.home)
    match args.set:
        case "queries":
            asked = from_queries(args.repos.resolve(), args.half)
            result["half"] = args.half
        case "commits":
            asked = from_commits(args.clones, args.trees.resolve())
        case "issues":
            asked, result["left_out"] = from_issues(args.instances, args.clones, args.trees.resolve())
    runs, times = answered(asked, args)
    result["queries"] = len(asked)
    kinds = {"place": False, "file": True} if args.set == "queries" else {"file": True}
    result["tables"] = {kind: table(asked, runs, times, whole) for kind, whole in kinds.items()}
    record.write(args.out, result)
    if args.runs:
        places = {name: {id: list(map(str, places)) for id, places in run.items()} for name, run in runs.items()}
        args.runs.write_text(json.dumps(places), "utf-8")
    for kind, rows in result["tables"].items():
        print(f"\n{args.set}: {kind}")
        show(rows)


if __name__ == "__main__":
    main()
