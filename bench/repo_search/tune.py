"""Set the constants of the ranking rules on the tuning half: one at a time, up and down, until none helps.

    python bench/repo_search/tune.py --repos REPOS --home HOME

Prints nDCG@10 of each trial (the mean of `place` and `file`, so that rules on files and on chunks both count), and the
constants in the end. Needs the indexes that run.py has made in HOME. What it finds is written into search/ by hand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1]))

from run import Asked, from_queries, scored
from systems import Ours, Place

import corpus
from embedcode import Index
from embedcode.evaluate.metrics import mean, ndcg_at
from embedcode.search import forms, fuse, rank

FACTORS = (0.5, 0.8, 1.25, 2.0)
LEAST_GAIN = 0.0005


class Trial:
    """The tuning half with its open indexes."""

    def __init__(self, asked: list[Asked]) -> None:
        self.asked = asked
        self.ours = {root: Ours(Index.open(root)) for root in dict.fromkeys(one.root for one in asked)}
        self.qrels = {one.id: {"target 0": 1} for one in asked}

    def places(self, words: bool = True, vectors: bool = True) -> dict[str, list[Place]]:
        run: dict[str, list[Place]] = {}
        for root, ours in self.ours.items():
            here = [one for one in self.asked if one.root == root]
            answers = ours.answers([one.query for one in here], words, vectors)
            run |= {one.id: places for one, places in zip(here, answers.places, strict=True)}
        return run

    def value(self) -> float:
        """The mean over repositories is that over queries: each has as many."""
        run = self.places()
        return fmean(mean(ndcg_at(10, scored(self.asked, run, whole), self.qrels)) for whole in (False, True))


def constants() -> list[tuple[object, str]]:
    return [(m, n) for m in (rank, fuse, forms) for n in vars(m) if n.isupper() and isinstance(getattr(m, n), float)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=2)
    args = parser.parse_args()
    corpus.own_settings(args.home.resolve(), args.home)
    trial = Trial(from_queries(args.repos.resolve(), "tuning"))
    best = trial.value()
    print(f"start {best:.4f}", flush=True)
    for _ in range(args.passes):
        before = best
        for module, name in constants():
            kept = getattr(module, name)
            for factor in FACTORS:
                setattr(module, name, kept * factor if kept * factor <= 1 or kept > 1 else 1.0)
                value = trial.value()
                if value > best + LEAST_GAIN:
                    best, kept = value, getattr(module, name)
                    print(f"{name} = {kept:.3g}: {best:.4f}", flush=True)
            setattr(module, name, kept)
        if best == before:
            break
    print({name: round(getattr(module, name), 3) for module, name in constants()})


if __name__ == "__main__":
    main()
