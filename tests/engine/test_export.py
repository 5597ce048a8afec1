"""Exports: the vectors of the published code, from a graph without torch, alone and in batches, in int8."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write, write_json
from layouts import LAYOUTS
from reference import Reference
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from embedcode import Role, Truncate, load
from embedcode.engine import memory, onnx, packed, smoothquant
from embedcode.engine.export import attention, export
from embedcode.engine.graph import GraphEncoder
from embedcode.engine.quantise import CALIBRATION, COMPARED, _texts, quantise
from embedcode.engine.samples import OTHERS, QUERIES
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.engine.vectors import unit
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.spec import GRAPHS, Spec
from embedcode.types import Tokens

TEXTS = [
    "x",
    "def close(self):\n    self._lock.release()",
    "import os",
    "for each in range(10):\n    total += each\n" * 6,
    "größe = {'日本': 1}",
    "close the session when its user leaves",
]
"""From one token to more than any sliding window has."""
FORMS = [("onnx", False), ("onnx", True), ("openvino", False)]
QUICK = [
    ("nv-embed", "onnx", False),  # latent attention, a masked prompt, an end token
    ("sfr-mistral", "onnx", True),  # causal, a sliding window, the last token
    ("embeddinggemma", "openvino", False),  # windows of some layers, dense heads
    ("minilm", "onnx", False),
    ("minilm", "openvino", False),
]
Exported = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The export of a layout, made once."""

    @cache
    def written(name: str, form: str, batched: bool) -> Path:
        out = tmp_path_factory.mktemp("export")
        folder = write(LAYOUTS[name], tmp_path_factory.mktemp("checkpoint"))
        _, cosine = export(Checkpoint.read(folder), out, form, batched, 1)
        assert cosine >= 0.9999
        shutil.rmtree(folder)  # an export stands alone
        return out

    def made(name: str, form: str = "onnx", batched: bool = False) -> Path:
        return written(name, form, batched)  # a cache tells what is left out from the same that is given

    return made


@pytest.mark.parametrize(
    ("name", "form", "batched"),
    [
        *QUICK,
        *(
            pytest.param(name, *form, marks=pytest.mark.slow)
            for name in LAYOUTS
            for form in FORMS
            if (name, *form) not in QUICK
        ),
    ],
)
def test_an_export_has_the_vectors_of_the_published_code(
    exported: Exported, name: str, form: str, batched: bool
) -> None:
    layout, reference = LAYOUTS[name], Reference(LAYOUTS[name])
    encoder = load(str(exported(name, form, batched)), threads=2, precision="fp32")
    assert isinstance(encoder, GraphEncoder)
    for role, prompt in ((Role.QUERY, layout.query), (Role.PASSAGE, layout.passage)):
        instruction = "Find it" if "{instruction}" in prompt else None
        expected = reference.encode(TEXTS, prompt.replace("{instruction}", "Find it"))
        vectors = encoder.encode(TEXTS, role, instruction)
        assert (vectors * expected).sum(1).min() >= 0.9999
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.padding == 0
    assert encoder.spec.capped == (name == "sfr-code")


@pytest.mark.parametrize(("name", "form", "batched"), QUICK[:3])
def test_late_chunking_of_an_export_is_that_of_its_checkpoint(
    exported: Exported, tmp_path: Path, name: str, form: str, batched: bool
) -> None:
    text = "def first(a):\n    return a\n\ndef second(b):\n    return first(b) + 1\n"
    spans = [(0, 30), (30, len(text)), (4, 9)]
    (tmp_path / "checkpoint").mkdir()
    checkpoint = load(str(write(LAYOUTS[name], tmp_path / "checkpoint")), threads=1, precision="fp32")
    encoder = load(str(exported(name, form, batched)), threads=1, precision="fp32")
    assert isinstance(checkpoint, TorchEncoder) and isinstance(encoder, GraphEncoder)
    assert (encoder.late(text, spans) * checkpoint.late(text, spans)).sum(1).min() >= 0.9999
    with pytest.raises(EncodeError, match="Input 1 is the span 900:901"):
        encoder.late(text, [(0, 3), (900, 901)])


@pytest.mark.parametrize(("name", "form", "batched"), QUICK[1:3])
def test_a_row_that_is_not_finite_is_computed_again_in_fp32(
    exported: Exported, name: str, form: str, batched: bool
) -> None:
    """On the processor, from a batch of a card too."""
    encoder = load(str(exported(name, form, batched)), threads=1)
    assert isinstance(encoder, GraphEncoder)
    expected = encoder.encode(TEXTS, Role.PASSAGE)
    session = encoder._session

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        states = session.run(ids, mask)
        states[:, 1:] = np.inf
        return states

    encoder.__dict__["_session"] = replace(session, run=run, place="cuda", budget=1024 * batched)
    np.testing.assert_allclose(encoder.encode(TEXTS, Role.PASSAGE), expected, atol=1e-5)
    assert encoder.remarks() == ["6 vectors were not finite and were computed again alone, in fp32"]
    spans = [(0, 5), (5, 9)]
    late = encoder.late("close the session", spans)
    encoder.__dict__["_session"] = session
    np.testing.assert_allclose(late, encoder.late("close the session", spans), atol=1e-5)


@pytest.mark.parametrize(("name", "form", "batched"), QUICK[:3])
def test_a_long_text_that_has_no_room_is_named_before_it_is_run(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, name: str, form: str, batched: bool
) -> None:
    """A number for each pair of its tokens and each head: the process was killed, or the engine of a server."""
    encoder = load(str(exported(name, form, batched)), threads=2, precision="fp32")
    assert isinstance(encoder, GraphEncoder) and encoder.spec.heads > 1
    long, short = Tokens((5,) * 2100, 2100, 2100), Tokens((5,) * 9, 9, 9)
    need = memory.attended(encoder.spec, 2100)
    assert need > 2100**2 * (4 * encoder.spec.heads if form == "onnx" else 4)
    refused = pytest.raises(
        EncodeError, match=r"Input 1 has 2,100 tokens, which need 0\.\d GB .*: cut it by max_tokens"
    )
    encoder.forward([short])  # loads it
    with monkeypatch.context() as full:
        full.setattr(memory, "available", lambda: need - 1)
        with refused:
            encoder.forward([short, long])
        alone = encoder.forward([short])
    found = encoder.forward([short, long, long])
    np.testing.assert_allclose(found[1], found[2])
    np.testing.assert_array_equal(alone[0], found[0])
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    # ONNX Runtime keeps what the first took, so that the next of its size needs nothing, and was refused.
    with nullcontext() if form == "onnx" else refused:
        np.testing.assert_array_equal(encoder.forward([short, long]), found[:2])


def test_texts_for_which_there_is_no_room_on_every_thread_take_turns(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of 2,048 tokens and twelve heads take 4 GB, which were not counted."""
    running, most, counting, meet = 0, 0, Lock(), Barrier(3, timeout=30)

    def slow(ids: np.ndarray, _: np.ndarray) -> np.ndarray:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        if together == 3:
            meet.wait()
        with counting:
            running -= 1
        return np.ones((*ids.shape, encoder.dim), np.float32)

    texts, spec = [Tokens((5,) * 600, 600, 600)] * 6, Spec.read(exported("sfr-mistral", "onnx", True))
    session = replace(GraphEncoder(spec, 3)._session, run=slow)
    encoder = GraphEncoder(spec, 3)
    encoder.__dict__["_session"] = session
    encoder._verified = True
    for room, together in ((599, 1), (601, 3)):  # a job beside it ends, for which all took turns ever after
        free = 2 * 3 * memory.attended(encoder.spec, room)
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        most = 0
        encoder.forward(texts)
        assert most == together


def test_a_card_that_is_full_halves_a_batch_and_names_a_text_that_fits_nowhere(batched: GraphEncoder) -> None:
    """ONNX Runtime's own error ended a run in a traceback, whatever the batch."""
    session = batched._session
    runner = onnx._runner(batched.spec, Full(session.run, 100))
    small = GraphEncoder(batched.spec, 1)
    small.__dict__["_session"] = replace(session, run=runner, place="cuda")
    entries = [Tokens((5,) * used, used, used) for used in (40, 9, 40, 30, 45)]
    np.testing.assert_allclose(small.forward(entries), batched.forward(entries), atol=1e-5)
    with pytest.raises(EncodeError, match=r"Input 1 has 101 tokens, for which cuda has no memory .*: cut it") as error:
        small.forward([entries[0], Tokens((5,) * 101, 101, 101), entries[1]])
    assert error.value.index == 1
    none = GraphEncoder(batched.spec, 1)
    none.__dict__["_session"] = replace(session, run=onnx._runner(batched.spec, Full(session.run, 1)), place="cuda")
    with pytest.raises(ModelError, match=r"cuda has no memory for .*: stop what else takes it"):
        none.forward(entries)


class Full:
    """A session of ONNX Runtime on a card with room for so many tokens."""

    def __init__(self, run: Any, room: int) -> None:
        self._run, self._room = run, room

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        if given["input_ids"].size > self._room:
            raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1024")
        return [self._run(given["input_ids"], given["attention_mask"])]


@pytest.fixture(scope="module")
def batched(exported: Exported) -> GraphEncoder:
    """On the processor, but in batches, as a card runs them."""
    encoder = GraphEncoder(Spec.read(exported("sfr-mistral", "onnx", True)), 1, "auto")
    encoder.__dict__["_session"] = replace(encoder._session, budget=1024)
    return encoder


def test_a_vector_is_the_same_alone_and_in_any_batch(exported: Exported, batched: GraphEncoder) -> None:
    alone = load(str(exported("sfr-mistral", "onnx", True)), threads=1)
    assert batched.bulk >= 1024 > alone.bulk
    texts = [text for number in range(12) for text in (*TEXTS, f"value_{number} = " + "x + " * number)]
    together = batched.encode(texts, Role.PASSAGE)
    assert (together * alone.encode(texts, Role.PASSAGE)).sum(1).min() >= 0.9999
    assert batched.padding > 0 and alone.padding == 0
    assert together.shape == (len(texts), batched.dim)


def test_before_a_card_several_threads_tokenise_though_it_was_found_by_auto(
    batched: GraphEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcode.engine.encoder.cores", lambda: 8)
    found = GraphEncoder(batched.spec, 1, "auto")
    found.__dict__["_session"] = batched._session
    assert (found._readers, GraphEncoder(batched.spec, 1)._readers) == (7, 1)


def test_padding_is_counted_and_little_on_real_code(batched: GraphEncoder) -> None:
    sources = sorted(Path(onnx.__file__).parent.glob("*.py"))
    texts = [part for path in sources for part in path.read_text("utf-8").split("\n\n\n") if part.strip()]
    for size, most in ((len(texts), 0.03), (6, 0.15)):
        batched._used = batched._computed = 0
        for start in range(0, min(len(texts), 10 * size), size):
            batched.encode(texts[start : start + size], Role.PASSAGE, truncate=Truncate.END, max_tokens=160)
        assert 0 < batched.padding <= most


def test_the_padding_of_a_batch_is_not_read(batched: GraphEncoder) -> None:
    """Whatever stands there."""
    (short,) = batched.tokenize(["x"], Role.PASSAGE)
    run = batched._session.run

    def noisy(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return run(np.where(mask == 1, ids, 77), mask)

    noise = GraphEncoder(batched.spec, 1)
    noise.__dict__["_session"] = replace(batched._session, run=noisy)
    (long,) = batched.tokenize(["x " * 30], Role.PASSAGE)
    np.testing.assert_allclose(noise._batch([short, long], [0, 1]), batched._batch([short, long], [0, 1]), atol=1e-5)  # type: ignore


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("minilm", "onnx"),
        ("minilm", "openvino"),
        # a decoder: causal, the last token, a prompt with an instruction
        pytest.param("qwen3-embedding", "onnx", marks=pytest.mark.slow),
        pytest.param("embeddinggemma", "openvino", marks=pytest.mark.slow),
        *(
            pytest.param(name, form, marks=pytest.mark.slow)
            for name in ("sfr-mistral", "sfr-code", "jina-code", "llama-embedqa")
            for form in ("onnx", "openvino")
        ),
    ],
)
def test_int8_is_near_and_the_same_alone_and_among_others(
    exported: Exported, tmp_path: Path, name: str, form: str
) -> None:
    out, source = tmp_path / "int8", shutil.copytree(exported(name, form), tmp_path / "fp32")
    out.mkdir()
    (source / "meta.json").chmod(0o444)  # as a folder that is shared may have it
    spec, near = quantise(Spec.read(source), out, 1)
    assert (out / "meta.json").stat().st_mode & 0o200
    assert 0.995 <= near.worst <= 1 and near.least <= near.worst and near.exact == 0
    exact, encoder = load(str(exported(name, form)), precision="fp32"), load(str(out), threads=2)
    assert encoder.space == exact.space and encoder.build != exact.build and "int8" in encoder.build
    for role in Role:
        together = encoder.encode(TEXTS, role)
        assert 0.98 < (together * exact.encode(TEXTS, role)).sum(1).min() < 0.99999
        for text, vector in zip(TEXTS, together, strict=True):
            assert encoder.encode([text], role)[0] @ vector >= 0.9999
    assert sum(p.stat().st_size for p in spec.files) < sum(p.stat().st_size for p in exact.spec.files)


def test_int8_that_loses_too_much_is_refused_after_each_share_in_fp32(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a large graph, each of whose trials has a file of weights, and from inside of its own folder."""
    source, out = shutil.copytree(exported("minilm"), tmp_path / "fp32"), tmp_path / "int8"
    out.mkdir()
    (source / "model.onnx.data").write_bytes(b"of another graph")
    monkeypatch.chdir(source)
    monkeypatch.setattr(smoothquant, "LARGE", 1000)
    monkeypatch.setattr("embedcode.engine.quantise.LEAST_COSINE", 1.01)
    sizes = []
    kept = smoothquant._save
    monkeypatch.setattr(smoothquant, "_save", lambda *given: (kept(*given), sizes.append(given[2])))
    with pytest.raises(ModelError, match=r"loses too much in int8 \(cosine to fp32 below .*: export it with --format"):
        quantise(Spec.read(source), out, 1)
    assert len(sizes) == 5 and sizes[1] < sizes[-1], "the one that is watched, and one for each share"
    assert (out / "model.onnx.data").stat().st_size <= sizes[-1]


def test_int8_that_is_near_on_code_and_not_on_queries_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one mean with ten times as many pieces of code they hardly counted."""
    spec, right = Spec.read(exported("minilm", "openvino")), GraphEncoder.forward
    queries = {entry.ids for entry in _texts(GraphEncoder(spec, 1))[1]["queries"]}

    def shifted(self: GraphEncoder, tokens: list[Tokens]) -> np.ndarray:
        found = right(self, tokens)
        for row, entry in zip(found, tokens, strict=True):
            if self.spec.precision == "int8" and entry.ids in queries:
                row[:] = unit(row + np.roll(row, 1) * 0.2)
        return found

    monkeypatch.setattr(GraphEncoder, "forward", shifted)
    with pytest.raises(ModelError, match=r"cosine to fp32 below 0\.995 on code or queries"):
        quantise(spec, tmp_path, 1)


def test_what_is_compared_is_not_calibrated_on_and_both_have_queries_and_other_languages() -> None:
    spec = Spec.read().prompted({Role.QUERY: "query: "})
    calibration, kinds = _texts(GraphEncoder(spec, 1))
    compared = [entry for kind in kinds.values() for entry in kind]
    assert not {entry.ids for entry in calibration} & {entry.ids for entry in compared}
    for part, texts, others in ((calibration, CALIBRATION, OTHERS[1::2]), (compared, COMPARED, OTHERS[::2])):
        assert sum(entry.prompt > 0 for entry in part) == len(QUERIES) // 2
        read = {entry.ids for entry in part}
        assert read >= {entry.ids for entry in GraphEncoder(spec, 1).tokenize(others, Role.PASSAGE)}  # type: ignore
        assert len(part) > texts // 2


def test_what_cannot_be_quantised(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes batches, for cards.*export without --batch"):
        quantise(Spec.read(exported("sfr-mistral", "onnx", True)), tmp_path, 1)
    with pytest.raises(UsageError, match="is in int8: quantise an export in fp32"):
        quantise(Spec.read(), tmp_path, 1)


def test_an_export_that_has_no_room_to_be_quantised(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec.read(exported("minilm", "onnx"))
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    with pytest.raises(ModelError, match=r"needs .* GB of memory to be quantised and 0\.0 GB are free: .* in fp32"):
        quantise(spec, tmp_path, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("minilm", ["onnx", "openvino"]),
        # whose rope_scaling transformers writes into
        pytest.param("llama-embedqa", ["onnx"], marks=pytest.mark.slow),
    ],
)
def test_an_export_is_of_its_checkpoint_s_space_and_runs_without_torch(
    exported: Exported, tmp_path: Path, name: str, forms: list[str]
) -> None:
    folder = write(LAYOUTS[name], tmp_path)
    for form in forms:
        script = (
            "import embedcode, sys\n"
            f"e = embedcode.load({str(exported(name, form))!r})\n"
            "assert not {'onnxruntime', 'openvino', 'tokenizers'} & set(sys.modules)\n"
            "e.encode(['x'], embedcode.Role.QUERY)\n"
            "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
            "print(e.space)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == load(str(folder)).space, done.stderr


def test_a_graph_names_no_file_of_this_machine(exported: Exported) -> None:
    for form, batched in FORMS[:2]:
        text = (exported("minilm" if not batched else "sfr-mistral", form, batched) / "model.onnx").read_bytes()
        assert b"site-packages" not in text and b".py" not in text


def test_a_second_start_gives_the_vectors_of_the_first(exported: Exported) -> None:
    """OpenVINO's cache of what it compiled does not, for graphs with rotary positions."""
    folder = str(exported("embeddinggemma", "openvino"))
    first, second = (load(folder, threads=1).encode(TEXTS, Role.PASSAGE) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 6), (False, 6)])
def test_of_a_pair_of_tokens_a_graph_holds_one_number(causal: bool, window: int | None) -> None:
    """A distance in 64 bits beside it took 8.6 GB of a text of 32,768 tokens."""

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            self.size = max(self.size, *(one.nbytes for one in tree_leaves(out) if torch.is_tensor(one)), 0)
            return out

    module = torch.nn.Module()
    module.is_causal = causal  # type: ignore[assignment]
    q, k, v = torch.randn((3, 1, 2, 64, 4), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        found, _ = attention(module, q, k, v, None, unseen=None, scaling=0.3, sliding_window=window)
    assert largest.size <= 4 * 64 * 64
    expected, _ = packed.attention(module, q, k, v, None, borders=[0, 64], scaling=0.3, sliding_window=window)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_another_graph_than_was_exported_gives_nothing_out(exported: Exported, tmp_path: Path, form: str) -> None:
    shutil.copytree(exported("minilm", form), tmp_path / "other")
    meta = json.loads((tmp_path / "other" / "meta.json").read_text())
    meta["golden"]["vector"] = meta["golden"]["vector"][::-1]
    write_json(tmp_path / "other" / "meta.json", meta)
    with pytest.raises(ModelError, match="gives wrong vectors on this machine"):
        load(str(tmp_path / "other")).encode(["x"], Role.QUERY)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_damaged_graph(exported: Exported, tmp_path: Path, form: str) -> None:
    shutil.copytree(exported("minilm", form), tmp_path / "other")
    path = tmp_path / "other" / GRAPHS[form][0]
    path.write_bytes(path.read_bytes()[:1000])
    encoder = load(str(tmp_path / "other"))
    assert ("weights", "changed on disk: export it again", False) in encoder.checks()
    with pytest.raises(ModelError, match=rf"{path.name} cannot be loaded .*: export it again"):
        encoder.encode(["x"], Role.QUERY)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_graph_that_is_not_there(exported: Exported, tmp_path: Path, form: str) -> None:
    shutil.copytree(exported("minilm", form), tmp_path / "other")
    path = tmp_path / "other" / GRAPHS[form][0]
    path.unlink()
    encoder = load(str(tmp_path / "other"))
    assert encoder.checks() == [("weights", f"{path} is not there: export it again.", False)]
    with pytest.raises(ModelError, match=rf"{path.name} is not there: export it again"):
        encoder.encode(["x"], Role.QUERY)


def test_a_prompt_may_be_replaced_for_queries_alone(exported: Exported) -> None:
    folder = str(exported("minilm"))
    asked = load(folder, prompts={Role.QUERY: "query: "}).encode(["x"], Role.QUERY)
    np.testing.assert_array_equal(asked, load(folder).encode(["query: x"], Role.PASSAGE))
    with pytest.raises(UsageError, match=r"was exported with its prompt for passages: load its checkpoint"):
        load(folder, prompts={Role.PASSAGE: "passage: "})


def test_a_checkpoint_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedcode.engine import memory

    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ModelError, match=r"needs .* GB of memory to be exported and .* GB are free"):
        export(Checkpoint.read(write(LAYOUTS["minilm"], tmp_path)), tmp_path, "onnx", False, 1)


def test_a_head_that_a_graph_cannot_have(tmp_path: Path) -> None:
    folder = write(LAYOUTS["embeddinggemma"], tmp_path)
    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    write_json(folder / "2_Dense" / "config.json", config | {"activation_function": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(ModelError, match="has a head with tanh, which is not exported: run it on torch"):
        export(Checkpoint.read(folder), tmp_path, "onnx", False, 1)


def test_an_export_that_does_not_fit_is_refused_before_it_is_loaded(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = load(str(exported("sfr-mistral", "onnx", True)))
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    with pytest.raises(ModelError, match=r"needs .* GB of memory and 0\.0 GB are free: .* smaller export"):
        ours.encode(["x"], Role.PASSAGE)
    assert load().encode(["x"], Role.PASSAGE).shape == (1, 384)


class TestDevices:
    def test_auto_is_the_best_that_works(self, exported: Exported) -> None:
        encoder = load(str(exported("sfr-mistral", "onnx", True)), device="auto")
        assert encoder.build.endswith(" cpu")
        assert encoder.encode(TEXTS, Role.PASSAGE).shape == (len(TEXTS), encoder.dim)

    @pytest.mark.parametrize(
        ("device", "parts"),
        [
            (
                "tensorrt",
                ["cannot use tensorrt here", "onnxruntime-gpu", "TensorRT libraries (`pip install"],
            ),
            ("cuda:1", ["cannot use cuda here", "it has ", "CPUExecutionProvider", "onnxruntime-gpu", "cuDNN"]),
        ],
    )
    def test_what_is_missing_is_named(self, exported: Exported, device: str, parts: list[str]) -> None:
        with pytest.raises(ModelError) as error:
            load(str(exported("sfr-mistral", "onnx", True)), device=device).encode(["x"], Role.PASSAGE)
        for part in parts:
            assert part in str(error.value)

    def test_a_provider_that_is_there_without_its_libraries(
        self, exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As onnxruntime-gpu is where no TensorRT is installed: it lists the provider."""
        library = onnx.library()
        monkeypatch.setattr(library, "get_available_providers", lambda: list(onnx.PROVIDERS.values()))
        folder = str(exported("sfr-mistral", "onnx", True))
        missing = (
            r"cannot use tensorrt here \(\S+\.so\S*: cannot open shared object file.*\): install NVIDIA's TensorRT"
        )
        with pytest.raises(ModelError, match=missing):
            load(folder, device="tensorrt").encode(["x"], Role.PASSAGE)
        assert load(folder, device="auto").build.endswith(" cpu")
        assert capsys.readouterr() == ("", ""), "what is missing is said once, in the error"

    def test_a_card_that_fails_otherwise_is_not_told_to_install_what_is_there(
        self, exported: Exported, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0\nand more")

        monkeypatch.setattr(onnx.library(), "get_available_providers", lambda: list(onnx.PROVIDERS.values()))
        monkeypatch.setattr(onnx, "_missing", lambda *_: "")
        monkeypatch.setattr(onnx, "_opened", full)
        with pytest.raises(ModelError) as error:
            load(str(exported("sfr-mistral", "onnx", True)), device="cuda").encode(["x"], Role.PASSAGE)
        assert "cannot be run on cuda (CUDA failure 2: out of memory ; GPU=0): " in str(error.value)
        assert "card 0 is there and has room" in str(error.value) and "install" not in str(error.value)

    def test_compiled_engines_of_two_graphs_do_not_share_a_folder(self, exported: Exported) -> None:
        """ONNX Runtime would take one for the other: their files and nodes have the same names."""
        spec = Spec.read(exported("sfr-mistral", "onnx", True))
        other = replace(spec, graph="f" * 64)
        folders = {onnx._kept(one)["trt_engine_cache_path"] for one in (spec, other)}
        assert len(folders) == 2

    def test_without_a_home_that_can_be_written_they_are_built_each_time(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "file" / "home"))
        assert onnx._kept(Spec.read(exported("sfr-mistral", "onnx", True))) == {}

    def test_graphs_for_processors(self, exported: Exported) -> None:
        with pytest.raises(ModelError, match=r"was exported for processors: export it with --batch for cuda"):
            load(str(exported("minilm")), device="cuda").encode(["x"], Role.PASSAGE)
        with pytest.raises(ModelError, match="is an OpenVINO graph, which runs on processors: set device to cpu"):
            load(str(exported("minilm", "openvino")), device="tensorrt").encode(["x"], Role.PASSAGE)
        assert load(device="cuda").encode(["x"], Role.PASSAGE).shape == (1, 384)  # the setting is for another model

    def test_a_checkpoint_on_tensorrt(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"is a checkpoint, and TensorRT runs graphs: .* with --batch"):
            load(str(write(LAYOUTS["minilm"], tmp_path)), device="tensorrt")

    def test_without_openvino(self, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
        model = str(exported("minilm", "openvino"))  # made by the first who asks
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ModelError, match=r"OpenVINO is not installed: run `pip install openvino`"):
            load(model).encode(["x"], Role.PASSAGE)
