"""What a checkpoint is, before its weights are read: its name, its prompts, its space, and what may be asked of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from layouts import INSTRUCT, LAYOUTS

import embedcode
from embedcode import Encoder, Role
from embedcode.errors import ModelError, UsageError
from embedcode.model import hub
from embedcode.model.checkpoint import Checkpoint


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


def test_one_file_of_weights_goes_before_the_index_of_earlier_ones(
    tmp_path: Path, folder: Callable[[str], Path], encoder: Callable[[str], Encoder]
) -> None:
    """As transformers has it: the shards that are listed may be there still, and would be other weights."""
    copy = shutil.copytree(folder("e5"), tmp_path / folder("e5").name)
    earlier = {key: 2 * tensor for key, tensor in LAYOUTS["e5"].weights().items()}
    checkpoints.write_weights(copy, earlier, shards=2)
    assert embedcode.load(str(copy)).space == encoder("e5").space
    (copy / "model.safetensors").unlink()
    assert embedcode.load(str(copy)).space != encoder("e5").space


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
    here = {(layout.name, None): folder("nv-embedcode"), (layout.name, "v1"): folder("sfr-mistral")}
    monkeypatch.setattr(hub, "_whole", lambda *asked: here.get(asked))
    checkpoints.write_adapter(folder("nv-embedcode"), tmp_path / "adapter", layout.shapes)
    local = embedcode.load(str(tmp_path / "adapter")).space
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    checkpoints.write_json(
        tmp_path / "adapter" / "adapter_config.json", config | {"base_model_name_or_path": layout.name}
    )
    assert embedcode.load(str(tmp_path / "adapter")).space == local != encoder("nv-embedcode").space
    changed(tmp_path / "adapter", "adapter_config.json", revision="v1")
    assert embedcode.load(str(tmp_path / "adapter")).space not in (local, encoder("sfr-mistral").space)


def changed(folder: Path, file: str, **fields: Any) -> None:
    """A JSON file of a checkpoint with some fields replaced, or left out where they are None."""
    path = folder / file
    old = json.loads(path.read_text()) if path.exists() else {}
    checkpoints.write_json(path, {name: value for name, value in (old | fields).items() if value is not None})


QWEN_CODE = {"AutoModel": "modeling_qwen.Qwen2Model", "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM"}


def test_a_decoder_whose_own_code_may_see_both_ways_has_to_say_so(
    tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    """gte-Qwen2-7B-instruct and stella_en_1.5B_v5 were loaded as causal, without a word."""
    copy = shutil.copytree(folder("jina-code"), tmp_path / "gte-Qwen2-7B-instruct")
    changed(copy, "config.json", auto_map=QWEN_CODE)
    with pytest.raises(ModelError, match=r'modeling_qwen.Qwen2Model is code of its own, .* write "is_causal": false'):
        embedcode.load(str(copy))
    for causal in (False, True):
        changed(copy, "config.json", is_causal=causal)
        assert Checkpoint.read(copy).causal is causal
    changed(copy, "config.json", is_causal=None, auto_map={"AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM"})
    assert Checkpoint.read(copy).causal


@pytest.mark.parametrize(
    ("said", "causal"),
    [
        ({}, True),
        ({"use_bidirectional_attention": False}, True),
        ({"use_bidirectional_attention": True}, False),
        ({"is_causal": False, "use_bidirectional_attention": False}, False),  # as training writes it
    ],
)
def test_a_gemma_3_sees_both_ways_only_where_its_file_says_so(
    said: dict[str, Any], causal: bool, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(folder("embeddinggemma"), tmp_path / "another")
    changed(copy, "config.json", **{"use_bidirectional_attention": None, **said})
    assert Checkpoint.read(copy).causal is causal


NONE = {Role.QUERY: "", Role.PASSAGE: ""}
WEB = "Instruct: Given a web search query\nQuery: "


@pytest.mark.parametrize(
    ("layout", "said", "prompts"),
    [
        ("llama-embedqa", {"query": "q: ", "document": ""}, {Role.QUERY: "q: ", Role.PASSAGE: ""}),
        ("llama-embedqa", {"query": "", "document": ""}, {Role.QUERY: "query: ", Role.PASSAGE: "passage: "}),
        ("llama-embedqa", {"query": "q: "}, {Role.QUERY: "q: ", Role.PASSAGE: "passage: "}),
        ("embeddinggemma", {"query": "", "document": ""}, NONE),  # another model than EmbeddingGemma
        ("jina-code", {"query": "", "nl2code_query": "q: "}, {Role.QUERY: "q: ", Role.PASSAGE: ""}),
        ("sfr-mistral", {"web_search_query": WEB, "sts_query": "s"}, {Role.QUERY: INSTRUCT, Role.PASSAGE: ""}),
    ],
)
def test_an_empty_prompt_beside_another_is_one_and_none_at_all_say_nothing(
    layout: str, said: dict[str, str], prompts: dict[Role, str], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(folder(layout), tmp_path / "another")
    checkpoints.write_json(copy / "config_sentence_transformers.json", {"prompts": said})
    assert Checkpoint.read(copy).prompts == prompts


@pytest.mark.parametrize(
    ("layout", "name", "query", "passage"),
    [
        ("e5", "e5-large-v2", "query: ", "passage: "),
        ("multilingual-e5", "multilingual-e5-large", "query: ", "passage: "),
        ("bge", "bge-large-en-v1.5", LAYOUTS["bge"].query, ""),
        ("nomic-embed-code", "bge-code-v1", "<instruct>{instruction}\n<query>", ""),
        ("sfr-mistral", "e5-mistral-7b-instruct", INSTRUCT, ""),
        ("embeddinggemma", "embeddinggemma-300m", LAYOUTS["embeddinggemma"].query, "title: none | text: "),
    ],
)
def test_a_published_name_is_enough_for_its_prompts(
    layout: str, name: str, query: str, passage: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(folder(layout), tmp_path / name)
    (copy / "config_sentence_transformers.json").unlink(missing_ok=True)
    assert Checkpoint.read(copy).prompts == {Role.QUERY: query, Role.PASSAGE: passage}


def test_the_end_of_a_text_is_looked_for_where_older_repositories_name_it(
    tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    """It was left out of every text, without a word."""
    copy = shutil.copytree(folder("sfr-mistral-2"), tmp_path / folder("sfr-mistral-2").name)
    changed(copy, "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match=r"tokenizer_config.json names no eos_token, which is put behind every text"):
        embedcode.load(str(copy))
    changed(copy, "special_tokens_map.json", eos_token={"content": "</s>", "lstrip": False})
    tokens = [embedcode.load(str(one)).tokenize(["x"], Role.PASSAGE) for one in (copy, folder("sfr-mistral-2"))]
    assert tokens[0] == tokens[1]
