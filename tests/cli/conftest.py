"""Runs `python -m embedcode` as a person would, with its own home and no settings of whoever runs the tests."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import repositories
from embedcode.cli import main

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = repositories.environment(tmp_path / "home")
    kept.pop("CI", None)
    kept.pop("NO_COLOR", None)
    return kept


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """run("search", "text", cwd=..., input=b"...", env={...}): the finished process, its output as bytes."""

    def run(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
        options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, **options}
        if "input" in options:
            del options["stdin"]
        env = environment | options.pop("env", {})  # type: ignore[operator]
        command = [sys.executable, "-m", "embedcode", *arguments]
        return subprocess.run(command, capture_output=True, env=env, timeout=60, check=False, **options)  # type: ignore

    return run


@pytest.fixture
def call(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Run:
    """The same as run() without the half second of a process of its own."""

    def call(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[bytes]:
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["embedcode", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as ended:
            main()
        for name in os.environ.keys() - environment.keys():  # what a flag hands on to background processes
            del os.environ[name]
        captured = capfdbinary.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, captured.out, captured.err)  # type: ignore

    return call


@pytest.fixture
def on_terminal(environment: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """The same on a pseudo-terminal of 100 columns: (exit code, all that was shown)."""

    def on_terminal(*arguments: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "embedcode", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"} | (env or {}),
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    block = os.read(ours, 65536)
                except OSError:  # Linux's way to say that nobody holds the other end
                    break
                if not block:
                    break
                shown += block
            elif process.poll() is not None:
                break
        code = process.wait(timeout=10)
        os.close(ours)
        return code, shown.decode("utf-8", "replace").replace("\r\n", "\n")

    return on_terminal
