"""What each part of the default's recipe brings: short runs that differ in one thing, on the same pairs, by two seeds.

    python bench/train/ablate.py RECIPE.yaml RUN ablations.yaml OUT.jsonl [--part 0/4] [--pairs 20000] [--seeds 0 1]
    python bench/train/ablate.py RECIPE.yaml RUN --mine 8
    python bench/train/ablate.py --table OUT.jsonl

RUN is the folder of a run of RECIPE.yaml that has its pairs-* (checked against every task) and consistent-* files: all
runs draw from these. ablations.yaml has, by name, the keys that differ; `sets` names the data sets that are used, or
gives each its weight; `groups` says what pairs of a set have in common that come together; `source: unfiltered` takes
pairs that the base did not have to find, `source: mined` those with the negatives that --mine found once for all runs
by the base; `blends` scores shares of the tuned weights, which the recipe's own blend is then left
out for. Several processes share the list by --part; --keep has each one's checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from embedcode.data import negatives, pairs
from embedcode.train import mining, network, score
from embedcode.train import recipe as recipes
from embedcode.train import run as runs

OWN = ("sets", "groups", "source", "pairs", "blends")
"""Keys that are of the ablation and not of a recipe."""


def drawn(file: Path, count: int, seed: int, known: dict[Path, list[Any]]) -> list[Any]:
    if file not in known:
        known[file] = list(pairs.read(file))
    rows = known[file]
    return random.Random(f"{seed} {file.name}").sample(rows, min(count, len(rows)))


def mine(base: recipes.Recipe, run: Path, count: int) -> None:
    """The pairs of each set with `count` negatives that the base finds."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = runs.base.open_base(base, Path(folder))
        texts = runs.texts(base, checkpoint)
        model = network.untrained(checkpoint, runs.device(), runs.precision(base))
        encoder = mining.Trained(model, texts, checkpoint.first_position)
        for data in base.data:
            begun = time.monotonic()
            own = list(pairs.read(run / f"pairs-{data.name}.jsonl.gz"))
            rule = negatives.Rule("share", base.mining.share)
            found, _ = negatives.mine(own, encoder, count, rule, find=encoder.nearest)
            pairs.write(run / f"mined-{data.name}.jsonl.gz", found)
            print(f"{data.name}: {len(found):,} pairs, {time.monotonic() - begun:.0f} s", flush=True)


def blended(recipe: recipes.Recipe, folder: Path, shares: list[float]) -> dict[float, dict[str, float]]:
    """nDCG@10 by task of the base with so much of a run's tuned weights."""
    from safetensors.torch import load_file

    checkpoint = runs.base.open_base(recipe, folder)
    judge = score.Judge(runs.steering(recipe.tasks(recipe.evaluate)), runs.texts(recipe, checkpoint),
                        checkpoint.first_position)  # fmt: skip
    model = network.untrained(checkpoint, runs.device(), runs.precision(recipe))
    first, last = network.merged(model), load_file(folder / "model" / "model.safetensors")
    found = {}
    for share in shares:
        network.body(model).network.load_state_dict(
            {key: value.lerp(last[key], share) if value.is_floating_point() else value for key, value in first.items()}
        )
        found[share] = score.means(judge.values(model))
    return found


def one(base: recipes.Recipe, run: Path, name: str, change: dict[str, Any], count: int, seed: int,
        known: dict[Path, list[Any]], keep: Path | None = None) -> dict[str, Any]:  # fmt: skip
    count = change.get("pairs", count)
    weights = {data.name: data.weight for data in base.data}
    wanted = change.get("sets", weights)
    weights = wanted if isinstance(wanted, dict) else {name: weights[name] for name in wanted}
    groups = change.get("groups", {})
    sets = [
        dataclasses.replace(
            data, top=0, most=0, limit=0, weight=weights[data.name], group=groups.get(data.name, data.group)
        )
        for data in base.data
        if data.name in weights
    ]
    total = sum(data.weight for data in sets)
    fields = {key: value for key, value in change.items() if key not in OWN}
    if "mining" in fields:
        fields["mining"] = recipes.Mining(**fields["mining"])
    if change.get("blends"):  # shares of what was tuned, of which a recipe's own blend would leave but a part
        fields["blend"] = 1.0
    recipe = dataclasses.replace(base, data=tuple(sets), seed=seed, evaluate_every=0, **fields)
    batches = -(-count // recipe.batch)
    recipe = dataclasses.replace(
        recipe, steps=batches, save_every=max(1, batches // (recipe.keep + 1)), warmup=min(recipe.warmup, batches // 5)
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        out.mkdir()
        for data in sets:
            file = run / f"{'mined' if change.get('source') == 'mined' else 'consistent'}-{data.name}.jsonl.gz"
            if not file.is_file() or change.get("source") == "unfiltered":
                file = run / f"pairs-{data.name}.jsonl.gz"
            own = drawn(file, round(count * data.weight / total), seed, known)
            pairs.write(out / f"pairs-{data.name}.jsonl.gz", own)
            (out / f"pairs-{data.name}.json").write_text('{"forbidden": 0, "bad": 0}')
        begun = time.monotonic()
        done = runs.Run(recipe, out, tell=lambda text: None).go()
        seconds = time.monotonic() - begun
        blends = blended(recipe, out, change.get("blends", []))
        if keep:
            shutil.copytree(done.folder, keep / f"{name} {seed}")
    before, after = score.means(done.before), score.means(done.after)
    return {"name": name, "seed": seed, "change": change, "steps": done.steps, "seconds": round(seconds, 1),
            "before": {k: round(v, 4) for k, v in before.items()},
            "after": {k: round(v, 4) for k, v in after.items()},
            "blends": {share: {k: round(v, 4) for k, v in of.items()} for share, of in blends.items()}}  # fmt: skip


def table(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = rows[0]["before"]
    tasks = list(first)
    groups = {"questions": [t for t in tasks if not t.startswith("validation")],
              "docstrings": [t for t in tasks if t.startswith("validation")]}  # fmt: skip
    groups = {name: of for name, of in groups.items() if of}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    columns = [*groups.get("questions", []), *groups]
    print(f"{'':<22}" + "".join(f"{c[:10]:>11}" for c in columns) + f"{'seconds':>9}")

    def line(name: str, values: list[dict[str, float]], seconds: float) -> None:
        cells = []
        for column in columns:
            each = [statistics.mean(v[t] for t in groups.get(column, [column])) for v in values]
            spread = (max(each) - min(each)) / 2 if len(each) > 1 else 0
            cells.append(f"{statistics.mean(each):.4f}±{1e4 * spread:02.0f}")
        print(f"{name:<22}" + "".join(f"{c:>11}" for c in cells) + f"{seconds:>9.0f}")

    line("before", [first], 0)
    for name, of in by_name.items():
        line(name, [row["after"] for row in of], statistics.mean(row["seconds"] for row in of))
        for share in of[0].get("blends", {}):
            line(f"  {share} of it", [row["blends"][share] for row in of], 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="RECIPE RUN ABLATIONS OUT")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--mine", type=int, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    if args.table:
        table(args.table)
        return
    base = recipes.read(args.files[0])
    if args.mine:
        mine(base, args.files[1], args.mine)
        return
    _, run, changes, out = args.files
    part, parts = map(int, args.part.split("/"))
    work = [(name, change or {}, seed) for seed in args.seeds
            for name, change in yaml.safe_load(changes.read_text()).items()]  # fmt: skip
    known: dict[Path, list[Any]] = {}
    for number, (name, change, seed) in enumerate(work):
        if number % parts == part:
            try:
                found = one(base, run, name, change, args.pairs, seed, known, args.keep)
            except Exception as error:  # one that fails must not cost the others
                print(f"{name}: {error!r}", file=sys.stderr, flush=True)
                continue
            with out.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
