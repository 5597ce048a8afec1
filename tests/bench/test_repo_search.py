"""The frozen benchmark of search in repositories keeps what its page promises, whatever else changes."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from embedcode.data import never

FOLDER = Path(__file__).parents[2] / "bench" / "repo_search"
REPOSITORIES: dict[str, Any] = tomllib.loads((FOLDER / "repositories.toml").read_text("utf-8"))
COMMITS: dict[str, Any] = json.loads((FOLDER / "commits.json").read_text("utf-8"))
KINDS = {"behaviour", "decision", "symbol"}


def rows(folder: str) -> list[dict[str, Any]]:
    files = sorted((FOLDER / folder).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_size_and_split() -> None:
    queries = rows("queries")
    assert len(REPOSITORIES) >= 16
    assert len({entry["language"] for entry in REPOSITORIES.values()}) >= 8
    assert len(queries) >= 600
    assert {row["repo"] for row in queries} == REPOSITORIES.keys()
    halves = Counter(REPOSITORIES[row["repo"]]["half"] for row in queries)
    assert halves.keys() == {"tuning", "reported"}
    assert halves["tuning"] * 3 == len(queries)
    assert halves["reported"] >= 400


def test_every_query_is_one_of_a_kind() -> None:
    queries = rows("queries")
    assert len({row["id"] for row in queries}) == len({row["query"] for row in queries}) == len(queries)
    for row in queries:
        assert row["kind"] in KINDS
        assert 1 <= row["start_line"] <= row["end_line"] < row["start_line"] + 80
    each = Counter((row["repo"], row["kind"]) for row in queries)
    assert set(each.values()) == {12}


def test_a_fifth_is_labelled_twice() -> None:
    queries, second = {row["id"]: row for row in rows("queries")}, rows("second")
    assert len(second) >= len(queries) / 5
    assert {row["id"] for row in second} <= queries.keys()


def test_issues_to_files() -> None:
    issues = [issue for entry in COMMITS.values() for issue in entry["issues"]]
    assert len(COMMITS) >= 12
    assert len(issues) >= 600
    assert len({issue["id"] for issue in issues}) == len(issues)
    assert all(1 <= len(issue["paths"]) <= 3 for issue in issues)


def test_nothing_of_it_may_be_trained_on() -> None:
    listed = never.load()
    for name in [*REPOSITORIES, *COMMITS]:
        found = listed.find(
            {"coroutines": "kotlinx-coroutines", "elixir": "elixir-lang", "echo": "labstack/echo"}.get(name, name)
        )
        assert found is not None, name
        assert found.group in ("own-benchmark", "own-issues")
