"""Every published layout gives the vectors of its published code, though nothing is padded and no code of it is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import vocabularies
from layouts import IMAGE, LAYOUTS, WINDOW
from reference import Reference, merged

import embedcode
from embedcode import Encoder, Role
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.types import InputError, Tokens

CLOSE = 1e-5
"""Largest difference of a component of two unit vectors that are the same; 2.4e-7 was seen."""
APART = 1e-3
"""Least difference a fault makes."""
BUG = "Given a bug description, retrieve codes that need to be edited to resolve it"
LICENCE = vocabularies.LICENCE
TEXTS = [
    "",
    "x",
    vocabularies.CODE,
    "\n  indented",
    "naïve 日本語 🙂",
    LICENCE[400:900],
    "close a session",
    LICENCE[2000:2120],
]
"""None, one token, code, unknown letters, and more tokens than any sliding window has."""
LIBRARY = [
    name
    for name, layout in LAYOUTS.items()
    if "auto_map" not in layout.config and not layout.adds_eos and "modules.json" in layout.files
]
"""Layouts with files of sentence-transformers that it reads without code from the hub, and with the </s> their authors
put behind texts: transformers 5 ignores the add_eos_token of tokenizer_config.json, which version 4 obeyed."""

each_layout = pytest.mark.parametrize("name", LAYOUTS)


@cache
def reference(name: str) -> Reference:
    return Reference(LAYOUTS[name])


def texts(name: str, prompt: str) -> list[str]:
    """TEXTS that have tokens: some tokenizers make none of the empty text."""
    return [text for text in TEXTS if reference(name).ids(prompt + text)]


def asked(name: str, role: Role) -> tuple[str, str | None]:
    """A layout's prompt for a role, and the instruction in it."""
    layout = LAYOUTS[name]
    prompt = layout.query if role is Role.QUERY else layout.passage
    return prompt.replace("{instruction}", BUG), BUG if "{instruction}" in prompt else None


def apart(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left - right).max())


@pytest.mark.parametrize("role", Role)
@each_layout
def test_vectors_are_those_of_the_published_model(name: str, role: Role, encoder: Callable[[str], Encoder]) -> None:
    prompt, instruction = asked(name, role)
    given = texts(name, prompt)
    expected = reference(name).encode(given, prompt)
    ours = encoder(name)
    entries = ours.tokenize(given, role, instruction)
    assert [list(entry.ids) for entry in entries] == [reference(name).ids(prompt + text) for text in given]
    vectors = ours.encode(given, role, instruction)
    assert vectors.dtype == np.float32 and vectors.shape == expected.shape == (len(given), ours.dim)
    assert apart(vectors, expected) <= CLOSE


@each_layout
def test_a_text_alone_and_among_others_has_one_vector(name: str, encoder: Callable[[str], Encoder]) -> None:
    prompt, _ = asked(name, Role.PASSAGE)
    given = texts(name, prompt)
    together = encoder(name).encode(given, Role.PASSAGE)
    alone = np.concatenate([encoder(name).encode([text], Role.PASSAGE) for text in given])
    assert apart(together, alone) <= 1e-6  # 3.2e-7 was seen: products of other shapes add up in another order
    assert apart(encoder(name).encode(given[::-1], Role.PASSAGE), together[::-1]) <= 1e-6
    assert encoder(name).encode([], Role.PASSAGE).shape == (0, encoder(name).dim)


@pytest.mark.parametrize("name", LIBRARY)
def test_sentence_transformers_reads_the_folder_alike_and_writes_it_anew(
    name: str, tmp_path: Path, folder: Callable[[str], Path], encoder: Callable[[str], Encoder]
) -> None:
    from sentence_transformers import SentenceTransformer

    eager = {"attn_implementation": "eager", "dtype": torch.float32}
    library = SentenceTransformer(str(folder(name)), device="cpu", model_kwargs=eager)
    assert library.max_seq_length == encoder(name).max_tokens
    for role in Role:
        prompt, instruction = asked(name, role)
        given = texts(name, prompt)
        expected = library.encode(given, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)
        assert apart(encoder(name).encode(given, role, instruction), expected) <= CLOSE
    library.save_pretrained(str(tmp_path / folder(name).name), create_model_card=False)
    anew = embedcode.load(str(tmp_path / folder(name).name), threads=1, precision="fp32")
    assert anew.max_tokens == library.max_seq_length
    for role in Role:
        assert apart(anew.encode(TEXTS[1:3], role), encoder(name).encode(TEXTS[1:3], role)) <= CLOSE


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("nv-embedcode", "Instruct: Retrieve code or text based on user query\nQuery: "),
        (
            "qwen3-embedding",
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        ),
        # The card's, which is in no file of the folder: "retrieval" is how it is written there.
        ("sfr-code", "Instruct: Given Code or Text, retrieval relevant content\nQuery: "),
    ],
)
def test_a_query_without_instruction_takes_the_models_own(
    name: str, own: str, encoder: Callable[[str], Encoder]
) -> None:
    ours, right = encoder(name), reference(name)
    assert apart(ours.encode(TEXTS, Role.QUERY), right.encode(TEXTS, own)) <= CLOSE
    other = own[: own.index(" ")] + " " + BUG + own[own.index("\n") :]
    assert apart(ours.encode(TEXTS, Role.QUERY, BUG), right.encode(TEXTS, other)) <= CLOSE
    with pytest.raises(ModelError, match="instruction"):
        ours.encode(TEXTS, Role.PASSAGE, BUG)


@pytest.mark.parametrize(
    ("name", "architecture", "prefix", "others"),
    [
        ("minilm", "BertForMaskedLM", "bert.", ("cls.predictions.bias", "cls.predictions.transform.dense.weight")),
        ("multilingual-e5", "XLMRobertaForMaskedLM", "roberta.", ("lm_head.bias", "lm_head.dense.weight")),
        ("roberta", "RobertaForMaskedLM", "roberta.", ("lm_head.bias", "lm_head.dense.weight")),
        ("gte-modernbert", "ModernBertForMaskedLM", "model.", ("head.dense.weight", "decoder.bias")),
        ("qwen3-embedding", "Qwen3ForCausalLM", "model.", ("lm_head.weight",)),
        ("sfr-mistral", "MistralForCausalLM", "model.", ("lm_head.weight", "model.layers.0.rotary_emb.inv_freq")),
    ],
)
def test_a_head_for_another_task_is_left_aside(
    name: str, architecture: str, prefix: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    layout = LAYOUTS[name]
    config = {**layout.config, "architectures": [architecture]}
    shapes = {prefix + key: shape for key, shape in layout.shapes.items()}
    layout = replace(layout, config=config, shapes=shapes, renamed=((prefix, ""),), shards=1)
    folder = checkpoints.write(layout, tmp_path)
    checkpoints.write_weights(folder, layout.weights() | {key: torch.zeros(3) for key in others})
    ours = embedcode.load(str(folder), threads=1, precision="fp32")
    right = Reference(layout).encode(TEXTS, layout.passage)
    assert apart(ours.encode(TEXTS, Role.PASSAGE), right) <= CLOSE


@each_layout
def test_the_comparison_sees_a_wrong_mask_and_a_wrong_pooling(name: str) -> None:
    """Bidirectional where it should be causal and the reverse; each pooling that is not the layout's."""
    layout, right = LAYOUTS[name], reference(name)
    given = TEXTS[2:]
    expected = right.encode(given, layout.passage)
    assert apart(right.encode(given, layout.passage, causal=not layout.causal), expected) > APART
    for pooling in {"mean", "last", "cls"} - {layout.pooling}:
        assert apart(right.encode(given, layout.passage, pooling=pooling), expected) > APART


@each_layout
def test_the_comparison_sees_every_weight(name: str) -> None:
    """But for what no vector depends on: BERT's pooler, and its key bias, which softmax takes out again."""
    layout, weights = LAYOUTS[name], LAYOUTS[name].weights()
    given = TEXTS[2:5]
    expected = reference(name).encode(given, layout.passage)
    unused = ("pooler.", "attention.self.key.bias")
    for key in weights:
        if not any(part in key for part in unused):
            changed = {**weights, key: -weights[key]}
            assert apart(Reference(layout, changed).encode(given, layout.passage), expected) > APART, key


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("nv-embedcode", {"rope_theta": 1e6}),
        ("llama-embedqa", {"rope_scaling": None}),
        ("sfr-code", {"attn_logit_softcapping": 50.0}),
        ("sfr-code", {"query_pre_attn_scalar": 16}),
        ("embeddinggemma", {"rope_local_base_freq": 1e6}),
        ("embeddinggemma", {"layer_types": ["full_attention"] * 3}),
        ("gte-modernbert", {"global_attn_every_n_layers": 2}),
        ("gte-modernbert", {"local_rope_theta": 160000.0}),
    ],
)
def test_the_comparison_sees_what_config_json_says(name: str, changed: dict[str, Any]) -> None:
    layout = LAYOUTS[name]
    other = Reference(replace(layout, config={**layout.config, **changed}), layout.weights())
    given = TEXTS[2:6]
    assert apart(other.encode(given, layout.passage), reference(name).encode(given, layout.passage)) > APART


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.reach is not None])
def test_the_comparison_sees_a_window_one_token_off(name: str) -> None:
    layout = LAYOUTS[name]
    right = reference(name).encode(TEXTS[5:6], layout.passage)
    for by in (-1, 1):
        other = Reference(replace(layout, reach=layout.reach + by), layout.weights())
        assert apart(other.encode(TEXTS[5:6], layout.passage), right) > APART


@each_layout
def test_a_weight_that_is_changed_on_disk_changes_vectors_and_space(
    name: str, tmp_path: Path, folder: Callable[[str], Path], encoder: Callable[[str], Encoder]
) -> None:
    layout = LAYOUTS[name]
    copy = shutil.copytree(folder(name), tmp_path / folder(name).name)
    weights = layout.weights()
    key = [key for key in weights if not key.startswith("pooler.")][len(weights) // 2]
    checkpoints.write_weights(copy, weights | {key: -weights[key]}, layout.shards)
    changed = embedcode.load(str(copy), threads=1, precision="fp32")
    given = TEXTS[2:5]
    assert apart(changed.encode(given, Role.PASSAGE), reference(name).encode(given, layout.passage)) > APART
    assert changed.space != encoder(name).space


@pytest.mark.parametrize("name", ["bge", "multilingual-e5"])
def test_a_text_may_have_as_many_tokens_as_the_network_has_positions(
    name: str, encoder: Callable[[str], Encoder]
) -> None:
    ours, prompt = encoder(name), LAYOUTS[name].passage
    text = "x"
    while len(reference(name).ids(f"{prompt}{text} x")) <= 512:
        text += " x"
    assert len(reference(name).ids(prompt + text)) in (511, 512)
    assert apart(ours.encode([text], Role.PASSAGE), reference(name).encode([text], prompt)) <= CLOSE
    with pytest.raises(EncodeError, match="exceeds maximum allowed token size 512"):
        ours.encode([text + " x x"], Role.PASSAGE)


def test_a_text_without_tokens_is_an_error_at_its_place(folder: Callable[[str], Path]) -> None:
    """Qwen's tokenizer adds nothing to a text; the passage prompt of this layout would."""
    bare = {Role.QUERY: "", Role.PASSAGE: ""}
    ours = embedcode.load(str(folder("jina-code")), threads=1, precision="fp32", prompts=bare)
    tokens = ours.tokenize(["x", ""], Role.PASSAGE)
    assert isinstance(tokens[0], Tokens) and isinstance(tokens[1], InputError) and tokens[1].index == 1
    with pytest.raises(EncodeError) as error:
        ours.encode(["x", ""], Role.PASSAGE)
    assert error.value.index == 1


def test_a_special_token_without_a_row_is_read_as_text(folder: Callable[[str], Path]) -> None:
    ours = embedcode.load(str(folder("embeddinggemma")), threads=1, precision="fp32")
    (entry,) = ours.tokenize([f"a {IMAGE} b"], Role.PASSAGE)
    assert isinstance(entry, Tokens)
    assert max(entry.ids) < LAYOUTS["embeddinggemma"].config["vocab_size"]
    assert entry.used > 8
    assert np.isfinite(ours.encode([f"a {IMAGE} b"], Role.PASSAGE)).all()


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("nv-embedcode", "base_model.model."),
        ("nv-embedcode-model.", "base_model.model."),  # its own keys begin with model.
        ("sfr-mistral", "base_model.model."),
        ("nv-embedcode", "base_model.model.model."),  # trained under a head that the base's keys lack
    ],
)
def test_a_lora_adapter_is_its_base_with_the_product_added(
    name: str, prefix: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    layout, weights = LAYOUTS[name], LAYOUTS[name].weights()
    tensors, scale = checkpoints.write_adapter(folder(name), tmp_path / "adapter", layout.shapes, prefix)
    right = Reference(layout, merged(weights, tensors, scale, prefix))
    ours = embedcode.load(str(tmp_path / "adapter"), threads=1, precision="fp32")
    expected = right.encode(TEXTS, layout.passage)
    assert apart(ours.encode(TEXTS, Role.PASSAGE), expected) <= CLOSE
    assert apart(reference(name).encode(TEXTS, layout.passage), expected) > APART


def test_what_lies_beside_an_adapter_goes_before_its_base_s(tmp_path: Path, folder: Callable[[str], Path]) -> None:
    """As sentence-transformers saves a model that it trained an adapter of."""
    layout, adapter = LAYOUTS["sfr-mistral"], tmp_path / "adapter"
    tensors, scale = checkpoints.write_adapter(folder("sfr-mistral"), adapter, layout.shapes)
    prompts = {"query": "find: ", "document": "code: "}
    for path, content in checkpoints.sentence_transformers("mean_tokens", 64, 32, prompts).items():
        (adapter / path).parent.mkdir(exist_ok=True)
        checkpoints.write_json(adapter / path, content)
    own = replace(layout, pooling="mean", query="find: ", passage="code: ")
    ours = embedcode.load(str(adapter), threads=1, precision="fp32")
    assert ours.max_tokens == 64
    assert ours.conditions.prompts == {Role.QUERY: "find: ", Role.PASSAGE: "code: "}
    texts = ["x", "def f(a): return a"]
    expected = Reference(own, merged(layout.weights(), tensors, scale)).encode(texts, "code: ")
    assert apart(ours.encode(texts, Role.PASSAGE), expected) <= CLOSE


@pytest.mark.parametrize("name", ["nv-embedcode", "nv-embed"])
def test_a_window_in_the_config_counts_for_nothing_where_the_published_code_has_none(
    name: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(folder(name), tmp_path / folder(name).name)
    config = json.loads((copy / "config.json").read_text())
    (config.get("text_config") or config)["sliding_window"] = WINDOW
    checkpoints.write_json(copy / "config.json", config)
    ours = embedcode.load(str(copy), threads=1, precision="fp32")
    expected = reference(name).encode(TEXTS[5:6], LAYOUTS[name].passage)
    assert apart(ours.encode(TEXTS[5:6], Role.PASSAGE), expected) <= CLOSE


def test_the_folder_of_pooling_is_the_one_that_is_listed(folder: Callable[[str], Path], tmp_path: Path) -> None:
    moved = shutil.copytree(folder("minilm"), tmp_path / "moved")
    listed = (moved / "modules.json").read_text()
    (moved / "modules.json").write_text(listed.replace("1_Pooling", "pooled"))
    config = json.loads((moved / "1_Pooling" / "config.json").read_text())
    checkpoints.write_json(
        moved / "pooled" / "config.json", config | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    )
    told = embedcode.load(str(folder("minilm")), threads=1, precision="fp32", pooling="cls")
    expected = told.encode(["x"], Role.PASSAGE)
    found = embedcode.load(str(moved), threads=1, precision="fp32").encode(["x"], Role.PASSAGE)
    np.testing.assert_array_equal(found, expected)


def test_what_the_caller_says_of_pooling_goes_before_the_files(folder: Callable[[str], Path]) -> None:
    """The paper of NV-EmbedCode leaves the instruction out of the mean; its files have it in."""
    layout, given = LAYOUTS["e5"], TEXTS[2:5]
    ours = embedcode.load(str(folder("e5")), threads=1, precision="fp32", pooling="cls")
    expected = Reference(replace(layout, pooling="cls"), layout.weights()).encode(given, layout.passage)
    assert apart(ours.encode(given, Role.PASSAGE), expected) <= CLOSE
    masked = embedcode.load(str(folder("nv-embedcode")), threads=1, precision="fp32", masks_prompt=True)
    prompt, instruction = asked("nv-embedcode", Role.QUERY)
    whole = reference("nv-embedcode").encode(given, prompt)
    assert apart(masked.encode(given, Role.QUERY, instruction), whole) > APART
    assert apart(masked.encode(given, Role.PASSAGE), reference("nv-embedcode").encode(given, "")) <= CLOSE
    spaces = {embedcode.load(str(folder("e5")), pooling=one).space for one in ("", "mean", "cls")}
    assert len(spaces) == 2
    for model, pooling in ((folder("nv-embed"), "mean"), (folder("e5"), "max"), ("", "mean")):
        with pytest.raises(UsageError, match="pooling"):
            embedcode.load(str(model), pooling=pooling)
