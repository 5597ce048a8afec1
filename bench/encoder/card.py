"""The encoder on an NVIDIA card: vectors against the processor's, and tokens a second against sentence-transformers.

    python bench/encoder/card.py MINILM --out results.json [--seven DIR]

MINILM is what make.py writes as minilm-l6, DIR as mistral-7b; both sides have the same card, process and torch. Texts
are the 64 committed chunks, over and over. Padding is the peer's; its batch size is the best of BATCHES.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import worker

from embedcode import Role, load
from embedcode.types import Tokens, Truncate

CHUNKS = worker.texts(0)
BATCHES = (64, 256)
ROUNDS = 2


def seconds(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


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


def agreement(folder: Path) -> dict[str, Any]:
    """Cosines of the card's vectors with the processor's in fp32, and of a text alone with itself among others."""
    exact = load(str(folder), precision="fp32", device="cpu").encode(CHUNKS, Role.PASSAGE, truncate=Truncate.END)
    found: dict[str, Any] = {}
    for precision in ("bf16", "fp32"):
        encoder = load(str(folder), precision=precision, device="cuda")
        mine = encoder.encode(CHUNKS, Role.PASSAGE, truncate=Truncate.END)
        alone = np.concatenate([encoder.encode([text], Role.PASSAGE, truncate=Truncate.END) for text in CHUNKS[:16]])
        found[precision] = {
            "mean_cosine": float((mine * exact).sum(1).mean()), "least_cosine": float((mine * exact).sum(1).min()),
            "alone_least_cosine": float((alone * mine[:16]).sum(1).min()),
        }  # fmt: skip
    return found


def rates(folder: Path, times: int, precisions: tuple[str, ...]) -> dict[str, Any]:
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
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        peer = SentenceTransformer(str(folder), device="cuda", model_kwargs={"dtype": dtype})
        peer.max_seq_length = encoder.max_tokens
        for batch in BATCHES:
            work[f"sentence-transformers {precision} {batch}"] = lambda peer=peer, batch=batch: peer.encode(  # type: ignore[misc]
                texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
            )
    for one in work.values():
        one()
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, one in work.items():
            spent[name].append(seconds(one))
    rate = {name: used / statistics.median(each) for name, each in spent.items()}
    best = {p: max(v for n, v in rate.items() if n.startswith(f"sentence-transformers {p}")) for p in precisions}
    return {
        "tokens": used,
        "tokens_a_second": {name: round(value) for name, value in rate.items()},
        "ratio": {precision: rate["ours"] / value for precision, value in best.items()},
        "tera_operations": 2 * linear * rate["ours, of tokens"] / 1e12,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("minilm", type=Path)
    parser.add_argument("--seven", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "limit": limit()}
    steps: dict[str, Callable[[], Any]] = {
        "agreement": lambda: agreement(args.minilm),
        "minilm-l6": lambda: rates(args.minilm, 24, ("fp32", "bf16")),
    }
    if args.seven:
        steps["mistral-7b"] = lambda: rates(args.seven, 8, ("bf16",))
    for name, step in steps.items():
        try:
            found[name] = step()
        except Exception as error:  # a card is lent by the minute: what works is kept
            found[name] = {"error": repr(error)[:500]}
        print(name, json.dumps(found[name]), flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
