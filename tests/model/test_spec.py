"""What an exported model says of itself, and that the files that are shipped are the ones it speaks of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import ModelError
from embedcode.model import spec as spec_module
from embedcode.model.family import Pooling
from embedcode.model.spec import DEFAULT, Spec
from embedcode.types import Role

SPEC = Spec.read()


@pytest.mark.parametrize(("file", "name"), [("model.onnx", "graph_sha256"), ("tokenizer.json", "tokenizer_sha256")])
def test_the_shipped_files_are_the_ones_described(file: str, name: str) -> None:
    meta = json.loads((DEFAULT / "meta.json").read_text())
    assert hashlib.sha256((DEFAULT / file).read_bytes()).hexdigest() == meta[name]


def test_the_licence_is_kept() -> None:
    assert SPEC.licence == "Apache-2.0"
    assert "Apache License" in (DEFAULT / "LICENSE").read_text()
    assert "all-MiniLM-L6-v2" in (DEFAULT / "NOTICE").read_text()


def test_no_more_than_what_is_needed_is_shipped() -> None:
    assert {path.name for path in DEFAULT.iterdir()} == {
        "LICENSE",
        "NOTICE",
        "meta.json",
        "model.onnx",
        "tokenizer.json",
    }
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) < 25e6


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "0" * 64},
        {"tokenizer": "0" * 64},
        {"pooling": "last"},
        {"dim": 256},
        {"max_tokens": 256},
        {"prompts": {Role.QUERY: "", Role.PASSAGE: "passage: "}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_space_changes_with_what_decides_a_passage_s_vector(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).space != SPEC.space


def test_the_space_changes_with_the_passage_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.space
    monkeypatch.setattr(spec_module, "FORMAT", "text/2")
    assert SPEC.space != before


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"graph": "0" * 64},
        {"name": "other"},
        {"folder": Path("elsewhere")},
        {"prompts": {Role.QUERY: "query: ", Role.PASSAGE: ""}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_space_keeps_through_what_only_runs_it_otherwise(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).space == SPEC.space


def test_a_folder_without_meta(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no exported model \(no meta.json\): give a folder") as error:
        Spec.read(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"x"', "{}", '{"name": "x"}', json.dumps({"golden": []})],
)
def test_a_meta_that_is_no_model(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(ModelError, match=r"meta.json cannot be read .*: export it again"):
        Spec.read(tmp_path)


def test_a_meta_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot be read"):
        Spec.read(tmp_path)


OPTIONAL = {"space", "format", "batched", "masks_prompt", "dimensions", "instruction", "eos"}


@pytest.mark.parametrize("name", sorted(json.loads((DEFAULT / "meta.json").read_text()).keys() - OPTIONAL))
def test_each_field_is_needed(tmp_path: Path, name: str) -> None:
    meta = json.loads((DEFAULT / "meta.json").read_text())
    del meta[name]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ModelError, match=name):
        Spec.read(tmp_path)


def test_a_meta_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "meta.json").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        Spec.read(tmp_path)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is no exported model"):
        Spec.read(tmp_path / "file")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    spec = replace(
        SPEC,
        folder=tmp_path,
        pooling=Pooling.LAST,
        prompts={Role.QUERY: "Instruct: {instruction}\nQuery: ", Role.PASSAGE: "größe: "},
        format="openvino",
        batched=True,
        masks_prompt=True,
        instruction="Find code",
        dimensions=(32, 64),
        eos="</s>",
        origin="0" * 32,
    )
    spec.write()
    assert Spec.read(tmp_path) == spec
    assert spec.space == "0" * 32


@pytest.mark.parametrize("change", [{"format": "tflite"}, {"pooling": "sum"}, {"dimensions": 3}], ids=str)
def test_a_value_that_no_engine_knows(tmp_path: Path, change: dict[str, Any]) -> None:
    meta = json.loads((DEFAULT / "meta.json").read_text()) | change
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ModelError, match="cannot be read"):
        Spec.read(tmp_path)
