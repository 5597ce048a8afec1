"""Export: a checkpoint as a graph of ONNX or OpenVINO, with its tokenizer and the conditions it runs under.

A graph gives the states of the last layer; pooling is the engine's. It takes one text, without mask and padding, or
batches with a mask, for cards. What follows the network and concerns each token is part of it: NV-Embed's latent
attention, and dense heads, whose product is one matrix that may as well stand before a mean as behind it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from embedcode.engine import memory, network
from embedcode.engine.encoder import PROBE
from embedcode.engine.graph import GraphEncoder
from embedcode.engine.samples import samples
from embedcode.engine.tokens import without_rowless
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import ModelError, line
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.model.presets import licence
from embedcode.model.spec import GRAPHS, LARGE, Golden, Spec, sha256
from embedcode.types import Role, Truncate

NAME = "embedcode_graph"
OPSET, BATCHED_OPSET = 23, 20
"""From 23 on attention is one operator, 5 % faster on a processor; TensorRT has older ones."""
LOW = -1e4
"""What is added to the score of a token that is not seen: exp() of it is 0, and it is a number in fp16 too."""
LEAST_COSINE = 0.9999
TEXTS, TOKENS = 8, 256
"""What is compared with torch."""


class Graph(torch.nn.Module):
    """A network as it is exported."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.network = network.build(checkpoint, "fp32", torch.device("cpu"))
        self.network.set_attn_implementation(NAME)
        self.latent = network.latent(checkpoint) if checkpoint.pooling is Pooling.LATENT else None
        self.head = _head(checkpoint)
        self.first = checkpoint.first_position

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Ids [s] to states [s, dim], or ids and mask [n, s] to states [n, s, dim]."""
        ids = input_ids if input_ids.ndim == 2 else input_ids[None]
        positions = torch.arange(self.first, self.first + ids.shape[1])[None]
        unseen = None if attention_mask is None else (1 - attention_mask[:, None, None]).float() * LOW
        states = self.network(input_ids=ids, position_ids=positions, unseen=unseen).last_hidden_state
        if self.latent is not None:
            states = self.latent(states.flatten(0, 1)).view(states.shape)
        if self.head is not None:
            states = functional.linear(states, *self.head)
        one: torch.Tensor = states if input_ids.ndim == 2 else states[0]
        return one


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    unseen: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What packed.attention computes of one text, for a length that is not known: nothing branches on it."""
    causal = bool(getattr(module, "is_causal", False))
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    if causal or sliding_window is not None:
        # Of a pair of tokens nothing but this is held, twice: 32,768 of them are a billion pairs.
        place = torch.arange(length, dtype=torch.int32)
        own, other = place[:, None], place[None, :]
        ahead = 1 if causal or sliding_window is None else sliding_window
        hidden = own + ahead <= other
        if sliding_window is not None:
            hidden = hidden | (other + sliding_window <= own)
        low = torch.where(hidden, LOW, 0.0)[None, None]
        unseen = low if unseen is None else unseen + low
    if unseen is not None:
        unseen = unseen.expand(query.shape[0], 1, length, length)
    if softcap is None:
        out = functional.scaled_dot_product_attention(query, key, value, unseen, scale=scaling)
    else:
        scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
        scores = torch.tanh(scores / softcap) * softcap
        out = (scores if unseen is None else scores + unseen).softmax(-1) @ value
    return out.transpose(1, 2), None


def export(checkpoint: Checkpoint, out: Path, form: str, batched: bool, threads: int) -> tuple[Spec, float]:
    """A graph in fp32, written to the folder `out`; its spec, and the least cosine of its vectors to those of torch.

    ModelError for a checkpoint that cannot be exported or does not fit in memory, and where the graph gives other
    vectors.
    """
    memory.check_copies(checkpoint.name, 4 * checkpoint.weights.count, "exported", "run it on torch as it is")
    texts = [PROBE, *samples(TEXTS)]
    exact = TorchEncoder(checkpoint, "fp32", threads).encode(texts, Role.PASSAGE, None, Truncate.END, TOKENS)
    path = out / GRAPHS["onnx"][0]
    _write(checkpoint, path, batched)
    if form == "openvino":
        from embedcode.engine import openvino

        openvino.convert(path, out / GRAPHS["openvino"][0])
        for name in GRAPHS["onnx"]:
            (out / name).unlink(missing_ok=True)
    (out / "tokenizer.json").write_text(without_rowless(checkpoint.tokenizer, checkpoint.rows), "utf-8")
    spec = Spec(
        folder=out,
        name=checkpoint.name,
        licence=licence(checkpoint.name, checkpoint.folder) or "unknown",
        weights=sha256(checkpoint.weights.files),
        tokenizer=sha256([out / "tokenizer.json"]),
        pooling=Pooling.MEAN if checkpoint.pooling is Pooling.LATENT else checkpoint.pooling,
        dim=checkpoint.dim,
        max_tokens=checkpoint.max_tokens,
        prompts=checkpoint.prompts,
        precision="fp32",
        graph="",
        golden=Golden(PROBE, tuple(round(float(value), 6) for value in exact[0])),
        format=form,
        batched=batched,
        masks_prompt=checkpoint.masks_prompt,
        instruction=checkpoint.instruction,
        dimensions=checkpoint.dimensions,
        eos=checkpoint.eos,
        origin=checkpoint.space,
        heads=int(checkpoint.config.get("num_attention_heads", 0)),
        capped=checkpoint.config.get("attn_logit_softcapping") is not None,
    )
    spec = replace(spec, graph=spec.found())
    spec.write()
    found = GraphEncoder(spec, threads, precision="fp32").encode(texts, Role.PASSAGE, None, Truncate.END, TOKENS)
    cosine = float((found * exact).sum(1).min())
    if not cosine >= LEAST_COSINE:
        raise ModelError(
            f"the graph of {checkpoint.name} gives other vectors than torch (cosine {cosine:.5f}): run it on torch as "
            "it is, and report its architecture."
        )
    return spec, cosine


def _write(checkpoint: Checkpoint, path: Path, batched: bool) -> None:
    """The graph as ONNX; nothing in it names this machine's files."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    graph = Graph(checkpoint).eval()
    ids = torch.zeros((2, 17) if batched else (17,), dtype=torch.int64)
    shape = {0: "batch", 1: "tokens"} if batched else {0: "tokens"}
    inputs = {"input_ids": ids} | ({"attention_mask": torch.ones_like(ids)} if batched else {})
    with _quietly():
        try:
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                opset_version=BATCHED_OPSET if batched else OPSET,
                input_names=list(inputs),
                output_names=["states"],
                dynamic_shapes=tuple(shape for _ in inputs),
            )
        except Exception as error:  # of many classes, with pages of advice to developers
            what = line(error.__cause__ or error)
            raise ModelError(f"{checkpoint.name} gives no graph ({what}): run it on torch as it is.") from None
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        size = 4 * sum(parameter.numel() for parameter in graph.parameters())
        program.save(str(path), external_data=size > LARGE)


def _head(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """The dense heads as one map, weight and bias."""
    found: tuple[torch.Tensor, torch.Tensor | None] | None = None
    for weight, bias, activation in network.heads(checkpoint):
        if activation:
            raise ModelError(f"{checkpoint.name} has a head with {activation}, which is not exported: run it on torch.")
        if found is not None:
            before, shift = found
            if shift is not None:
                bias = weight @ shift + (0 if bias is None else bias)
            weight = weight @ before
        found = weight, bias
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks on itself and on packages it could use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
