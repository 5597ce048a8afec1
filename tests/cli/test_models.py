"""`models`: what is known, what a model is and needs here, and exports that `embed` then uses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write, write_json
from layouts import LAYOUTS
from reference import Reference
from safetensors.torch import load_file

from embedcode.cli.models import _making, exact_of
from embedcode.engine import memory
from embedcode.model.presets import PRESETS
from embedcode.model.spec import DEFAULT, Spec

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True)
def no_hub(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with nothing in it; huggingface_hub reads the variable only as it is imported."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    environment |= {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(LAYOUTS["minilm"], tmp_path_factory.mktemp("checkpoint"))


def shown(done: subprocess.CompletedProcess[bytes]) -> dict[str, str]:
    """The rows `name: value`."""
    assert done.returncode == 0, done.stderr
    rows = (line.partition(":") for line in done.stdout.decode().splitlines())
    return {name.strip(): value.strip() for name, _, value in rows}


def test_alone_it_says_what_there_is(call: Run) -> None:
    done = call("models")
    assert done.returncode == 0
    for verb in ("list", "inspect", "export", "quantize"):
        assert f"\n  {verb} ".encode() in done.stdout


class TestList:
    def test_every_preset_with_licence_and_size(self, call: Run) -> None:
        done = call("models", "list")
        assert (done.returncode, done.stderr) == (0, b"")
        lines = done.stdout.decode().splitlines()
        assert len(lines) == len(PRESETS) + 1
        (row,) = (line for line in lines if line.startswith("nvidia/NV-EmbedCode-7b-v1"))
        assert "7,111 M" in row and "4,096" in row and "NVIDIA" in row
        assert lines[-1].endswith("packaged")

    def test_a_copy_on_this_machine_is_found(self, call: Run, checkpoint: Path, no_hub: Path) -> None:
        copy = no_hub / "models--BAAI--bge-small-en-v1.5" / "snapshots" / "abc"
        shutil.copytree(checkpoint, copy)
        (copy.parents[1] / "refs").mkdir()
        (copy.parents[1] / "refs" / "main").write_text("abc")
        rows = json.loads(call("models", "list", "--json").stdout)["models"]
        folders = {row["name"]: row["folder"] for row in rows if row["folder"]}
        assert folders == {"BAAI/bge-small-en-v1.5": str(copy), "embedcode-small": "packaged"}
        assert shown(call("models", "inspect", "BAAI/bge-small-en-v1.5"))["folder"] == str(copy)
        assert all(row["licence"] and row["parameters"] > 1e6 and row["dim"] >= 320 for row in rows)


class TestInspect:
    @pytest.mark.parametrize(
        ("layout", "expected"),
        [
            ("nv-embed", {"architecture": "NVEmbedModel", "attention": "bidirectional", "pooling": "latent"}),
            ("sfr-mistral", {"architecture": "MistralModel", "attention": "causal", "pooling": "last"}),
            ("bge", {"architecture": "BertModel", "attention": "bidirectional", "pooling": "cls"}),
        ],
    )
    def test_what_a_checkpoint_is(self, call: Run, tmp_path: Path, layout: str, expected: dict[str, str]) -> None:
        folder = write(LAYOUTS[layout], tmp_path)
        record = json.loads(call("models", "inspect", str(folder), "--json").stdout)
        assert expected.items() <= record.items()
        assert record["query_prompt"] == LAYOUTS[layout].query
        weights = [tensor for path in folder.glob("*.safetensors") for tensor in load_file(path).values()]
        assert record["bytes"] == sum(tensor.nbytes for tensor in weights)
        assert record["parameters"] == sum(tensor.numel() for tensor in weights)
        assert record["files"] == LAYOUTS[layout].shards
        assert record["licence"] == next(p.licence for p in PRESETS if p.name == LAYOUTS[layout].name)
        needed, rows = record["memory"]["needed"], shown(call("models", "inspect", str(folder)))
        assert needed["fp32"] > needed["int8"] and needed["fp32"] > needed["bf16"]
        assert rows["architecture"] == expected["architecture"]
        assert rows["fp32"].endswith(", fits") and rows["streamed"].endswith(", fits")
        longest = record["memory"]["longest_text"]
        if record["max_tokens"] > 2048:  # a pass of so many is in what it needs anyhow
            assert 0 < longest["bf16"] < longest["fp32"]
            assert f"; with a text of {record['max_tokens']:,} tokens " in rows["bf16"]
        else:
            assert longest == {} and "with a text" not in rows["bf16"]

    def test_what_does_not_fit_is_said(self, call: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "available", lambda: 1000)
        assert shown(call("models", "inspect", str(checkpoint)))["int8"].endswith(", does not fit")

    def test_a_model_that_is_not_here_is_known_by_its_preset(self, call: Run) -> None:
        record = json.loads(call("models", "inspect", "nvidia/NV-EmbedCode-7b-v1", "--json").stdout)
        assert record["folder"] is None and record["dim"] == 4096
        assert 14.2e9 < record["memory"]["needed"]["bf16"] < 16e9

    def test_the_packaged_model(self, call: Run) -> None:
        rows = shown(call("models", "inspect"))
        assert (rows["format"], rows["precision"], rows["dim"]) == ("onnx", "int8", "384")
        assert rows["licence"] == "Apache-2.0"

    def test_a_text_of_an_export_that_is_as_long_as_it_may_be(
        self, call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An export that fits was killed by its longest texts' attention, of which nothing was said."""
        spec = replace(Spec.read(), folder=tmp_path / "long", max_tokens=32768, heads=16)
        spec.folder.mkdir()
        spec.write()
        (spec.folder / "model.onnx").touch()
        monkeypatch.setattr(memory, "available", lambda: 8 * 10**9)
        said = shown(call("models", "inspect", "long"))["int8"]
        assert re.fullmatch(r"\S+ MB, fits; with a text of 32,768 tokens \S+ \S+, does not fit", said)

    def test_a_licence_of_the_folder_s_own(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        shutil.copytree(checkpoint, tmp_path / "own")
        assert shown(call("models", "inspect", "own"))["licence"] == "none"
        (tmp_path / "own" / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nlicense: no\n")
        assert shown(call("models", "inspect", "own"))["licence"] == "mit"

    def test_nothing_of_the_weights_is_read(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        """A hole in place of the numbers is as good."""
        shutil.copytree(checkpoint, tmp_path / "hollow")
        path = tmp_path / "hollow" / "model.safetensors"
        size, header = path.stat().st_size, path.read_bytes()
        head = 8 + int.from_bytes(header[:8], "little")
        with path.open("wb") as file:
            file.write(header[:head])
            file.truncate(size)
        rows, whole = (shown(call("models", "inspect", folder)) for folder in ("hollow", str(checkpoint)))
        for name in ("architecture", "dim", "pooling", "bytes", "dtypes", "fp32", "int8"):
            assert rows[name] == whole[name]

    @pytest.mark.parametrize(
        "name", ["nowhere", "no/where", "/no/where", "", "x" * 300, "~nobody-of-this-name/x", "no/--where"]
    )
    def test_what_is_no_model(self, call: Run, name: str) -> None:
        done = call("models", "inspect", name)
        assert done.returncode == 2
        assert b"give a folder" in done.stderr and done.stderr.count(b"\n") == 1


class TestExport:
    def test_an_export_and_its_int8_are_used_by_embed(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        texts = ["close a session", "def f(x):\n    return x"]
        (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
        done = call("models", "export", str(checkpoint), "out")
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().startswith("out: onnx, fp32, ")
        assert b"cosine 1.00" in done.stdout
        smaller = call("models", "quantize", "out", "small", "--threads", "1")
        assert smaller.returncode == 0, smaller.stderr
        told = r"small: onnx, int8, [\d,.]+ [kMG]?B, cosine to fp32 [\d.]+ on code, [\d.]+ on queries, least [\d.]+\n"
        assert re.fullmatch(told, smaller.stdout.decode())
        assert {path.name for path in tmp_path.iterdir()} <= {"out", "small", "texts.jsonl", "home", "hub"}
        expected = Reference(LAYOUTS["minilm"]).encode(texts, "")
        for folder, least in (("out", 0.9999), ("small", 0.99)):
            embedded = call("embed", "texts.jsonl", "--role", "passage", "--model", folder, "-o", "v.npy")
            assert embedded.returncode == 0, embedded.stderr
            assert (np.load(tmp_path / "v.npy") * expected).sum(1).min() >= least
        rows = shown(call("models", "inspect", "small"))
        assert (rows["precision"], rows["pooling"], rows["max tokens"]) == ("int8", "mean", "256")

    @pytest.mark.parametrize(
        ("model", "said"),
        [("nosuch", b"nosuch is no folder and no name on the hub"), (str(DEFAULT), b"is an export already")],
    )
    def test_what_is_no_checkpoint_is_said_before_torch_is_asked_for(
        self, run: Run, tmp_path: Path, model: str, said: bytes
    ) -> None:
        (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('as without the extra', name='torch')\n")
        done = run("models", "export", model, "out")
        assert done.returncode == 2
        assert said in done.stderr and b"torch" not in done.stderr

    @pytest.mark.slow
    def test_openvino_in_int8_at_once(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        done = call("models", "export", str(checkpoint), "out", "--format", "openvino", "--int8")
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().startswith("out: openvino, int8, ")
        assert {path.name for path in tmp_path.iterdir()} <= {"out", "hub", "home"}
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "meta.json",
            "tokenizer.json",
            "openvino_model.xml",
            "openvino_model.bin",
        }

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--batch", "--int8"], "leave one out"),
            (["--batch", "--format", "openvino"], "--batch is for TensorRT and CUDA"),
            (["--format", "tflite"], "tflite"),
        ],
    )
    def test_what_cannot_be_together(self, call: Run, checkpoint: Path, options: list[str], part: str) -> None:
        done = call("models", "export", str(checkpoint), "out", *options)
        assert done.returncode == 2
        assert part in done.stderr.decode()

    def test_a_failure_leaves_nothing(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        shutil.copytree(checkpoint, tmp_path / "broken")
        write_json(tmp_path / "broken" / "config.json", {"architectures": ["UnknownModel"]})
        done = call("models", "export", "broken", "out", "--int8")
        assert done.returncode == 2
        assert b"UnknownModel" in done.stderr
        assert {path.name for path in tmp_path.iterdir()} <= {"broken", "hub", "home"}

    def test_a_folder_that_is_there_is_kept(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("")
        for verb in (("export", str(checkpoint)), ("quantize", "out")):
            done = call("models", *verb, "out")
            assert done.returncode == 2
            assert b"out is there already: give a folder that is new or empty" in done.stderr

    def test_a_link_to_an_empty_folder_stays_one(self, call: Run, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        done = call("models", "quantize", str(write(LAYOUTS["minilm"], tmp_path / "fp32")), "link")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "config.json").exists()

    def test_what_cannot_be_replaced_is_filled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A mount, as a container has for its output."""
        out = tmp_path / "out"
        out.mkdir()
        monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
        before = out.stat().st_ino
        with _making(out) as folder:
            (folder / "config.json").write_text("{}")
        assert (out.stat().st_ino, [path.name for path in out.iterdir()]) == (before, ["config.json"])

    @pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    def test_what_is_ended_leaves_nothing_or_is_cleared_by_the_next(
        self, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, end: signal.Signals
    ) -> None:
        code = """
import time
from dataclasses import replace
from pathlib import Path
from embedcode.cli.models import _making, exact_of
with _making(Path("out")) as folder:
    exact_of(folder).mkdir()  # while int8 is made of a graph
    time.sleep(60)
"""
        working = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
        part = tmp_path / ".out.part"
        while not exact_of(part).exists():
            assert working.poll() is None
            time.sleep(0.01)
        working.send_signal(end)
        assert working.wait(60) != 0
        assert part.exists() == (end is signal.SIGKILL)
        monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
        with _making(tmp_path / "out"):
            pass
        assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["out"]

    def test_a_server_and_an_empty_name_are_no_checkpoints(self, call: Run) -> None:
        for verb in (("export",), ("quantize",), ("inspect",)):
            for name, told in (("http://localhost:1", b"is a server"), ("", b"the model is empty")):
                done = call("models", *verb, name, *(["out"] if verb != ("inspect",) else []))
                assert (done.returncode, told in done.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("out", "part"), [("x" * 300, "cannot be written: File name too long"), (".", ". is there already")]
    )
    def test_a_place_that_cannot_be(self, call: Run, checkpoint: Path, tmp_path: Path, out: str, part: str) -> None:
        (tmp_path / "empty").mkdir()
        done = call("models", "export", str(checkpoint), out, cwd=tmp_path / "empty")
        assert done.returncode == 2
        assert part in done.stderr.decode()

    @pytest.mark.parametrize("verb", ["export", "quantize"])
    def test_what_is_no_model(self, call: Run, tmp_path: Path, verb: str) -> None:
        done = call("models", verb, "nowhere", "out")
        assert done.returncode == 2
        assert b"nowhere is no" in done.stderr
        assert not (tmp_path / "out").exists()


class TestQuantizeOfACheckpoint:
    def test_it_stays_one_and_is_used_by_embed(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "texts.jsonl").write_text('"close a session"\n"def f(x):\\n    return x"\n')
        done = call("models", "quantize", str(checkpoint), "small", "--threads", "1")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(
            r"small: checkpoint, int8, [\d,.]+ [kMG]?B, cosine to fp32 [\d.]+ on code, least [\d.]+\n",
            done.stdout.decode(),
        )
        assert {path.name for path in tmp_path.iterdir()} <= {"small", "texts.jsonl", "home", "hub"}
        rows = shown(call("models", "inspect", "small"))
        assert rows["dtypes"] == "F32, I8"
        vectors = []
        for folder, more in (("small", ()), (str(checkpoint), ("--precision", "int8"))):
            embedded = call("embed", "texts.jsonl", "--role", "passage", "--model", folder, "-o", "v.npy", *more)
            assert embedded.returncode == 0, embedded.stderr
            vectors.append(np.load(tmp_path / "v.npy"))
        np.testing.assert_array_equal(*vectors)

    def test_a_failure_leaves_nothing(self, call: Run, checkpoint: Path, tmp_path: Path) -> None:
        assert call("models", "quantize", str(checkpoint), "small").returncode == 0
        done = call("models", "quantize", "small", "again")
        assert done.returncode == 2
        assert b"small is in int8 already: give the checkpoint that it was made of" in done.stderr
        assert {path.name for path in tmp_path.iterdir()} <= {"small", "home", "hub"}
