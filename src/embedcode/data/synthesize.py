"""Pairs written by a language model behind any OpenAI-compatible endpoint: a question for code, code for a question, a
summary of an issue.

Every answer, taken or not, goes into a journal beside the output as it comes, so that what was paid for is not asked
again; only refusals of a server that has completed nothing yet stay out of it, since they are of a wrong address or
setting. A run ends before it would pass its bounds. Knows no model and no prices but those it is told.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Literal

from embedcode.data import comments, minhash, never, pairs
from embedcode.engine import remote
from embedcode.engine.address import Address
from embedcode.engine.chat import Chat
from embedcode.errors import ModelError, UsageError
from embedcode.files import writing
from embedcode.types import Pair, digest

Kind = Literal["question", "code", "summary"]
KINDS: tuple[Kind, ...] = ("question", "code", "summary")

PRESETS = {"deepseek": "https://api.deepseek.com/v1#deepseek-chat"}
"""Addresses with a model behind #."""

ATTEMPTS = 3
"""At an answer that is no completion."""
CHARACTERS = 3
"""A token, at least: what a prompt may cost is known before it is sent."""

ALIKE = 0.9
"""Similarity of duplicates: one word of ten may be all the difference between two questions."""
LONGEST = {"question": 120, "code": 700, "summary": 300}
"""Tokens of an answer; what is cut off there is refused."""

INVALID = "no completion"
REFUSED = "the server refused it"
CUT = "cut off"
DECLINED = "the model declined"
SHAPE = "not of the form asked for"
LEAK = "names an identifier"
DUPLICATE = "duplicate"

NOTHING = (REFUSED, INVALID)
"""Reasons that say something of a pair only where other prompts are completed."""
FIRST = 5
"""Such answers, with no other before them, that end a run."""

_PROMPTS: dict[str, str] = {
    "question": (
        "Below is code in {language}. Write one question that a developer who does not know this code could type "
        "into a search box to find it. Say what it does, not how it is named: use no identifier of the code. "
        "One line of 5 to 30 words in English, and nothing else.\n\n{code}"
    ),
    "code": (
        "Write one function in {language} that answers the request below. Give the code only, in one fenced block, "
        "with no explanation and no example of its use.\n\n{query}"
    ),
    "summary": (
        "Below is the report of a problem in a software project. Summarise in 2 to 5 sentences of English what goes "
        "wrong, when, and which part of the software is concerned. Name classes, functions and files that the report "
        "names. No greeting, no list, and no proposal beyond the report.\n\n{query}"
    ),
}

_DECLINES = re.compile(
    r"\bas an ai\b|\bi(?:'m| am) (?:sorry|unable|not able)|\bi can(?:not|'t)\b|\bno code (?:was|is)\b", re.IGNORECASE
)
_LABEL = re.compile(r"^(?:\W*(?:question|query|search query|summary|answer)\W*:\s*)", re.IGNORECASE)
_FENCE = re.compile(r"```[\w+#.-]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be asked for, over all that one journal holds."""

    answers: int | None = None
    tokens: int | None = None
    """Of prompts and answers together."""
    dollars: float | None = None
    price_in: float = 0.0
    """Dollars a million tokens."""
    price_out: float = 0.0
    a_minute: float | None = None
    """Requests."""


@dataclass(slots=True)
class Spent:
    """So far, all that the journal holds included, whatever it was asked for."""

    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Answers by what became of them; "taken" for those that became pairs."""

    def dollars(self, bounds: Bounds) -> float:
        return (self.tokens_in * bounds.price_in + self.tokens_out * bounds.price_out) / 1e6

    def allows(self, bounds: Bounds, prompt: int, answer: int) -> bool:
        """Whether a request with so many tokens at most stays within the bounds."""
        after = Spent(self.answers + 1, self.tokens_in + prompt, self.tokens_out + answer)
        return (
            (bounds.answers is None or after.answers <= bounds.answers)
            and (bounds.tokens is None or after.tokens_in + after.tokens_out <= bounds.tokens)
            and (bounds.dollars is None or after.dollars(bounds) <= bounds.dollars)
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a prompt: a text, or "" and why there is none."""

    text: str
    reason: str
    tokens_in: int
    tokens_out: int
    said: str = ""
    """The server's status and words, where it completed nothing."""


class Writer:
    """Asks one model; safe to use from several threads. The key is EMBEDCODE_API_KEY."""

    def __init__(self, url: str, temperature: float = 0.7) -> None:
        """`url` names the model behind #, or is one of PRESETS."""
        address = Address.read(PRESETS.get(url, url))
        if not address.model:
            raise UsageError(f"{address.url} needs the name of a model: write {address.url}#MODEL.")
        self._chat = Chat(address, remote.key(address))
        self._temperature = temperature

    @property
    def model(self) -> str:
        return self._chat.address.model

    def ask(self, prompt: str, most: int, again: Callable[[int, int], bool] = lambda *_: True) -> Written:
        """An answer of at most `most` tokens; `again` is told the tokens so far, of prompts and answers, and says
        whether another try is within the bounds.

        ModelError where the server cannot be reached or denies access: nothing else would get an answer either.
        """
        address = self._chat.address
        spent_in = spent_out = 0
        for left in reversed(range(ATTEMPTS)):
            found = self._chat.ask(address.model, prompt, most, self._temperature)
            answer, text = found.answer, found.text or ""
            if answer.status in (402, 404):
                raise ModelError(f"{address.url} does not answer ({answer.said}): check the account and the model.")
            if answer.status in (400, 413, 422):
                return Written("", REFUSED, spent_in, spent_out, answer.said)
            spent_in += len(prompt) // CHARACTERS if found.tokens_in is None else found.tokens_in
            spent_out += len(text) // CHARACTERS if found.tokens_out is None else found.tokens_out
            if found.text is not None:
                return Written(text, CUT if found.cut else "", spent_in, spent_out)
            if not (left and again(spent_in, spent_out)):
                break
        return Written("", INVALID, spent_in, spent_out, answer.said)

    def completes_nothing(self, said: str) -> ModelError:
        url = self._chat.address.url
        return ModelError(
            f"{url} completes none of the prompts it was sent first ({said}): check the address and the model, "
            f"{self.model}, or leave out pairs that are too long for it; they will be asked for again."
        )


def prompt(kind: Kind, pair: Pair) -> str:
    return _PROMPTS[kind].format(language=pair.language or "any language", code=pair.positives[0], query=pair.query)


def made(kind: Kind, pair: Pair, answer: str) -> tuple[Pair | None, str]:
    """The pair that an answer makes of the one it was asked for, or why it makes none."""
    text = answer.strip()
    if _DECLINES.search(text[:200]):
        return None, DECLINED
    if kind == "code":
        fenced = _FENCE.findall(text)
        code = (fenced[0] if len(fenced) == 1 else "" if fenced else text).strip("\n").rstrip()
        if code.count("\n") < 1 or len(code) < 40:
            return None, SHAPE
        return Pair(pair.query, (code,), (), "synthetic-code", pair.language, pair.source, pair.licence), ""
    text = _LABEL.sub("", text).strip().strip('"`*').strip()
    if kind == "question":
        if "\n" in text or "```" in text or not 4 <= len(text.split()) <= 40:
            return None, SHAPE
        if _identifiers(pair.positives[0]) & set(re.findall(r"\w+", text)):
            return None, LEAK
    elif "```" in text or not 15 <= len(text.split()) <= 200:
        return None, SHAPE
    if comments.reason(text) == comments.FOREIGN:
        return None, comments.FOREIGN
    if kind == "question":  # of the one code that was shown; the other positives may be no answer
        first = pair.positives[:1]
        return replace(pair, query=" ".join(text.split()), positives=first, task="synthetic-question", negatives=()), ""
    return replace(pair, query=text, task="issue-summary", negatives=()), ""


def _identifiers(code: str) -> set[str]:
    """Names of several words, which nobody types who does not know the code."""
    return {name for name in re.findall(r"\w+", code) if re.search(r"[a-z][A-Z]|\w_\w", name.strip("_"))}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal."""

    key: str
    text: str
    reason: str
    tokens_in: int
    tokens_out: int


class Journal:
    """The answers there are, in a file that only grows; a line that was cut off by a crash is asked for again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, Entry] = {}
        self._lock = Lock()
        with writing(path):
            raw = path.read_bytes() if path.exists() else b""
            for line in raw.splitlines():
                try:
                    entry = Entry(**json.loads(line))
                except (ValueError, TypeError):
                    continue
                self.entries[entry.key] = entry
            self._file = path.open("ab", buffering=0)  # else what a full disk did not take is tried again at the end
            if raw and not raw.endswith(b"\n"):
                self._file.write(b"\n")

    def add(self, entry: Entry) -> None:
        row = {name: getattr(entry, name) for name in Entry.__slots__}
        with self._lock:
            with writing(self._path):
                self._file.write(json.dumps(row).encode() + b"\n")
            self.entries[entry.key] = entry

    def close(self) -> None:
        self._file.close()


def synthesize(
    kind: Kind,
    given: Iterable[Pair],
    writer: Writer,
    out: Path,
    bounds: Bounds = Bounds(),
    parallel: int = 4,
    told: Callable[[Spent], None] = lambda spent: None,
) -> tuple[Spent, bool]:
    """Ask for each pair once, for those of one text once together, and write OUT from all answers, those of earlier
    runs too; (what was spent, all asked).

    On a ModelError OUT holds what there was until then, and the same call goes on from there; with no answer at all,
    OUT stays as it is.
    """
    wanted: dict[str, list[Pair]] = {}
    for pair in given:  # of one commit there is a pair with its functions and one with its chunks
        wanted.setdefault(_key(kind, pair, writer.model), []).append(pair)
    journal = Journal(out.with_name(f"{out.name}.journal"))
    spent = Spent()
    for before in journal.entries.values():
        _spend(spent, before)
    for key, alike in wanted.items():  # journals were once without the model
        entry = journal.entries.get(_key(kind, alike[0]))
        if entry is not None and entry.reason not in NOTHING:
            journal.entries.setdefault(key, entry)
    waiting = [(key, alike[0]) for key, alike in wanted.items() if key not in journal.entries]
    complete = False
    try:
        complete = _run(kind, waiting, len(waiting) < len(wanted), writer, journal, spent, bounds, parallel, told)
    finally:
        journal.close()
        spent.outcomes = Counter()
        if complete or not wanted.keys().isdisjoint(journal.entries):
            pairs.write(out, _taken(kind, wanted, journal.entries, spent.outcomes))
    return spent, complete


def _run(
    kind: Kind, waiting: Sequence[tuple[str, Pair]], continued: bool, writer: Writer, journal: Journal, spent: Spent,
    bounds: Bounds, parallel: int, told: Callable[[Spent], None],
) -> bool:  # fmt: skip
    most = LONGEST[kind]
    open_: dict[Future[Written], str] = {}
    reserved: dict[str, tuple[int, int]] = {}
    """Of each pair under way, the tokens it may come to with the request that it waits for."""
    held: dict[str, Written] = {}
    """What was not completed, while nothing was."""
    completes, complete = False, True
    pause = 60 / bounds.a_minute if bounds.a_minute else 0.0
    due = time.monotonic()
    lock, ended = Lock(), Event()

    def may_ask(key: str, cost: int, tokens_in: int = 0, tokens_out: int = 0) -> bool:
        """Whether one more request for a pair, which had so many tokens before, stays within the bounds; waits until
        its turn comes by the rate."""
        nonlocal due
        with lock:
            others = [one for name, one in reserved.items() if name != key]
            ahead = Spent(
                spent.answers + len(others),
                spent.tokens_in + tokens_in + sum(prompt for prompt, _ in others),
                spent.tokens_out + tokens_out + sum(answer for _, answer in others),
            )
            if not ahead.allows(bounds, cost, most):
                return False
            reserved[key] = tokens_in + cost, tokens_out + most
            start = max(due, time.monotonic())
            due = start + pause
        return not ended.wait(start - time.monotonic())

    def keep() -> None:
        for key, found in held.items():
            journal.add(Entry(key, found.text, found.reason, found.tokens_in, found.tokens_out))
        held.clear()

    def take(key: str, found: Written) -> None:
        nonlocal completes
        completes = completes or found.reason not in NOTHING
        held[key] = found
        if completes:
            keep()

    def settle(least: int) -> None:
        while len(open_) > least:
            for future in wait(open_, return_when=FIRST_COMPLETED).done:
                found = future.result()
                key = open_.pop(future)
                take(key, found)
                with lock:
                    del reserved[key]
                    _spend(spent, found)
                told(spent)
                if len(held) == FIRST:
                    raise writer.completes_nothing(found.said)

    with ThreadPoolExecutor(parallel) as pool:
        try:
            for key, pair in waiting:
                text = prompt(kind, pair)
                cost = len(text) // CHARACTERS + 1
                settle(parallel - 1)
                if not may_ask(key, cost):
                    settle(0)
                    complete = may_ask(key, cost)
                    if not complete:
                        break
                open_[pool.submit(writer.ask, text, most, partial(may_ask, key, cost))] = key
            settle(0)
        except BaseException:
            ended.set()
            pool.shutdown(cancel_futures=True)
            for future, key in open_.items():  # what was under way is paid for, too
                if not future.cancelled() and future.exception() is None:
                    take(key, future.result())
            raise
    if held and not continued:  # nor was anything completed by an earlier run
        raise writer.completes_nothing(next(iter(held.values())).said)
    keep()
    return complete


def _spend(spent: Spent, entry: Entry | Written) -> None:
    spent.answers += 1
    spent.tokens_in += entry.tokens_in
    spent.tokens_out += entry.tokens_out


def _taken(
    kind: Kind, wanted: dict[str, list[Pair]], entries: dict[str, Entry], outcomes: Counter[str]
) -> Iterator[Pair]:
    """The pairs of the answers, in the order of what was asked for; `outcomes` counts every answer."""
    equal, near = set[bytes](), minhash.Index()
    for key, alike in wanted.items():
        entry = entries.get(key)
        if entry is None:
            continue
        new, reason = (None, entry.reason) if entry.reason else made(kind, alike[0], entry.text)
        if new is not None:
            written = new.positives[0] if kind == "code" else new.query
            known, found = never.fingerprint(written.casefold()), minhash.elements(written)
            if known in equal or any(True for _ in near.near(found, ALIKE)):
                new, reason = None, DUPLICATE
            equal.add(known)
            near.add(found)
        outcomes[reason or "taken"] += 1
        if new is not None:
            made_of = (made(kind, pair, entry.text)[0] for pair in alike)
            yield from {(one.query, one.positives): one for one in made_of if one is not None}.values()


def _key(kind: Kind, pair: Pair, *model: str) -> str:
    return digest(kind, prompt(kind, pair), *model).hex()
