"""GraphEncoder: an exported model, on ONNX Runtime or OpenVINO, without torch.

On a processor every text is a run of its own on one thread, several at a time: no padding, no mask, and nothing a
neighbour could change, since int8 activation scales see one text only. That is also the fastest way there: the
activations of 250 tokens stay in its cache (docs/LOG.md, engine choice). On a card texts of like length are one batch.
Knows no library that runs a graph; those are in `onnx.py` and `openvino.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from threading import Lock
from typing import Any

from embedcode.engine.encoder import Check, Conditions, LocalEncoder, accepted
from embedcode.engine.packs import batches
from embedcode.engine.pool import Pool
from embedcode.engine.tokens import of_export
from embedcode.errors import EncodeError, ModelError
from embedcode.model.family import Pooling
from embedcode.model.spec import DEFAULT, Spec
from embedcode.types import Floats, Role, Tokens, Truncate

GOLDEN_COSINE = 0.99
"""The shipped int8 graph reaches .997; one that saturates (8-bit weights without VNNI) fell to .977 on single texts."""
LONG = 2048
"""Tokens above which a text is run while no other such text is, and only where it has room."""
COUNTED = 256
"""Tokens up to which a text on each thread is in what a graph is known to need."""
EACH = 8
"""Texts for each thread: of fewer some threads wait for the last, and all are no more than half a second of work."""
SORTED = 4096
"""Texts that are sorted by length together where they run in batches: of more, more are alike."""


@dataclass(frozen=True, slots=True)
class Session:
    """A graph that is loaded."""

    run: Callable[[Any, Any], Floats]
    """Ids and mask, int64 [n, s] both, to states, float32 [n, s, dim]; MemoryError where there is no room for them."""
    budget: int = 0
    """Tokens of a batch, padding included; 0 where one text a run is fastest."""
    place: str = "cpu"
    """Where it runs: cpu, cuda or tensorrt."""
    keeps: bool = False
    """Whether what a text took stays taken, for the next one that is no longer."""


class GraphEncoder(LocalEncoder):
    """Constructing it is cheap: numpy, tokenizer and graph load at first use."""

    def __init__(
        self, spec: Spec, threads: int, device: str = "cpu", precision: str = "", stream: bool = False
    ) -> None:
        conditions = Conditions(spec.name, spec.dim, spec.max_tokens, spec.prompts, spec.instruction, spec.dimensions)
        super().__init__(conditions, of_export(spec))
        self.spec = spec
        if spec.batched:
            self._block = SORTED
        self._threads = threads
        self._device = device
        self._precision = precision
        self._stream = stream
        self._verified = False
        self._first, self._turn = Lock(), Lock()
        self._pool = Pool(threads)
        self._longest = 0
        """Tokens of the longest text that was run, where what it took is kept."""
        self._known_short = 0
        self._used = self._computed = 0

    @property
    def space(self) -> str:
        return self.spec.space

    @cached_property
    def build(self) -> str:
        place = f" {self._session.place}" if self.spec.batched and self._device != "cpu" else ""
        return f"{self.spec.precision} {self.spec.graph[:12]} {self._library.version(self._precision)}{place}"

    @property
    def padding(self) -> float:
        return 1 - self._used / self._computed if self._computed else 0.0

    @property
    def streams(self) -> int:
        return 1 if self.spec.batched else self._threads

    @property
    def builds(self) -> bool:
        return self.spec.batched and not self._device.startswith(("cpu", "cuda"))

    @property
    def _on_card(self) -> bool:
        # Only what may run on one is loaded to answer: there may be nothing to embed.
        return self.spec.batched and self._device != "cpu" and self._session.budget > 0

    @property
    def bulk(self) -> int:
        return SORTED if self._on_card else EACH * self.streams

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        import numpy as np

        from embedcode.engine.vectors import unit

        tokens = accepted(tokens)
        self._verify()
        out = np.empty((len(tokens), self.dim), np.float32)
        if budget := self._session.budget:
            for group in batches([entry.used for entry in tokens], budget):
                out[group] = self._batch([tokens[index] for index in group], group)
        else:
            places = range(len(tokens))
            rows = map(self._one, tokens, places) if len(tokens) < 2 else self._pool.own.map(self._one, tokens, places)
            for index, row in enumerate(rows):
                out[index] = row
        return self._guarded(
            unit(out), lambda index: self._pooled(self._exactly(tokens[index], index), tokens[index].prompt)
        )

    def remarks(self) -> list[str]:
        """With choices that change nothing here: who makes one believes to compare."""
        found, spec = super().remarks(), self.spec
        # OpenVINO computes what is not int8 in fp32 or in bf16, as asked.
        heeded = ("fp32", "bf16") if spec.format == "openvino" else ()
        if self._precision not in ("", spec.precision, *heeded):
            found.append(f"{spec.name} is in {spec.precision}: precision {self._precision} changes nothing")
        if not spec.batched and self._device not in ("cpu", "auto"):
            found.append(f"{spec.name} is for processors: device {self._device} changes nothing")
        if self._stream:
            found.append(f"{spec.name} is a graph, which is kept in memory whole: streaming changes nothing")
        return found

    def checks(self) -> list[Check]:
        spec = self.spec
        where, made = ("packaged", "published") if spec.folder == DEFAULT else (f"in {spec.folder}", "exported")
        try:
            sound = spec.found() == spec.graph
        except ModelError as error:
            return [("weights", str(error), False)]
        model = f"{spec.name}, {spec.licence}, {spec.dim} dimensions, {spec.max_tokens} tokens, {where}"
        checks = [
            ("model", model, True),
            ("weights", f"as {made}" if sound else f"changed on disk: {spec.cure}", sound),
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
        try:
            row = self._one(tokens)
        except EncodeError:
            place = self._session.place
            raise ModelError(f"{place} has no memory for {self.spec.name}: stop what else takes it.") from None
        return float(unit(row) @ np.array(golden.vector, np.float32))

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

    @property
    def _exact_precision(self) -> str:
        # ONNX Runtime has no other way through an int8 graph, and its weights in fp32 are not here.
        return "fp32" if self.spec.format == "openvino" else self.spec.precision

    def _states_of(self, entry: Tokens, exact: bool) -> Floats:
        if exact:
            return self._exactly(entry, 0)
        self._verify()
        with self._room(entry, 0):
            states: Floats = self._ran([entry], [0], self._session)[0]
        return states

    def _exactly(self, entry: Tokens, index: int) -> Floats:
        """States [used, dim] of the text at `index`, whose row was not finite."""
        with self._turn:
            exact = self._exact
            self._check_room(entry, index)
            states: Floats = self._ran([entry], [index], exact)[0]
        return states

    def _one(self, tokens: Tokens, index: int = 0) -> Floats:
        """Pooled states [dim] of one text, the one at `index`."""
        with self._room(tokens, index):
            row: Floats = self._batch([tokens], [index])[0]
        return row

    @property
    def _short(self) -> int:
        """LONG, or fewer where half of what is free has no room for one such text on each thread, nor ever had."""
        from embedcode.engine import memory

        if self._known_short < LONG:  # at the first long text others may run, which take memory for a while
            fits = isqrt(memory.available() // (2 * self._threads * memory.attended(self.spec, 1)))
            self._known_short = max(self._known_short, min(LONG, fits))
        return self._known_short

    @contextmanager
    def _room(self, tokens: Tokens, index: int) -> Iterator[None]:
        """The turn of a long text. A graph holds a number for each pair of its tokens and each head: EncodeError where
        there is no memory for them."""
        if tokens.used <= COUNTED or self._session.place != "cpu" or tokens.used <= self._short:
            yield
            return
        with self._turn:
            if tokens.used > self._longest:
                self._check_room(tokens, index)
            yield
            if self._session.keeps:
                self._longest = max(self._longest, tokens.used)

    def _check_room(self, tokens: Tokens, index: int) -> None:
        from embedcode.engine import memory

        need, have = memory.attended(self.spec, tokens.used), memory.available()
        if need > have:
            raise memory.no_room(index, tokens.used, need, have, self.spec.name)

    def _batch(self, tokens: Sequence[Tokens], places: Sequence[int]) -> Floats:
        """Pooled states [n, dim] of texts that run together; `places` are where an error says that they are."""
        import numpy as np

        each = zip(self._ran(tokens, places, self._session), tokens, strict=True)
        return np.stack([self._pooled(states[: entry.used], entry.prompt) for states, entry in each])

    def _ran(self, tokens: Sequence[Tokens], places: Sequence[int], session: Session) -> list[Floats]:
        """States [longest, dim] of each, which run together, or by halves where a card has no room for all."""
        try:
            return list(self._states(tokens, session))
        except MemoryError:
            if len(tokens) == 1:
                raise EncodeError(
                    f"Input {places[0]} has {tokens[0].used:,} tokens, for which {session.place} has no memory "
                    f"beside {self.spec.name}: cut it by max_tokens and truncate.",
                    places[0],
                ) from None
        half = len(tokens) // 2
        return self._ran(tokens[:half], places[:half], session) + self._ran(tokens[half:], places[half:], session)

    def _states(self, tokens: Sequence[Tokens], session: Session) -> Floats:
        """States [n, longest, dim] of texts that run together."""
        import numpy as np

        lengths = [entry.used for entry in tokens]
        ids = np.zeros((len(tokens), max(lengths)), np.int64)
        mask = np.zeros_like(ids)
        for row, entry in enumerate(tokens):
            ids[row, : entry.used] = entry.ids
            mask[row, : entry.used] = 1
        states = session.run(ids, mask)
        with self._counting:
            self._used += sum(lengths)
            self._computed += ids.size
        return states

    def _pooled(self, states: Floats, skipped: int) -> Floats:
        import numpy as np

        pooled: Floats
        match self.spec.pooling:
            case Pooling.CLS:
                pooled = states[0]
            case Pooling.LAST:
                pooled = states[-1]
            case _:
                with np.errstate(invalid="ignore", over="ignore"):  # a row that is not finite is seen to by who guards
                    pooled = states[skipped if self.spec.masks_prompt and skipped < len(states) else 0 :].mean(0)
        return pooled

    @cached_property
    def _library(self) -> Any:
        """The module of the library that runs this graph."""
        from importlib import import_module

        return import_module(f"embedcode.engine.{self.spec.format}")

    @cached_property
    def _session(self) -> Session:
        if self._device == "cpu" or not self.spec.batched:
            self._check_fits()
        session: Session = self._library.load(self.spec, self._threads, self._device, self._precision)
        return session

    @cached_property
    def _exact(self) -> Session:
        """For a row that is not finite: on the processor, in _exact_precision, by no shorter way."""
        self._check_fits()
        session: Session = self._library.exact(self.spec)
        return session

    def _check_fits(self) -> None:
        if self.spec.folder != DEFAULT:  # the packaged one takes as much as importing does
            from embedcode.engine import memory

            memory.check_graph(self.spec)
