"""The packaged encoder: one vector for a text wherever it stands, unit length, never a value that is not finite."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcode import EncodeError, Encoder, InputError, Role, Truncate, cut, load
from embedcode.engine import doctor, openvino
from embedcode.engine.graph import GraphEncoder, Session
from embedcode.errors import ModelError, UsageError
from embedcode.model.spec import DEFAULT, GRAPHS
from embedcode.types import Tokens

TEXTS = [
    "import os",
    "import numpy as np\n\ndef mean(values):\n    return np.mean(values)",
    "",
    "where are sessions invalidated?",
    "\0\0 a NUL \0 inside",
    "a lone surrogate \ud800 and another \udfff",
    "日本語のコメント и русский 🙂",
    "x",
    "\n\n\t  \n",
    "for i in range(10):\n    total += i\n" * 40,
]


def tokens(encoder: GraphEncoder, texts: list[str]) -> list[Tokens]:
    entries = encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END)
    return [entry for entry in entries if isinstance(entry, Tokens)]


def test_it_is_an_encoder(encoder: GraphEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.dim, encoder.max_tokens) == (384, 512)
    for part in ("int8", "onnxruntime"):
        assert part in encoder.build


@pytest.mark.parametrize("order", [1, -1])
def test_neighbours_change_no_bit(encoder: GraphEncoder, order: int) -> None:
    texts = (TEXTS + TEXTS[:3])[::order]
    together = encoder.encode(texts, Role.PASSAGE, truncate=Truncate.END)
    assert together.dtype == np.float32
    assert together.shape == (len(texts), encoder.dim)
    for text, vector in zip(texts, together, strict=True):
        alone = encoder.encode([text], Role.PASSAGE, truncate=Truncate.END)[0]
        assert alone.tobytes() == vector.tobytes()


def test_threads_change_no_bit(encoder: GraphEncoder) -> None:
    one = load(threads=1).encode(TEXTS, Role.QUERY, truncate=Truncate.END)
    assert one.tobytes() == encoder.encode(TEXTS, Role.QUERY, truncate=Truncate.END).tobytes()


def test_vectors_have_unit_length(encoder: GraphEncoder) -> None:
    lengths = np.linalg.norm(encoder.encode(TEXTS, Role.PASSAGE, truncate=Truncate.END).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_different_texts_that_begin_alike_differ(encoder: GraphEncoder) -> None:
    one, other = encoder.encode(["import numpy as np", "import { useState } from 'react'"], Role.PASSAGE)
    assert one @ other < 0.9


def test_a_megabyte_of_one_character(encoder: GraphEncoder) -> None:
    vectors = encoder.encode(["a" * 1_000_000], Role.PASSAGE, truncate=Truncate.END)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_to_encode(encoder: GraphEncoder) -> None:
    assert encoder.encode([], Role.QUERY).shape == (0, encoder.dim)


def test_encode_names_the_first_text_that_cannot_be_encoded(encoder: GraphEncoder) -> None:
    with pytest.raises(EncodeError, match=r"^Input length 602 exceeds maximum allowed token size 512") as error:
        encoder.encode(["short", "word " * 600, 3], Role.PASSAGE)  # type: ignore[list-item]
    assert error.value.index == 1


def test_an_instruction_is_refused_not_ignored(encoder: GraphEncoder) -> None:
    with pytest.raises(ModelError, match="knows no instruction for a query"):
        encoder.encode(["x"], Role.QUERY, instruction="Find code:")


def test_token_ids_give_the_vector_of_their_text(encoder: GraphEncoder) -> None:
    ids = [entry.ids for entry in tokens(encoder, TEXTS)]
    by_ids = encoder.encode(ids, Role.PASSAGE)
    assert by_ids.tobytes() == encoder.encode(TEXTS, Role.PASSAGE, truncate=Truncate.END).tobytes()


def test_it_computes_the_published_model(encoder: GraphEncoder) -> None:
    golden = json.loads((DEFAULT / "meta.json").read_text())["golden"]
    published = np.array(golden["vector"])
    vector = encoder.encode([golden["text"]], Role.PASSAGE)[0]
    assert float(vector @ published) / np.linalg.norm(published) >= 0.99
    assert encoder.golden_cosine() == pytest.approx(float(vector @ published), abs=1e-4)


@pytest.mark.parametrize("factor", [-1.0, np.nan])
def test_an_engine_that_computes_the_model_wrongly_gives_nothing_out(
    encoder: GraphEncoder, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """As a processor without the right instructions may; asking again does not help."""
    right = GraphEncoder._one
    monkeypatch.setattr(GraphEncoder, "_one", lambda self, *entry: right(self, *entry) * np.float32(factor))
    broken = GraphEncoder(encoder.spec, 1)
    assert not broken.golden_cosine() >= 0.99
    for texts in (["x"], ["x"], ["x", "y"]):
        with pytest.raises(ModelError, match=r"gives wrong vectors on this machine .* run `embedcode doctor`"):
            broken.encode(texts, Role.QUERY)
    assert ("golden vector", False) in {(name, fine) for name, _, fine in doctor()}


def test_a_row_that_is_not_finite_is_computed_again_in_another_way(
    encoder: GraphEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same graph by the same kernels gives the same again."""
    expected = encoder.encode(["a", "b", "c"], Role.PASSAGE)
    compute, wrong = encoder._session.run, tokens(encoder, ["b"])[0].ids

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        states = compute(ids, mask)
        return states * np.float32(np.nan) if tuple(ids[0]) == wrong else states

    monkeypatch.setitem(encoder.__dict__, "_session", replace(encoder._session, run=run))
    monkeypatch.setattr(encoder, "repaired", 0)
    np.testing.assert_allclose(encoder.encode(["a", "b", "c"], Role.PASSAGE), expected, atol=1e-6)
    assert encoder.repaired == 1
    assert encoder.remarks() == ["1 vectors were not finite and were computed again alone, in int8"]
    encoder.__dict__.pop("_exact", None)

    def full(_: object) -> None:
        raise ModelError("embedcode-small needs 2.0 GB of memory and 1.0 GB are free: stop something else.")

    monkeypatch.setattr("embedcode.engine.onnx.exact", full)
    with pytest.raises(EncodeError, match=r"^Input 1 has no finite vector .* cannot be computed again: .* are free"):
        encoder.encode(["a", "b", "c"], Role.PASSAGE)


def test_an_int8_graph_of_openvino_is_computed_again_with_activations_in_fp32(
    encoder: GraphEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processor has the instructions OpenVINO quantises them, and what overflows there does so again."""
    asked: list[dict[str, Any]] = []

    class Core:
        def compile_model(self, path: str, device: str, options: dict[str, Any]) -> None:
            asked.append(options)

    monkeypatch.setattr(openvino, "_core", Core)
    (tmp_path / GRAPHS["openvino"][0]).touch()
    openvino.exact(replace(encoder.spec, folder=tmp_path, format="openvino"))
    assert asked[0].items() >= {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}.items()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_stays_so_is_an_error_with_its_index(
    encoder: GraphEncoder, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    right = encoder._states
    wrong = tokens(encoder, ["b"])[0].ids

    def always(entries: list[Tokens], session: Session) -> np.ndarray:
        states = right(entries, session)
        return np.full_like(states, value) if entries[0].ids == wrong else states

    monkeypatch.setattr(encoder, "_states", always)
    said = r"^Input 2 has no finite vector in embedcode-small, nor again alone in int8: leave it out"
    with pytest.raises(EncodeError, match=said) as error:
        encoder.encode(["a", "c", "b"], Role.PASSAGE)
    assert error.value.index == 2


def test_load_costs_nothing_before_the_first_text() -> None:
    code = "import sys, embedcode; embedcode.load(); print({'onnxruntime', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_load_by_folder_and_what_is_wrong_with_it(encoder: GraphEncoder, tmp_path: Path) -> None:
    assert load(str(DEFAULT)).space == encoder.space
    with pytest.raises(ModelError, match=r"config.json is missing: give the folder of a checkpoint"):
        load(str(tmp_path))
    (tmp_path / "meta.json").write_bytes((DEFAULT / "meta.json").read_bytes())
    with pytest.raises(ModelError, match=r"tokenizer.json is no usable tokenizer.json .*: install the model again"):
        load(str(tmp_path)).encode(["x"], Role.QUERY)
    (tmp_path / "tokenizer.json").write_bytes((DEFAULT / "tokenizer.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"model.onnx cannot be loaded .*: export it again"):
        load(str(tmp_path)).encode(["x"], Role.QUERY)


def test_load_takes_a_path(encoder: GraphEncoder) -> None:
    assert load(DEFAULT).space == encoder.space


@pytest.mark.parametrize("role", ["document", None, ""])
def test_a_role_that_there_is_not(encoder: GraphEncoder, role: Any) -> None:
    with pytest.raises(UsageError, match=f"^role {role!r} is none of query, passage"):
        encoder.encode(["x"], role)


def test_a_prompt_for_a_role_that_there_is_not() -> None:
    prompts: Any = {"document": "q: "}
    with pytest.raises(UsageError, match="prompts has 'document': its keys are query and passage"):
        load(prompts=prompts)


def test_forward_of_a_text_that_cannot_be_encoded_says_why(encoder: GraphEncoder) -> None:
    entries: Any = encoder.tokenize(["x", "word " * 2000], Role.PASSAGE)
    with pytest.raises(EncodeError, match=r"Input length 2002 exceeds .*\(input 1\)") as raised:
        encoder.forward(entries)
    assert raised.value.index == 1


@pytest.mark.parametrize(
    ("form", "precision", "device", "said"),
    [
        ("onnx", "", "auto", []),
        ("onnx", "int8", "cpu", []),
        ("onnx", "fp32", "cpu", ["embedcode-small is in int8: precision fp32 changes nothing"]),
        ("openvino", "fp32", "cpu", []),
        ("onnx", "", "cuda", ["embedcode-small is for processors: device cuda changes nothing"]),
    ],
)
def test_a_choice_that_changes_nothing_is_remarked(
    encoder: GraphEncoder, form: str, precision: str, device: str, said: list[str]
) -> None:
    assert GraphEncoder(replace(encoder.spec, format=form), 1, device, precision).remarks() == said


def test_prompts_are_put_before_the_text_by_role(encoder: GraphEncoder) -> None:
    prompted = GraphEncoder(replace(encoder.spec, prompts={Role.QUERY: "query: ", Role.PASSAGE: ""}), 1)
    plain = encoder.encode(["query: sessions", "sessions"], Role.PASSAGE)
    assert prompted.encode(["sessions"], Role.QUERY)[0].tobytes() == plain[0].tobytes()
    assert prompted.encode(["sessions"], Role.PASSAGE)[0].tobytes() == plain[1].tobytes()


def test_the_doctor_finds_this_installation_well() -> None:
    findings = {name: (finding, fine) for name, finding, fine in doctor()}
    assert all(fine for _, fine in findings.values())
    assert findings["weights"][0] == "as published"
    assert {"model", "weights", "engine", "golden vector", "speed"} <= set(findings)


def test_every_entry_of_tokenize_is_in_its_place(encoder: GraphEncoder) -> None:
    entries = encoder.tokenize(["fine", "word " * 600, "fine"], Role.QUERY)
    assert [type(entry) for entry in entries] == [Tokens, InputError, Tokens]
    assert isinstance(entries[1], InputError) and entries[1].index == 1


def test_a_process_that_was_forked_computes_the_same(tmp_path: Path) -> None:
    """Threads do not follow into it: it waited for those of its parent, for ever."""
    code = """
import os, sys
import numpy as np
from embedcode import Role, load
encoder = load(threads=2)
before = encoder.encode(["a b", "c d", "e f"], Role.PASSAGE)
if (child := os.fork()) == 0:
    os._exit(0 if np.array_equal(encoder.encode(["a b", "c d", "e f"], Role.PASSAGE), before) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=100, check=False).returncode == 0


@pytest.mark.parametrize(
    "texts",
    [iter(["a", "b"]), (text for text in "ab"), {"a": 1, "b": 2}.keys().__iter__(), np.array(["a", "b"]), ("a", "b")],
    ids=["iterator", "generator", "keys", "array", "tuple"],
)
def test_texts_come_in_any_order_that_there_is(encoder: GraphEncoder, texts: Any) -> None:
    np.testing.assert_array_equal(encoder.encode(texts, Role.QUERY), encoder.encode(["a", "b"], Role.QUERY))


def test_rows_of_an_array_are_ids_as_lists_are(encoder: GraphEncoder) -> None:
    ids = [[101, 2485, 102]]
    np.testing.assert_array_equal(encoder.encode(np.array(ids), Role.QUERY), encoder.encode(ids, Role.QUERY))  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", [None, 3, {"a"}, {"a": 1}, "a", b"a"])
def test_what_is_no_list_of_texts_is_refused(encoder: GraphEncoder, texts: Any) -> None:
    for take in (encoder.encode, encoder.tokenize):
        with pytest.raises(UsageError, match=r"^texts are "):
            take(texts, Role.QUERY)


def test_numbers_have_to_be_whole(encoder: GraphEncoder) -> None:
    for name in ("max_tokens", "dimensions"):
        with pytest.raises(UsageError, match=rf"^{name} 2\.5 is no whole number"):
            encoder.encode(["a"], Role.QUERY, **{name: 2.5})
    with pytest.raises(UsageError, match="threads -1 is not between 0 and"):
        load(threads=-1)
    with pytest.raises(UsageError, match="the prompt of a query is 3: give a text"):
        load(prompts={Role.QUERY: 3})  # type: ignore[dict-item]
    np.testing.assert_array_equal(cut([[3.0, 4.0, 1.0]], np.int64(2)), np.array([[0.6, 0.8]]))  # type: ignore[arg-type]


def test_streaming_a_graph_is_remarked() -> None:
    assert any("streaming changes nothing" in remark for remark in load(stream=True).remarks())
