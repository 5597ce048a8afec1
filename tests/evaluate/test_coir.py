"""CoIR's tasks by name, and its loaders on ten small folders in the schema that the hub has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from embedcode.data import never
from embedcode.errors import UsageError
from embedcode.evaluate import coir
from embedcode.evaluate.choices import Convention
from embedcode.evaluate.coir import PARTS, Part

LAYOUTS = ("mteb", "coir-eval", "jsonl")
PARTS_OF_ALL = [part for parts in PARTS.values() for part in parts]


def rows(part: Part) -> dict[str, list[dict[str, Any]]]:
    name = part.name
    return {
        "corpus": [
            {
                "_id": f"d{i}",
                "partition": "test",
                "title": f"{name}.f{i}" if i else "",
                "text": f"def {name}_{i}(): pass" if i < 3 else f"\n    def {name}_{i}(): pass\n",
            }
            for i in range(4)
        ],
        "queries": [
            {"_id": f"q{i}", "partition": "test" if i < 2 else "train", "title": None, "text": f"{name} number {i}"}
            for i in range(3)
        ],
        "test": [{"query-id": f"q{i}", "corpus-id": f"d{i + 1}", "score": 1} for i in range(2)],
        "train": [{"query-id": "q2", "corpus-id": "d0", "score": 1}],
    }


def write(path: Path, found: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")


def publish(data: Path, part: Part, layout: str) -> None:
    """A subtask as mteb reads it (a folder a configuration), as coir-eval does (two repositories), as JSON lines."""
    found = rows(part)
    if layout == "mteb":
        folder = data / part.hub.rpartition("/")[2]
        before = f"{part.config}-" if part.config else ""
        write(folder / f"{before}corpus" / "corpus-00000-of-00001.parquet", found["corpus"])
        write(folder / f"{before}queries" / "queries-00000-of-00001.parquet", found["queries"])
        for split in ("test", "train"):
            write(folder / (f"{before}qrels" if before else "data") / f"{split}-00000-of-00001.parquet", found[split])
    elif layout == "coir-eval":
        for kind in ("corpus", "queries"):
            write(data / f"{part.name}-queries-corpus" / "data" / f"{kind}-00000-of-00001.parquet", found[kind])
        for split in ("test", "train"):
            underscored = [{name.replace("-", "_"): value for name, value in row.items()} for row in found[split]]
            write(data / f"{part.name}-qrels" / "data" / f"{split}-00000-of-00001.parquet", underscored)
    else:
        for kind in ("corpus", "queries"):
            write(data / part.name / f"{kind}.jsonl", found[kind])
        write(data / part.name / "qrels" / "test.jsonl", found["test"])


def test_ten_tasks_and_twenty_subtasks_with_pinned_revisions() -> None:
    assert len(PARTS) == 10
    assert len(PARTS_OF_ALL) == len({part.name for part in PARTS_OF_ALL}) == 20
    for part in PARTS_OF_ALL:
        assert len(part.revision) == 40 and int(part.revision, 16)
        assert min(part.queries, part.documents) > 0
    # The README of CoIR: 53,000 queries of CodeSearchNet, and a million documents.
    assert 52_000 < sum(part.queries for part in PARTS["codesearchnet"]) < 54_000
    assert 0.95e6 < sum(part.documents for part in PARTS["codesearchnet-ccr"]) < 1.1e6


def test_nothing_of_it_may_be_trained_on() -> None:
    for part in PARTS_OF_ALL:
        assert never.load().find(part.name) is not None, part.name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PARTS)
def test_every_task_is_read_in_every_layout(tmp_path: Path, name: str, layout: str) -> None:
    for part in PARTS[name]:
        publish(tmp_path, part, layout)
    for part in coir.chosen([name]):
        task = coir.load(part, tmp_path, Convention.MTEB)
        assert task.name == f"coir/{part.name}"
        assert task.queries == {f"q{i}": f"{part.name} number {i}" for i in range(2)}, "of the test split only"
        assert task.qrels == {"q0": {"d1": 1}, "q1": {"d2": 1}}
        assert task.corpus["d0"] == f"def {part.name}_0(): pass"
        assert task.corpus["d1"] == f"{part.name}.f1 def {part.name}_1(): pass"
        assert task.corpus["d3"] == f"{part.name}.f3 \n    def {part.name}_3(): pass", "as mteb strips it"
        plain = coir.load(part, tmp_path, Convention.COIR_EVAL).corpus
        assert (plain["d1"], plain["d3"]) == (f"def {part.name}_1(): pass", f"\n    def {part.name}_3(): pass\n")
        assert coir.differs(part, task).startswith("2 queries and 4 documents, not the published ")


def test_names_are_found_whatever_their_case() -> None:
    assert [part.name for part in coir.chosen(["CodeSearchNet-GO", "apps", "apps"])] == ["CodeSearchNet-go", "apps"]
    assert len(coir.chosen([])) == 20
    with pytest.raises(UsageError, match="'cosqq' is no task of CoIR: the tasks are apps, cosqa"):
        coir.chosen(["cosqq"])


def test_languages_are_one_task_and_a_mean_needs_all_of_it() -> None:
    values = {part.name: 0.5 for part in PARTS_OF_ALL}
    values |= {part.name: at / 10 for at, part in enumerate(PARTS["codesearchnet"])}
    found = coir.means(values)
    assert found["codesearchnet"] == pytest.approx(0.25)
    assert found["coir"] == pytest.approx((9 * 0.5 + 0.25) / 10)
    del values["CodeSearchNet-ruby"]
    assert {"codesearchnet", "coir"}.isdisjoint(coir.means(values))
    assert "apps" in coir.means(values)


def test_what_a_mean_lacks_is_told() -> None:
    values = {part.name: 0.5 for part in PARTS_OF_ALL}
    assert coir.lacking(values) == {}
    del values["CodeSearchNet-ruby"], values["apps"]
    assert coir.lacking(values, {"apps": "partial"}) == {
        "codesearchnet": "CodeSearchNet-ruby (not measured)",
        "coir": "apps (partial), CodeSearchNet-ruby (not measured)",
    }
    assert coir.lacking({})["coir"].endswith(" and 17 more")


def test_an_instruction_is_for_all_or_for_a_task() -> None:
    parts = coir.chosen(["apps", "codesearchnet"])
    found = coir.instructions(["general", "apps=find a = b", "CodeSearchNet-go=bug"], parts)
    assert (found["apps"], found["CodeSearchNet-go"], found["CodeSearchNet-php"]) == ("find a = b", "bug", "general")
    assert coir.instructions(["where x = 1 is set"], parts)["apps"] == "where x = 1 is set"
    with pytest.raises(UsageError, match="'aps' is no task of CoIR"):
        coir.instructions(["aps=find"], parts)
    with pytest.raises(UsageError, match="cosqa is given an instruction and is not measured: leave it out, or name it"):
        coir.instructions(["cosqa=find"], parts)
    assert coir.instructions(["codesearchnet=find"], coir.chosen(["CodeSearchNet-go"]))["CodeSearchNet-go"] == "find"
    for twice in (["a", "b"], ["apps=a", "apps=b"], ["codesearchnet=a", "CodeSearchNet-go=b"]):
        with pytest.raises(UsageError, match="is given two instructions: give one"):
            coir.instructions(twice, parts)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("corpus.jsonl", {"_id": "d9", "title": "", "text": None}, r"corpus\.jsonl, line 5, has None for 'text'"),
        ("queries.jsonl", {"text": "t"}, r"queries\.jsonl, line 4, has None for '_id'"),
        (
            "qrels/test.jsonl",
            {"query-id": "q0", "corpus-id": "d7", "score": 1},
            r"line 3, judges 'd7', .* not in the corpus",
        ),
        ("qrels/test.jsonl", {"query-id": "q7", "corpus-id": "d1", "score": 1}, r"line 3, judges 'q7', .* the queries"),
        ("qrels/test.jsonl", {"query-id": "q0", "corpus-id": "d1", "score": 0.5}, r"line 3, has 0\.5 for 'score'"),
        (
            "qrels/test.jsonl",
            {"query-id": "q0", "corpus-id": "d1", "score": float("nan")},
            r"line 3, has nan for 'score': it must be a whole number",
        ),
        ("qrels/test.jsonl", [1], r"line 3, is no object"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, file: str, row: Any, message: str) -> None:
    (part,) = PARTS["apps"]
    publish(tmp_path, part, "jsonl")
    with (tmp_path / "apps" / file).open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    with pytest.raises(UsageError, match=message):
        coir.load(part, tmp_path, Convention.MTEB)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (part,) = PARTS["apps"]
    with pytest.raises(UsageError, match="has no folder apps, nor apps-queries-corpus and apps-qrels"):
        coir.load(part, tmp_path, Convention.MTEB)
    publish(tmp_path, part, "mteb")
    (tmp_path / "apps" / "corpus" / "corpus-00000-of-00001.parquet").unlink()
    with pytest.raises(UsageError, match=r"apps: no file corpus\*\.parquet or \.jsonl for apps"):
        coir.load(part, tmp_path, Convention.MTEB)
    write(tmp_path / "apps" / "corpus.parquet", rows(part)["corpus"])
    (tmp_path / "apps" / "queries" / "queries-00000-of-00001.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UsageError, match="cannot be read"):
        coir.load(part, tmp_path, Convention.MTEB)


def test_code_without_a_title_is_stripped_as_by_mteb(tmp_path: Path) -> None:
    (part,) = PARTS["apps"]
    publish(tmp_path, part, "jsonl")
    found = [row | {"title": ""} for row in rows(part)["corpus"]]
    write(tmp_path / part.name / "corpus.jsonl", found)
    assert coir.load(part, tmp_path, Convention.MTEB).corpus["d3"] == "def apps_3(): pass"


@pytest.mark.parametrize("task", ["codesearchnet", "codesearchnet-ccr"])
def test_languages_that_share_a_folder_of_the_hub_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """The hub's client puts all that was asked for of one revision into one folder, which is called after that."""
    import huggingface_hub

    snapshots = tmp_path / "go-cache" / "snapshots"

    def download(hub: str, *, revision: str, **_: Any) -> str:
        part = next(parts)
        publish(tmp_path / "made", part, "mteb")
        (tmp_path / "made" / hub.rpartition("/")[2]).rename(tmp_path / "made" / "x")
        shutil.copytree(tmp_path / "made" / "x", snapshots / revision, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "made" / "x")
        return str(snapshots / revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for _ in range(2):  # then all six are there
        parts = iter(PARTS[task])
        for part in PARTS[task]:
            found = coir.load(part, None, Convention.COIR_EVAL)
            assert found.queries == {f"q{i}": f"{part.name} number {i}" for i in range(2)}
            assert len(found.corpus) == 4 and found.corpus["d1"] == f"def {part.name}_1(): pass"


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fails(*arguments: Any, **options: Any) -> str:
        asked.append((arguments, options))
        raise OSError("no route\nto the hub")

    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    part = PARTS["codesearchnet"][0]
    with pytest.raises(UsageError, match=r"at 4adc7bc41202 cannot be had from the hub \(no route to the hub\): check"):
        coir.load(part, None, Convention.MTEB)
    ((name,), options) = asked[0]
    assert (name, options["repo_type"], options["revision"]) == (part.hub, "dataset", part.revision)
    assert options["allow_patterns"] == ["go-*", "go-*/*"], "one language of six"
