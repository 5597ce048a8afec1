"""Results beside each other: what is mixed, what is not, and what a comparison may claim."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import UsageError
from embedcode.evaluate import coir, report
from embedcode.evaluate.picture import svg
from embedcode.evaluate.result import Result


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
        "mteb",
    )
    assert measured(report.card(of_coir()[1:])) == []
    assert measured(report.card([replace(of_coir()[0], partial=True), *of_coir()[1:]])) == []
    assert measured(report.card([replace(of_coir(size="another")[0]), *of_coir()[1:]])) == []
    assert measured(report.card([*of_coir()[:10], *of_coir(convention="coir-eval")[10:]])) == []


def test_swebench_keeps_raw_and_summarised_issues_apart() -> None:
    rows = measured(
        report.card(
            [
                result("swebench-lite/published", value=0.4, conditions={"issue": "raw"}),
                result("swebench-lite/published", value=0.3, conditions={"issue": "summarised by x"}),
            ]
        )
    )
    assert [dict(row.figures) for row in rows] == [{"swebench-lite": 40.0}, {"summarised": 30.0}]
    assert "published, 10 instances, issue: raw" in rows[0].note


def test_results_are_read_once_each(tmp_path: Path) -> None:
    one = result()
    one.write(tmp_path / "a", {"q0": {"d 1": 2.0, "d2": 1.0}})
    assert report.results([tmp_path]) == [one]
    assert report.ranking(tmp_path / "a.run", "q0") == [("d 1", 2.0), ("d2", 1.0)]
    one.write(tmp_path / "b", {})
    with pytest.raises(UsageError, match="two results are of bm25 on toy under the same conditions"):
        report.results([tmp_path])
    with pytest.raises(UsageError, match="no result is there"):
        report.results([tmp_path / "none-here"] if (tmp_path / "none-here").mkdir() is None else [])


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
