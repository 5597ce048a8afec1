"""RemoteEncoder: an embedding server, NIM's or OpenAI's kind, as an Encoder like any other.

It has no tokenizer: sizes are estimates, and the server itself says what is too long. Knows no connection (endpoint).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from threading import Lock

from embedcode.engine.address import Address, prompted
from embedcode.engine.embeddings import TOO_LONG, Embeddings, place
from embedcode.engine.encoder import PROBE, Check, Conditions, accepted
from embedcode.engine.endpoint import DENIED, Answer, Call, Endpoint
from embedcode.engine.given import listed, role_of, truncate_of
from embedcode.engine.pool import Pool
from embedcode.engine.served import NOT_TOLD, Served, keep, kept, told
from embedcode.engine.tokens import printable, too_long
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.files import make_private, replacing
from embedcode.model.passage import FORMAT
from embedcode.model.presets import task
from embedcode.types import Floats, InputError, Role, Tokens, Truncate, digest

BATCH = 64
"""Texts of one request."""
BATCH_BYTES = 256_000
"""Of their UTF-8; proxies commonly take a body of 1 MB."""
USUAL_BYTES = 4_000
"""Of a text on the mean, up to which a request is refused for the number of its texts: longer ones may be too large
together, and of shorter ones as many as ever are taken."""
IN_FLIGHT = 4
"""Requests at a time."""
BULK_SECONDS = 10
"""What all of them may take together where there are many texts: a kill loses that, and of a slow server's requests the
last would take longer than an answer is waited for."""
CHARACTERS = 3.5
"""A token, for estimates: code has 3 to 4, English 4 to 5."""
SAME = 0.999
"""Cosine above which two vectors are one, in whatever precision they were computed."""
NOBODY = (*DENIED, 404)
"""Refusals of any text."""


@dataclass(frozen=True, slots=True)
class RemoteTokens(Tokens):
    """A text on its way to a server. `ids` are none of a tokenizer: they tell apart what is sent."""

    text: str = ""
    role: Role = Role.PASSAGE
    truncate: Truncate = Truncate.NONE
    index: int = 0
    """Its place in the call of tokenize()."""
    instruction: str = ""
    """That the server is to put into its prompt."""

    @property
    def receipt(self) -> dict[str, int | bool]:
        """What the server reads of it, and whether it cuts it, is not known here."""
        return {"tokens": self.original, "estimated": True}


class RemoteEncoder:
    """Constructing it asks nothing. The key is EMBEDCODE_API_KEY of the environment."""

    def __init__(
        self, url: str, home: Path, prompts: Mapping[Role, str] | None = None, idle: Sequence[str] = ()
    ) -> None:
        """`prompts` are put before the texts, for a server that puts none, as are those of its address; `home` keeps
        what a server told. `idle` are choices that a server has made for itself, for the remarks."""
        self.address, told = prompted(url)
        self._endpoint = Endpoint(self.address, key(self.address))
        self._embeddings = Embeddings(self._endpoint)
        self._prompts = told | dict(prompts or {})
        self._idle = idle
        self._kept = home / "servers" / f"{digest(self.address.url, self.address.model).hex()}.json"
        self._lock = Lock()
        self._served: Served | None = None
        self._sure = False
        """Whether the server itself was asked, and not only the file of an earlier time."""
        self._told = False
        """Whether space, dim or build were told, and must hold from then on."""
        self._most = BATCH
        """Texts of one request; fewer where a server took parts of one that it had refused."""
        self._pace = inf
        """Seconds a text, of the last call."""
        self._calls: set[Call] = set()
        self._pool = Pool(IN_FLIGHT)

    @property
    def dim(self) -> int:
        return self._known.dim

    @property
    def max_tokens(self) -> int:
        """As the server tells, else more than any text has."""
        return self._known.max_tokens

    @property
    def bulk(self) -> int:
        """Texts that one call of `forward` is worth where there are many: all requests that are under way at a time."""
        return BATCH * IN_FLIGHT if self._pace * BATCH * IN_FLIGHT <= BULK_SECONDS else 1

    @property
    def space(self) -> str:
        known = self._known
        roles = "" if "input_type" in known.refused and not known.suffixes else "roles"
        prompt = self._prompts.get(Role.PASSAGE, "")
        return digest("remote", *known.same, str(known.dim), roles, prompt, FORMAT).hex()

    @property
    def build(self) -> str:
        return f"remote {self.address.url} {self._known.engine}".strip()

    @property
    def exchangeable(self) -> bool:
        """Whether the server may have other weights tomorrow without a word of it, as vLLM, TEI, llama.cpp and OpenAI's
        kind tell a name alone."""
        return not self._known.weights

    @property
    def conditions(self) -> Conditions:
        known = self._known
        return Conditions(f"{known.model} at {self.address.url}", known.dim, known.max_tokens, self._prompts)

    def remarks(self) -> Sequence[str]:
        return [f"{self.address.url} computes as it was started: {choice} changes nothing" for choice in self._idle]

    def ask(self, tokens: Sequence[Tokens] = ()) -> None:
        """Learn what the server serves now, which is else taken from an earlier time until texts are sent. ModelError
        where it does not say, or would take no instruction that one of `tokens` has."""
        served = self._ask(Call())
        self._check_instructions(served, [entry for entry in tokens if isinstance(entry, RemoteTokens)])

    @cached_property
    def seen(self) -> str:
        """Hash of the vectors by which this model was first known here, among those behind this address that told the
        same of themselves.

        vLLM, TEI and llama.cpp tell a name: new weights under it are known only by the vectors of a text. No number:
        counted anew after the file is gone, the second model would be taken for the first.
        """
        import numpy as np

        call = Call()
        served = self._ask(call)
        now = np.stack([self._probe(served, role, call) for role in Role])
        self._check_dim(served, now)
        path = self._kept.with_name(f"{self._kept.stem}.{served.identity[:16]}.{served.dim}.npy")
        try:
            known = np.load(path, allow_pickle=False)
            found = next((then for then in known if (then * now).sum(1).min() >= SAME), None)
        except (OSError, ValueError, EOFError):
            known, found = np.empty((0, *now.shape), np.float32), None
        if found is None:
            found = now
            with suppress(OSError):  # nothing else is kept there either
                make_private(path.parent)
                with replacing(path, 0o600) as file:
                    np.save(file, np.concatenate([known, now[None]]))
        return digest(np.ascontiguousarray(found, "<f4").tobytes()).hex()[:12]

    def tokenize(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
    ) -> list[Tokens | InputError]:
        """Asks nothing: a text that is too long for the server is an EncodeError of forward(), and an instruction that
        it takes none of a ModelError."""
        texts = listed(texts)
        if max_tokens is not None:
            raise UsageError(f"{self.address.url} cuts at its own limit only: leave max_tokens {max_tokens} out.")
        role, truncate = role_of(role), truncate_of(truncate)
        prompt, told = self._prompt(role, instruction)
        return [self._entry(index, text, prompt, role, truncate, told) for index, text in enumerate(texts)]

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        import numpy as np

        entries = [entry for entry in tokens if isinstance(entry, RemoteTokens)]
        if len(entries) < len(tokens):
            raise UsageError("the tokens are another encoder's: a server is sent what its own tokenize() gave.")
        call = Call()
        self._calls.add(call)
        try:
            served = self._ask(call)
            self._check_instructions(served, entries)
            start = time.monotonic()
            parts = self._parts(served, entries, call)
            if entries:
                self._pace = (time.monotonic() - start) / len(entries)
            return np.concatenate([np.empty((0, served.dim), np.float32), *parts])
        except BaseException:
            call.end()  # what else is under way is waited for by nobody
            raise
        finally:
            self._calls.discard(call)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
        dimensions: int | None = None,
    ) -> Floats:
        from embedcode.engine.vectors import cut

        tokens = accepted(self.tokenize(texts, role, instruction, truncate, max_tokens))
        if dimensions is not None:
            self.check_dimensions(dimensions)
        vectors = self.forward(tokens)
        return vectors if dimensions is None else cut(vectors, dimensions)

    def late(self, text: str, spans: Sequence[tuple[int, int]]) -> Floats:
        """Not through this client: ModelError."""
        raise ModelError(f"{self.address.url} is asked text by text: POST one file with late_chunking to it yourself.")

    def check_dimensions(self, dimensions: int) -> None:
        """UsageError where the server does not make this cut itself, of a known text."""
        from embedcode.engine.vectors import cut

        served = self._ask(Call())
        if dimensions == served.dim:
            return
        cure = "ask for another size, or force it by embedcode.cut(vectors, dimensions)"
        answer = self._embeddings.post(served, [PROBE], Role.PASSAGE, Truncate.NONE, Call(), dimensions)
        if not answer.ok:
            raise UsageError(f"{self._name(served)} does not give {dimensions} dimensions ({answer.said}): {cure}.")
        found, whole = self._embeddings.rows(answer, 1), self.encode([PROBE], Role.PASSAGE)
        if found.shape[1] != dimensions or float(cut(whole, dimensions)[0] @ found[0]) < SAME:
            raise UsageError(f"{self._name(served)} does not cut to {dimensions} dimensions: {cure}.")

    def checks(self) -> list[Check]:
        """What `embedcode doctor` looks at."""
        served = self._ask(Call())
        limit = "a limit it does not tell" if served.max_tokens == NOT_TOLD else f"{served.max_tokens} tokens"
        query, passage = (self.encode([PROBE], role)[0] for role in Role)
        cosine = float(query @ passage)
        roles = "are one: it is told no roles, or minds none" if cosine > SAME else f"differ (cosine {cosine:.2f})"
        texts = [PROBE] * BATCH
        start = time.perf_counter()
        self.encode(texts, Role.PASSAGE)
        seconds = time.perf_counter() - start
        return [
            ("model", f"{self._name(served)}, {served.dim} dimensions, {limit}", True),
            ("engine", self.build, True),
            ("roles", f"query and passage vectors {roles}", True),
            ("speed", f"{len(texts) / seconds:,.0f} texts/s", True),
        ]

    def interrupt(self) -> None:
        """End what other threads wait for in forward(); they raise ModelError."""
        for call in list(self._calls):
            call.end()

    @property
    def _known(self) -> Served:
        """Of the file of an earlier time, if there is one, without asking."""
        self._told = True
        if self._served is None:
            self._served = kept(self._kept)
        return self._served or self._ask(Call())

    def _ask(self, call: Call) -> Served:
        """As the server tells it now; asked once. ModelError where it is not what was told of it before."""
        with self._lock:
            before = self._served or kept(self._kept)
            if self._sure and before is not None:
                return before
            now = told(self._endpoint, call)
            if before is not None and before.same == now.same:
                now = replace(now, dim=before.dim, refused=before.refused)
                self._embeddings.refused |= set(before.refused)
            else:
                dim = len(self._probe(now, Role.PASSAGE, call))
                now = replace(now, dim=dim, refused=tuple(sorted(self._embeddings.refused)))
            if now != before:
                keep(self._kept, now)
            if self._told and before is not None and before.same != now.same:
                raise ModelError(
                    f"{self.address.url} serves {now.model} now, and not the {before.model} that it served before: "
                    "start again."
                )
            self._served, self._sure = now, True
            return now

    def _check_dim(self, served: Served, rows: Floats) -> None:
        if rows.shape[-1] != served.dim:
            with suppress(OSError):  # a home that cannot be written
                self._kept.unlink(missing_ok=True)
            raise ModelError(
                f"{self._name(served)} gives {rows.shape[-1]} dimensions, and not the {served.dim} that it gave "
                "before: start again."
            )

    def _probe(self, served: Served, role: Role, call: Call) -> Floats:
        """[dim] of a known text, without a prompt of ours."""
        from embedcode.engine.vectors import unit

        answer = self._embeddings.post(served, [PROBE], role, Truncate.NONE, call)
        if not answer.ok:
            raise self._failure(served, answer)
        vector: Floats = unit(self._embeddings.rows(answer, 1))[0]
        return vector

    def _entry(
        self, index: int, text: object, prompt: str, role: Role, truncate: Truncate, instruction: str
    ) -> Tokens | InputError:
        if not isinstance(text, str):
            return InputError(
                index, f"Input {index} is a {type(text).__name__}: a server is sent texts, give a string."
            )
        sent = prompt + printable(text)
        size = int(len(sent) / CHARACTERS) + 1
        ids = tuple(digest(sent, role, truncate, instruction))
        return RemoteTokens(ids, size, size, 0, True, sent, role, truncate, index, instruction)

    def _prompt(self, role: Role, instruction: str | None) -> tuple[str, str]:
        """What is put before a text here, and the instruction that the server puts into its own prompt."""
        prompt = self._prompts.get(role, "")
        if "{instruction}" not in prompt:
            return prompt, "" if instruction is None else printable(task(instruction))
        if instruction is None:
            raise UsageError(f"the prompt of a {role} has an {{instruction}}: give one, or write it there.")
        return prompt.replace("{instruction}", task(instruction)), ""

    def _check_instructions(self, served: Served, entries: Sequence[RemoteTokens]) -> None:
        """ModelError for one that the server would refuse, or pass over in silence."""
        for role in sorted({entry.role for entry in entries if entry.instruction} - set(served.instructed)):
            raise ModelError(
                f"{self.address.url} does not say that it takes an instruction for a {role}: leave it out, or write "
                f"the prompt of a server that puts none into its address, ?{role}=PROMPT."
            )

    def _parts(self, served: Served, entries: Sequence[RemoteTokens], call: Call) -> list[Floats]:
        """Vectors of each request, in order, with several under way."""
        batches = list(_batches(entries, self._most))
        if len(batches) == 1:
            return [self._vectors(served, entries, 0, call)]
        waiting = [self._pool.own.submit(self._vectors, served, entries[b], b.start, call) for b in batches]
        try:
            return [one.result() for one in waiting]
        finally:
            for one in waiting:
                one.cancel()

    def _vectors(self, served: Served, batch: Sequence[RemoteTokens], first: int, call: Call) -> Floats:
        """float32 [n, dim] of one request. What is refused is asked in halves, so that one text costs no other, if the
        server does not say which it is."""
        import numpy as np

        from embedcode.engine.vectors import unit

        texts, role, truncate = [entry.text for entry in batch], batch[0].role, batch[0].truncate
        answer = self._embeddings.post(served, texts, role, truncate, call, instruction=batch[0].instruction)
        if not answer.ok:
            if len(batch) == 1 or answer.status in NOBODY:
                raise self._refusal(served, answer, batch[0], first, call)
            if (bad := place(answer)) is not None and bad < len(batch):
                self._vectors(served, batch[bad : bad + 1], first + bad, call)  # which raises, if it is that one
            half = len(batch) // 2
            halves = (batch[:half], first), (batch[half:], first + half)
            vectors = np.concatenate([self._vectors(served, part, at, call) for part, at in halves])
            if sum(len(text.encode()) for text in texts) <= len(texts) * USUAL_BYTES:  # it was their number, then
                self._most = min(self._most, len(batch) - half)
            return vectors
        rows = self._embeddings.rows(answer, len(batch))
        self._check_dim(served, rows)
        vectors = unit(rows)
        # Of a row with nan, inf or only zeros the length is not 1.
        for at in map(int, np.flatnonzero(~(abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3))):
            if len(batch) == 1:
                said = f"Input {batch[0].index} has no finite vector in {self._name(served)}: leave it out."
                raise EncodeError(said, first)
            vectors[at] = self._vectors(served, batch[at : at + 1], first + at, call)[0]
        return vectors

    def _refusal(
        self, served: Served, answer: Answer, entry: RemoteTokens, at: int, call: Call
    ) -> EncodeError | ModelError:
        """Why one text was not embedded: for what it is, or since the server embeds none."""
        if answer.status in NOBODY:
            return self._failure(served, answer)
        if found := TOO_LONG.search(answer.words):
            message = too_long(entry.index, int(found[1]), int(found[2])).message
            if entry.truncate is not Truncate.NONE:
                message = f"{found[0]} (input {entry.index}): shorten it, since this server cuts nothing."
            return EncodeError(message, at)
        known = self._embeddings.post(served, [PROBE], entry.role, entry.truncate, call)
        if not known.ok:
            return self._failure(served, known)
        cut = entry.truncate is not Truncate.NONE and "truncate" in self._embeddings.refused
        cure = "shorten it, since this server cuts nothing, or leave it out" if cut else "shorten it, or leave it out"
        return EncodeError(f"Input {entry.index} is refused by {self._name(served)} ({answer.said}): {cure}.", at)

    def _failure(self, served: Served, answer: Answer) -> ModelError:
        if answer.status in DENIED:
            return self._endpoint.denied(answer)
        cure = f"check the address and the model, {served.model}"
        return ModelError(f"{self.address.url} embeds nothing ({answer.said}): {cure}.")

    def _name(self, served: Served) -> str:
        return f"{served.model} at {self.address.url}"


def key(address: Address) -> str:
    """EMBEDCODE_API_KEY; UsageError for what is no key, or where it would travel unencrypted."""
    found = os.environ.get("EMBEDCODE_API_KEY", "").strip()
    if not found.isascii() or not found.isprintable() or " " in found:
        raise UsageError("EMBEDCODE_API_KEY holds a character that no key has: set it anew.")
    if found and address.scheme == "http" and not address.loopback:
        raise UsageError(
            f"EMBEDCODE_API_KEY would go to {address.url} unencrypted: use https://, or unset it if none is needed."
        )
    return found


def _batches(entries: Sequence[RemoteTokens], most: int) -> Iterator[slice]:
    """Consecutive texts with the same settings, `most` of them and BATCH_BYTES; a longer text goes alone."""
    start = size = 0
    for at, entry in enumerate(entries):
        length = len(entry.text.encode())
        same = _settings(entry) == _settings(entries[start])
        if at > start and (not same or at - start == most or size + length > BATCH_BYTES):
            yield slice(start, at)
            start, size = at, 0
        size += length
    if entries:
        yield slice(start, len(entries))


def _settings(entry: RemoteTokens) -> tuple[Role, Truncate, str]:
    """What is said once for all texts of a request."""
    return entry.role, entry.truncate, entry.instruction
