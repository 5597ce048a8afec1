"""Instances in SWE-bench's form out of histories at hand: a commit's message asks for the one or two files it edited.

    python bench/evaluate/made_instances.py --clones CLONES --out made.jsonl pallets/click encode/httpx ...

Of each repository the same number of usable commits is taken, in equal steps over its history, so that the commits
share as little as they can: this is for measuring speed and memory. No repository of SWE-bench is taken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from embedcode.data import never
from embedcode.evaluate import clones
from embedcode.index import git
from embedcode.index.languages import language_of
from embedcode.search.rank import is_test
from embedcode.store.terms import query_terms

MOST_FILES = 2
LEAST_TERMS = 5
MOST_CHARACTERS = 4_000


def usable(folder: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """(commit, parent, message, edited source files), newest first."""
    options = ("--no-merges", "--no-renames", "--name-status", "--format=%x00%H%x01%P%x01%B%x01")
    log = git.run(folder, "log", *options, "HEAD").stdout.decode("utf-8", "replace")
    for entry in log.split("\0")[1:]:
        commit, parents, message, listed = entry.split("\1", 3)
        changes = [line.split("\t") for line in listed.split("\n") if line]
        sources = [change for change in changes if is_source(change[-1])]
        if len(parents.split()) != 1 or not 1 <= len(sources) <= MOST_FILES:
            continue
        if all(kind == "M" for kind, *_ in sources) and len(query_terms(message)) >= LEAST_TERMS:
            yield commit, parents, message.strip()[:MOST_CHARACTERS], [path for _, path in sources]


def is_source(path: str) -> bool:
    language = language_of(path)
    return language is not None and language.grammar is not None and not is_test(path) and path.isascii()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clones", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("repositories", nargs="+", metavar="OWNER/NAME")
    args = parser.parse_args()
    kept = never.load()
    rows = []
    for number, repo in enumerate(args.repositories):
        entry = kept.find(repo)
        if entry is not None and entry.group.startswith("swebench"):
            raise SystemExit(f"{repo} is of SWE-bench: take another")
        folder = clones.find(repo, args.clones)
        if folder is None:
            raise SystemExit(f"{args.clones} has no clone of {repo}")
        found = list(usable(folder))
        wanted = args.count * (number + 1) // len(args.repositories) - args.count * number // len(args.repositories)
        if len(found) < wanted:
            raise SystemExit(f"{repo} has {len(found)} usable commits, and {wanted} are wanted: name more repositories")
        for place in range(wanted):
            commit, parent, message, paths = found[place * len(found) // wanted]
            diff = git.run(folder, "diff", "--no-renames", "--no-ext-diff", parent, commit, "--", *paths).stdout
            rows.append(
                {
                    "instance_id": f"{repo.replace('/', '__')}-{commit[:10]}",
                    "repo": repo,
                    "base_commit": parent,
                    "problem_statement": message,
                    "patch": diff.decode("utf-8", "replace"),
                }
            )
    args.out.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    print(f"{len(rows)} instances of {len(args.repositories)} repositories")


if __name__ == "__main__":
    main()
