"""`train` as a process: what it sets for the libraries lets it fork."""

from __future__ import annotations

import os
import subprocess
import sys

FORKS = """
import os, signal
from embedcode.cli.train import _quiet
from embedcode.engine.tokens import TextTokenizer
from embedcode.model.spec import DEFAULT
from embedcode.types import Truncate

texts = [f"def name_{number}(x): return x" for number in range(500)]
tokenizer = TextTokenizer(DEFAULT / "tokenizer.json", 64)
with _quiet():
    tokenizer(texts, "", Truncate.END, None)
    if child := os.fork():
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    signal.alarm(20)  # of a child that waits for threads that only its parent has
    tokenizer(texts, "", Truncate.END, None)
    os._exit(0)
"""


def test_a_process_that_makes_batches_has_a_tokenizer_that_works() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", FORKS], env=environment, timeout=120, check=False)
    assert done.returncode == 0
