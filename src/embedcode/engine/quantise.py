"""int8 of an exported graph, for processors, and how near it stays to fp32 on real code.

By the weights alone for OpenVINO (openvino.py), calibrated for ONNX Runtime (smoothquant.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from embedcode.engine import memory
from embedcode.engine.graph import GOLDEN_COSINE, GraphEncoder
from embedcode.engine.samples import OTHERS, QUERIES, samples, tokenised
from embedcode.errors import ModelError, UsageError
from embedcode.model.spec import GRAPHS, Spec
from embedcode.types import Floats, Role, Tokens

CALIBRATION, COMPARED, TOKENS = 256, 64, 256
"""Files' texts to calibrate on, others to compare on, and the tokens of each that are read."""
LEAST_COSINE = 0.995
"""Mean over the code compared, and over the queries: few, they hardly count in one mean of both."""
EXACT = (0.0, 0.1, 0.25, 0.5)
"""Shares of the linear maps that stay in fp32, those that lose most, until the vectors are near enough."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """Cosines of int8 to fp32."""

    means: Mapping[str, float]
    """Of each kind of text."""
    least: float
    exact: float = 0.0
    """Share of the linear maps that stayed in fp32."""

    @classmethod
    def of(cls, cosines: Mapping[str, Floats], exact: float = 0.0) -> Nearness:
        means = {kind: float(each.mean()) for kind, each in cosines.items()}
        return cls(means, min(float(each.min()) for each in cosines.values()), exact)

    @property
    def worst(self) -> float:
        """The mean of the kind that loses most."""
        return min(self.means.values())

    def __str__(self) -> str:
        said = ", ".join(f"{mean:.4f} on {kind}" for kind, mean in self.means.items())
        left = f", {self.exact:.0%} of the linear maps left in fp32" if self.exact else ""
        return f"cosine to fp32 {said}, least {self.least:.4f}{left}"


def quantise(spec: Spec, out: Path, threads: int) -> tuple[Spec, Nearness]:
    """The graph of `spec`, which is in fp32, as int8 in the folder `out`.

    UsageError for a graph that cannot be quantised, ModelError where int8 would be too far from fp32.
    """
    if spec.precision != "fp32":
        raise UsageError(f"{spec.folder} is in {spec.precision}: quantise an export in fp32.")
    if spec.batched:
        raise UsageError(f"{spec.folder} takes batches, for cards, and int8 is for processors: export without --batch.")
    memory.check_copies(spec.name, sum(path.stat().st_size for path in spec.files), "quantised", "use it in fp32")
    for path in spec.folder.iterdir():
        if path.is_file() and path not in spec.files:
            shutil.copyfile(path, out / path.name)  # without its mode: meta.json is written anew
    calibration, compared, exact = _exact(spec, threads)
    for share, write in _trials(spec, calibration, out):
        write(out / GRAPHS[spec.format][0])
        smaller = replace(spec, folder=out, precision="int8")
        smaller = replace(smaller, graph=smaller.found())
        smaller.write()
        found = GraphEncoder(smaller, threads)
        if found.golden_cosine() >= GOLDEN_COSINE:
            near = Nearness.of({kind: (found.forward(compared[kind]) * exact[kind]).sum(1) for kind in exact}, share)
            if near.worst >= LEAST_COSINE:
                return smaller, near
    cure = "export it with --format openvino, or use it in fp32" if spec.format == "onnx" else "use it in fp32"
    raise ModelError(
        f"{spec.name} loses too much in int8 (cosine to fp32 below {LEAST_COSINE} on code or queries): {cure}."
    )


def _exact(spec: Spec, threads: int) -> tuple[list[Tokens], dict[str, list[Tokens]], dict[str, Floats]]:
    """_texts(), and the vectors in fp32 of what is compared. The graph is given up behind it."""
    encoder = GraphEncoder(spec, threads, precision="fp32")
    calibration, compared = _texts(encoder)
    return calibration, compared, {kind: encoder.forward(texts) for kind, texts in compared.items()}


def _texts(encoder: GraphEncoder) -> tuple[list[Tokens], dict[str, list[Tokens]]]:
    """What is calibrated on, and what is compared, by kind: other code and other queries."""

    def read(code: Sequence[str], queries: Sequence[str]) -> dict[str, list[Tokens]]:
        return {
            "code": tokenised(encoder, code, TOKENS),
            "queries": tokenised(encoder, queries, TOKENS, Role.QUERY),
        }

    texts = samples(CALIBRATION + COMPARED)
    every = 1 + CALIBRATION // COMPARED
    rest = [text for number, text in enumerate(texts) if number % every]
    calibration = [entry for part in read([*rest, *OTHERS[1::2]], QUERIES[1::2]).values() for entry in part]
    Random(0).shuffle(calibration)  # of which some are kept at even steps
    return calibration, read([*texts[::every], *OTHERS[::2]], QUERIES[::2])


def _trials(spec: Spec, calibration: Sequence[Tokens], out: Path) -> Iterator[tuple[float, Callable[[Path], None]]]:
    """Ways to write the graph in int8, smallest first."""
    source = spec.files[0]
    if spec.format == "openvino":
        from embedcode.engine import openvino

        yield 0.0, partial(openvino.compress, source)
        return
    from embedcode.engine.smoothquant import SmoothQuant

    calibrated = SmoothQuant(source, [entry.ids for entry in calibration], out)
    for share in EXACT:
        yield share, partial(calibrated.write, exact=share)
