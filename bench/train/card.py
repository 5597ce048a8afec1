"""The recipe of the 7B model at its size, on a card: the published batch, a few steps, merged, published and loaded.

    python bench/train/card.py BASE PAIRS FOLDER --out results.json [--steps 4] [--micro 4]

BASE is mistral-7b of bench/encoder/make.py: random, since speed and memory do not depend on what the weights say. PAIRS
is a file that `embedcode data docstrings` made: four functions in a row are a passage of up to 512 tokens, negatives
are drawn. FOLDER takes the run, 30 GB of it the finished model.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import embedcode
from embedcode.data import pairs
from embedcode.train.recipe import read
from embedcode.train.run import Run, Step

RECIPE = Path(__file__).parents[2] / "recipes" / "nv_embedcode_7b.yaml"
JOINED = 4
"""Functions of a passage."""


def write(source: Path, place: Path, count: int, negatives: int) -> None:
    found = list(pairs.read(source))
    functions = [pair.positives[0] for pair in found]
    texts = ["\n\n".join(functions[at : at + JOINED]) for at in range(len(functions) - JOINED)]
    draw = random.Random(0)
    with place.open("w") as file:
        for number in range(count):
            at = number % len(texts)
            far = [other for other in range(len(texts)) if abs(other - at) >= JOINED]
            row = {
                "query": found[at].query, "positives": [texts[at]],
                "negatives": [texts[other] for other in draw.sample(far, negatives)],
                "source": found[at].source, "licence": found[at].licence,
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--micro", type=int, default=4)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    (args.folder / RECIPE.name).write_text(RECIPE.read_text())
    own = {
        "inherits": RECIPE.name, "base": str(args.base.absolute()), "steps": args.steps, "micro_batch": args.micro,
        "data": [{"name": "drawn", "files": ["pairs.jsonl"]}], "mining": {"rounds": 0}, "warmup": 1,
    }  # fmt: skip
    (args.folder / "card.yaml").write_text(json.dumps(own))
    recipe = read(args.folder / "card.yaml")
    write(args.pairs, args.folder / "pairs.jsonl", recipe.batch * 3, recipe.negatives)
    at: list[float] = []
    cards = torch.cuda.is_available()
    told: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if cards else "none", "torch": torch.__version__, "batch": recipe.batch,
        "negatives": recipe.negatives, "micro_batch": recipe.micro_batch,
        "gradient_checkpointing": recipe.gradient_checkpointing,
    }  # fmt: skip

    def stepped(step: Step) -> None:
        at.append(time.perf_counter())
        peak = torch.cuda.max_memory_allocated() / 1e9 if cards else 0.0
        told.update(steps=step.done, seconds_of_steps=[b - a for a, b in pairwise(at)], peak_gb=peak)
        args.out.write_text(json.dumps(told, indent=1) + "\n")  # a card is lent by the minute: what works is kept
        print(step, peak, flush=True)

    begun = time.perf_counter()
    outcome = Run(recipe, args.folder / "run", tell=print, progress=stepped).go()
    told["seconds_of_all"] = time.perf_counter() - begun
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    device = "cuda" if cards else "cpu"
    encoder, before = (embedcode.load(str(one), device=device, precision="bf16") for one in (outcome.folder, args.base))
    texts = ["def close(session):\n    session.end()", "where are tokens refreshed?"]
    vectors = [one.encode(texts, embedcode.Role.PASSAGE) for one in (encoder, before)]
    told["published_cosine_to_base"] = [float(value) for value in (vectors[0] * vectors[1]).sum(1)]
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
