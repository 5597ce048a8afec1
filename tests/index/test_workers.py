"""Processes that parse: what is told of one that dies, and what they leave behind when who asked them is gone."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys

import pytest

from embedcode.errors import UsageError
from embedcode.index import workers
from embedcode.index.workers import CRASHED, ENDED, Workers


def told(_job: object, reason: str) -> str:
    return reason


def test_a_crash_is_told_from_an_end_that_came_from_outside() -> None:
    with Workers(1, signal.raise_signal, told, least=1) as crashing:
        crashing.start()
        assert list(crashing.done([signal.SIGSEGV, signal.SIGKILL])) == [CRASHED, ENDED]


def test_workers_that_cannot_come_up_leave_the_work_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where embedcode is found by a path that only this process knows."""
    monkeypatch.setattr(workers, "_SERVE", "raise SystemExit(1)")
    with Workers(2, str.upper, told) as none:
        none.start()
        assert list(none.done(["a", "b"])) == ["A", "B"]


def test_work_that_this_process_must_not_do_is_an_error_where_no_other_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SERVE", "raise SystemExit(1)")
    with Workers(1, str.upper, told, least=1) as none, pytest.raises(UsageError, match="no process can be started"):
        none.start()
        list(none.done(["a"]))


def test_processes_that_cannot_be_started_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise OSError(errno.EAGAIN, "no more")

    monkeypatch.setattr(subprocess, "Popen", fail)
    with Workers(2, str.upper, told) as none:
        for _ in range(3):
            none.start()
        assert list(none.done(["a", "b"])) == ["A", "B"]
    assert len(tried) == 1


def test_an_application_that_is_frozen_is_not_started_as_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    with Workers(2, str.upper, told) as none:
        none.start()
        assert list(none.done(["a", "b"])) == ["A", "B"]


def test_a_worker_whose_master_is_killed_ends_without_a_word() -> None:
    command = [sys.executable, "-P", "-c", workers._SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        workers._send(process.stdin, str.upper)
        assert workers._receive(process.stdout)
        process.stdout.close()
        workers._send(process.stdin, ["x" * 100_000])
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
