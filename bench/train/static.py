"""A static model, beside BM25: a vector a token, their weighted mean a text, no network, trained on the same pairs.

    python bench/train/static.py RUN TASKS... --out results.json [--minutes 8] [--dim 384] [--batch 1024]
                                 [--pair 0.2 0.4 0.6] [--model FILE]

RUN is the folder of a run that has its pairs-* files, checked against every task; sets that it has not are left out.
FILE keeps the model, and is not trained again where it is there. With --pair the packaged model's vectors are joined
with the static ones, which have so much of a score. Tokens are those of the packaged model; a token's vector begins as
what the packaged model gives for the token alone, as model2vec makes them (https://github.com/MinishLab/model2vec), and
is trained with its weight by InfoNCE over the batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import embedcode
import record
from embedcode import settings
from embedcode.data import pairs
from embedcode.evaluate import beir
from embedcode.evaluate.metrics import mean, ndcg_at, paired_bootstrap
from embedcode.evaluate.systems import named
from embedcode.model.spec import DEFAULT
from embedcode.train.score import CUT, ndcg
from embedcode.types import Floats, Role, Truncate

SHARES = {"docstrings": 0.75, "examples": 0.05, "commits": 0.05, "sql": 0.05, "shell": 0.1}
TOKENS = {"query": 64, "passage": 256}
TEMPERATURE = 0.05


class Tokenizer:
    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._model = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
        self._model.no_padding()
        self._model.no_truncation()
        self.size = self._model.get_vocab_size()

    def words(self) -> list[str]:
        return [self._model.id_to_token(number) or "" for number in range(self.size)]

    def __call__(self, texts: Sequence[str], most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids side by side, and where each text begins."""
        found = self._model.encode_batch([text[: most * 16] for text in texts], add_special_tokens=False)
        ids = [one.ids[:most] or [0] for one in found]
        starts = np.cumsum([0, *map(len, ids)])[:-1]
        return torch.tensor([number for one in ids for number in one]), torch.tensor(starts)


class Static(nn.Module):
    def __init__(self, vectors: Floats) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag.from_pretrained(torch.from_numpy(vectors), freeze=False, mode="sum")
        self.weights = nn.Embedding(len(vectors), 1)
        nn.init.zeros_(self.weights.weight)

    def forward(self, ids: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        weights = torch.exp(self.weights(ids).squeeze(1))
        return nn.functional.normalize(self.vectors(ids, starts, per_sample_weights=weights), dim=1)


def first_vectors(tokenizer: Tokenizer, dim: int) -> Floats:
    """Of each token what the packaged model gives for it, less what is common to all, in `dim` main directions."""
    encoder = embedcode.load()
    found = encoder.encode([word.removeprefix("##") or " " for word in tokenizer.words()], Role.PASSAGE)
    centred = found - found.mean(0)
    _, _, directions = np.linalg.svd(centred[::4], full_matrices=False)
    return np.ascontiguousarray(centred @ directions[:dim].T, np.float32)


def trained(run: Path, tokenizer: Tokenizer, args: argparse.Namespace) -> tuple[Static, dict[str, Any]]:
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    files = {name: run / f"pairs-{name}.jsonl.gz" for name in SHARES}
    rows = {name: list(pairs.read(file)) for name, file in files.items() if file.is_file()}
    whole = sum(SHARES[name] for name in rows)
    model = Static(first_vectors(tokenizer, args.dim))
    optimiser = torch.optim.Adam(model.parameters(), lr=args.rate)
    orders = {name: rng.permutation(len(own)) for name, own in rows.items()}
    at = dict.fromkeys(rows, 0)
    start, steps, seen = time.monotonic(), 0, 0
    while (spent := time.monotonic() - start) < args.minutes * 60:
        for group in optimiser.param_groups:
            group["lr"] = args.rate * max(0.02, 1 - spent / (args.minutes * 60))
        batch = []
        for name, own in rows.items():
            count = round(SHARES[name] / whole * args.batch)
            places = [(at[name] + place) % len(own) for place in range(count)]
            at[name] += count
            batch += [own[orders[name][place]] for place in places]
        queries = model(*tokenizer([pair.query for pair in batch], TOKENS["query"]))
        passages = model(*tokenizer([pair.positives[0] for pair in batch], TOKENS["passage"]))
        scores = queries @ passages.T / TEMPERATURE
        answers = torch.arange(len(batch))
        loss = (nn.functional.cross_entropy(scores, answers) + nn.functional.cross_entropy(scores.T, answers)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps, seen = steps + 1, seen + len(batch)
    spent = round(time.monotonic() - start)
    sizes = {name: len(own) for name, own in rows.items()}
    return model, {"pairs": sizes, "steps": steps, "pairs_seen": seen, "seconds": spent, "loss": loss.item()}


@torch.inference_mode()
def encoded(model: Static, tokenizer: Tokenizer, texts: Sequence[str], most: int) -> Floats:
    parts = [texts[first : first + 512] for first in range(0, len(texts), 512)]
    found: Floats = torch.cat([model(*tokenizer(part, most)) for part in parts]).numpy()
    return found


def measured(model: Static, tokenizer: Tokenizer, folder: Path, shares: Sequence[float]) -> dict[str, Any]:
    task = beir.load(folder)
    bm25 = named("bm25", settings.load({})).rank(task, 100, lambda *_: None).run
    lexical = ndcg_at(CUT, bm25, task.qrels)
    start = time.perf_counter()
    documents = encoded(model, tokenizer, list(task.corpus.values()), 512)
    rate = len(task.corpus) / (time.perf_counter() - start)
    queries = encoded(model, tokenizer, list(task.queries.values()), 512)
    values = ndcg(task, queries, documents)
    found: dict[str, Any] = {
        "static": round(mean(values), 4), "bm25": round(mean(lexical), 4), "documents_per_second": round(rate),
        "gain": _interval(values, lexical),
    }  # fmt: skip
    if not shares:
        return found
    encoder = embedcode.load()
    sides = [
        (encoder.encode(list(texts.values()), role, truncate=Truncate.END), own)
        for texts, role, own in (
            (task.queries, Role.QUERY, queries), (task.corpus, Role.PASSAGE, documents),
        )
    ]  # fmt: skip
    alone = ndcg(task, sides[0][0], sides[1][0])
    found["packaged"] = round(mean(alone), 4)
    for share in shares:
        joined = [np.hstack([packaged * (1 - share) ** 0.5, own * share**0.5]) for packaged, own in sides]
        both = ndcg(task, *joined)
        found[f"pair {share}"] = {"ndcg": round(mean(both), 4), "above_packaged": _interval(both, alone)}
    return found


def _interval(values: Mapping[str, float], others: Mapping[str, float]) -> list[float]:
    gain = paired_bootstrap(values, others)
    return [round(value, 4) for value in (gain.mean, gain.low, gain.high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pair", type=float, nargs="+", default=[])
    parser.add_argument("--model", type=Path, metavar="FILE")
    args = parser.parse_args()
    tokenizer = Tokenizer()
    if args.model and args.model.is_file():
        about, weights = torch.load(args.model)
        model = Static(np.zeros((tokenizer.size, args.dim), np.float32))
        model.load_state_dict(weights)
    else:
        model, about = trained(args.run, tokenizer, args)
        if args.model:
            torch.save((about, model.state_dict()), args.model)
    size = sum(one.numel() for one in model.parameters())
    options = {name: getattr(args, name) for name in ("minutes", "dim", "batch", "rate", "seed")}
    result = record.context() | options | about | {"parameters": size}
    result["tasks"] = {folder.name: measured(model, tokenizer, folder, args.pair) for folder in args.tasks}
    for name in ("static", "bm25"):
        result[f"mean_{name}"] = round(mean({key: one[name] for key, one in result["tasks"].items()}), 4)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
