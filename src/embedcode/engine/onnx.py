"""ONNX Runtime: an exported graph on TensorRT, CUDA or the processor. The one adapter to `onnxruntime`."""

from __future__ import annotations

import os
import re
from contextlib import redirect_stdout, suppress
from ctypes import CDLL
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

from embedcode.engine.graph import Session
from embedcode.errors import ModelError
from embedcode.files import make_private
from embedcode.model.spec import DEFAULT, Spec
from embedcode.types import Floats

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""The wish list, best first."""
BUDGET = 16_384
"""Tokens of a batch on a card."""
_LIBRARIES = {
    "tensorrt": "NVIDIA's TensorRT libraries (`pip install 'tensorrt<11'`)",
    "cuda": "CUDA and cuDNN (`pip install 'onnxruntime-gpu[cuda,cudnn]'`)",
}
_ELSE = "set device to cpu"
_FULL = re.compile(r"failed to allocate memory|out ?of ?memory|bad_?alloc|alloc_failed", re.IGNORECASE)
"""What ONNX Runtime, CUDA and C++ say where there is no room."""


def library() -> Any:
    """The module `onnxruntime`, which sends nothing."""
    # From 1.32 on its import writes a device id under ~/.cache/Microsoft and, some seconds later, looks up a server
    # of Microsoft's, which disable_telemetry_events() does not prevent.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # type: ignore[import-untyped]

    return onnxruntime


def version(precision: str) -> str:
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return f"onnxruntime {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            pass
    return "onnxruntime"


def load(spec: Spec, threads: int, device: str, precision: str) -> Session:
    """The graph on `device`: cpu, cuda, cuda:1, tensorrt, or auto for the first of PROVIDERS that works.

    The graph has its precision. ModelError where `device` cannot be had, with what it needs.
    """
    ort = library()
    name, _, card = device.partition(":")
    if not spec.batched:
        # The packaged model stays on the processor: the setting may be there for another one.
        if name not in ("auto", "cpu") and spec.folder != DEFAULT:
            raise ModelError(f"{spec.folder} was exported for processors: export it with --batch for {device}.")
        name = "cpu"
    for wish in PROVIDERS if name == "auto" else [name]:
        if wish == "cpu":
            return Session(_runner(spec, _session(ort, spec, [PROVIDERS["cpu"]], 1)), keeps=True)  # in its arena
        try:
            return Session(_runner(spec, _on_card(ort, spec, wish, int(card or 0), threads)), BUDGET, wish)
        except ModelError:
            if name != "auto":
                raise
    raise AssertionError("the processor is last on the list")


def exact(spec: Spec) -> Session:
    """The graph on the processor, node by node as it is written: none is fused with others, and nothing is kept."""
    ort = library()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    return Session(_runner(spec, _session(ort, spec, [PROVIDERS["cpu"]], 1, options)))


def _on_card(ort: Any, spec: Spec, wish: str, card: int, threads: int) -> Any:
    """The session on a card; ModelError where the provider is missing, or is there without the libraries it needs."""
    listed = ort.get_available_providers()
    if PROVIDERS[wish] not in listed:
        instead = f"install onnxruntime-gpu in the place of onnxruntime, and {_LIBRARIES[wish]}"
        raise ModelError(f"ONNX Runtime cannot use {wish} here (it has {', '.join(listed)}): {instead}, or {_ELSE}.")
    options: dict[str, Any] = {"device_id": card}
    providers: list[Any] = [(PROVIDERS["cuda"], options), PROVIDERS["cpu"]]
    if wish == "tensorrt":
        providers = [(PROVIDERS["tensorrt"], options | _kept(spec)), *providers]
        with suppress(ImportError):  # it loads the libraries that pip put where the system does not look
            import tensorrt  # type: ignore[import-not-found]  # noqa: F401
    try:
        ort.set_default_logger_severity(4)  # of what it misses it tells its own log, in colours, and of plug-ins
        with redirect_stdout(StringIO()):  # and prints
            ort.preload_dlls()  # CUDA's and cuDNN's own packages, where they are installed
        session = _opened(ort, spec, providers, threads)
        why = ""
    except Exception as error:
        session, why = None, _line(error)
    finally:
        ort.set_default_logger_severity(2)
    # A provider whose libraries are missing may also be left out, with no more than a line in the log.
    if session is not None and PROVIDERS[wish] in session.get_providers():
        return session
    if lost := _missing(ort, wish):
        raise ModelError(f"ONNX Runtime cannot use {wish} here ({lost}): install {_LIBRARIES[wish]}, or {_ELSE}.")
    raise ModelError(
        f"{spec.files[0]} cannot be run on {wish} ({why or 'ONNX Runtime left it out'}): {spec.cure}, see that card "
        f"{card} is there and has room, or {_ELSE}."
    )


def _kept(spec: Spec) -> dict[str, Any]:
    """Options that keep TensorRT's engines: building one takes minutes, for each range of shapes. ONNX Runtime tells
    them apart by names, which all graphs of one architecture share: each graph has a folder of its own. Nothing is
    kept where home cannot be written."""
    from embedcode import settings

    folder = settings.load().home / "compiled" / spec.graph[:16]
    try:
        make_private(folder)
    except OSError:  # built anew each time
        return {}
    return {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder), "trt_timing_cache_enable": True}


def _missing(ort: Any, wish: str) -> str:
    """The library that the provider's own needs and the system does not find; "" where it finds all."""
    try:
        CDLL(str(Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{wish}.so"))
    except OSError as error:
        return str(error) if "cannot open" in str(error) else ""
    return ""


def _session(ort: Any, spec: Spec, providers: list[Any], threads: int, options: Any = None) -> Any:
    try:
        return _opened(ort, spec, providers, threads, options)
    except Exception as error:
        raise ModelError(f"{spec.files[0]} cannot be loaded ({_line(error)}): {spec.cure}.") from None


def _line(error: Exception) -> str:
    """The first: what follows is where in its sources."""
    return str(error).splitlines()[0][:200]


def _opened(ort: Any, spec: Spec, providers: list[Any], threads: int, options: Any = None) -> Any:
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(spec.files[0]), options, providers=providers, enable_fallback=0)


def _runner(spec: Spec, session: Any) -> Any:
    def run(given: dict[str, Any]) -> Floats:
        try:
            states: Floats = session.run(None, given)[0]
        except Exception as error:
            if _FULL.search(str(error)):
                raise MemoryError(_line(error)) from None
            raise
        return states

    def batch(ids: Any, mask: Any) -> Floats:
        return run({"input_ids": ids, "attention_mask": mask})

    def one(ids: Any, mask: Any) -> Floats:
        return run({"input_ids": ids[0]})[None]

    return batch if spec.batched else one
