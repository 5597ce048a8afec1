"""The smoke row, issue -> file: the issues of a SWE-bench split as they stand, each on the tree it was written about.

A row of its JSON lines has `instance_id`, `repo`, `base_commit`, `problem_statement` and `patch`; the files that the
patch changes are the answer. Clones lie as `commits.py` says.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from commits import Git, Issue, Missing

_CHANGED = re.compile(r"^--- a/(.+?)\t?\n\+\+\+ ", re.MULTILINE)
"""With the line below it: a removed SQL comment `-- a/b` reads like a file's line alone."""


def issue(row: dict[str, Any]) -> Issue:
    """Files that the patch makes are no answer: they are not in the tree."""
    paths = tuple(_CHANGED.findall(row["patch"]))
    return Issue(row["instance_id"], row["repo"], row["base_commit"], row["problem_statement"], paths)


def issues(instances: Path, clones: Path, trees: Path) -> tuple[list[Issue], list[str]]:
    """Issues whose tree now lies in `trees`, in a folder called by their id; ids of those that no clone holds."""
    trees.mkdir(parents=True, exist_ok=True)
    found, left_out = [], []
    for line in instances.read_text("utf-8").splitlines():
        one = issue(json.loads(line))
        try:
            Git(clones, one.repo).tree(one.commit, trees / one.id)
            found.append(one)
        except Missing as missing:
            print(f"{one.id} is left out: {missing}", file=sys.stderr)
            left_out.append(one.id)
    return found, left_out
