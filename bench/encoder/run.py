"""The encoder against the processor's limit, against sentence-transformers, and its memory and start, at 7B's shape.

    python bench/encoder/make.py mistral-7b M --slice 8
    python bench/encoder/run.py slice --model M --ours O/bin/python --peer E/bin/python --out results.json
    python bench/encoder/run.py whole --model M --ours O/bin/python --out results.json
    python bench/encoder/run.py small --models DIR --ours O/bin/python --peer E/bin/python --openvino V/bin/python \
        --out results.json

O has the extra `torch` and a clone of this project, E is made from bench/env/sentence_transformers.txt, V from
bench/env/sentence_transformers_openvino.txt. Every measurement is a process of its own, sides in turn, round after
round; both have glibc's malloc keep its memory, but where memory is measured: ours sets that itself, once its weights
are loaded. Rates count the operations of the linear layers only, so a share of the limit leaves attention and norms to
our disadvantage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import record

WORKER = Path(__file__).with_name("worker.py")
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "67108864"}
BATCHES = (1, 8, 32)
STREAM_BYTES = 6_000_000_000
NEAR = 0.995
"""Mean cosine to fp32, below which a rate of ours does not count."""


def work(python: Path, *arguments: object, data: int = 0, malloc: Mapping[str, str] = MALLOC) -> dict[str, Any]:
    """What a worker measured; `data` bounds its private memory, in bytes."""
    environment = os.environ | malloc | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = (lambda: resource.setrlimit(resource.RLIMIT_DATA, (data, data))) if data else None
    command = [str(python), str(WORKER), *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=before)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{' '.join(map(str, arguments)):<70} {found.get('rate', found.get('best', 0)):>8.1f}", flush=True)
    return found | {"seconds": time.perf_counter() - start}


def of_slice(args: argparse.Namespace) -> dict[str, Any]:
    """Share of the limit, and ratio to sentence-transformers at its best batch size, in bf16 and int8."""
    sliced = args.model.with_name(f"{args.model.name}-8")
    same = args.model.with_name(f"{args.model.name}-8-peer")
    trial = {batch: work(args.peer, "sentence-transformers", same, "bf16", batch, 0) for batch in BATCHES}
    batch = max(trial, key=lambda size: trial[size]["rate"])
    rounds = []
    for _ in range(args.rounds):
        one = {f"limit {kind}": work(args.ours, "limit", kind)["best"] for kind in ("bf16", "int8")}
        peer = work(args.peer, "sentence-transformers", same, "bf16", batch, 0)
        for kind in ("bf16", "int8"):
            mine = work(args.ours, "ours", sliced, kind, 0)
            one |= {
                f"share {kind}": mine["giga_operations"] / one[f"limit {kind}"],
                f"ratio {kind}": mine["rate"] / peer["rate"],
                f"tokens/s {kind}": mine["rate"],
            }
        rounds.append(one | {"tokens/s sentence-transformers bf16": peer["rate"]})
    return {
        "batch": batch,
        "padding of the peer": {size: found["padding"] for size, found in trial.items()},
        "tokens/s of the peer by batch": {size: found["rate"] for size, found in trial.items()},
        "tokens": trial[batch]["tokens"],
        "rounds": rounds,
        "medians": {key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
    }


def of_whole(args: argparse.Namespace) -> dict[str, Any]:
    """Memory, start and streaming of all 32 layers, and 16 chunks through them."""
    found: dict[str, Any] = {}
    for kind in ("bf16", "int8"):
        one = work(args.ours, "ours", args.model, kind, 16, malloc={})
        bound = work(args.ours, "limit", kind)["best"]
        found[kind] = {
            "tokens/s": one["rate"], "share": one["giga_operations"] / bound, "peak_mb": one["peak_mb"], "limit": bound,
        }  # fmt: skip
    files = sorted(args.model.glob("*.safetensors"))
    dropped = drop_caches()
    reading = time.perf_counter()
    for path in files:
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=16M", "status=none"], check=True)
    reading = time.perf_counter() - reading
    drop_caches()
    start = work(args.ours, "first", args.model, "bf16", malloc={})
    found["start"] = {"seconds": start["seconds"], "dd": reading, "ratio": start["seconds"] / reading, "cold": dropped}
    streamed = work(args.ours, "streamed", args.model, "bf16", 16, data=STREAM_BYTES, malloc={})
    found["streamed"] = {"tokens/s": streamed["rate"], "RLIMIT_DATA": STREAM_BYTES, "peak_mb": streamed["peak_mb"]}
    return found


def drop_caches() -> bool:
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def of_small(args: argparse.Namespace) -> dict[str, Any]:
    """Each small model in our precisions and exports against sentence-transformers, at its best batch size."""
    found = {}
    for model in sorted(path for path in args.models.iterdir() if path.is_dir()):
        exports = {form: exported(args.ours, model, form) for form in ("onnx", "openvino")}
        if not (model / "openvino").exists():
            subprocess.run([str(args.openvino), str(WORKER.with_name("peer_openvino.py")), str(model)], check=True)
        peers = {"fp32": args.peer, "bf16": args.peer, "openvino-int8": args.openvino}
        rounds: list[dict[str, Any]] = []
        batches = dict.fromkeys(peers, BATCHES)
        for _ in range(args.rounds):
            one: dict[str, Any] = {}
            for kind in ("fp32", "bf16", "int8"):
                one[f"ours {kind}"] = work(args.ours, "ours", model, kind, 0)
            for form, folder in exports.items():
                one[f"ours {form} int8"] = work(args.ours, "ours", folder, "", 0)
            for kind, python in peers.items():
                for batch in batches[kind]:
                    one[f"peer {kind} {batch}"] = work(python, "sentence-transformers", model, kind, batch, 0)
                batches[kind] = (max(batches[kind], key=lambda size: one[f"peer {kind} {size}"]["rate"]),)
            rounds.append(one)
        medians = {key: statistics.median(r[key]["rate"] for r in rounds if key in r) for key in rounds[0]}
        exact = np.array(rounds[0]["ours fp32"]["vectors"])
        theirs = np.array(rounds[0][f"peer fp32 {batches['fp32'][0]}"]["vectors"])
        near = {key: cosine(theirs if key.startswith("peer") else exact, rounds[0][key]["vectors"]) for key in medians}
        best = max((key for key in medians if key.startswith("ours") and near[key] >= NEAR), key=lambda k: medians[k])
        fastest = max((key for key in medians if key.startswith("peer")), key=lambda k: medians[k])
        slow = f"peer fp32 {batches['fp32'][0]}"
        found[model.name] = {
            "medians": medians,
            "cosine to fp32": near,
            "ours, best": best,
            "peer, fastest": fastest,
            "ratio to it": statistics.median(r[best]["rate"] / r[fastest]["rate"] for r in rounds),
            "ratio to its fp32": statistics.median(r[best]["rate"] / r[slow]["rate"] for r in rounds),
        }
        print(json.dumps(found[model.name], indent=1), flush=True)
    return found


def exported(python: Path, model: Path, form: str) -> Path:
    """Our int8 export, made once."""
    out = model.parent.parent / "exports" / f"{model.name}-{form}"
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        command = [str(python), "-m", "embedcode", "models", "export", str(model), str(out), "--format", form, "--int8"]
        subprocess.run(command, check=True)
    return out


def cosine(a: Any, b: Sequence[Sequence[float]]) -> float:
    rows = np.array(b)
    if not len(rows):
        return float("nan")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(rows, axis=1)
    return float(((a * rows).sum(1) / norms).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("slice", "whole", "small"))
    parser.add_argument("--model", type=Path, help="a folder made by make.py; its slice lies beside it")
    parser.add_argument("--models", type=Path, help="a folder of checkpoints, for `small`")
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--openvino", type=Path, help="the peer's other environment, for `small`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = record.context()
    result["part"] = args.part
    result["found"] = {"slice": of_slice, "whole": of_whole, "small": of_small}[args.part](args)
    record.write(args.out, result)
    print(json.dumps({k: v for k, v in result["found"].items() if k != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
