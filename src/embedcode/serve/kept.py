"""Kept: a repository that may be asked at any time, and answers in about a second whatever state its index is in.

What has changed is read in a thread; vectors are made for what a question needs, and by a background process for the
rest. Knows no protocol: servers put their own words around an Answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from threading import Lock, Semaphore, Thread
from typing import Any, Generic, TypeVar

from embedcode.errors import BusyError, EmbedcodeError, ModelError, StoreError, UsageError
from embedcode.index.index import Index
from embedcode.index.report import Report, Status, Step
from embedcode.types import Encoder, Filter, Floats, Hit, Mode, Query

READ_SECONDS = 0.8
"""How long an answer waits for what has changed to be read: enough for a repository that is indexed already."""
EMBED_SECONDS = 0.5
"""How long vectors are then made for the best candidates that lack one."""
BATCH_SECONDS = 0.1
"""So much longer, since the last few of them may just have been begun."""
ANSWER_SECONDS = 1.9
"""After so long an answer says that it has none yet. A coding assistant waits two seconds for a tool without noticing;
while a large repository is read for the first time, what it is searched in takes a few seconds to catch up."""
WORDS_SECONDS = 0.4
"""Of which so much is left for an answer by words, where the model has made no vector of the query until then."""
MOST_VECTORS = 32
"""Of queries that are kept for who asks again, those that are being made among them: each is a thread."""
MOST_ANSWERS = 32
"""Answers that are being made at a time, those that nobody waits for any more among them: each is a thread."""
AGAIN_SECONDS = 60.0
"""So long after an attempt to make the rest of the vectors was seen to have failed, the next one is made."""
SO_FAR = "this answer is from what is in the index so far"
NOTHING_READ = Step("read", 0, 0, 0, 0, 0.0)

T = TypeVar("T")
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, and remarks on what keeps them from being whole."""

    hits: list[Hit]
    notes: tuple[str, ...]
    ready: bool = True
    """False where there was no time for an answer, which says nothing of what there is."""
    by_words: bool = False
    """No vector was used: none was asked for, or the model could not be used."""


class Kept:
    """Safe to ask from several threads."""

    def __init__(
        self, path: Path, encoder: Encoder | None = None, note: Callable[..., Any] = lambda *_, **__: None
    ) -> None:
        """An `encoder` that is given makes the vectors too, in this process; else a background process does.

        `note` is told, as a journal is, what ended that in this process: the next to try is who asks, if anybody does.
        """
        self._path = path
        self._given = encoder
        self._journal = note
        self._index = Index.open(path, encoder)
        self._making: Task[Any] | None = None
        """All vectors that lack, or the start of the process that makes them."""
        self._tried = False
        self._failed = 0.0
        self._mutex = Lock()
        self._embedding = Lock()
        self._places = Semaphore(MOST_ANSWERS)
        self._vectors: dict[tuple[Index, str], Task[tuple[Floats, list[str]]]] = {}
        """Of queries, the last one last, with what is to be said of each."""
        self._reading: Task[Report] | None = None
        self._step = NOTHING_READ

    @property
    def index(self) -> Index:
        """Opened anew where another process has deleted it, since it may have been made again with another model."""
        with self._mutex:
            if self._index.replaced:
                anew = Index.open(self._path, self._given)  # first, since settings may be wrong at the moment
                self._index.close()
                self._index = anew
                self._vectors.clear()  # they hold the old one and its model
            return self._index

    def search(self, query: Query, since: str = "", update: bool = True) -> Answer:
        """The hits there are now. Raises what Index.search raises, and what keeps the repository from being read.

        Without `update` nothing is read or embedded first: for a query that is still being typed.
        """
        # What cannot be asked is said at once: the answer may take longer than anybody waits, and who is then told to
        # ask again does so for ever.
        self.index.check(query, since)
        vector = None
        if query.mode is not Mode.LEXICAL:
            # Without it there is no answer to a dense query, which _answer() says.
            seconds = 2 * ANSWER_SECONDS if query.mode is Mode.DENSE else ANSWER_SECONDS - WORDS_SECONDS
            vector = _Vector(self._encoding(query), time.monotonic() + seconds)

        def answer() -> Answer:
            changed = replace(query.where, only=self.index.since(since)) if since else query.where
            asked = replace(query, where=changed)
            notes: list[str] = []
            if update and query.mode is not Mode.LEXICAL:
                others = self._forbidden
                self._embed(lambda: self.index.embed_best(asked, EMBED_SECONDS, others, notes.append))
            found = self._remarked(self._hits(asked, notes.append, vector), changed)
            by_words = vector is None or not vector.used
            return replace(found, notes=(*found.notes, *notes), by_words=by_words)

        return self._answer(answer, update)

    def related(self, path: str, line: int, k: int, where: Filter | None = None) -> Answer:
        """Chunks most like the one at path:line, a path relative to the root."""

        def answer() -> Answer:
            notes: list[str] = []
            self._embed(lambda: self.index.embed_few(EMBED_SECONDS, notes.append))
            hits = self.index.related(path, line, k, where, told=notes.append)
            found = self._remarked(hits, where or Filter(), words=False)
            return replace(found, notes=(*found.notes, *notes))

        return self._answer(answer)

    def status(self) -> Status:
        return self.index.status()

    def warm(self) -> None:
        """Read what has changed, and load the model and what else a search needs, before anybody asks."""
        with suppress(EmbedcodeError):
            self._refresh()
            self._hits(Query("ready"), lambda said: None)

    def finish(self) -> None:
        """Wait for what is being read, then leave what lacks vectors to a background process."""
        if (reading := self._last_reading) is not None:
            reading.join()
        with suppress(EmbedcodeError):
            self._missing()

    @property
    def reading(self) -> Step | None:
        """How far the reading of what has changed is, while there is any."""
        return self._step if self._reading is not None and self._reading.is_alive() else None

    def _hits(self, query: Query, told: Told, vector: Callable[[Query, Told], Floats] | None = None) -> list[Hit]:
        """Of what was read so far, which may be nothing yet."""
        self.index.store.meta()  # makes the index where it is not there
        return self.index.search(query, told, vector)

    def _encoding(self, query: Query) -> Task[tuple[Floats, list[str]]] | None:
        """What makes a query's vector, beside all else, or has made it; None where there is no room for one more."""
        index = self.index
        key = index, query.joined
        with self._mutex:
            task = self._vectors.pop(key, None)
            if task is None or task.failed:
                ended = [key for key, other in self._vectors.items() if not other.is_alive()]
                if len(self._vectors) >= MOST_VECTORS:
                    if not ended:
                        return None
                    del self._vectors[ended[0]]
                remarks: list[str] = []
                task = Task(lambda: (index.vector(query, remarks.append), remarks))
                try:
                    task.start()
                except RuntimeError:  # no room for one more thread
                    return None
            self._vectors[key] = task
            return task

    def _embed(self, work: Callable[[], object]) -> None:
        """Make a few vectors first, where that takes no more than a moment: they may come late, behind bulk work or
        those of another question, and each who asks again would wait in one thread more. Nothing where all are being
        made by this process: its batches come before these."""
        until = time.monotonic() + EMBED_SECONDS
        making = self._given is not None and self._making is not None and self._making.is_alive()
        if making or not self._embedding.acquire(timeout=EMBED_SECONDS):
            return

        def made() -> None:
            try:
                work()
            finally:
                self._embedding.release()

        task = Task(made)
        try:
            task.start()
        except RuntimeError:  # no room for one more thread: then without
            self._embedding.release()
            return
        task.join(max(0.0, until - time.monotonic()) + BATCH_SECONDS)
        if not task.is_alive():
            task.outcome()

    def _remarked(self, hits: list[Hit], where: Filter, words: bool = True) -> Answer:
        """With what may help where there are none: else who asks concludes that there is no such code."""
        return Answer(hits, () if hits else (self.index.no_hits(where, words),))

    def _answer(self, answer: Callable[[], Answer], update: bool = True) -> Answer:
        start = time.monotonic()
        notes = self._refresh() if update else []
        if not self._places.acquire(timeout=max(0.0, start + ANSWER_SECONDS - time.monotonic())):
            return self._late()

        def made() -> Answer:
            try:
                return answer()
            finally:
                self._places.release()

        task = Task(made)
        try:
            task.start()
        except RuntimeError:  # no room for one more thread
            self._places.release()
            return self._late()
        task.join(max(0.0, start + ANSWER_SECONDS - time.monotonic()))
        if task.is_alive():
            return self._late()
        found = task.outcome()
        return replace(found, notes=(*found.notes, *notes, *self._missing()))

    def _late(self) -> Answer:
        why = ", while what has changed in it is read" if self.reading is not None else ""
        said = f"{self.index.root} gave no answer within {ANSWER_SECONDS:g} seconds{why}: ask again in a few seconds"
        return Answer([], (said,), False)

    def _refresh(self) -> list[str]:
        """Start reading what has changed, by the settings of now; wait a moment, and say if that was not enough."""
        index = self.index
        notes = []
        try:
            index.reload()
        except UsageError as error:
            notes.append(f"{str(error).rstrip('.')}; until then the settings from before hold")
        with self._mutex:
            if self._reading is None or not self._reading.is_alive():
                self._step = NOTHING_READ
                self._reading = Task(lambda: index.update(vectors=False, progress=self._note, patience=0.0))
                self._reading.start()
            reading = self._reading
        reading.join(READ_SECONDS)
        if reading.is_alive():
            return [*notes, f"{index.root} is being read: {SO_FAR}, ask again soon"]
        try:
            reading.outcome()
        except BusyError as busy:
            return [*notes, f"{str(busy).partition(':')[0]}; {SO_FAR}"]
        except StoreError as error:  # such as a full disk, which takes no finished index away
            if not index.updated:
                raise
            return [*notes, f"{str(error).rstrip('.')}; {SO_FAR}"]
        return notes

    @property
    def _last_reading(self) -> Task[Report] | None:
        """Which has begun: who asks in between would be told that it cannot be waited for."""
        with self._mutex:
            return self._reading

    def _note(self, step: Step) -> None:
        self._step = step

    def _missing(self) -> list[str]:
        """What lacks vectors is left to a background process; says how much does, and what keeps it from being made."""
        if not self.index.missing:
            return []
        trouble = ""
        if (reading := self._last_reading) is not None and not reading.is_alive():
            trouble = self._make()
        meta = self.index.store.meta()
        share = 100 * meta.embedded // meta.chunks
        rest = f"not being made: {trouble.rstrip('.')}" if trouble else "being made in the background"
        return [f"{share} % of the index has vectors so far, the rest is {rest}"]

    def _make(self) -> str:
        """Start making what lacks vectors, unless that is under way, or has just failed: then says why."""
        index = self.index
        if self._tried and (trouble := self._trouble()):
            self._failed = self._failed or time.monotonic()
            if time.monotonic() < self._failed + AGAIN_SECONDS:
                return trouble
        self._tried, self._failed = True, 0.0
        if self._forbidden:
            return f"the setting background is false, so `embedcode index --wait {quote(str(index.root))}` makes it"
        with self._mutex:
            if self._making is None or not self._making.is_alive():
                # That a process has begun is waited for, which may take longer than an answer.
                own = self._given is not None
                self._making = Task(lambda: self._update(index) if own else index.start_background())
                self._making.start()
        return ""

    def _update(self, index: Index) -> Report:
        try:
            return index.update()
        except Exception as error:
            # Of what is no error of ours the message may hold anything.
            said = str(error) if isinstance(error, EmbedcodeError) else type(error).__name__
            self._journal("index", "warning", root=str(index.root), trouble=said)
            raise

    @property
    def _forbidden(self) -> bool:
        """Whether nobody makes the rest in the background: then each question is to get further."""
        return self._given is None and not self.index.settings.background

    def _trouble(self) -> str:
        """What ended the last attempt to make the rest, if it failed and none is under way."""
        if self._making is None or self._making.is_alive():
            return ""
        if self._making.error is not None:
            return str(self._making.error)
        return self.index.trouble() if self._given is None else ""


class _Vector:
    """Of a query, which is waited for as Index.search asks for it.

    A model may take longer than an answer, and its server for ever: the answer is then one by words, and who asks again
    has the vector that was made meanwhile.
    """

    def __init__(self, making: Task[tuple[Floats, list[str]]] | None, until: float) -> None:
        self._making = making
        self._until = until
        self.used = False

    def __call__(self, _: Query, told: Told) -> Floats:
        if (making := self._making) is not None:
            making.join(max(0.0, self._until - time.monotonic()))
        if making is None or making.is_alive():
            raise ModelError(
                "no vector of the query came in time, as while the model is still being loaded; ask again soon for an "
                "answer by meaning too"
            )
        vector, remarks = making.outcome()
        for remark in remarks:
            told(remark)
        self.used = True
        return vector


class Task(Thread, Generic[T]):
    """Work in a thread of its own. A daemon: what it has committed is kept, and no end of a process waits for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._results: list[T] = []
        self.error: Exception | None = None
        """What it raised."""

    def run(self) -> None:
        try:
            self._results.append(self._work())
        except Exception as error:  # whatever it is, it is raised where the outcome is asked for
            self.error = error

    @property
    def failed(self) -> bool:
        """By an error, or by what is none, such as a panic in a library."""
        return not self.is_alive() and not self._results

    def outcome(self) -> T:
        """What it gave, or raises what it raised. For a task that has ended."""
        if self.error is not None:
            raise self.error
        return self._results[0]
