"""LightEncoder: the packaged model on ONNX Runtime, without torch. The one adapter to `onnxruntime`.

Every text is a run of its own on one thread, several at a time: no padding, no mask, and nothing a neighbour could
change, since int8 activation scales see one text only. That is also the fastest way on a processor: the activations
of 250 tokens stay in its cache (docs/LOG.md, engine choice). Knows no files of a repository and no batches of others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import version
from threading import Lock
from typing import Any

from embedcode.engine.encoder import Check, Conditions, LocalEncoder
from embedcode.engine.tokens import TextTokenizer
from embedcode.errors import EncodeError, ModelError
from embedcode.model.spec import DEFAULT, Spec
from embedcode.types import Floats, Role, Tokens, Truncate

GOLDEN_COSINE = 0.99
"""The shipped int8 graph reaches .997; one that saturates (8-bit weights without VNNI) fell to .977 on single texts."""


class LightEncoder(LocalEncoder):
    """Constructing it is cheap: numpy, tokenizer and graph load at first use."""

    def __init__(self, spec: Spec, threads: int) -> None:
        conditions = Conditions(spec.name, spec.dim, spec.max_tokens, spec.prompts)
        super().__init__(conditions, TextTokenizer(spec.folder / "tokenizer.json", spec.max_tokens))
        self.spec = spec
        self._threads = threads
        self._verified = False
        self._first = Lock()

    @property
    def space(self) -> str:
        return self.spec.space

    @cached_property
    def build(self) -> str:
        return f"{self.spec.precision} {self.spec.graph[:12]} onnxruntime {version('onnxruntime')}"

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        import numpy as np

        from embedcode.engine.vectors import unit

        self._verify()
        out = np.empty((len(tokens), self.dim), np.float32)
        rows = map(self._one, tokens) if len(tokens) < 2 else self._pool.map(self._one, tokens)
        for index, row in enumerate(rows):
            out[index] = row
        vectors = unit(out)
        for index in map(int, np.flatnonzero(~np.isfinite(vectors).all(1))):
            vectors[index] = unit(self._one(tokens[index]))
            if not np.isfinite(vectors[index]).all():
                raise EncodeError(f"Input {index} has no finite vector in {self.spec.name}: leave it out.", index)
        return vectors

    def checks(self) -> list[Check]:
        spec = self.spec
        packaged = spec.folder == DEFAULT
        where = "packaged" if packaged else f"in {spec.folder}"
        cure = "install again" if packaged else f"export {spec.folder} again"
        found = hashlib.sha256((spec.folder / "model.onnx").read_bytes()).hexdigest()
        model = f"{spec.name}, {spec.licence}, {spec.dim} dimensions, {spec.max_tokens} tokens, {where}"
        checks = [
            ("model", model, True),
            ("weights", "as published" if found == spec.graph else f"changed on disk: {cure}", found == spec.graph),
            ("engine", self.build, True),
        ]
        try:
            cosine = self.golden_cosine()
        except ModelError as error:
            return [*checks, ("golden vector", str(error), False)]
        checks.append(("golden vector", f"cosine {cosine:.4f} to full precision", cosine >= GOLDEN_COSINE))
        return [*checks, self._speed()] if cosine >= GOLDEN_COSINE else checks

    def golden_cosine(self) -> float:
        """Cosine of this engine's vector of the golden text to the full-precision one."""
        import numpy as np

        from embedcode.engine.vectors import unit

        golden = self.spec.golden
        (tokens,) = self.tokenize([golden.text], Role.PASSAGE, truncate=Truncate.END)
        assert isinstance(tokens, Tokens)
        return float(unit(self._one(tokens)) @ np.array(golden.vector, np.float32))

    def _verify(self) -> None:
        """Once, before the first vector: a processor or a library that computes this graph wrongly is found here."""
        with self._first:
            if not self._verified:
                cosine = self.golden_cosine()
                if not cosine >= GOLDEN_COSINE:  # nan too
                    raise ModelError(
                        f"{self.spec.name} gives wrong vectors on this machine (cosine {cosine:.3f} to the "
                        f"reference): run `embedcode doctor` and report what it prints."
                    )
                self._verified = True

    def _one(self, tokens: Tokens) -> Floats:
        """Pooled states [dim] of one text."""
        import numpy as np

        states: Floats = self._session.run(None, {"input_ids": np.array(tokens.ids, np.int64)})[0]
        pooled: Floats = states.mean(0)
        return pooled

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="embedcode")

    @cached_property
    def _session(self) -> Any:
        if self.spec.pooling != "mean":
            raise ModelError(f"{self.spec.name} pools by {self.spec.pooling!r}, which this engine does not: use mean.")
        # From 1.32 on its import writes a device id under ~/.cache/Microsoft and, some seconds later, looks up a server
        # of Microsoft's, which disable_telemetry_events() does not prevent.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime as ort  # type: ignore[import-untyped]

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = self.spec.folder / "model.onnx"
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            message = f"{path} cannot be loaded ({str(error).splitlines()[0][:200]}): install embedcode again."
            raise ModelError(message) from None
