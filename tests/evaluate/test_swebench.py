"""SWE-bench's protocols: systems by name, conditions that say all, partial results, and the command on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode import Encoder, Role, load
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.evaluate import clones, metrics, result, swebench
from embedcode.evaluate.choices import Files, Protocol
from embedcode.model.spec import DEFAULT
from embedcode.types import Tokens


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load(threads=1)


def setup(name: str, protocol: str, home: Path, encoder: Any = None, **options: Any) -> swebench.Setup:
    return swebench.system(name, Protocol(protocol), lambda model: encoder, home, **options)


def measured(made: Any, chosen: swebench.Setup) -> Any:
    folder = made.git.root.parent
    return swebench.measure(
        made.instances, chosen, lambda repo, some: clones.local(repo, folder, some), 1, "again", {"issue": "raw"}
    )


def rows(made: Any, path: Path) -> Path:
    lines = []
    for one in made.instances:
        patch = "".join(f"--- a/{gold}\n+++ b/{gold}\n@@ -1 +1 @@\n-a\n+b\n" for gold in one.gold)
        row = {"instance_id": one.id, "repo": one.repo, "base_commit": one.commit, "problem_statement": one.issue}
        lines.append(json.dumps(row | {"patch": patch}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_conditions_say_what_a_figure_depends_on(made: Any, tmp_path: Path) -> None:
    chosen = setup("bm25:chunks,stem", "published", tmp_path, tests=False)
    done = measured(made, chosen)
    told = done.result.conditions
    assert told["chunking"] == "450 tokens, no overlap" and told["tokenizer"].startswith("packaged (sha256 ")
    assert (told["instances"], told["test files"], told["path prefix"], told["issue"]) == (6, "out", "none", "raw")
    assert (told["files"], told["stem"], told["stop words"]) == ("all", True, True)
    assert done.result.system == "bm25:chunks,stem" and not done.result.partial
    assert told["files left out"] == {"binary content": 6}
    qrels = {one.id: dict.fromkeys(one.gold, 1) for one in made.instances}
    for k in (1, 3, 5, 10):
        assert done.result.metrics[f"recall@{k}"] == metrics.mean(metrics.recall_at(k, done.run, qrels))
    assert done.result.intervals == {}  # one repository has no interval over repositories


def test_protocols_differ_in_files_and_chunks(made: Any, tmp_path: Path, encoder: Encoder) -> None:
    published, own = (setup("", name, tmp_path, encoder).conditions for name in ("published", "search"))
    assert (published["files"], own["files"]) == ("all", "indexed")
    assert "450 tokens" in published["chunking"] and "syntax" in own["chunking"]
    assert published["model"] == own["model"] == "packaged" and "tokenizer" not in own
    hybrid = setup("hybrid", "search", tmp_path, encoder)
    assert hybrid.name == "hybrid" and "words and vectors" in hybrid.conditions["ranking"]


def test_a_model_is_named_by_what_is_loaded(tmp_path: Path, encoder: Encoder) -> None:
    loaded: list[str] = []
    for name, label, place in (
        ("", "owner/other", "owner/other"),
        ("packaged", "packaged", str(DEFAULT)),
        ("hybrid", "hybrid:owner/other", "owner/other"),
    ):
        chosen = swebench.system(
            name,
            Protocol.SEARCH,
            lambda model: loaded.append(model) or encoder,  # type: ignore[func-returns-value]
            tmp_path,
            configured="owner/other",
        )
        assert (chosen.name, loaded[-1]) == (label, place)
        assert (chosen.conditions["model"], chosen.conditions["space"]) == (
            label.removeprefix("hybrid:"),
            encoder.space,
        )


def test_an_answer_that_was_left_out_is_named(made: Any, tmp_path: Path) -> None:
    some = [replace(one, gold=("shop/tables_pb2.py",)) if at == 0 else one for at, one in enumerate(made.instances)]
    folder = made.git.root.parent
    for files, outside in ((Files.ALL, []), (Files.INDEXED, [some[0].id])):
        chosen = setup("lexical", "published", tmp_path, files=files)
        done = swebench.measure(some, chosen, lambda repo, of: clones.local(repo, folder, of), 1, "again", {})
        assert done.result.conditions["answers outside the files"] == outside, files


@pytest.mark.parametrize("name", ["bm25", "bm25:chunks", "lexical"])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_only_indexed_files_are_judged_as_an_index_does(tmp_path: Path, name: str, protocol: str) -> None:
    for files in Files:
        assert setup(name, protocol, tmp_path, files=files).cutting.judged is (files is Files.INDEXED)


def test_a_second_run_says_what_it_found_made(made: Any, tmp_path: Path, encoder: Encoder) -> None:
    first, second = (measured(made, setup("", "search", tmp_path, encoder)).result for _ in range(2))
    assert first.made["kept"] == {"chunks": 0, "issues": 0}
    assert second.made["kept"] == {"chunks": second.conditions["distinct units"], "issues": 6}
    assert first.conditions["cut texts"] == second.conditions["cut texts"] == {"chunks": 0, "issues": 0}
    assert first.clusters == dict.fromkeys(first.values["recall@1"], "acme/shop")


def test_a_chunk_that_repositories_share_is_not_of_an_earlier_run(made: Any, tmp_path: Path, encoder: Encoder) -> None:
    fork = tmp_path / "clones" / "acme__fork"
    subprocess.run(["git", "clone", "-q", "--bare", str(made.git.root), str(fork)], check=True)
    both = [*made.instances, *(replace(one, id=f"{one.id}-f", repo="acme/fork") for one in made.instances)]
    done = measured(replace(made, instances=both), setup("", "search", tmp_path / "home", encoder))
    assert done.result.made["kept"]["chunks"] == 0


def test_names_that_are_no_systems(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="bm25 does not know: it knows chunks, paths, stem, stop"):
        setup("bm25:stems", "search", tmp_path)
    with pytest.raises(UsageError, match="lexical does not know: it knows none"):
        setup("lexical:plain", "search", tmp_path)
    with pytest.raises(UsageError, match="bm25 takes no instruction"):
        setup("bm25", "search", tmp_path, instruction="find")
    with pytest.raises(UsageError, match="is no file: give a tokenizer"):
        setup("lexical", "published", tmp_path, tokenizer=tmp_path)

    class Server:
        dim, max_tokens, build, space = 4, 10, "remote", "s"

        def tokenize(self, texts: list[str], role: Role, instruction: str | None) -> list[Tokens]:
            return []

    with pytest.raises(UsageError, match="does not show its tokenizer"):
        setup("http://127.0.0.1:1", "published", tmp_path, Server())
    assert setup("http://127.0.0.1:1", "search", tmp_path, Server()).name == "http://127.0.0.1:1"


def test_an_instruction_that_is_not_taken_is_told_before_anything_is_read(tmp_path: Path, encoder: Encoder) -> None:
    for name in ("packaged", "hybrid"):
        with pytest.raises(ModelError, match="knows no instruction for a query: leave the instruction out"):
            setup(name, "search", tmp_path, encoder, instruction="find")


def test_no_chunk_is_embedded_where_no_issue_has_a_vector(made: Any, tmp_path: Path, encoder: Encoder) -> None:
    dead = Failing(encoder, made.instances[0].issue[:4], ModelError("the server takes no issue"))
    with pytest.raises(UsageError, match=r"answers no instance: .*the server takes no issue"):
        measured(made, setup("", "search", tmp_path, dead))
    assert [(folder / "keys").stat().st_size for folder in (tmp_path / "evaluate").iterdir()] == [0], "of issues"


class Failing:
    """An encoder that fails at texts that hold `word`."""

    def __init__(self, encoder: Encoder, word: str, error: Exception) -> None:
        self._encoder, self._word, self._error = encoder, word, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Any, *arguments: Any) -> Any:
        if any(self._word in text for text in texts):
            raise self._error
        return self._encoder.encode(texts, *arguments)


def test_a_failure_is_named_and_the_rest_kept(made: Any, tmp_path: Path, encoder: Encoder) -> None:
    marked = [*made.instances[:5], replace(made.instances[5], issue="zzyzx " + made.instances[5].issue)]
    broken = replace(made, instances=marked)
    chosen = setup("", "search", tmp_path, Failing(encoder, "zzyzx", EncodeError("too odd", 5)))
    done = measured(broken, chosen)
    assert done.failed.keys() == {"acme__shop-5"} and "too odd" in done.failed["acme__shop-5"]
    assert done.result.partial and done.result.queries == 5
    dead = setup("", "search", tmp_path / "other", Failing(encoder, "def ", ModelError("the server is gone")))
    with pytest.raises(UsageError, match=r"answers no instance: .*the server is gone"):
        measured(made, dead)


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDCODE_")}
    environment = kept | {"EMBEDCODE_HOME": str(tmp_path / "home"), "EMBEDCODE_THREADS": "1"}
    full = [sys.executable, "-m", "embedcode", "eval", "swebench-lite", *arguments]
    return subprocess.run(full, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_command_writes_a_result_that_can_be_computed_again(made: Any, tmp_path: Path) -> None:
    file = rows(made, tmp_path / "rows.jsonl")
    given = ("--instances", str(file), "--repos", str(made.git.root.parent), "--protocol", "search")
    done = command(tmp_path, "--system", "lexical", *given)
    assert done.returncode == 0, done.stderr
    assert "6 instances; issue: raw; chunking: embedcode's own, by syntax; path prefix: full path" in done.stderr
    kept = result.read(tmp_path / "results" / "swebench-lite-search--lexical.json")
    run: dict[str, dict[str, float]] = {}
    for line in (tmp_path / "results" / "swebench-lite-search--lexical.run").read_text().splitlines():
        query, _, document, _, score, _ = line.split(" ")
        run.setdefault(query, {})[document] = float(score)
    qrels = {one.id: dict.fromkeys(one.gold, 1) for one in made.instances}
    assert kept.metrics["recall@1"] == pytest.approx(metrics.mean(metrics.recall_at(1, run, qrels)))
    assert "embedcode eval swebench-lite --system lexical" in kept.command
    summaries = tmp_path / "summaries.jsonl"
    lines = [{"instance_id": one.id, "summary": "session", "model": "x"} for one in made.instances]
    summaries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    nobody = ("--summaries", str(summaries), "--summarise", "http://127.0.0.1:1#y")  # nothing is missing: not asked
    again = command(tmp_path, "--system", "bm25", *given, *nobody, "--json")
    assert json.loads(again.stdout)["conditions"]["issue"] == f"summarised, {swebench.by_content(summaries)}, by x"
    other = command(tmp_path, "--system", "bm25", *given)
    assert other.returncode == 2 and "bm25.json holds a result that differs in issue: give another" in other.stderr


def test_the_command_says_what_is_wrong(made: Any, tmp_path: Path) -> None:
    file = rows(made, tmp_path / "rows.jsonl")
    for given, says in (
        (("--instances", str(tmp_path / "none.jsonl")), "does not exist"),
        (("--instances", str(file), "--repos", str(tmp_path / "none")), "is no folder"),
        (("--instances", str(file), "--summarise", "http://127.0.0.1:1"), "needs a file to write into"),
        (("--instances", str(file), "--repos", str(tmp_path)), "has no clone of acme/shop, which acme__shop-0 needs"),
    ):
        done = command(tmp_path, "--system", "bm25", *given)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
