"""Vectors are computed once, kept by content and way of embedding, and never wrong in silence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedcode.engine.vectors import unit
from embedcode.errors import EmbedcodeError, EncodeError, ModelError, StoreError, UsageError
from embedcode.evaluate import vectors as module
from embedcode.evaluate.vectors import embed
from embedcode.types import Role, Tokens

DIM = 8


class Toy:
    """An encoder of hashed words; `broken` texts get NaN, and it dies at the text `dies`."""

    dim = DIM
    max_tokens = 100

    def __init__(self, space: str = "s", build: str = "b", broken: Sequence[str] = (), dies: str = "") -> None:
        self.space, self.build, self.broken, self.dies = space, build, broken, dies
        self.asked: list[str] = []

    def encode(self, texts, role, instruction=None, truncate=None, max_tokens=None, dimensions=None):
        if self.dies in texts and self.dies:
            raise ModelError("the server gives no answer in time")
        self.asked += texts
        rows = [np.frombuffer(hashlib.sha256(f"{role}{text}".encode()).digest()[:DIM], np.uint8) for text in texts]
        found = unit(np.array(rows, np.float32).reshape(-1, DIM) - 127.5)
        for at, text in enumerate(texts):
            if text in self.broken:
                found[at] = np.nan
        return found


def texts(count: int) -> dict[str, str]:
    return {f"d{i}": f"text {i}" for i in range(count)}


def test_nothing_is_embedded_twice(tmp_path: Path) -> None:
    toy = Toy()
    given = texts(5) | {"again": "text 1"}
    first = embed(toy, given, Role.PASSAGE, tmp_path, what="document")
    assert sorted(toy.asked) == [f"text {i}" for i in range(5)]
    assert list(first.ids) == list(given)
    rows = first.block(0, 6)
    assert np.array_equal(rows[1], rows[5])
    assert np.allclose(rows[:5], Toy().encode(list(texts(5).values()), Role.PASSAGE))
    second = Toy()
    more = embed(second, {"new": "text 9", "old": "text 3"}, Role.PASSAGE, tmp_path, what="document")
    assert (second.asked, more.kept) == (["text 9"], 1)
    assert np.array_equal(more.block(1, 2)[0], rows[3])


@pytest.mark.parametrize("other", [{"space": "t"}, {"build": "int8"}])
def test_another_space_or_build_has_vectors_of_its_own(tmp_path: Path, other: dict[str, str]) -> None:
    embed(Toy(), texts(3), Role.PASSAGE, tmp_path, what="document")
    toy = Toy(**other)
    embed(toy, texts(3), Role.PASSAGE, tmp_path, what="document")
    embed(toy, texts(3), Role.QUERY, tmp_path, what="query")
    embed(toy, texts(3), Role.QUERY, tmp_path, what="query", instruction="find")
    assert len(toy.asked) == 9


def test_a_run_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    with pytest.raises(ModelError, match=r"^documents 'd8' to 'd9': the server gives no answer in time"):
        embed(Toy(dies="text 9"), texts(10), Role.PASSAGE, tmp_path, what="document")
    (folder,) = (tmp_path / "evaluate").iterdir()
    with (folder / "vectors").open("ab") as file:  # as if it had died between the two writes of a block
        file.write(b"x" * 55)
    with (folder / "keys").open("ab") as file:
        file.write(b"y" * 7)
    toy = Toy()
    found = embed(toy, texts(10), Role.PASSAGE, tmp_path, what="document")
    assert toy.asked == ["text 8", "text 9"]
    assert np.allclose(found.block(0, 10), Toy().encode(list(texts(10).values()), Role.PASSAGE))
    assert json.loads((folder / "meta.json").read_text())["space"] == "s"


def test_a_vector_that_is_none_names_its_text(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"^document 'd3', number 4 of 6: .* not finite or not of length 1"):
        embed(Toy(broken=["text 3"]), texts(6), Role.PASSAGE, tmp_path, what="document")
    found = embed(Toy(broken=["text 3"]), texts(6), Role.PASSAGE, tmp_path, what="document", optional=True)
    assert list(found.ids) == ["d0", "d1", "d2", "d4", "d5"]
    assert list(found.failed) == ["d3"]
    assert np.allclose(found.block(3, 4), Toy().encode(["text 4"], Role.PASSAGE))


def test_optional_texts_after_a_servers_end_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    found = embed(Toy(dies="text 2"), texts(5), Role.QUERY, tmp_path, what="query", optional=True)
    assert list(found.ids) == ["d0", "d1"]
    assert list(found.failed) == ["d2", "d3", "d4"]
    assert "gives no answer in time" in found.failed["d4"]


def test_texts_that_were_cut_are_counted_and_remembered(tmp_path: Path) -> None:
    class Reads(Toy):
        max_tokens = 5
        tokenizer = "tokenizer.json"

        def tokenize(self, texts: Sequence[str], *_: object) -> list[Tokens]:
            counts = [len(text.split()) for text in texts]
            return [Tokens((), count, min(count, self.max_tokens)) for count in counts]

    given = {"short": "a b", "long": "a b c d e f", "again": "a b c d e f"}
    for more in ({}, {"longer": "a " * 9}, {}):
        found = embed(Reads(), given | more, Role.PASSAGE, tmp_path, what="document")
        assert found.cut == 2 + len(more)
    (folder,) = (tmp_path / "evaluate").iterdir()
    assert embed(Toy(), given, Role.QUERY, tmp_path, what="query").cut is None, "as of a server"
    with (folder / "cut").open("ab") as file:  # as if it had died while it wrote
        file.write(b"y" * 7)
    assert embed(Reads(), given | {"longest": "a " * 12}, Role.PASSAGE, tmp_path, what="document").cut == 3
    assert embed(Reads(), given | {"longest": "a " * 12}, Role.PASSAGE, tmp_path, what="document").cut == 3
    (folder / "cut").unlink()
    assert embed(Reads(), given, Role.PASSAGE, tmp_path, what="document").cut is None, "as of an earlier version"


def test_another_dimension_is_an_error(tmp_path: Path) -> None:
    class Wide(Toy):
        def encode(self, texts, role, *rest, **more):
            return np.ones((len(texts), DIM + 1), np.float32) / 3

    with pytest.raises(ModelError, match=r"documents 'd0' to 'd2': .*shape \(3, 9\), and not \(3, 8\)"):
        embed(Wide(), texts(3), Role.PASSAGE, tmp_path, what="document")


def test_a_damaged_row_is_never_compared(tmp_path: Path) -> None:
    found = embed(Toy(), texts(4), Role.PASSAGE, tmp_path, what="document")
    (folder,) = (tmp_path / "evaluate").iterdir()
    with (folder / "vectors").open("r+b") as file:
        file.seek(2 * DIM * 4)
        file.write(bytes(DIM * 4))
    with pytest.raises(StoreError, match="the kept vector of 'd2' is damaged"):
        found.block(0, 4)


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "evaluate").write_text("a file")
    with pytest.raises(UsageError, match=r"evaluate/\w+ cannot be written \(.+\): free some space"):
        embed(Toy(), texts(4), Role.PASSAGE, tmp_path, what="document")


def test_progress_tells_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    moments = []
    embed(Toy(), texts(6), Role.PASSAGE, tmp_path, what="document", progress=moments.append)
    assert [(m.what, m.done, m.total) for m in moments] == [("embedding documents", n, 6) for n in (2, 4, 6)]
    assert moments[0].left is not None and moments[0].left > 0
    assert moments[-1].left == 0


def test_no_texts_are_no_error(tmp_path: Path) -> None:
    found = embed(Toy(), {}, Role.PASSAGE, tmp_path, what="document")
    assert len(found) == 0
    assert found.block(0, 0).shape == (0, DIM)
    assert isinstance(ModelError("x"), EmbedcodeError)
