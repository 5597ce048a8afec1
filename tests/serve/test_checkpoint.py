"""The server on a checkpoint, in NV-EmbedCode's layout: roles, instructions, late chunking, and the golden vector."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MistralConfig, MistralModel

from embedcode import Role, load
from embedcode.engine import memory
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import ModelError
from embedcode.model.spec import DEFAULT
from embedcode.serve import plan
from embedcode.serve.golden import compare
from embedcode.serve.options import Options
from embedcode.settings import DERIVED

from .serving import PATIENCE, Server, serving

NAME = "nvidia/NV-EmbedCode-7b-v1"
PARTS = ["def first(a):\n    return a\n\n", "def second(b):\n    return first(b) + 1\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "NV-EmbedCode-7b-v1"
    folder.mkdir()
    config = MistralConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
        vocab_size=30522, max_position_embeddings=4096, sliding_window=None,
    )  # fmt: skip
    torch.manual_seed(0)
    save_file(dict(MistralModel(config).state_dict()), folder / "model.safetensors")
    published = {"architectures": ["MistralBiDirectionalModel"], "model_type": "mistralbidirectional"}
    (folder / "config.json").write_text(json.dumps(config.to_dict() | published))
    shutil.copy(DEFAULT / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(folder: Path, home: Path) -> Iterator[Server]:
    with serving(home, "--model", str(folder), EMBEDCODE_PRECISION="fp32", EMBEDCODE_THREADS="1") as server:
        yield server


@pytest.fixture(scope="module")
def exact(folder: Path) -> TorchEncoder:
    found = load(str(folder), precision="fp32", threads=1)
    assert isinstance(found, TorchEncoder)
    return found


def rows(server: Server, given: object, **fields: object) -> Any:
    status, answer = server.ask("/v1/embeddings", {"model": NAME, "input": given, **fields})
    assert status == 200, answer
    return np.array([row["embedding"] for row in answer["data"]])


def test_roles_and_names_in_any_case(server: Server, exact: TorchEncoder) -> None:
    texts = ["log a visitor out", PARTS[0], "x = 1\n" * 200]
    for role in Role:
        expected = exact.encode(texts, role)
        np.testing.assert_allclose(rows(server, texts, input_type=role), expected, atol=1e-5)
        np.testing.assert_allclose(rows(server, texts, model=f"{NAME.lower()}-{role}"), expected, atol=1e-5)
    assert server.ask("/v1/embeddings", {"model": NAME, "input": "a"})[0] == 400


def test_late_chunking_gives_each_part_a_vector_of_the_whole_file(server: Server, exact: TorchEncoder) -> None:
    middle = len(PARTS[0])
    expected = exact.late("".join(PARTS), [(0, middle), (middle, middle + len(PARTS[1]))])
    found = rows(server, PARTS, input_type="passage", late_chunking=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - rows(server, PARTS, input_type="passage")).max() > 1e-3
    _, answer = server.ask(
        "/v1/embeddings", {"model": f"{NAME}-passage", "input": [*PARTS, "y" * 3], "late_chunking": True}
    )
    (entry,) = exact.tokenize(["".join(PARTS) + "yyy"], Role.PASSAGE)
    assert answer["usage"]["total_tokens"] == entry.used  # type: ignore[union-attr]
    for fields, told in (
        ({"input_type": "query"}, "not for a query"),
        ({"truncate": "END"}, "neither truncate"),
        ({"on_error": "partial"}, "nor on_error"),
    ):
        body = {"model": NAME, "input": PARTS, "input_type": "passage", "late_chunking": True, **fields}
        status, answer = server.ask("/v1/embeddings", body)
        assert (status, told in answer["message"]) == (400, True)
    status, answer = server.ask(
        "/v1/embeddings", {"model": f"{NAME}-passage", "input": ["a b " * 4000], "late_chunking": True}
    )
    assert (status, "exceeds maximum allowed token size 4096" in answer["message"]) == (400, True)
    assert "fewer parts" in answer["message"] and "truncate" not in answer["message"]
    for part in ("", " \n"):
        body = {"model": f"{NAME}-passage", "input": [*PARTS, part, "y"], "late_chunking": True}
        status, answer = server.ask("/v1/embeddings", body)
        assert (status, answer["detail"]["index"]) == (400, 2)
        assert answer["message"].startswith("Input 2 is the span ")


@pytest.mark.slow
def test_the_vector_of_a_known_text_is_kept_and_a_model_that_gives_another_is_never_ready(
    server: Server, folder: Path, home: Path
) -> None:
    assert server.ready()
    (path,) = (home / "golden").iterdir()
    row = np.load(path)
    row["vector"] *= -1  # as if it had been another one then
    np.save(path, row)
    with serving(home, "--model", str(folder), ready=False, EMBEDCODE_PRECISION="fp32") as changed:
        assert changed.process.wait(PATIENCE) == 2
        assert "another vector" in changed.log.read_text()


def test_a_home_that_cannot_be_written_keeps_no_vector_and_is_no_trouble(exact: TorchEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        assert compare(exact, tmp_path / "file" / "home") is None


def test_a_vector_is_compared_with_that_of_another_build_too(exact: TorchEncoder, tmp_path: Path) -> None:
    """It was compared with nothing after each upgrade, and said to be the same."""
    assert compare(exact, tmp_path) is None
    assert compare(exact, tmp_path) == pytest.approx(1)
    (path,) = (tmp_path / "golden").iterdir()
    assert any(path.match(pattern) for pattern in DERIVED), "it is cleared with the rest"
    row = np.load(path)
    for sign in (-1, 1):
        np.save(path, np.array([("another", sign * row["vector"][0])], row.dtype))
        assert compare(exact, tmp_path) == pytest.approx(sign)
    assert compare(exact, tmp_path) == pytest.approx(1)
    assert np.load(path)["build"] == exact.build  # from then on it has to be the same
    np.save(path, np.array([(exact.build, -row["vector"][0])], row.dtype))
    with pytest.raises(ModelError, match=r"another vector than at its last start here \(cosine -1\.000\)"):
        compare(exact, tmp_path)
    for damaged in (b"", b"\x93NUMPY\x01\x00", np.ones(3).tobytes()):
        path.write_bytes(damaged)
        assert compare(exact, tmp_path) is None
        assert compare(exact, tmp_path) == pytest.approx(1)


def test_a_model_of_a_card_need_not_fit_in_the_machines_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "needed", lambda *_: 14_000_000_000)
    monkeypatch.setattr(memory, "available", lambda: 2_000_000_000)
    card, processor = (load(str(folder), device=device) for device in ("cuda", "cpu"))
    assert isinstance(card, TorchEncoder) and isinstance(processor, TorchEncoder)
    assert plan.check(card, Options()) < 2_000_000_000
    with pytest.raises(ModelError, match=r"needs 14\.0 GB of memory and 2\.0 GB are free"):
        plan.check(processor, Options())


@pytest.mark.slow
def test_a_server_whose_model_was_replaced_ends_where_its_engine_starts_again(server: Server, folder: Path) -> None:
    """The last test of this server."""
    path = folder / "model.safetensors"
    save_file({name: values * 0.5 for name, values in load_file(path).items()}, folder / "other")
    (folder / "other").replace(path)
    os.kill(server.engine(), signal.SIGKILL)
    assert server.process.wait(PATIENCE) == 2
    assert "have changed since this server was started: start it anew" in server.log.read_text()
