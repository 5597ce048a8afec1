"""Sources held out of training: chosen by seed, split off under all their names, and made into tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedcode.data import holdout
from embedcode.data.holdout import HeldOut
from embedcode.data.overlap import Evaluations
from embedcode.errors import UsageError
from embedcode.types import Pair

NONE = HeldOut({})
WANTED = {"reported": (3, 45), "validation": (2, 45)}


def rows(source: str, count: int, language: str = "go") -> Iterator[Pair]:
    for number in range(count):
        yield Pair(
            f"what {source} does {number}", (f"func {source} {number}",), (), "docstring", language, source, "MIT"
        )


def sizes(count: int = 20, each: int = 15) -> dict[str, Counter[str]]:
    return {"go": Counter({f"debian:golang-{n}": each for n in range(count)})}


def test_the_choice_is_the_seeds_and_each_source_is_in_one_part() -> None:
    chosen = holdout.choose(sizes(), ["go"], WANTED, 1, NONE)
    assert (
        chosen == holdout.choose(sizes(), ["go"], WANTED, 1, NONE) != holdout.choose(sizes(), ["go"], WANTED, 2, NONE)
    )
    reported, validation = (set(chosen.parts[part]["go"]) for part in WANTED)
    assert len(reported) == len(validation) == 3 and not reported & validation


def test_neither_a_giant_nor_a_dwarf_is_chosen_nor_one_project_twice() -> None:
    found = sizes(12)
    found["go"] |= {
        "debian:giant": 500,
        "debian:dwarf": 1,
        "debian:golang-github-acme-tool": 15,
        "github:acme/tool": 15,
    }
    for seed in range(20):
        parts = holdout.choose(found, ["go"], WANTED, seed, NONE).parts.values()
        names = [name for part in parts for name in part["go"]]
        assert not {"debian:giant", "debian:dwarf", "debian:a-c-library"} & set(names)
        assert len({"debian:golang-github-acme-tool", "github:acme/tool"} & set(names)) <= 1


def test_more_languages_are_added_and_what_is_there_stays() -> None:
    found = sizes() | {"c": Counter({f"debian:lib{n}": 15 for n in range(20)} | {"debian:golang-3": 15})}
    first = holdout.choose(found, ["go"], WANTED, 0, NONE)
    both = holdout.choose(found, ["c"], WANTED, 5, first)
    assert all(both.parts[part]["go"] == first.parts[part]["go"] and both.parts[part]["c"] for part in WANTED)
    with pytest.raises(UsageError, match="go is in the list"):
        holdout.choose(found, ["go"], WANTED, 5, both)


def test_too_little_to_hold_out_is_said() -> None:
    with pytest.raises(UsageError, match="ruby has 0 functions"):
        holdout.choose(sizes(), ["ruby"], WANTED, 0, NONE)
    with pytest.raises(UsageError, match="0 sources of a fit size"):
        holdout.choose({"go": Counter({"debian:giant": 500})}, ["go"], WANTED, 0, NONE)


def test_the_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    held = holdout.choose(sizes(), ["go"], WANTED, 0, NONE)
    (tmp_path / "held.toml").write_text(holdout.text(held, "Head."))
    read = holdout.load(tmp_path / "held.toml")
    assert {part: sorted(of["go"]) for part, of in read.parts.items()} == {
        part: sorted(of["go"]) for part, of in held.parts.items()
    }


def test_the_list_takes_whatever_a_source_is_called(tmp_path: Path) -> None:
    names = ["src", "guava-31.1.tar.xz", 'a"b\\c', "[x].zip", "*", "pypi:networkx"]
    held = HeldOut({"reported": {"c++": names}})
    (tmp_path / "held.toml").write_text(holdout.text(held, "Head."))
    read = holdout.load(tmp_path / "held.toml")
    assert read.parts == {"reported": {"c++": sorted(names)}}
    given = [Pair("q", ("x",), language="c++", source=name) for name in (*names, "other.zip")]
    assert [place for _, place in holdout.split(given, read)] == ["reported c++"] * 6 + [""]
    known = Evaluations([], read.entries())
    assert [pair.source for pair in given if known.find(pair) is None] == ["other.zip"]


def test_a_source_without_a_name_that_can_be_written_is_not_drawn() -> None:
    found = {"go": Counter({"": 15, "\udcff": 15, "a\nb": 15} | {f"{n}": 15 for n in range(9)})}
    for seed in range(10):
        parts = holdout.choose(found, ["go"], WANTED, seed, NONE).parts
        assert {name for part in parts.values() for name in part["go"]} < set("012345678")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tested]\ngo = ['debian:a']", "'tested' is no part"),
        ("[reported]\ngo = 'debian:a'", "must be a list"),
        ("[reported]\ngo = ['']", "must be a list of sources"),
        ("[reported]\ngo = ['debian:a']\n[validation]\ngo = ['debian:a']", "in both parts"),
        ("[reported", "not valid TOML"),
    ],
)
def test_a_list_that_is_wrong_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "held.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        holdout.load(tmp_path / "held.toml")


HELD = HeldOut({"reported": {"go": ["debian:golang-github-acme-tool"]}, "validation": {"go": ["pypi:shapes"]}})


def test_a_project_is_held_out_under_all_its_names() -> None:
    given = [
        Pair("a", ("x",), language="go", source="debian:golang-github-acme-tool 1.0-1"),
        Pair("b", ("x",), language="c", source="debian:golang-github-acme-tool 1.0-1"),
        Pair("c", ("x",), language="go", source="github:acme/tool 0123"),
        Pair("d", ("x",), language="go", source="git:acme/tool@0123"),
        Pair("e", ("x",), language="go", source="debian:python-shapes 2"),
        Pair("f", ("x",), language="go", source="pypi:shapes 3"),
        Pair("g", ("x",), language="go", source="npm:other 3"),
    ]
    places = {pair.query: place for pair, place in holdout.split(given, HELD)}
    assert places == {
        "a": "reported go", "b": "-", "c": "-", "d": "-", "e": "-", "f": "validation go", "g": "",
    }  # fmt: skip
    known = Evaluations([], HELD.entries())
    assert [pair.query for pair in given if known.find(pair) is None] == ["g"], "training forbids what split leaves out"


def test_a_scope_of_npm_is_held_out_as_one() -> None:
    given = [Pair(f"q{n}", ("x",), language="go", source=f"npm:@acme.x/part{n} 1.{n}") for n in range(4)]
    assert holdout.sizes(given) == {"go": {"npm:@acme.x/*": 4}}
    held = HeldOut({"reported": {"go": ["npm:@acme.x/*"]}})
    other = Pair("q", ("x",), language="go", source="npm:@acme/part 1")
    assert [place for _, place in holdout.split([*given, other], held)] == ["reported go"] * 4 + [""]
    known = Evaluations([], held.entries())
    assert all(map(known.find, given)) and known.find(other) is None


def test_a_task_has_all_functions_and_queries_of_every_source() -> None:
    given = [*rows("a", 50), *rows("b", 5), Pair("shared", ("one",), source="c"), Pair("shared", ("two",), source="c")]
    task = holdout.task("t", given, 20)
    assert len(task.corpus) == 57 and len(task.queries) == 20
    by_source = Counter(text.split(" ")[1] for text in task.queries.values() if text != "shared")
    assert by_source == {"a": 14, "b": 5}
    answers = {task.queries[id]: {task.corpus[one] for one in judged} for id, judged in task.qrels.items()}
    assert answers["shared"] == {"one", "two"} and answers["what b does 3"] == {"func b 3"}
    assert holdout.task("t", given[::-1], 20).corpus == task.corpus


def test_the_list_of_the_default_model_has_enough_of_each_language() -> None:
    held = holdout.load(Path(__file__).parents[2] / "recipes" / "held_out.toml")
    assert held.parts["reported"].keys() == held.parts["validation"].keys() >= {"c", "cpp", "javascript", "python"}
    assert all(len(names) >= 8 for names in held.parts["reported"].values())
    assert all(len(names) >= 4 for names in held.parts["validation"].values())
