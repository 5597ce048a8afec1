"""What a checkpoint is, before its weights are read: its name, its prompts, its space, and what may be asked of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from layouts import LAYOUTS

import embedcode
from embedcode import Encoder, Role
from embedcode.errors import UsageError
from embedcode.model import hub


@pytest.mark.parametrize("argument", [{"precision": "fp16"}, {"device": "cuda:x"}, {"device": "gpu"}])
def test_a_precision_or_a_device_that_there_is_not_is_told(
    argument: dict[str, Any], folder: Callable[[str], Path]
) -> None:
    (name,) = argument
    for model in ("", str(folder("e5"))):
        with pytest.raises(UsageError, match=f"^{name} must be "):
            embedcode.load(model, **argument)


def test_another_base_of_rotation_is_another_space_and_a_saved_again_checkpoint_is_not(
    tmp_path: Path, folder: Callable[[str], Path], encoder: Callable[[str], Encoder]
) -> None:
    copy = shutil.copytree(folder("qwen3-embedding"), tmp_path / folder("qwen3-embedding").name)
    config = json.loads((copy / "config.json").read_text())
    checkpoints.write_json(copy / "config.json", config | {"transformers_version": "5.99.0"})
    assert embedcode.load(str(copy)).space == encoder("qwen3-embedding").space
    checkpoints.write_json(copy / "config.json", config | {"rope_theta": 1234.5})
    assert embedcode.load(str(copy)).space != encoder("qwen3-embedding").space


@pytest.mark.parametrize("name", ["llama-embedqa", "qwen3-embedding", "embeddinggemma", "coderankembed"])
def test_a_space_is_the_same_before_and_after_the_network_is_built(name: str, folder: Callable[[str], Path]) -> None:
    """transformers writes rope_theta into the rope_scaling it is given."""
    asked = embedcode.load(str(folder(name)), threads=1, precision="fp32")
    asked.encode(["x"], Role.PASSAGE)
    assert asked.space == embedcode.load(str(folder(name))).space


@pytest.mark.parametrize("name", ["e5", "sfr-mistral"])
def test_prompts_are_those_of_the_model_whatever_way_its_folder_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Callable[[str], Path]
) -> None:
    """They are in no file of these models, so that a name is all there is to know them by."""
    layout = LAYOUTS[name]
    kept = tmp_path / f"models--{layout.name.replace('/', '--')}" / "snapshots" / "0123abc"
    shutil.copytree(folder(name), kept)
    monkeypatch.chdir(folder(name))
    checkpoints.write_adapter(folder(name), tmp_path / "adapter", layout.shapes)
    for model in (kept, Path(), folder(name) / ".." / folder(name).name, tmp_path / "adapter"):
        ours = embedcode.load(str(model))
        assert ours.conditions.prompts == {Role.QUERY: layout.query, Role.PASSAGE: layout.passage}, model
    assert embedcode.load(str(kept)).conditions.name == layout.name


def test_an_adapter_may_name_its_base_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Callable[[str], Path], encoder: Callable[[str], Encoder]
) -> None:
    layout = LAYOUTS["nv-embedcode"]
    monkeypatch.setattr(hub, "_whole", {layout.name: folder("nv-embedcode")}.get)
    checkpoints.write_adapter(folder("nv-embedcode"), tmp_path / "adapter", layout.shapes)
    local = embedcode.load(str(tmp_path / "adapter")).space
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    checkpoints.write_json(
        tmp_path / "adapter" / "adapter_config.json", config | {"base_model_name_or_path": layout.name}
    )
    assert embedcode.load(str(tmp_path / "adapter")).space == local != encoder("nv-embedcode").space
