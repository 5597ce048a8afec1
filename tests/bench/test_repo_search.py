"""The frozen benchmark of search in repositories keeps what its page promises, whatever else changes."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from embedcode.data import never
from repositories import git

FOLDER = Path(__file__).parents[2] / "bench" / "repo_search"
REPOSITORIES: dict[str, Any] = tomllib.loads((FOLDER / "repositories.toml").read_text("utf-8"))
COMMITS: dict[str, Any] = json.loads((FOLDER / "commits.json").read_text("utf-8"))
KINDS = {"behaviour", "decision", "symbol"}
FROZEN = "e3bc8b636394252ca56a0a57b4bd1620806a1a607bd656f1c56c9470c782efe8"
"""sha256 over the names and bytes of what was frozen before there was a ranker."""


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


def test_what_is_frozen_stays_as_it_was() -> None:
    digest = hashlib.sha256()
    files = [*FOLDER.glob("queries/*.jsonl"), *FOLDER.glob("second/*.jsonl"), FOLDER / "commits.json"]
    for path in sorted(files):
        digest.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    assert digest.hexdigest() == FROZEN


PATCH = """\
diff --git a/src/rules/L031.py b/src/rules/L031.py
--- a/src/rules/L031.py
+++ b/src/rules/L031.py
@@ -1,2 +1,1 @@
--- a/comment.sql is a comment of SQL
 x = 1
diff --git a/docs/a page.md b/docs/a page.md
--- a/docs/a page.md\t
+++ b/docs/a page.md\t
@@ -1 +1 @@
-a
+b
diff --git a/src/new.py b/src/new.py
new file mode 100644
--- /dev/null
+++ b/src/new.py
@@ -0,0 +1 @@
+y = 1
diff --git a/src/old.py b/src/old.py
deleted file mode 100644
--- a/src/old.py
+++ /dev/null
@@ -1 +0,0 @@
-z = 1
"""


def test_an_issue_is_asked_on_its_own_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import swebench

    clone = tmp_path / "clones" / "org+name"
    (clone / "src").mkdir(parents=True)
    git(clone, "init", "--quiet")
    for text in ("before", "after"):
        (clone / "src/old.py").write_text(text)
        git(clone, "add", ".")
        git(clone, "commit", "--quiet", "-m", text)
    base = git(clone, "rev-parse", "HEAD^")
    row = {
        "instance_id": "a",
        "repo": "org/name",
        "base_commit": base,
        "problem_statement": "It\nfails",
        "patch": PATCH,
    }
    instances = tmp_path / "instances.jsonl"
    unknown = [row | {"instance_id": "b", "base_commit": "0" * 40}, row | {"instance_id": "c", "repo": "org/other"}]
    instances.write_text("".join(json.dumps(one) + "\n" for one in [row, *unknown]), "utf-8")

    (found,), left_out = swebench.issues(instances, tmp_path / "clones", tmp_path / "trees")
    assert (found.id, found.repo, found.query) == ("a", "org/name", "It\nfails")
    assert found.paths == ("src/rules/L031.py", "docs/a page.md", "src/old.py")
    assert (tmp_path / "trees/a/src/old.py").read_text() == "before"
    assert left_out == ["b", "c"]


def test_nothing_of_it_may_be_trained_on() -> None:
    listed = never.load()
    for name in [*REPOSITORIES, *COMMITS]:
        found = listed.find(
            {"coroutines": "kotlinx-coroutines", "elixir": "elixir-lang", "echo": "labstack/echo"}.get(name, name)
        )
        assert found is not None, name
        assert found.group in ("own-benchmark", "own-issues")
