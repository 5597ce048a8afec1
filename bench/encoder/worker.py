"""One measurement in a process of its own; prints one JSON object. Started by run.py in the environment of its side.

    python worker.py limit bf16|int8
    python worker.py ours MODEL PRECISION COUNT
    python worker.py streamed MODEL PRECISION COUNT
    python worker.py sentence-transformers MODEL bf16|fp32|openvino-int8 BATCH COUNT
    python worker.py first MODEL PRECISION              # process start to first vector

COUNT chunks of chunks.jsonl, 0 for all. PRECISION auto is what a trial chooses; a graph has its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
WARM = 4
"""Chunks that are embedded once before the clock starts."""
SHAPES = ((4096, 4096), (4096, 1024), (4096, 14336), (14336, 4096))
ROWS = (512, 2048, 4096)
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "optimum-intel", "nncf")


def now() -> float:
    """Seconds; with CLOCK=processor those that this process computed, over its cores, for a machine that is shared."""
    return time.process_time() / CORES if os.environ.get("CLOCK") == "processor" else time.perf_counter()


def timed(work: Callable[[], object]) -> float:
    start = now()
    work()
    return now() - start


def texts(count: int) -> list[str]:
    rows = [json.loads(line) for line in Path(__file__).with_name("chunks.jsonl").read_text().splitlines()]
    return rows[:count] if count else rows


def limit(kind: str) -> dict[str, object]:
    """The highest rate over the weight shapes of Mistral 7B, in 10^9 operations a second."""
    import torch

    torch.set_num_threads(CORES)
    rates = {}
    for inner, outer in SHAPES:
        if kind == "int8":
            weight = torch.randint(-127, 127, (outer, inner), dtype=torch.int8).t()
        else:
            weight = torch.randn(outer, inner).bfloat16().t()
        for rows in ROWS:
            x = torch.randn(rows, inner).bfloat16() if kind == "bf16" else torch.ones(rows, inner, dtype=torch.int8)
            product = torch._int_mm if kind == "int8" else torch.mm
            product(x, weight)
            seconds = min(timed(lambda x=x, weight=weight, product=product: product(x, weight)) for _ in range(3))  # type: ignore[misc]
            rates[f"{rows}x{inner}x{outer}"] = 2 * rows * inner * outer / seconds / 1e9
    return {"best": max(rates.values()), "rates": rates}


def ours(model: str, precision: str, count: int) -> dict[str, object]:
    import torch

    from embedcode import Role, load
    from embedcode.types import Tokens, Truncate

    named = "" if precision == "auto" else precision
    encoder = load(model, threads=CORES, precision=named)
    chosen = texts(count)
    tokens = [t for t in encoder.tokenize(chosen, Role.PASSAGE, truncate=Truncate.END) if isinstance(t, Tokens)]
    encoder.encode(chosen[:WARM], Role.PASSAGE, truncate=Truncate.END)
    start = now()
    vectors = encoder.encode(chosen, Role.PASSAGE, truncate=Truncate.END)
    seconds = now() - start
    used = sum(entry.used for entry in tokens)
    linear = 0
    if network := getattr(encoder, "_network", None):
        from embedcode.engine.linear import Int8Linear

        kinds = (torch.nn.Linear, Int8Linear)
        linear = sum(m.in_features * m.out_features for m in network.modules() if isinstance(m, kinds))
    return {
        "tokens": used,
        "rate": used / seconds,
        "giga_operations": 2 * linear * used / seconds / 1e9,
        "build": encoder.build,
        "reason": encoder.choice.reason if hasattr(encoder, "choice") else "",
        "vectors": vectors.round(4).tolist() if vectors.shape[1] <= 1024 else [],
        "peak_mb": peak_mb(),
    }


def sentence_transformers(model: str, precision: str, batch: int, count: int) -> dict[str, object]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(CORES)
    if precision == "openvino-int8":  # as peer_openvino.py made it
        options = {"file_name": "openvino/openvino_model.xml"}
        network = SentenceTransformer(model, device="cpu", backend="openvino", model_kwargs=options)
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": dtype})
    chosen = texts(count)
    tokenizer = network.tokenizer
    lengths = [len(ids) for ids in tokenizer(chosen, truncation=True, max_length=network.max_seq_length)["input_ids"]]
    network.encode(chosen[:WARM], batch_size=batch, show_progress_bar=False)
    start = now()
    vectors = network.encode(chosen, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
    seconds = now() - start
    return {
        "tokens": sum(lengths),
        "rate": sum(lengths) / seconds,
        "padding": padding(lengths, batch),
        "vectors": vectors.round(4).tolist() if vectors.shape[1] <= 1024 else [],
        "peak_mb": peak_mb(),
    }


def padding(lengths: list[int], batch: int) -> float:
    """The share of what the peer computes in batches, sorted as its encode() does."""
    ordered = sorted(lengths, reverse=True)
    padded = sum(len(part) * part[0] for part in (ordered[i : i + batch] for i in range(0, len(ordered), batch)))
    return 1 - sum(lengths) / padded


def first(model: str, precision: str) -> dict[str, object]:
    from embedcode import Role, load

    load(model, precision=precision, threads=CORES).encode(["close a session"], Role.QUERY)
    return {"peak_mb": peak_mb()}


def streamed(model: str, precision: str, count: int) -> dict[str, object]:
    """As ours, layers read from the disk for each pass, in one pass over the chunks."""
    from embedcode import Role, load
    from embedcode.types import Tokens, Truncate

    encoder = load(model, threads=CORES, precision=precision, stream=True)
    chosen = texts(count)
    tokens = [t for t in encoder.tokenize(chosen, Role.PASSAGE, truncate=Truncate.END) if isinstance(t, Tokens)]
    start = now()
    encoder.forward(tokens)
    used = sum(entry.used for entry in tokens)
    return {"tokens": used, "rate": used / (now() - start), "peak_mb": peak_mb()}


def versions() -> dict[str, str]:
    """Of what this side computes with."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_mb() -> float:
    """Most anonymous and file-backed pages that were resident at once."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) / 1000 * 1.024 for row in rows if row.startswith("VmHWM"))


def main() -> None:
    kind, *rest = sys.argv[1:]
    match kind:
        case "limit":
            found = limit(rest[0])
        case "ours":
            found = ours(rest[0], rest[1], int(rest[2]))
        case "streamed":
            found = streamed(rest[0], rest[1], int(rest[2]))
        case "sentence-transformers":
            found = sentence_transformers(rest[0], rest[1], int(rest[2]), int(rest[3]))
        case "first":
            found = first(rest[0], rest[1])
        case _:
            raise SystemExit(f"unknown kind {kind}")
    print(json.dumps(found | {"versions": versions()}))


if __name__ == "__main__":
    main()
