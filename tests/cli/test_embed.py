"""`embed`: texts in, unit vectors out, and errors that name the line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write
from layouts import LAYOUTS

from embedcode import Role, cut, load
from embedcode.cli.embed import _as_begun
from embedcode.cli.growing import Growing, begun
from embedcode.engine import memory, precision, processor, torch_encoder
from embedcode.errors import UsageError
from embedcode.model.spec import DEFAULT
from embedcode.types import Tokens

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
TEXTS = ["def parse(text): ...", "close the socket", "naïve café"]


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    path = tmp_path / "passages.jsonl"
    rows = [
        json.dumps(TEXTS[0]),
        json.dumps({"text": TEXTS[1], "id": "b"}),
        "",
        json.dumps({"text": TEXTS[2], "id": 3}),
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_npy_holds_what_python_gives(call: Run, passages: Path, tmp_path: Path) -> None:
    done = call("embed", str(passages), "--role", "passage", "-o", "out.npy")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, load().encode(TEXTS, Role.PASSAGE), atol=1e-5)
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert list((tmp_path / "home" / "outputs").iterdir()) == []


def test_where_our_home_cannot_be_written(run: Run, passages: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {"EMBEDCODE_HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path)}
    done = run("embed", str(passages), "--role", "passage", "-o", "out.npy", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(np.load(tmp_path / "out.npy")) == len(TEXTS)
    assert [path.name for path in tmp_path.rglob("*.lock")] == []


def test_a_model_whose_graph_is_not_there(call: Run, passages: Path, tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "model", ignore=shutil.ignore_patterns("*.onnx"))
    for command in (["embed", str(passages), "--role", "passage", "--model"], ["models", "inspect"]):
        done = call(*command, "model")
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"model.onnx is not there: export it again" in done.stderr


def test_json_lines_keep_order_and_ids_and_every_bit(call: Run, passages: Path, tmp_path: Path) -> None:
    call("embed", str(passages), "--role", "passage", "-o", "out.npy")
    call("embed", str(passages), "--role", "passage", "-o", "out.jsonl")
    piped = call("embed", str(passages), "--role", "passage").stdout
    assert (tmp_path / "out.jsonl").read_bytes() == piped
    rows = [json.loads(line) for line in piped.splitlines()]
    assert [(row["index"], row.get("id")) for row in rows] == [(0, None), (1, "b"), (2, 3)]
    entries = [e for e in load().tokenize(TEXTS, Role.PASSAGE) if isinstance(e, Tokens)]
    for row, entry in zip(rows, entries, strict=True):
        assert (row["tokens"], row["used"], row["truncated"]) == (entry.used, entry.used, False)
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(vectors, np.load(tmp_path / "out.npy"))


def test_texts_from_the_command_line_a_pipe_and_plain_lines_agree(run: Run, call: Run) -> None:
    given = call("embed", "--role", "query", "--text", TEXTS[1], "--text", TEXTS[0]).stdout
    lines = f"{TEXTS[1]}\r\n{TEXTS[0]}".encode()
    assert run("embed", "-", "--role", "query", "--lines", input=lines).stdout == given
    assert run("embed", "--role", "query", input=json.dumps(TEXTS[1]).encode()).stdout == given.splitlines(True)[0]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b'"a"\nplain\n', ["line 2", "not JSON", "--lines"]),
        (b'"a"\n{"text": "b"\n', ["line 2", "not JSON", "; mend it"]),
        (b'{"text": "a", "id": NaN}\n', ["line 1", "NaN is no number of JSON's", "; mend it"]),
        (b'{"text": "a", "id": 1e999}\n', ["line 1", "1e999 is no number of JSON's", "; mend it"]),
        (b'"a"\n\n{"txt": "b"}\n', ["line 3", '"text"']),
        (b'"a"\n3\n', ["line 2", '"text"']),
        (b'"a"\n"\xff"\n', ["line 2", "UTF-8"]),
        (b"", ["nothing to embed"]),
    ],
)
def test_a_wrong_line_is_named_and_an_old_result_kept(
    call: Run, tmp_path: Path, content: bytes, parts: list[str]
) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    (tmp_path / "out.npy").write_bytes(b"old")
    done = call("embed", "in.jsonl", "--role", "passage", "-o", "out.npy")
    assert done.returncode == 2
    for part in parts:
        assert part in done.stderr.decode()
    assert (tmp_path / "out.npy").read_bytes() == b"old"


def test_a_text_that_is_too_long_is_an_error_or_is_cut_as_told(call: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("short\n" + "word " * 5000)
    arguments = ("embed", "in.txt", "--lines", "--role", "passage")
    refused = call(*arguments)
    assert refused.returncode == 2
    assert b"in.txt line 2: Input length 5002 exceeds" in refused.stderr
    assert b": shorten it, or give --truncate end or start." in refused.stderr
    assert refused.stdout == b""
    for end in ("END", "start"):
        cut = call(*arguments, "--truncate", end)
        assert cut.returncode == 0
        short, long = map(json.loads, cut.stdout.splitlines())
        assert (long["used"], long["truncated"], long["estimated"]) == (512, True, True)
        assert long["tokens"] == pytest.approx(5002, abs=5)
        assert not short["truncated"] and "estimated" not in short
        assert b"1 of 2 texts" in cut.stderr


def test_a_text_far_behind_is_named_by_its_own_place_before_any_work(call: Run, tmp_path: Path) -> None:
    rows = ['"x"'] * 1500 + [json.dumps("word " * 3000)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    done = call("embed", "in.jsonl", "--role", "passage", "-o", "out.npy")
    assert done.returncode == 2
    assert b"in.jsonl line 1501: Input length 3002 exceeds" in done.stderr
    assert b"(input" not in done.stderr  # the line is the place that can be looked up
    assert list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*out*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "nodir/out.npy"), b"nodir/out.npy cannot be written: there is no folder nodir"),
        (("--type", "ubinary", "--dimensions", "100", "--force"), b"100 dimensions cannot be packed to bits"),
        (("--dimensions", "100"), b"ask for one of these, or give --force"),
    ],
)
def test_what_cannot_be_had_is_said_before_the_texts_are_read(
    call: Run, passages: Path, options: tuple[str, ...], said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedcode.cli.embed._Reader.check", None)
    done = call("embed", str(passages), "--role", "passage", *options)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_texts_are_not_replaced_by_their_vectors(run: Run, passages: Path, tmp_path: Path) -> None:
    texts = passages.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(passages)
    for name in ("passages.jsonl", "link.jsonl"):
        done = run("embed", "passages.jsonl", "--role", "passage", "-o", name)
        assert done.returncode == 2
        assert b"is the file that is read: give another name" in done.stderr
    with passages.open("rb") as file:
        assert run("embed", "--role", "passage", "-o", "passages.jsonl", stdin=file).returncode == 2
    assert passages.read_bytes() == texts


@pytest.mark.parametrize("lines", [(), ("--lines",)])
def test_a_byte_order_mark_is_no_part_of_the_first_text(call: Run, tmp_path: Path, lines: tuple[str, ...]) -> None:
    (tmp_path / "plain.jsonl").write_bytes(b'"a"\n"b"\n')
    (tmp_path / "marked.jsonl").write_bytes(b'\xef\xbb\xbf"a"\n"b"\n')
    plain, marked = (call("embed", f"{name}.jsonl", "--role", "query", *lines) for name in ("plain", "marked"))
    assert marked.returncode == 0
    assert marked.stdout == plain.stdout


def test_many_texts_are_embedded_in_order(call: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(f"value {n % 7}") for n in range(1500)))
    assert call("embed", "in.jsonl", "--role", "passage", "-o", "out.npy").returncode == 0
    found = np.load(tmp_path / "out.npy")
    assert found.shape[0] == 1500
    np.testing.assert_array_equal(found, found[:7][[n % 7 for n in range(1500)]])


@pytest.mark.parametrize(
    ("out", "part"), [("out.txt", ".npy or .jsonl"), ("no/such/out.npy", "no/such/out.npy cannot be written")]
)
def test_an_output_that_cannot_be(call: Run, out: str, part: str) -> None:
    done = call("embed", "--role", "query", "--text", "x", "-o", out)
    assert done.returncode == 2
    assert part in done.stderr.decode()


def test_an_error_of_the_model_is_not_one_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`out.npy cannot be written: Cannot allocate memory` was said where it was the model that had no memory."""
    out, row = tmp_path / "out.npy", np.ones((1, 3), np.float32)
    with pytest.raises(OSError, match="of the model"), Growing.at(out, 2, "key", "build", 3, "<f4") as file:
        file.write(row, [{}])
        raise OSError(12, "of the model")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embedcode.cli.growing.os.fsync", full)
    with (
        pytest.raises(UsageError, match=r"out\.npy cannot be written: No space left on device"),
        Growing.at(out, 2, "key", "build", 3, "<f4") as file,
    ):
        assert file.done == 1
        file.write(row, [{}])
    assert not out.exists()


def test_a_model_that_does_not_exist(call: Run) -> None:
    done = call("embed", "--role", "query", "--text", "x", "--model", "nowhere")
    assert done.returncode == 2
    assert b"nowhere" in done.stderr


def test_an_interrupted_run_goes_on_where_it_stopped(
    call: Run, tmp_path: Path, environment: dict[str, str], serve: Callable[..., Any]
) -> None:
    """Blocks of 32,768 tokens: the second is being computed when the interrupt comes. By a server, which can wait."""
    texts = [f"{number} {'value = compute(other) ' * 40}" for number in range(170)]
    rows = [json.dumps({"text": text, "id": number}) for number, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    server, interrupted = serve(), threading.Event()

    def answer(asked: Any) -> None:
        """As it does, but to a second block."""
        if any(part.stat().st_size > 10_000 for part in tmp_path.glob(".out*.part")):
            interrupted.wait(120)

    arguments = ("embed", "in.jsonl", "--role", "passage", "--model", server.url, "-o")
    assert call(*arguments, "whole.npy").returncode == 0
    server.answer = answer
    for name, how, code in (("out.npy", signal.SIGKILL, -9), ("out.jsonl", signal.SIGINT, 130)):
        interrupted.clear()
        part = tmp_path / f".{name}.part"
        command = [sys.executable, "-m", "embedcode", *arguments, name]
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 120
            while not (part.exists() and part.stat().st_size > 10_000) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(how)
            _, told = process.communicate(timeout=60)
        interrupted.set()
        assert process.returncode == code, told
        assert not (tmp_path / name).exists()
        note, kept = tmp_path / f".{name}.part.json", part.read_bytes()
        own = note.read_text()
        note.write_text(json.dumps(json.loads(own) | {"build": "int8 an older engine"}))
        refused = call(*arguments, name)
        assert refused.returncode == 2
        assert f"{name} was begun with int8 an older engine".encode() in refused.stderr
        assert f"or remove .{name}.part".encode() in refused.stderr
        assert part.read_bytes() == kept
        note.write_text(own)
        done = call(*arguments, name)
        assert done.returncode == 0
        assert b"going on after" in done.stderr and b"of 170 texts" in done.stderr
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(170))
    assert lines[0].keys() == {"index", "id", "tokens", "estimated", "embedding"}, "what a server cuts is not known"
    np.testing.assert_array_equal(
        np.array([line["embedding"] for line in lines], np.float32), np.load(tmp_path / "whole.npy")
    )
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_part_of_other_texts_or_options_is_not_gone_on_with(tmp_path: Path) -> None:
    out, told = tmp_path / "out.npy", [{}] * 2
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Growing.at(out, 4, "these", "b", 4, "<f4") as file:
        file.write(vectors, told)
    assert begun(out, "these") == "b" and begun(out, "others") == ""
    part = tmp_path / ".out.npy.part"
    with pytest.raises(UsageError, match=rf"other texts, options or model: give those again, or remove {part}"):
        Growing.at(out, 4, "others", "b", 4, "<f4").__enter__()
    assert begun(out, "these") == "b"  # hours of work, perhaps
    part.unlink()
    with Growing.at(out, 4, "others", "b", 4, "<f4") as file:
        assert file.done == 0
        file.write(vectors[::-1].copy(), told)
    with (tmp_path / ".out.npy.part").open("ab") as torn:  # half a row, as after a crash
        torn.write(b"\0" * 7)
    with Growing.at(out, 4, "others", "b", 4, "<f4") as file:
        assert file.done == 2
        file.write(vectors, told)
    np.testing.assert_array_equal(np.load(out), [*vectors[::-1], *vectors])
    assert begun(out, "others") == ""


def test_a_run_goes_on_in_the_precision_it_was_begun_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a trial would choose with the memory there is by then."""
    folder, out, key = str(write(LAYOUTS["minilm"], tmp_path)), tmp_path / "out.npy", "k"
    build = load(folder, precision="bf16").build
    with Growing.at(out, 4, key, build, 4, "<f4") as file:
        file.write(np.zeros((2, 4), np.float32), [{}] * 2)
    part = (tmp_path / ".out.npy.part").read_bytes()
    monkeypatch.setattr(torch_encoder, "choose", lambda *_: precision.Choice("int8", "what fits today"))
    later = load(folder)
    assert _as_begun(out, later, key) == later.build == build
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(UsageError, match=r"gone on with by int8 .*: give --precision bf16, or remove .*\.part"):
        _as_begun(out, load(folder), key)
    newer = load(folder, precision="bf16")
    monkeypatch.setitem(newer.__dict__, "build", "bf16 cpu torch 99")
    with pytest.raises(UsageError, match=r"by bf16 cpu torch 99: go on with that one, or remove .*\.part"):
        _as_begun(out, newer, key)
    assert (tmp_path / ".out.npy.part").read_bytes() == part


def test_a_run_in_int8_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    """Its build did not name the codes, and was refused with a cure that was no cure."""
    folder, out, key = str(write(LAYOUTS["minilm"], tmp_path)), tmp_path / "out.npy", "k"
    encoder = load(folder, precision="int8")
    older = encoder.build.removesuffix(f", codes to {processor.int8_range()}")
    assert older != encoder.build
    with Growing.at(out, 4, key, older, 4, "<f4") as file:
        file.write(np.zeros((2, 4), np.float32), [{}] * 2)
    assert _as_begun(out, encoder, key) == older
    with Growing.at(out, 4, key, _as_begun(out, encoder, key), 4, "<f4") as file:
        assert file.done == 2


def test_packed_and_cut_vectors(call: Run, passages: Path, tmp_path: Path) -> None:
    def embedded(*options: str) -> np.ndarray:
        done = call("embed", str(passages), "--role", "passage", "-o", "out.npy", *options)
        assert done.returncode == 0, done.stderr
        found: np.ndarray = np.load(tmp_path / "out.npy")
        return found

    exact = load().encode(TEXTS, Role.PASSAGE)
    np.testing.assert_allclose(embedded("--dimensions", "64", "--force"), cut(exact, 64), atol=1e-5)
    assert np.abs(embedded("--type", "int8") / 127 - exact).max() < 0.006
    np.testing.assert_array_equal(embedded("--type", "ubinary"), np.packbits(exact > 0, axis=1))
    refused = call("embed", str(passages), "--role", "passage", "--dimensions", "64")
    assert refused.returncode == 2
    assert b"does not declare dimensions 64" in refused.stderr
    wrong = call("embed", str(passages), "--role", "passage", "--type", "int4")
    assert wrong.returncode == 2 and b"--type int4 is none of float, int8" in wrong.stderr
