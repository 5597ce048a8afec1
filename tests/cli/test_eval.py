"""`eval`: figures with their conditions, files from which they can be computed again, and errors that name the row."""

from __future__ import annotations

import json
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from embedcode.engine import endpoint
from embedcode.evaluate.result import Result

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

DOCUMENTS = {
    "c0": "def parse_header(line):\n    return line.split(':')",
    "c1": "def close_socket(connection):\n    connection.close()",
    "c2": "class UserSession:\n    def refresh(self, token): ...",
    "c3": "def add(a, b):\n    return a + b",
    "c4": "def read_lines(path):\n    return open(path).read().split()",
}
QUERIES = {
    "q0": "parse a header",
    "q1": "close the connection of a socket",
    "q2": "refresh a user's session",
    "q3": "sum of two numbers",
}
QRELS = {"q0": {"c0": 2, "c4": 1}, "q1": {"c1": 1}, "q2": {"c2": 1}, "q3": {"c3": 1, "c0": 0}}


def write(folder: Path, documents: Any = DOCUMENTS, queries: Any = QUERIES, qrels: Any = QRELS) -> Path:
    folder.mkdir()
    for name, texts in (("corpus", documents), ("queries", queries)):
        rows = [json.dumps({"_id": id, "text": text}) for id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    lines = [f"{query}\t{document}\t{gain}" for query, judged in qrels.items() for document, gain in judged.items()]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write(tmp_path / "toy")


def measured(call: Run, *arguments: str) -> dict[str, Any]:
    done = call("eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "system", ["bm25", "bm25:stem", "bm25:stem,stop", "lexical", "lexical:plain", "hybrid", "packaged"]
)
def test_every_figure_is_trec_evals_of_the_run_file(call: Run, task: Path, tmp_path: Path, system: str) -> None:
    found = measured(call, "beir", str(task), "--model", system, "--out", str(tmp_path / "out"))
    assert (found["system"], found["task"], found["queries"], found["documents"]) == (system, "toy", 4, 5)
    _, run = map(Path, found["files"])
    scored: list[Any] = list(ir_measures.read_trec_run(str(run)))
    qrels = [ir_measures.Qrel(query, document, gain) for query, row in QRELS.items() for document, gain in row.items()]
    measures = {"ndcg@10": nDCG @ 10, "recall@1": R @ 1, "recall@10": R @ 10, "mrr@10": RR}
    means = ir_measures.pytrec_eval.calc_aggregate(measures.values(), qrels, scored)
    for name, measure in measures.items():
        assert found[name] == pytest.approx(means[measure], abs=1e-6)
    assert found["ndcg@10"] > 0.6


def test_figures_are_shown_with_all_they_depend_on(call: Run, task: Path, tmp_path: Path) -> None:
    done = call("eval", "beir", str(task), "--system", "bm25:stop")
    assert done.returncode == 0
    shown = done.stdout.decode()
    for part in ("toy: bm25:stop, 4 queries, 5 documents", "ndcg@10", "stop words:      False", "peak", "time:"):
        assert part in shown
    assert f"again:           embedcode eval beir {task} --system bm25:stop\n" in shown
    record = json.loads((tmp_path / "results" / "toy--bm25-stop.json").read_text())
    assert record["made"]["date"] and record["made"]["machine"]["cores"]
    assert record["values"]["ndcg@10"].keys() == QUERIES.keys()
    assert record["seconds"].keys() == {"documents", "search"}


def test_a_result_of_other_conditions_is_not_replaced(call: Run, tmp_path: Path, task: Path) -> None:
    for _ in range(2):  # the same conditions are
        assert call("eval", "beir", str(task), "--model", "bm25").returncode == 0
    place = tmp_path / "results" / "toy--bm25.json"
    kept = json.loads(place.read_text())
    kept["conditions"]["k1"] = 9
    place.write_text(json.dumps(kept))
    done = call("eval", "beir", str(task), "--model", "bm25")
    assert done.returncode == 2
    assert b"toy--bm25.json holds a result that differs in k1: give another folder with --out" in done.stderr
    assert json.loads(place.read_text()) == kept


def test_a_second_run_embeds_nothing(call: Run, task: Path) -> None:
    first = measured(call, "beir", str(task))
    second = measured(call, "beir", str(task))
    assert first["made"]["kept"] == {"documents": 0, "queries": 0}
    assert second["made"]["kept"] == {"documents": 5, "queries": 4}
    assert first["ndcg@10"] == second["ndcg@10"]


def test_a_model_is_measured_as_its_vectors_are_kept(call: Run, task: Path, tmp_path: Path) -> None:
    found = measured(
        call, "beir", str(task), "--type", "binary", "--dimensions", "384", "--out", str(tmp_path / "bits")
    )
    assert found["conditions"]["comparison"] == "exact, bits of both sides"
    assert found["conditions"]["dimensions"] == 384
    done = call("eval", "beir", str(task), "--type", "int8", "--out", str(tmp_path / "bits"))
    assert done.returncode == 2 and b"differs in comparison" in done.stderr, "no figure of another packing is replaced"
    for wrong, said in (
        (("--dimensions", "128"), b"does not declare dimensions 128"),
        (("--type", "int4"), b"--type int4 is none of float, int8, binary"),
        (("--model", "bm25", "--type", "int8"), b"are of a model alone, and bm25 is none"),
        (("--model", "hybrid", "--dimensions", "384"), b"are of a model alone, and hybrid is none"),
    ):
        done = call("eval", "beir", str(task), *wrong)
        assert done.returncode == 2 and said in done.stderr


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("corpus.jsonl", None, r"corpus.jsonl does not exist"),
            ("qrels.tsv", "q0\tc9\t1\n", "line 1, judges 'c9', which corpus.jsonl does not have"),
            ("qrels.tsv", "q0\tc0\t0\n", "judges no document as relevant"),
        ],
    )
    def test_of_files(self, call: Run, task: Path, name: str, text: str | None, message: str) -> None:
        (task / name).unlink()
        if text is not None:
            (task / name).write_text(text)
        done = call("eval", "beir", str(task), "--model", "bm25")
        assert done.returncode == 2
        assert message in done.stderr.decode()
        assert not (task.parent / "results").exists()

    def test_of_a_name_that_is_too_long(self, call: Run) -> None:
        done = call("eval", "beir", "n" * 300, "--model", "bm25")
        assert (done.returncode, b"is no folder" in done.stderr) == (2, True)

    @pytest.mark.parametrize("name", ["bm25:stemmed", "lexical:raw", ""])
    def test_of_names(self, call: Run, task: Path, name: str) -> None:
        done = call("eval", "beir", str(task), "--model", name)
        assert done.returncode == 2
        assert done.stderr.startswith(b"embedcode: ")

    def test_an_empty_query_is_named_and_no_part_of_the_mean(self, call: Run, tmp_path: Path) -> None:
        folder = write(tmp_path / "toy", queries=QUERIES | {"q1": "  "})
        done = call("eval", "beir", str(folder), "--model", "bm25", "--json")
        assert done.returncode == 2
        assert b"query 'q1' of toy has no text; the figures are of the other 3 queries only" in done.stderr
        found = json.loads(done.stdout)
        assert (found["partial"], found["queries"], list(found["failed"])) == (True, 3, ["q1"])
        whole = measured(call, "beir", str(write(tmp_path / "whole")), "--model", "bm25")
        values = json.loads(Path(whole["files"][0]).read_text())["values"]["ndcg@10"]
        assert found["ndcg@10"] == pytest.approx(np.mean([values[query] for query in ("q0", "q2", "q3")]))
        part = found["files"][0]
        assert json.loads(call("eval", "compare", part, part, "--json").stdout)["partial"] == ["A", "B"]
        assert b"PARTIAL: A and B, queries are missing" in call("eval", "compare", part, part).stdout


class TestServer:
    def test_it_is_measured_like_any_model(self, call: Run, serve: Any, task: Path) -> None:
        server = serve("nim")
        found = measured(call, "beir", str(task), "--model", server.url)
        assert found["system"] == server.url
        assert found["conditions"]["dimensions"] == server.dim
        assert found["ndcg@10"] > 0.5

    def test_one_that_gives_no_answer_in_time_names_the_documents(
        self, call: Run, serve: Any, task: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = serve("nim")
        assert call("eval", "beir", str(task), "--model", server.url).returncode == 0
        more = write(task.parent / "more", documents=DOCUMENTS | {"c5": "something new", "c6": "and newer"})
        monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.2)
        server.answer = lambda asked: time.sleep(1) if "something new" in asked.body.get("input", ()) else None
        done = call("eval", "beir", str(more), "--model", server.url)
        assert done.returncode == 2
        said = done.stderr.decode()
        assert "documents 'c5' to 'c6': " in said and "gives no answer" in said
        assert not (task.parent / "results" / "more--x.json").exists()

    def test_vectors_of_its_earlier_model_are_not_those_of_its_new_one(
        self, call: Run, serve: Any, task: Path, tmp_path: Path
    ) -> None:
        server = serve("nim", models=["first"])
        port = int(server.url.rpartition(":")[2])
        before = measured(call, "beir", str(task), "--model", server.url)
        server.stop()
        done = call("eval", "beir", str(task), "--model", server.url, "--out", str(tmp_path / "dead"))
        assert done.returncode == 2 and not (tmp_path / "dead").exists(), "nobody says what is served now"
        other = serve("nim", port=port, models=["second"])
        after = measured(call, "beir", str(task), "--model", other.url, "--out", str(tmp_path / "second"))
        assert other.asked and after["conditions"]["space"] != before["conditions"]["space"]
        assert "second at " in after["conditions"]["served"]

    def test_new_weights_under_the_same_name_are_known_by_their_vectors(
        self, call: Run, serve: Any, task: Path, tmp_path: Path
    ) -> None:
        server = serve("openai")
        told = [measured(call, "beir", str(task), "--model", server.url) for _ in range(2)]
        assert told[1]["made"]["kept"] == {"documents": 5, "queries": 4}
        server.vector = lambda text, role: np.sin(np.arange(server.dim) * (1 + len(text)))
        done = call("eval", "beir", str(task), "--model", server.url)
        assert done.returncode == 2 and b"holds a result that differs in weights" in done.stderr
        trained = measured(call, "beir", str(task), "--model", server.url, "--out", str(tmp_path / "new"))
        assert trained["made"]["kept"] == {"documents": 0, "queries": 0}
        assert trained["conditions"]["weights"] != told[0]["conditions"]["weights"] == told[1]["conditions"]["weights"]
        del server.vector
        before = measured(call, "beir", str(task), "--model", server.url)
        assert (before["made"]["kept"], before["ndcg@10"]) == (told[1]["made"]["kept"], told[0]["ndcg@10"])

    def test_another_dimension_is_never_compared(self, call: Run, serve: Any, task: Path) -> None:
        server = serve("nim")
        port = int(server.url.rpartition(":")[2])
        assert call("eval", "beir", str(task), "--model", server.url).returncode == 0
        server.stop()
        other = serve("nim", port=port, dim=32)
        more = write(task.parent / "more", documents=DOCUMENTS | {"c5": "something new"})
        done = call("eval", "beir", str(more), "--model", other.url)
        assert done.returncode == 2
        assert b"32 dimensions, and not the 64" in done.stderr

    def test_one_that_ends_among_the_queries_leaves_a_partial_result(
        self, call: Run, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from embedcode.evaluate import vectors

        monkeypatch.setattr(vectors, "BLOCK", 2)
        server = serve("openai")
        folder = write(tmp_path / "toy")

        def answer(asked: Any) -> Any:
            if "sum of two numbers" in asked.body.get("input", ()):
                return server.error(403, "your quota is used up")
            return None

        server.answer = answer
        done = call("eval", "beir", str(folder), "--model", server.url, "--json")
        assert done.returncode == 2
        assert b"quota is used up" in done.stderr
        found = json.loads(done.stdout)
        assert (found["partial"], found["queries"], list(found["failed"])) == (True, 2, ["q2", "q3"])
        assert all(map(np.isfinite, [found["ndcg@10"], found["mrr@10"]]))


class TestReports:
    @pytest.fixture
    def results(self, call: Run, task: Path, tmp_path: Path) -> Path:
        for system in ("bm25", "lexical", "packaged"):
            assert call("eval", "beir", str(task), "--model", system).returncode == 0
        return tmp_path / "results"

    def test_published_and_measured_rows_with_the_command_of_each(self, call: Run, results: Path, task: Path) -> None:
        done = call("eval", "report", str(results), "--svg", str(results / "q.svg"))
        assert (done.returncode, done.stderr) == (0, b"")
        shown = done.stdout.decode()
        assert "nvidia/NV-EmbedCode-7b-v1 (7.1B)" in shown and "published" in shown
        assert f"    lexical: embedcode eval beir {task} --model lexical" in shown
        assert (results / "q.svg").read_text().startswith("<svg")
        found = json.loads(call("eval", "report", str(results), "--json").stdout)
        assert [one["system"] for one in found["results"]] == ["bm25", "lexical", "packaged"]
        assert found["speed"].keys() == {"bm25", "lexical", "packaged"}

    def test_two_results_are_compared_and_a_query_explained(self, call: Run, results: Path, task: Path) -> None:
        pair = (str(results / "toy--packaged.json"), str(results / "toy--bm25.json"))
        done = call("eval", "compare", *pair)
        assert done.returncode == 0
        assert "queries won" in done.stdout.decode()
        found = json.loads(call("eval", "compare", *pair, "--metric", "mrr@10", "--json").stdout)
        assert len(found["won"]) + len(found["lost"]) + found["equal"] == 4
        shown = call("eval", "compare", *pair, "--explain", "q3", "--task", str(task)).stdout.decode()
        assert "query q3: sum of two numbers" in shown
        assert "def add(a, b): return a + b" in shown
        assert "relevant (*): c3" in shown
        wrong = call("eval", "compare", *pair, "--explain", "q9")
        assert (wrong.returncode, b"'q9' is no query of toy" in wrong.stderr) == (2, True)

    def test_a_verdict_needs_more_than_a_few_repositories(self, call: Run, tmp_path: Path) -> None:
        def of(name: str, value: float, repositories: int) -> str:
            ids = [f"q{number}" for number in range(24)]
            values = {"ndcg@10": {id: value + number / 1000 for number, id in enumerate(ids)}}
            clusters = {id: f"r{number % repositories}" for number, id in enumerate(ids)} if repositories else {}
            one = Result("t", name, {}, 24, 9, {"ndcg@10": value}, {}, values, "", clusters=clusters)
            one.write(tmp_path / name, {})
            return str(tmp_path / f"{name}.json")

        for repositories, says in (
            (2, "p 0.5000: too few repositories (2) to say which is better; 2 clusters"),
            (5, "p 0.0625: too few repositories (5)"),
            (6, "p 0.0312: A is better; 6 clusters"),
            (0, "p 0.0001: A is better\n"),
        ):
            pair = (of("a", 0.6, repositories), of("b", 0.5, repositories))
            assert says in call("eval", "compare", *pair).stdout.decode()
        assert b"B is better" in call("eval", "compare", *reversed(pair)).stdout

    def test_what_is_no_result_is_said(self, call: Run, task: Path) -> None:
        done = call("eval", "report", str(task / "corpus.jsonl"))
        assert (done.returncode, b"is no result" in done.stderr) == (2, True)


def test_coir_from_folders(call: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    folder = write(data / "cosqa")
    judged = [{"query-id": q, "corpus-id": d, "score": s} for q, row in QRELS.items() for d, s in row.items()]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    found = measured(
        call, "coir", "--tasks", "cosqa", "--data", str(data), "--model", "bm25", "--convention", "coir-eval"
    )
    assert found["convention"] == "coir-eval"
    (one,) = found["results"]
    assert one["conditions"]["convention"] == "coir-eval"
    assert one["conditions"]["size"] == "4 queries and 5 documents, not the published 500 and 20,604"
    assert found["ndcg@10"] == {}, "no mean of a task that is not whole"


def test_a_mean_is_of_whole_tasks_alone(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedcode.evaluate import coir

    monkeypatch.setattr(coir, "differs", lambda part, task: "" if part.config else "another size")
    (tmp_path / "data").mkdir()
    for part in coir.chosen([]):
        folder = write(tmp_path / "data" / part.name)
        (folder / "test.jsonl").write_text('{"query-id": "q1", "corpus-id": "c1", "score": 1}\n')
    found = measured(call, "coir", "--data", str(tmp_path / "data"), "--model", "bm25")
    assert len(found["results"]) == 20 and found["ndcg@10"].keys() == {"codesearchnet", "codesearchnet-ccr"}
    shown = call("eval", "coir", "--data", str(tmp_path / "data"), "--model", "bm25").stdout.decode()
    assert "mean of codesearchnet " in shown and "\nmean of coir" not in shown
    assert "no mean of coir: apps (another size), cosqa (another size), " in shown


@pytest.fixture
def two_tasks(tmp_path: Path) -> tuple[str, ...]:
    for name in ("apps", "cosqa"):
        (tmp_path / "data").mkdir(exist_ok=True)
        folder = write(tmp_path / "data" / name)
        judged = [{"query-id": q, "corpus-id": d, "score": s} for q, row in QRELS.items() for d, s in row.items()]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    return "coir", "--tasks", "apps,cosqa", "--data", str(tmp_path / "data")


def test_a_coir_run_that_was_ended_goes_on(
    call: Run, two_tasks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedcode.evaluate import made

    code = {"files": "abc"}
    monkeypatch.setattr(made, "commit", lambda: "")
    monkeypatch.setattr(made, "code", lambda: code["files"])

    def known(*more: str) -> list[bool]:
        found = measured(call, *two_tasks, "--model", "bm25", *more)
        return [one["already_measured"] for one in found["results"]]

    assert known() == [False, False]
    (tmp_path / "results" / "coir-cosqa--bm25.run").unlink()
    seconds = (tmp_path / "results" / "coir-apps--bm25.json").read_bytes()
    assert known() == [True, False]
    assert (tmp_path / "results" / "coir-apps--bm25.json").read_bytes() == seconds
    assert b"coir-apps--bm25.json, already measured" in call("eval", *two_tasks, "--model", "bm25").stdout
    assert known("--again") == [False, False]
    code["files"] = "def"
    assert known() == [False, False], "of other code, which an installation without git has no commit to tell by"
    assert known() == [True, True]
    code["files"] = "ghi"
    said = call("eval", *two_tasks, "--model", "bm25").stderr
    assert b"coir-apps--bm25.json is of other texts or another embedcode" in said


def test_a_task_of_coir_may_have_an_instruction_of_its_own(
    call: Run, two_tasks: tuple[str, ...], serve: Any, tmp_path: Path
) -> None:
    server = serve("nim")
    entry = {"id": server.models[0], "instruction_roles": ["query"]}
    listed = 200, {}, json.dumps({"data": [entry]}).encode()

    def answer(asked: Any) -> Any:
        if asked.path == "/v1/models":
            return listed
        asked.body.pop("instruction", None)
        return None

    server.answer = answer
    given = ("--model", server.url, "--instruction", "find it", "--instruction", "apps=solve it")
    found = measured(call, *two_tasks, *given)
    assert [one["conditions"]["instruction"] for one in found["results"]] == ["solve it", "find it"]
    assert sum(asked.path == "/v1/models" for asked in server.asked) == 1, "one model for both"
    done = call("eval", *two_tasks, "--model", server.url, "--instruction", "aps=x")
    assert done.returncode == 2 and b"'aps' is no task of CoIR" in done.stderr


class TestRepoSearch:
    def test_archives_that_are_not_those_of_the_labels_are_refused(self, run: Run, tmp_path: Path) -> None:
        listed = Path(__file__).parents[2] / "bench" / "repo_search" / "repositories.toml"
        (tmp_path / "d" / "archives").mkdir(parents=True)
        for entry in tomllib.loads(listed.read_text("utf-8")).values():
            (tmp_path / "d" / "archives" / entry["file"]).write_bytes(b"another")
        done = run("eval", "repo-search", "d")
        assert done.returncode == 2
        assert b"is not the archive the labels were written on" in done.stderr
        assert b"prepare.py ended with code 1; what it said is above" in done.stderr

    def test_a_folder_that_is_no_clone_is_said(self, call: Run, tmp_path: Path) -> None:
        done = call("eval", "repo-search", "d", "--clone", str(tmp_path))
        assert (done.returncode, b"holds no bench/repo_search" in done.stderr) == (2, True)
        assert call("eval", "repo-search", "d", "--half", "best").returncode == 2
