"""TorchEncoder: a published checkpoint on torch, without padding. Knows no hub and no command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from embedcode.engine import memory, processor
from embedcode.engine.ahead import Ahead
from embedcode.engine.encoder import Check, Conditions, LocalEncoder, accepted
from embedcode.engine.memory import CARD_PACK, PACK
from embedcode.engine.precision import Choice, choose
from embedcode.engine.tokens import of_checkpoint
from embedcode.errors import ModelError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.types import Floats, Role, Tokens

STREAMED = 8 * PACK
"""Tokens in one pass where layers are read from the disk for each pass."""
USUAL = 128
"""Tokens of a usual chunk of code."""
SAMPLE = 256
"""Tokens of the trial that chooses a precision."""
TEXTS, TOKENS = 3, 64
"""Of the code, whose vectors in int8 it compares with those in fp32."""


class TorchEncoder(LocalEncoder):
    """Constructing it reads no weights and does not import torch; the first vector does."""

    def __init__(
        self, checkpoint: Checkpoint, precision: str, threads: int, device: str = "cpu", stream: bool = False
    ) -> None:
        """`precision` "" is chosen by a trial (precision.py); `device` auto takes a card if the model has room there;
        `stream` reads layers from the disk for each pass."""
        conditions = Conditions(
            checkpoint.name,
            checkpoint.dim,
            checkpoint.max_tokens,
            checkpoint.prompts,
            checkpoint.instruction,
            checkpoint.dimensions,
        )
        super().__init__(conditions, of_checkpoint(checkpoint))
        self.checkpoint = checkpoint
        self.asked = precision
        """The precision that was asked for; "" leaves it to the trial."""
        self.streams_layers = stream
        self._threads = threads
        self._wanted = device
        self._pack = STREAMED if stream else PACK
        """Tokens in one pass; more on a card, as many as have room beside the weights."""
        self._longest = 0
        """Tokens of the longest text that room was found for."""
        self._loading = Lock()
        self._passing = Lock()

    @property
    def space(self) -> str:
        return self.checkpoint.space

    @property
    def may_take_card(self) -> bool:
        """Whether weights go to a card, whose room is looked at as they are loaded, or with `auto` perhaps do."""
        return self._wanted != "cpu"

    @property
    def _on_card(self) -> bool:
        return self._device != "cpu"

    @property
    def bulk(self) -> int:
        return (STREAMED if self.streams_layers else PACK if self._device == "cpu" else CARD_PACK) // USUAL

    @cached_property
    def build(self) -> str:
        from importlib.metadata import version

        chosen, stored = self.choice.precision, self.checkpoint.stored
        parts = [f"{chosen} {self._device} torch {version('torch')} transformers {version('transformers')}"]
        if chosen == "int8":
            parts.append(f"codes to {processor.int8_range()}")
        if stored is not None:  # of the space of what it was made of, in any precision
            parts.append(f"of int8 codes to {stored.most}")
        return ", ".join(parts)

    @cached_property
    def _device(self) -> str:
        if self._wanted != "auto":
            return self._wanted
        need = 0 if self.streams_layers else memory.needed(self.checkpoint, self.asked or "bf16")
        return "cuda" if need <= memory.available_on("cuda") else "cpu"

    @cached_property
    def choice(self) -> Choice:
        """What the network is computed in, and why."""
        if self.asked == "int8" and self._device != "cpu":
            raise ModelError(f"int8 is for processors, not {self._device}: set precision to bf16, or device to cpu.")
        if self.asked:
            return Choice(self.asked, "as asked")
        if self._device != "cpu":
            return Choice("bf16", "as every card computes fast")
        if self.checkpoint.stored is not None:
            return Choice("int8", "as its weights are stored")
        if self.streams_layers:  # no trial, which holds the whole table of tokens in fp32; int8 would be made each pass
            if processor.computes_bf16():
                return Choice("bf16", "a layer takes half the memory of fp32")
            if memory.streamed(self.checkpoint, "fp32", STREAMED) > memory.available():
                return Choice("bf16", "fp32, which this processor is faster in, does not fit")
            return Choice("fp32", "this processor has no instructions for bf16")
        from embedcode import settings
        from embedcode.engine.samples import tokenised

        text = Path(__file__).read_text("utf-8")
        sample = tokenised(self, [text], min(SAMPLE, self.max_tokens))
        self._prepare()
        size = len(text) // TEXTS
        parts = [text[number * size :][:size] for number in range(TEXTS)]
        return choose(
            self.checkpoint,
            sample,
            lambda network, tokens: self._run(tokens, network),
            lambda: float(int8_cosines(self.checkpoint, self.checkpoint, parts, TOKENS, self._threads).mean()),
            settings.load().home,
        )

    def as_before(self, build: str) -> None:
        """Have vectors go on in the precision of an earlier `build`, if none is asked for and that one fits."""
        precision = build.partition(" ")[0]
        if self.asked or self._device != "cpu" or precision not in memory.NUMBER:
            return
        if self.streams_layers or memory.needed(self.checkpoint, precision) <= memory.available():
            self.choice = Choice(precision, "as what is gone on with")

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        import numpy as np

        from embedcode.engine.packs import packs
        from embedcode.engine.vectors import unit

        tokens = accepted(tokens)
        out = np.empty((len(tokens), self.dim), np.float32)
        network = self._network if tokens else None  # before its passes are laid out: it says how long they may be
        self._check_room(tokens)
        for part in packs(tokens, self._pack):
            out[part] = self._forward(tokens[part], network)
        return self._guarded(unit(out), lambda index: self._forward(tokens[index : index + 1], self._exact)[0])

    def remarks(self) -> list[str]:
        chosen = "choice" in self.__dict__ and not self.asked
        how = [f"computed in {self.choice.precision}: {self.choice.reason}"] if chosen else []
        return how + super().remarks()

    def checks(self) -> list[Check]:
        reason = ("precision", f"{self.choice.precision}: {self.choice.reason}", True)
        return [self._described(), reason, ("engine", self.build, True), self._speed()]

    def _states_of(self, entry: Tokens, exact: bool) -> Any:
        network = self._exact if exact else self._network
        self._check_room([entry])
        return self._states([entry], network)

    def _check_room(self, tokens: Sequence[Tokens]) -> None:
        """EncodeError for a text too long for the memory there is: a pass of `_pack` tokens was planned for, and one of
        more is that text alone."""
        for index, entry in enumerate(tokens):
            planned = max(self._pack, self._longest)
            if entry.used <= planned:
                continue
            need = memory.states(self.checkpoint, self.choice.precision, entry.used - planned)
            have = memory.available() if self._device == "cpu" else memory.available_on(self._device)
            if need > have:
                raise memory.no_room(index, entry.used, need, have, self.conditions.name)
            self._longest = entry.used

    def _forward(self, tokens: Sequence[Tokens], network: Any) -> Floats:
        """Pooled vectors [n, dim], not yet of unit length."""
        import numpy as np

        if self._device != "cpu":
            return self._pooled_together(tokens, network)
        masked = self.checkpoint.masks_prompt
        each = zip(tokens, self._states(tokens, network).split([entry.used for entry in tokens]), strict=True)
        return np.stack([self._pooled(states, entry.prompt if masked else 0) for entry, states in each])

    def _pooled_together(self, tokens: Sequence[Tokens], network: Any) -> Floats:
        """As text by text, for a card: it would wait for each."""
        import torch

        from embedcode.engine.pooling import dense, pooled

        borders = _borders(tokens)
        skipped = [entry.prompt for entry in tokens] if self.checkpoint.masks_prompt else None
        with torch.inference_mode():
            states = self._states(tokens, network)
            rows = pooled(states, borders, self.checkpoint.pooling, skipped)
            vectors: Floats = dense(rows, self._heads).cpu().numpy()
        return vectors

    def _pooled(self, states: Any, skipped: int) -> Floats:
        import torch

        from embedcode.engine.pooling import dense, pool

        with torch.inference_mode():
            vector: Floats = dense(pool(states, self.checkpoint.pooling, skipped), self._heads).cpu().numpy()
        return vector

    def _states(self, tokens: Sequence[Tokens], network: Any) -> Any:
        """What is pooled [T, hidden]: the network's states, through the latent head where there is one."""
        import torch

        states = self._run(tokens, network)
        with torch.inference_mode():
            return states if self._latent is None else self._latent.some_at_a_time(states)

    def _run(self, tokens: Sequence[Tokens], network: Any) -> Any:
        """States [T, hidden] of all texts side by side, from one pass over them."""
        import torch

        first = self.checkpoint.first_position
        with torch.inference_mode():
            ids = torch.tensor([[i for entry in tokens for i in entry.ids]], device=self._device)
            positions = torch.cat([torch.arange(first, first + entry.used) for entry in tokens]).to(self._device)
            # A layer that is read for a pass is given up behind it, whoever else may be in it.
            with self._passing if self.streams_layers or network is self.__dict__.get("_exact") else nullcontext():
                states = network(input_ids=ids, position_ids=positions[None], borders=_borders(tokens))
        return states.last_hidden_state[0]

    @cached_property
    def _network(self) -> Any:
        with self._loading:
            if "_network" not in self.__dict__:  # else by who held the lock before: 3.12's cached_property has none
                self.__dict__["_network"] = self._load(self.choice.precision, self.streams_layers)
            return self.__dict__["_network"]

    @cached_property
    def _exact(self) -> Any:
        """In fp32, for a row that is not finite: streamed, since it is rare and the memory is taken."""
        with self._loading:
            if "_exact" not in self.__dict__:
                self.__dict__["_exact"] = self._load("fp32", stream=True)
            return self.__dict__["_exact"]

    def _load(self, precision: str, stream: bool) -> Any:
        self._prepare()
        import torch

        from embedcode.engine import network

        if not stream and self._device == "cpu":
            memory.check(self.checkpoint, precision)
        elif stream and self.streams_layers and self._device == "cpu":
            self._pack = memory.stream_pack(self.checkpoint, precision, STREAMED)
        elif not stream:
            self._pack = memory.card_pack(self.checkpoint, precision, self._device)
        with memory.loading():
            built = network.build(self.checkpoint, precision, torch.device(self._device), stream=stream)
            if self._device != "cpu":
                network.fuse(built)
        rows = built.get_input_embeddings().weight.shape[0]
        if self._tokenizer.vocabulary > rows:
            raise ModelError(
                f"{self.checkpoint.tokenizer} knows {self._tokenizer.vocabulary:,} tokens and the network {rows:,}: "
                "they are of two models, download both again."
            )
        if (bos := self.checkpoint.bos) is not None:
            found = self._tokenizer.id_of(bos[0])
            if found is None or (found != bos[1] and self._tokenizer.puts(found)):
                raise ModelError(
                    f"{self.checkpoint.tokenizer} has {found} for {bos[0]!r} and the network {bos[1]}: they are of two "
                    "models, download both again."
                )
        return built

    def _prepare(self) -> None:
        if "torch" not in sys.modules and not self.streams_layers:  # which takes 4 s: the disk would stand still
            likely = self.asked or ("int8" if self.checkpoint.stored else "bf16")
            if weights := tuple(self.checkpoint.weights.values()):
                Ahead(weights, memory.spare(self.checkpoint, likely)).wanted(weights[0])
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"{self.checkpoint.name} needs {error.name}; run `pip install '.[torch]'` in your clone of embedcode"
            ) from None
        if self._device != "cpu":
            found = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if int(self._device.partition(":")[2] or 0) >= found:
                raise ModelError(
                    f"torch {torch.__version__} cannot use {self._device} here (it finds {found} cards): set device to "
                    "cpu or to a card there is, or install NVIDIA's driver and a torch that is built for CUDA."
                )
        torch.set_num_threads(self._threads)

    @cached_property
    def _latent(self) -> Any:
        from embedcode.engine import network

        if self.checkpoint.pooling is not Pooling.LATENT:
            return None
        return network.latent(self.checkpoint, self._device)

    @cached_property
    def _heads(self) -> Any:
        from embedcode.engine import network

        return network.heads(self.checkpoint, self._device)


def int8_cosines(exact: Checkpoint, other: Checkpoint, texts: Sequence[str], most: int, threads: int) -> Floats:
    """Of the vectors of `other` in int8 to those of `exact` in fp32, of passages of at most `most` tokens; layer by
    layer from the disk, so that neither has to fit in memory."""
    from embedcode.engine.samples import tokenised

    vectors = []
    for one, precision in ((exact, "fp32"), (other, "int8")):
        encoder = TorchEncoder(replace(one, prompts=dict.fromkeys(Role, "")), precision, threads, stream=True)
        vectors.append(encoder.forward(tokenised(encoder, texts, most)))
    cosines: Floats = (vectors[0] * vectors[1]).sum(1)
    return cosines


def _borders(tokens: Sequence[Tokens]) -> list[int]:
    """Where each text begins in the row of all, and where the last ends."""
    return list(accumulate((entry.used for entry in tokens), initial=0))
