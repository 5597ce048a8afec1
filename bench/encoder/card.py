"""The encoder on an NVIDIA card: vectors against the processor's, and tokens a second against sentence-transformers.

    python bench/encoder/card.py --out results.json --minilm DIR --qwen DIR --seven DIR
    python bench/encoder/card.py --out results.json --minilm DIR --graph DIR    # with onnxruntime-gpu

The folders are as make.py writes them: minilm-l6, qwen3-0.6b, and mistral-7b with `--slice 4` and `--slice 32`, whose
peers are beside them; `--graph` is `embedcode models export --batch` of MiniLM. Both sides have the same card, process
and torch. Texts are the 64 committed chunks, over and over. Padding is the peer's at its best batch size of BATCHES.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import worker

from embedcode import Role, load
from embedcode.errors import EmbedcodeError
from embedcode.types import Tokens, Truncate

CHUNKS = worker.texts(0)
BATCHES = (32, 64, 256)
ROUNDS = 3
SIXTEEN = 16
"""Chunks that a slice of the 7B is compared on, since the other side is a processor."""


def seconds(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(work: dict[str, Callable[[], Any]], tokens: int) -> dict[str, float]:
    """Tokens a second of each, medians of ROUNDS."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, one in work.items():
            spent[name].append(seconds(one))
    return {name: tokens / statistics.median(each) for name, each in spent.items()}


def limit() -> float:
    """The highest rate over the weight shapes of Mistral 7B, in 10^12 operations a second."""
    best = 0.0
    for inner, outer in worker.SHAPES:
        x = torch.randn(16384, inner, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(inner, outer, device="cuda", dtype=torch.bfloat16)
        for _ in range(3):
            x @ w
        took = seconds(lambda x=x, w=w: [x @ w for _ in range(10)]) / 10  # type: ignore[misc]
        best = max(best, 2 * 16384 * inner * outer / took / 1e12)
    return best


def agreement(exact: Path, folder: Path, precisions: Sequence[str], chunks: list[str]) -> dict[str, Any]:
    """Cosines of the card's vectors of `folder` with the processor's of `exact` in fp32, and of a text alone with
    itself among others."""
    theirs = load(str(exact), precision="fp32", device="cpu").encode(chunks, Role.PASSAGE, truncate=Truncate.END)
    found: dict[str, Any] = {}
    for precision in precisions:
        encoder = load(str(folder), precision=precision, device="cuda")
        mine = encoder.encode(chunks, Role.PASSAGE, truncate=Truncate.END)
        alone = np.concatenate([encoder.encode([text], Role.PASSAGE, truncate=Truncate.END) for text in chunks[:16]])
        cosines = (mine * theirs).sum(1)
        found[precision or "graph"] = {
            "build": encoder.build, "mean_cosine": float(cosines.mean()), "least_cosine": float(cosines.min()),
            "alone_least_cosine": float((alone * mine[:16]).sum(1).min()),
        }  # fmt: skip
    return found


def rates(folder: Path, times: int, precisions: tuple[str, ...], peer: Path) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    texts = CHUNKS * times
    encoder = load(str(folder), precision="bf16", device="cuda")
    tokens = [t for t in encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END) if isinstance(t, Tokens)]
    used = sum(entry.used for entry in tokens)
    network = encoder._network  # type: ignore[attr-defined]
    linear = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear))
    work: dict[str, Callable[[], Any]] = {
        "ours": lambda: encoder.encode(texts, Role.PASSAGE, truncate=Truncate.END),
        "ours, of tokens": lambda: encoder.forward(tokens),
    }
    torch.cuda.reset_peak_memory_stats()
    encoder.forward(tokens)
    memory = torch.cuda.max_memory_allocated()
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        other = SentenceTransformer(str(peer), device="cuda", model_kwargs={"dtype": dtype})
        other.max_seq_length = encoder.max_tokens
        for batch in BATCHES:
            work[f"sentence-transformers {precision} {batch}"] = lambda other=other, batch=batch: other.encode(  # type: ignore[misc]
                texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
            )
    for one in work.values():
        one()
    rate = in_turns(work, used)
    best = {p: max(v for n, v in rate.items() if n.startswith(f"sentence-transformers {p}")) for p in precisions}
    fastest = next(batch for batch in BATCHES if rate[f"sentence-transformers bf16 {batch}"] == best["bf16"])
    return {
        "tokens": used,
        "tokens_a_second": {name: round(value) for name, value in rate.items()},
        "ratio": {precision: rate["ours"] / value for precision, value in best.items()},
        "peer_padding": worker.padding([entry.used for entry in tokens], fastest),
        "tera_operations": 2 * linear * rate["ours, of tokens"] / 1e12,
        "memory_gb": memory / 1e9,
    }


def first(folder: Path) -> dict[str, Any]:
    """From a checkpoint whose files are in memory to its first vector."""
    encoder = load(str(folder), precision="bf16", device="cuda")
    return {"seconds": seconds(lambda: encoder.encode(["close a session"], Role.QUERY))}


def graph(minilm: Path, folder: Path) -> dict[str, Any]:
    """ONNX Runtime: CUDA beside torch on the same card, and what is said of TensorRT where it is not installed."""
    found = agreement(minilm, folder, ("",), CHUNKS)
    texts = CHUNKS * 24
    work: dict[str, Callable[[], Any]] = {}
    tokens = []
    sides = (("graph", folder, ""), ("torch fp32", minilm, "fp32"), ("torch bf16", minilm, "bf16"))
    for name, place, precision in sides:
        encoder = load(str(place), precision=precision, device="cuda")
        tokens = [t for t in encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END) if isinstance(t, Tokens)]
        work[name] = lambda encoder=encoder: encoder.encode(texts, Role.PASSAGE, truncate=Truncate.END)  # type: ignore[misc]
        work[f"{name}, of tokens"] = lambda encoder=encoder, tokens=tokens: encoder.forward(tokens)  # type: ignore[misc]
        encoder.forward(tokens)
        if name == "graph":
            found["padding"] = encoder.padding
    used = sum(entry.used for entry in tokens)
    found["tokens_a_second"] = {name: round(value) for name, value in in_turns(work, used).items()}
    chosen = load(str(folder), device="auto")
    chosen.encode(["close a session"], Role.QUERY)
    found["auto"] = chosen.build
    try:
        load(str(folder), device="tensorrt").encode(["close a session"], Role.QUERY)
        found["tensorrt"] = "ran"
    except EmbedcodeError as error:
        found["tensorrt"] = str(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--qwen", type=Path)
    parser.add_argument("--seven", type=Path)
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "limit": limit()}
    minilm = args.minilm
    steps: dict[str, Callable[[], Any]] = {}
    if args.graph:
        steps["graph"] = lambda: graph(minilm, args.graph)
    else:
        steps["agreement"] = lambda: agreement(minilm, minilm, ("bf16", "fp32"), CHUNKS)
        steps["minilm-l6"] = lambda: rates(minilm, 24, ("fp32", "bf16"), minilm)
    if args.qwen:
        steps["qwen3-0.6b"] = lambda: rates(args.qwen, 12, ("bf16",), args.qwen)
    if args.seven:
        # whole files of make.py, which has four layers in each
        slices = {n: args.seven.with_name(f"{args.seven.name}-{n}") for n in (4, 32)}
        precisions = ("bf16", "fp32")
        steps["agreement of four layers of 7B"] = lambda: agreement(slices[4], slices[4], precisions, CHUNKS[:SIXTEEN])
        steps["first vector of 7B"] = lambda: first(slices[32])
        steps["mistral-7b"] = lambda: rates(slices[32], 4, ("bf16",), slices[32].with_name(f"{slices[32].name}-peer"))
    for name, step in steps.items():
        since = time.monotonic()
        try:
            found[name] = step()
        except Exception as error:  # a card is lent by the minute: what works is kept
            found[name] = {"error": repr(error)[:500]}
        torch.cuda.empty_cache()
        print(f"{name} ({time.monotonic() - since:.0f} s)", json.dumps(found[name]), flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
