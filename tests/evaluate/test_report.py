"""Results beside each other: what is mixed, what is not, and what a comparison may claim."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate import coir, metrics, report
from embedcode.evaluate.picture import svg
from embedcode.evaluate.result import Result, refuse_another


def result(task: str = "toy", system: str = "bm25", value: float = 0.5, **more: Any) -> Result:
    names = ("ndcg@10", "recall@1", "recall@10", "mrr@10")
    values = {f"q{i}": value for i in range(10)}
    made = {"commit": "abc1234", "date": "2026-11-26", "version": "0.1.0"}
    plain = Result(
        task, system, {}, 10, 90, dict.fromkeys(names, value), dict.fromkeys(names, (value, value)),
        dict.fromkeys(names, values), f"embedcode eval beir {task} --model {system}", {"search": 2.0}, 100.0, made,
    )  # fmt: skip
    return replace(plain, **more)


def of_coir(value: float = 0.5, **conditions: str) -> list[Result]:
    return [
        result(f"coir/{part.name}", "m", value, conditions={"convention": "mteb"} | conditions)
        for part in coir.chosen([])
    ]


def measured(rows: list[report.Row]) -> list[report.Row]:
    return [row for row in rows if row.kind == "measured"]


def test_published_rows_are_those_of_the_card() -> None:
    rows = {row.system: row.figures for row in report.card([])}
    assert rows["nvidia/NV-EmbedCode-7b-v1 (7.1B)"] == {"coir": 72.45, "swebench-lite": 67.67, "summarised": 70.33}
    assert rows["BM25"]["swebench-lite"] == 42.33
    assert len(rows) == 5
    assert all(row.where and row.kind == "published" for row in report.card([]))


def test_coir_is_a_mean_only_where_all_of_it_is_there() -> None:
    (row,) = measured(report.card(of_coir(0.4)))
    assert (row.system, row.figures["coir"], row.where, row.note) == (
        "m",
        pytest.approx(40),
        "abc1234, 2026-11-26",
        "convention: mteb",
    )
    assert measured(report.card(of_coir()[1:])) == []
    assert measured(report.card([replace(of_coir()[0], partial=True), *of_coir()[1:]])) == []
    assert measured(report.card([replace(of_coir(size="another")[0]), *of_coir()[1:]])) == []
    assert measured(report.card([*of_coir()[:10], *of_coir(convention="coir-eval")[10:]])) == []


def test_coir_mixes_no_conditions_but_data() -> None:
    assert measured(report.card([*of_coir(precision="int8")[:10], *of_coir(precision="fp32")[10:]])) == []
    rows = measured(report.card([*of_coir(0.4, precision="int8"), *of_coir(0.6, precision="fp32")]))
    assert [(row.figures["coir"], row.note) for row in rows] == [
        (pytest.approx(60), "convention: mteb, precision: fp32"),
        (pytest.approx(40), "convention: mteb, precision: int8"),
    ]
    assert len(measured(report.card([*of_coir(data="a")[:10], *of_coir(data="b")[10:]]))) == 1
    with pytest.raises(UsageError, match="two results are of m on coir/apps and differ in their data only"):
        report.card([*of_coir(data="a"), *of_coir(data="b")[:1]])


def test_a_mean_may_be_of_tasks_with_instructions_of_their_own() -> None:
    own = [replace(one, conditions={**one.conditions, "instruction": one.task}) for one in of_coir(0.4)]
    (row,) = measured(report.card(own))
    assert (row.figures["coir"], row.note) == (pytest.approx(40), "convention: mteb, instructions differ by task")
    two = measured(report.card([*of_coir(0.4, instruction="a"), *of_coir(0.6, instruction="b")]))
    assert [row.note for row in two] == ["convention: mteb, instruction: a", "convention: mteb, instruction: b"]


def test_why_a_mean_is_not_shown_is_told() -> None:
    assert report.lacking([*of_coir(), result()]) == {}
    found = [replace(of_coir()[0], partial=True), *of_coir()[2:]]
    first, second = (one.task.removeprefix("coir/") for one in of_coir()[:2])
    assert report.lacking(found) == {"m (convention: mteb)": f"{first} (partial), {second} (not measured)"}
    cut = [replace(one, conditions={**one.conditions, "size": "another"}) for one in of_coir()[:1]]
    assert report.lacking(cut)["m"].startswith(f"{first} (another size), {second} (not measured), ")


def of_swebench(value: float, repositories: int = 12, **conditions: str) -> Result:
    ids = [f"i{number}" for number in range(300)]
    return result(
        "swebench-lite/published",
        value=value,
        queries=300,
        clusters={id: f"r{number % repositories}" for number, id in enumerate(ids)},
        conditions={"files": "all", "test files": "in", "issue": "raw"} | conditions,
    )


def test_swebench_keeps_raw_and_summarised_issues_apart() -> None:
    rows = measured(
        report.card(
            [
                of_swebench(0.4),
                of_swebench(0.3, issue="summarised by x"),
            ]
        )
    )
    assert [dict(row.figures) for row in rows] == [{"swebench-lite": 40.0}, {"summarised": 30.0}]
    assert rows[0].note == "files: all, test files: in, issue: raw"


def test_no_other_issues_and_files_stand_beside_the_published_300() -> None:
    others = [of_swebench(1, 10), of_swebench(1, files="py"), of_swebench(1, **{"test files": "out"})]
    others += [replace(of_swebench(1), queries=23), result("swebench-lite/search", value=1)]
    assert measured(report.card(others)) == []


def test_results_are_read_once_each(tmp_path: Path) -> None:
    one = result()
    one.write(tmp_path / "a", {"q0": {"d2": 1.0}})
    assert report.results([tmp_path]) == [one]
    one.write(tmp_path / "b", {})
    with pytest.raises(UsageError, match="two results are of bm25 on toy under the same conditions"):
        report.results([tmp_path])
    with pytest.raises(UsageError, match="no result is there"):
        report.results([tmp_path / "none-here"] if (tmp_path / "none-here").mkdir() is None else [])


def test_names_with_blanks_are_words_of_the_run_file(tmp_path: Path) -> None:
    run = {"a query": {"d 1": 2.0, "100%": 1.0, "d\u00a02\n": 0.5}, "a": {"d 1": 3.0}}
    result(system="my model").write(tmp_path / "r", run)
    lines = (tmp_path / "r.run").read_text("utf-8").splitlines()
    assert [len(line.split()) for line in lines] == [6] * 4
    for query, found in run.items():
        assert report.ranking(tmp_path / "r.run", query) == list(found.items())


def test_ranks_that_are_written_and_shown_are_those_of_the_figures(tmp_path: Path) -> None:
    run = {"q": {"d0": 1.0, "d1": 1.0 + 1e-12, "d2": 1.0, "a": 2.0}, "none": {}}
    result().write(tmp_path / "r", run)
    lines = [line.split() for line in (tmp_path / "r.run").read_text().splitlines()]
    assert [line[2] for line in lines] == ["a", "d2", "d1", "d0"], "equal in single precision: the highest name first"
    assert [float(line[4]) for line in lines] == [run["q"][line[2]] for line in lines]
    assert metrics.mrr_at(10, run, {"q": {"d2": 1}}) == {"q": 1 / 2}
    (tmp_path / "r.run").write_text("".join(f"{' '.join(line)}\n" for line in reversed(lines)))
    assert [name for name, _ in report.ranking(tmp_path / "r.run", "q")] == ["a", "d2", "d1", "d0"]


def test_a_result_and_its_run_are_replaced_together(tmp_path: Path) -> None:
    result().write(tmp_path / "r", {"q0": {"d": 1.0}})
    before = (tmp_path / "r.run").read_bytes()
    (tmp_path / "r.json").unlink()
    (tmp_path / "r.json").mkdir()  # cannot be written
    with pytest.raises(UsageError, match="is not a regular file"):
        result().write(tmp_path / "r", {"q0": {"other": 1.0}})
    assert (tmp_path / "r.run").read_bytes() == before


def test_a_result_under_other_conditions_is_not_replaced(tmp_path: Path) -> None:
    one = result(conditions={"space": "a", "sizes": (1, 2), "counted later": 3})
    one.write(tmp_path / "r", {})
    refuse_another(tmp_path / "r", "toy", "bm25", {"space": "a", "sizes": (1, 2)})
    refuse_another(tmp_path / "new", "toy", "bm25", {})
    refuse_another(tmp_path / "r", "toy", "bm25", {"space": "a", "content": "x"})  # one of before that was said
    for task, system, conditions, says in (
        ("toy", "m", {"space": "b"}, "differs in system, space: give another folder with --out, or remove it"),
        ("other", "bm25", {"space": "a", "more": 1}, "differs in task, more: "),
    ):
        with pytest.raises(UsageError, match=says):
            refuse_another(tmp_path / "r", task, system, conditions)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UsageError, match="is there and no result that can be compared"):
        refuse_another(tmp_path / "r", "toy", "bm25", {})


def test_a_place_that_is_none_is_said() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        report.results([Path("n" * 300)])


def test_a_saturated_task_is_one_at_which_plain_words_are_nearly_right() -> None:
    assert report.saturated([result(value=0.96), result("other", value=0.9), result("third", "m", 0.99)]) == {"toy"}


def test_a_comparison_is_paired_and_claims_what_it_can() -> None:
    better = {f"q{i}": 0.5 + (0.3 if i else -0.2) for i in range(10)}
    found = report.compare(result(values={"ndcg@10": better}), result(system="m"))
    assert (found.metric, found.difference.mean) == ("ndcg@10", pytest.approx(0.25))
    assert (len(found.won), list(found.lost), found.equal) == (9, ["q0"], 0)
    assert found.difference.low > 0
    assert report.compare(result(), result(system="m")).difference.p == 1.0
    with pytest.raises(UsageError, match="two tasks, toy and other"):
        report.compare(result(), result("other"))
    with pytest.raises(UsageError, match="has no map: its metrics are ndcg@10"):
        report.compare(result(), result(system="m"), "map")
    fewer = result(system="m", values={"ndcg@10": {"q0": 1.0}}, partial=True)
    with pytest.raises(UsageError, match="Only one of the two results has query 'q1'"):
        report.compare(result(), fewer)


def test_two_tasks_of_one_name_are_not_compared() -> None:
    a, b = (result(system=name, conditions={"content": name, "issue": "raw"}) for name in ("one", "two"))
    with pytest.raises(UsageError, match=r"two tasks are called toy, and differ .* \(content one and two\)"):
        report.compare(a, b)
    report.compare(a, result(system="m"))


def test_a_result_with_queries_in_their_own_rankings_is_not_compared_with_one_without() -> None:
    """The older one lost all places behind the first, and the newer looked better."""
    now, before = result(conditions={"identical ids": "dropped"}), result(system="old")
    for pair in ((now, before), (before, now)):
        with pytest.raises(UsageError, match=r"result of old has queries in their own rankings.*measure old again"):
            report.compare(*pair)
    report.compare(now, result(system="m", conditions={"identical ids": "dropped"}))


def test_what_two_results_differ_in_is_what_was_chosen() -> None:
    a, b = (
        result(conditions={"issue": issue, "content": "x", "file versions": len(issue), "k1": 1.5, issue: 1})
        for issue in ("raw", "summarised")
    )
    assert report.apart([a, b]) == ["issue"]


def test_swebench_says_all_that_a_figure_depends_on() -> None:
    conditions = {"protocol": "published", "chunking": "none, whole files", "path prefix": "none", "files": "all",
                  "test files": "in", "tokenizer": "t", "max_tokens": 256, "rows": "r", "issue": "raw"}  # fmt: skip
    clusters = {f"q{i}": f"r{i % report.REPOSITORIES}" for i in range(report.INSTANCES)}
    one = result("swebench-lite/published", "m", conditions=conditions, queries=report.INSTANCES, clusters=clusters)
    (row,) = measured(report.card([replace(one, metrics={**one.metrics, "recall@1": 0.4})]))
    assert row.note == ", ".join(f"{name}: {value}" for name, value in conditions.items())


def test_a_comparison_draws_clusters_whole() -> None:
    """All that A gains is of one repository of two, of which a sample may have none."""
    a, b = ({f"q{i}": float(i < 5) * gain for i in range(10)} for gain in (1, 0))
    of = {f"q{i}": "one" if i < 5 else "two" for i in range(10)}
    alone, whole = (
        report.compare(result(values={"ndcg@10": a}, clusters=own), result(values={"ndcg@10": b}, clusters=own))
        for own in ({}, of)
    )
    assert (alone.clusters, whole.clusters) == (0, 2)
    assert alone.difference.low > 0 == whole.difference.low
    single = dict.fromkeys(of, "one")
    again = report.compare(result(values={"ndcg@10": a}, clusters=single), result(values={"ndcg@10": b}))
    assert (again.clusters, again.difference) == (0, alone.difference)


def test_speed_is_of_tasks_that_all_have_and_of_vectors_that_were_computed() -> None:
    found = [
        result(),
        result(system="m", value=0.7, seconds={"documents": 8.0, "search": 2.0}),
        result("only", "m", 0.1),
    ]
    assert report.speed(found) == {"bm25": (50.0, 0.5), "m": (10.0, pytest.approx(0.7))}
    kept = replace(found[1], made={"kept": {"documents": 3}})
    assert report.speed([found[0], kept]) == {"bm25": (50.0, 0.5)}
    assert report.speed([found[0], result("other", "m")]) == {}
    precisions = [replace(found[1], conditions={"precision": one}) for one in ("fp32", "int8")]
    assert report.speed([found[0], *precisions]).keys() == {"bm25", "m (precision: fp32)", "m (precision: int8)"}
    across = [replace(precisions[0], task="other"), precisions[1]]
    assert report.speed([found[0], result("other"), *across]) == {}


def test_the_picture_is_svg_with_every_system_in_it() -> None:
    names = {"bm25": (900.0, 0.52), "a<b": (12.0, 0.61), "m": (11.0, 0.605)}
    root = ElementTree.fromstring(svg(names, "texts a second", "quality"))
    space = "{http://www.w3.org/2000/svg}"
    assert {text.text for text in root.iter(f"{space}text")} >= {*names, "texts a second", "quality"}
    circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{space}circle")]
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert len(circles) == 3 and all(0 < x < width and 0 < y < height for x, y in circles)
    best, fastest = min(circles, key=lambda at: at[1]), max(circles)
    assert best[0] < fastest[0] and best[1] < fastest[1]
    assert "</svg>" in svg({"one": (1.0, 1.0)}, "x", "y")
