"""A server as the model, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcode.cli import search
from embedcode.engine import endpoint

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Serve = Callable[..., Any]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files = {
        "session.py": "def invalidate(store, id):\n    store.delete(id)  # the visitor must log in again\n",
        "prices.py": "def gross(net, rate):\n    return net * (1 + rate)  # with value added tax\n",
        "rotate.py": "def rotate(folder):\n    compress(folder)  # the oldest journal is deleted\n",
    }
    root = tmp_path / "repository"
    root.mkdir()
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def vectors(output: bytes) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in output.splitlines()])


def test_embed(run: Run, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    done = run("embed", "--model", server.url, "--role", "query", "--text", "x", "--text", "close a file")
    assert (done.returncode, done.stderr) == (0, b"")
    expected = np.stack([server.vector(text, "query") for text in ("x", "close a file")])
    np.testing.assert_allclose(vectors(done.stdout), expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-6)
    (tmp_path / "texts").write_text("\n".join(f"text {n}" for n in range(150)))
    whole = run("embed", "texts", "--lines", "--model", server.url, "--role", "passage", "-o", "out.npy")
    assert (whole.returncode, whole.stderr) == (0, b"")
    assert np.load(tmp_path / "out.npy").shape == (150, 64)
    done = run("embed", "--model", server.url, "--role", "query", "--text", "x", "--precision", "int8")
    assert done.returncode == 0
    assert done.stderr.decode() == f"{server.url}/v1 computes as it was started: precision int8 changes nothing\n"


def test_embed_goes_on_with_the_same_texts_only(call: Run, serve: Serve, tmp_path: Path) -> None:
    """What is left of an interrupted run belongs to its texts, its role and its server."""
    server = serve()
    refused = ["fine", "also fine " * 150]  # the second is too long
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, refused)))
    failed = call("embed", "texts.jsonl", "--model", server.url, "--role", "passage", "-o", "out.npy")
    assert failed.returncode == 2
    assert failed.stderr.decode().startswith("embedcode: texts.jsonl line 2: Input length 300 exceeds maximum allowed")
    assert not (tmp_path / "out.npy").exists()
    for role, words in (("passage", ["other", "texts"]), ("query", ["other", "texts"])):
        (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, words)))
        assert call("embed", "texts.jsonl", "--model", server.url, "--role", role, "-o", "out.npy").returncode == 0
        expected = np.stack([server.vector(text, role) for text in words])
        found = np.load(tmp_path / "out.npy")
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-6)


def test_a_mistake_is_one_sentence(call: Run, serve: Serve) -> None:
    url = serve(models=["a", "b"]).url
    for model, part in ((url, "serves 2 models (a, b)"), ("http://127.0.0.1:9", "refuses the connection")):
        done = call("embed", "--model", model, "--role", "query", "--text", "x")
        (line,) = done.stderr.decode().splitlines()
        assert part in line
        assert (done.returncode, done.stdout) == (2, b"")


def test_index_and_search(run: Run, serve: Serve, repository: Path) -> None:
    server = serve()
    done = run("index", str(repository), "--wait", "--model", server.url)
    assert done.returncode == 0, done.stderr
    assert b"3 chunks, 3 with a vector (3 made" in done.stdout
    assert {asked.body["input_type"] for asked in server.embeddings} == {"passage"}
    # The model is the index's own from now on, and the vectors are the server's.
    found = run("search", "the visitor must log in again", str(repository), "--mode", "dense", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["hits"][0]["path"] == "session.py"
    assert server.embeddings[-1].body["input_type"] == "query"
    # Nothing is sent again that has a vector.
    count = len(server.embeddings)
    assert b"0 made" in run("index", str(repository), "--wait").stdout
    assert len(server.embeddings) == count


def test_words_answer_while_the_server_is_down(run: Run, serve: Serve, repository: Path) -> None:
    server = serve()
    run("index", str(repository), "--wait", "--model", server.url)
    server.stop()
    (repository / "new.py").write_text("def duty(): return 'a tax on imports'\n")
    found = run("search", "value added tax", str(repository), "--json")
    assert found.returncode == 0, found.stderr
    assert [hit["path"] for hit in json.loads(found.stdout)["hits"]][:2] == ["prices.py", "new.py"]
    note = json.loads(found.stdout)["notes"][0]  # the others say how much has vectors
    assert "by words alone" in note and "refuses the connection" in note
    assert found.stderr == b""
    assert run("status", str(repository)).returncode == 0
    dense = run("search", "value added tax", str(repository), "--mode", "dense")
    assert dense.returncode == 2
    assert dense.stderr.count(b"\n") == 1


@pytest.mark.parametrize("hangs", [True, False])
def test_words_answer_where_the_server_hangs_or_its_proxy_is_alone(
    run: Run, call: Run, serve: Serve, repository: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """The first was waited for two minutes, and the second one."""
    server = serve()
    run("index", str(repository), "--wait", "--model", server.url)
    monkeypatch.setattr(search, "SERVER_SECONDS", 0.2)
    monkeypatch.setattr(endpoint, "QUICK", 0.1)
    if hangs:
        server.delay = 20.0
    else:
        server.answer = lambda asked: server.error(502, "no live upstreams")
    start = time.monotonic()
    found = json.loads(call("search", "value added tax", "--json", cwd=repository).stdout)
    assert time.monotonic() - start < 20
    assert found["hits"][0]["path"] == "prices.py"
    (note,) = found["notes"]
    assert "by words alone" in note
    assert ("gives no answer in time" if hangs else "502 Bad Gateway: no live upstreams") in note


def test_a_text_that_the_server_refuses_costs_no_other(run: Run, serve: Serve, repository: Path) -> None:
    server = serve("openai")
    server.answer = lambda asked: (
        server.error(400, "no journals") if any("journal" in text for text in asked.body.get("input", ())) else None
    )
    done = run("index", str(repository), "--wait", "--model", server.url)
    assert done.returncode == 0, done.stderr
    assert b"3 chunks, 2 with a vector" in done.stdout
    assert b"rotate.py: Input" in done.stdout
    assert b"no journals" in done.stdout


@pytest.mark.parametrize("verb", ["embed", "index"])
def test_an_interrupt_ends_at_once(
    serve: Serve, repository: Path, environment: dict[str, str], tmp_path: Path, verb: str
) -> None:
    server = serve()
    waits = server.error(503, "busy", {"Retry-After": "50"})
    server.answer = lambda asked: waits if len(server.embeddings) > 2 else None  # index asks two things first
    (tmp_path / "texts").write_text("\n".join(f"text {n}" for n in range(300)))
    for n in range(200):
        (repository / f"more{n}.py").write_text(f"def more{n}(): return {n}\n")
    arguments = {
        "embed": ["embed", str(tmp_path / "texts"), "--lines", "--role", "passage", "-o", str(tmp_path / "out.npy")],
        "index": ["index", str(repository), "--wait"],
    }[verb]
    process = subprocess.Popen(
        [sys.executable, "-m", "embedcode", *arguments, "--model", server.url],
        env={name: value for name, value in os.environ.items() if not name.startswith("EMBEDCODE_")} | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(server.embeddings) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert time.monotonic() - start < 3
    assert process.returncode == 130
    assert b"Traceback" not in shown
