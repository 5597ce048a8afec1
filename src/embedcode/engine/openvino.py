"""OpenVINO: an exported graph on the processor, and graphs in its format. The one adapter to `openvino`.

Only its core is used. Its converter (`openvino.convert_model`) sends usage data to its makers; the core does not.
"""

from __future__ import annotations

import threading
from importlib import metadata
from pathlib import Path
from typing import Any

from embedcode.engine.graph import Session
from embedcode.errors import ModelError, line
from embedcode.model.spec import Spec
from embedcode.types import Floats

_MISSING = "OpenVINO is not installed: run `pip install openvino`."


def version(precision: str) -> str:
    try:
        found = f"openvino {metadata.version('openvino')}"
    except metadata.PackageNotFoundError:
        raise ModelError(_MISSING) from None
    return found if precision == "fp32" else f"{found} bf16 where native"


def load(spec: Spec, threads: int, device: str, precision: str) -> Session:
    """The graph on the processor, one text a request and one thread a request.

    `precision` fp32 computes in fp32; else what is not int8 is in bf16 where the processor has it (cosine .99998).
    """
    if device not in ("cpu", "auto"):
        raise ModelError(f"{spec.folder} is an OpenVINO graph, which runs on processors: set device to cpu.")
    return _compiled(spec, threads, {"INFERENCE_PRECISION_HINT": "f32"} if precision == "fp32" else {})


def exact(spec: Spec) -> Session:
    """The graph in fp32, also what is int8 in it: its weights are read as numbers, and no activation is quantised."""
    return _compiled(spec, 1, {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0})


def _compiled(spec: Spec, threads: int, more: dict[str, Any]) -> Session:
    # No CACHE_DIR: of 16 layouts the 12 with rotary positions came back from it with other vectors (2026.4.1, golden
    # cosine .45 to .998, or no number), for .15 s less to compile of MiniLM's .23.
    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, **more}
    path = spec.files[0]
    try:
        compiled = _core().compile_model(str(path), "CPU", options)
    except Exception as error:
        what = line(error)
        raise ModelError(f"{path} cannot be loaded ({what}): {spec.cure}.") from None
    requests = threading.local()

    def run(ids: Any, mask: Any) -> Floats:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        states: Floats = requests.own.infer({"input_ids": ids[0]})[0]
        return states[None]

    return Session(run)


def convert(source: Path, target: Path) -> None:
    """An ONNX graph to an .xml and a .bin, weights in fp32."""
    import openvino  # type: ignore[import-untyped]

    openvino.save_model(_core().read_model(str(source)), str(target), compress_to_fp16=False)


def compress(source: Path, target: Path) -> None:
    """A graph in fp32 to int8: weights per output channel, embeddings per row, 8 bits.

    Where the processor has the instructions OpenVINO computes the products in int8, and quantises the activations of
    each token as it goes, so that nothing is calibrated.
    """
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    model = _core().read_model(str(source))
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        place = 1 if kind == "MatMul" else 0
        constant = node.input_value(place).get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2 or constant.data.dtype != np.float32:
            continue
        along = 0 if kind == "MatMul" and not node.get_attributes()["transpose_b"] else 1
        scale = np.maximum(np.abs(constant.data).max(along, keepdims=True), 1e-12) / 127
        codes = ops.constant(np.round(constant.data / scale).astype(np.int8))
        weight = ops.multiply(ops.convert(codes, "f32"), ops.constant(scale.astype(np.float32)))
        node.input(place).replace_source_output(weight.output(0))
    openvino.save_model(model, str(target), compress_to_fp16=False)


def _core() -> Any:
    try:
        import openvino
    except ImportError:
        raise ModelError(_MISSING) from None
    return openvino.Core()
