"""Earn the one fusion weight on development sets: nDCG@10 of every weight, and of reciprocal rank fusion beside it.

    python bench/fusion/run.py --sets ../shared/data/dev/cosqa-dev ../shared/data/dev/conala --out results.json

Besides the BEIR folders it makes two sets from Python's own standard library: first docstring line -> the function
without its docstring, and a symbol half-remembered (the words of a qualified name, one left out) -> its function.
None of them is ever reported as a test.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import embedcode
from embedcode.evaluate.beir import Task, load
from embedcode.evaluate.metrics import mean, ndcg_at
from embedcode.search.fuse import fuse
from embedcode.store.sqlite import SqliteStore
from embedcode.store.terms import query_terms
from embedcode.types import Chunk, File, Floats, Role, Truncate, digest

POOL = 200
WEIGHTS = [round(0.1 * i, 1) for i in range(11)]
MOST_QUERIES = 1000
MOST_FUNCTIONS = 3000


def standard_library() -> list[Task]:
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py")):
        if {"test", "tests", "idlelib", "site-packages", "lib2to3"} & set(path.parts):
            continue
        try:
            source = path.read_text("utf-8")
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
                continue
            summary = (ast.get_docstring(node) or "").strip().split("\n")[0]
            if len(summary.split()) < 5 or summary in queries.values():
                continue
            lines = source.split("\n")
            doc = node.body[0]
            kept = lines[node.lineno - 1 : doc.lineno - 1] + lines[doc.end_lineno or doc.lineno : node.end_lineno]
            name = f"{path.stem}:{node.name}:{node.lineno}"
            corpus[name], queries[name] = "\n".join(kept), summary
    chosen = random.Random(0).sample(sorted(corpus), min(MOST_FUNCTIONS, len(corpus)))
    corpus = {name: corpus[name] for name in chosen}
    qrels = {name: {name: 1} for name in chosen}
    symbols = {}
    for name in chosen:
        module, function, _ = name.split(":")
        words = [word for word in function.strip("_").split("_") if word]
        if len(words) > 1:
            symbols[name] = " ".join([module, *words[: len(words) // 2], *words[len(words) // 2 + 1 :]])
    return [
        Task("docstring -> function", corpus, {name: queries[name] for name in chosen}, qrels),
        Task("half a symbol -> function", corpus, symbols, {name: qrels[name] for name in symbols}),
    ]


@cache
def passages(texts: tuple[str, ...]) -> Floats:
    return embedcode.load().encode(texts, Role.PASSAGE, truncate=Truncate.END)


def curves(task: Task) -> dict[str, float]:
    encoder = embedcode.load()
    names = list(task.corpus)
    queries = dict(list(task.queries.items())[:MOST_QUERIES])
    qrels = {q: task.qrels[q] for q in queries if q in task.qrels}
    with tempfile.TemporaryDirectory() as folder, SqliteStore.open(Path(folder), encoder.dim) as store:
        keys = [digest(name) for name in names]
        with store.begin() as transaction:
            for name, key in zip(names, keys, strict=True):
                text = task.corpus[name]
                file = File(name, "", "text", "code", len(text), 0, key)
                transaction.upsert(file, [Chunk("", name, 1, 1 + text.count("\n"), "text", "", text)], [key])
            transaction.put_vectors(keys, passages(tuple(task.corpus[name] for name in names)))
            transaction.commit()
        vectors = encoder.encode(list(queries.values()), Role.QUERY, truncate=Truncate.END)
        runs: dict[str, dict[str, dict[str, float]]] = {}
        for (query, text), vector in zip(queries.items(), vectors, strict=True):
            lexical = {c.id: c.score for c in store.lexical(query_terms(text), POOL)}
            dense = {c.id: c.score for c in store.dense(vector, POOL)}
            rest = [id for id in lexical if id not in dense]
            at, rows = store.vectors(rest)
            wide = dense | dict(zip((rest[i] for i in at), map(float, rows @ vector), strict=True))
            ids = list(wide)
            name_of = {id: c.path for id, c in zip(ids, store.get(ids), strict=True) if c is not None}
            found = {f"weight {w}": dict(fuse(lexical, wide, w)) for w in WEIGHTS}
            ranks = [{id: rank for rank, id in enumerate(listed)} for listed in (lexical, dense)]
            found["rrf 60"] = {id: sum(1 / (61 + r[id]) for r in ranks if id in r) for id in name_of}
            for name, scores in found.items():
                runs.setdefault(name, {})[query] = {name_of[id]: s for id, s in scores.items()}
    return {name: round(mean(ndcg_at(10, run, qrels)), 4) for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Earn the fusion weight on development sets.")
    parser.add_argument("--sets", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = {task.name: curves(task) for task in [*standard_library(), *map(load, args.sets)]}
    rows["mean"] = {k: round(float(np.mean([r[k] for r in rows.values()])), 4) for k in next(iter(rows.values()))}
    args.out.write_text(json.dumps({"metric": "nDCG@10", "pool": POOL, "rows": rows}, indent=1) + "\n")
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()
