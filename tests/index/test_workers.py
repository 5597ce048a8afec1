"""Processes that parse: what they leave behind when who asked them is gone."""

from __future__ import annotations

import subprocess
import sys
from pickle import dumps

from embedcode.index import workers


def test_a_worker_whose_master_is_killed_ends_without_a_word() -> None:
    command = [sys.executable, "-P", "-c", "from embedcode.index.workers import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        raw = dumps((str.upper, ["x" * 100_000]))
        process.stdin.write(workers._SIZE.pack(len(raw)) + raw)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
