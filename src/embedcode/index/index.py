"""Index: one checkout, brought up to date and searched. Stands on the store and search; is given an Encoder."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from math import inf
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING, Self

from embedcode import settings as configuration
from embedcode.errors import DamagedError, EncodeError, ModelError, StoreError, UsageError
from embedcode.files import everything, replacing
from embedcode.index import golden, locks
from embedcode.index.home import holds_index, home_of, root_of, size
from embedcode.index.locks import Lock
from embedcode.index.refused import refused, remember
from embedcode.index.report import Progress, Report, Running, Status, Step
from embedcode.index.scope import Scope
from embedcode.model.passage import vector_key
from embedcode.settings import Settings
from embedcode.store.faults import explained, noted_root
from embedcode.types import Encoder, File, Filter, Hit, Mode, Query, Role, Tokens, Truncate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedcode.index.build import Changes
    from embedcode.index.embed import Embedded
    from embedcode.index.walk import Source
    from embedcode.store.cache import VectorCache
    from embedcode.store.sqlite import SqliteStore
    from embedcode.types import Floats

MAX_QUERY = 1_000_000
"""Characters; a pasted issue with its logs is a tenth of it."""
UPDATE_WAIT = 600.0
"""Seconds to wait for another process that reads the same checkout; it does the same work."""
CANDIDATES = 200
"""Chunks that may be embedded for one query."""
EMBED_SECONDS = 2.0
"""For at most so long, where somebody waits for the answer."""
FEW = 32
"""So many missing vectors are made before a search, whatever it asks for: it is a second's work after an edit."""
MAINTAIN_COMMITS = 100
"""After so many, the store drops what nothing refers to any more; one of embed() adds at most 4 vectors.
It takes 30 to 60 ms for 30,000 chunks."""
TRUSTED_SECONDS = 3600.0
"""For so long a query takes a server that names no weights to have those that it had. Before vectors are made it is
asked for the golden text's each time."""
WORDS_ALONE = "this answer is by words alone"

_log = logging.getLogger("embedcode")


class Index:
    """Several processes may hold one index at once. Use open(), and close() or a `with` block."""

    def __init__(self, root: Path, scope: str, home: Path, settings: Settings, encoder: Encoder | None = None) -> None:
        self.root = root
        """The repository's top folder: the nearest ancestor with .git, else the path itself."""
        self.scope = scope
        """Where the opened path lies below root ("" = root itself); searches are limited to it."""
        self.home = home
        """The folder of this index's own files, outside the repository."""
        self.settings = settings
        if encoder is not None:
            self.encoder = encoder

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None) -> Self:
        """Open or create the index of the checkout that holds `path`. Cheap: loads no model."""
        place = Path(path)
        try:
            if not place.exists():
                raise UsageError(f"{place} does not exist: check the path.")
            place = place.resolve()
            root = root_of(place, configuration.load().indexes)
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}): check the path and who may read it.") from None
        settings = configuration.load(root=root)
        if encoder is None and settings.model:
            from embedcode.engine import configured

            encoder = configured(settings)
        scope = "" if place == root else place.relative_to(root).as_posix()
        return cls(root, scope, home_of(settings.indexes, root), settings, encoder)

    @cached_property
    def encoder(self) -> Encoder:
        """An index is searched with the model it was made with, unless another is asked for. ModelError where that
        model has gone: what needs none goes on without it."""
        from embedcode.engine import configured
        from embedcode.store.database import remembered

        return configured(self.settings, remembered(self.home, "source"))

    def reload(self) -> None:
        """Take the settings as they are now, but for where the index lies and the model that is in use. UsageError
        where they cannot be read: those from before hold."""
        found = configuration.load(root=self.root)
        self.settings = replace(found, home=self.settings.home, model=self.settings.model)

    def check_root(self) -> None:
        """UsageError where the root holds all that there is, as the user's home folder does: it is not even walked."""
        if self.root in everything(self.root):
            raise UsageError(f"{self.root} is not a repository but everything you have: give a folder in it.")

    def update(
        self,
        *,
        vectors: bool = True,
        progress: Progress | None = None,
        yes: bool = False,
        patience: float = UPDATE_WAIT,
    ) -> Report:
        """Read what changed; with `vectors`, also embed all that lacks a vector. Resumable; safe beside others.

        `yes` allows more than 200,000 files; the index remembers it. KeyboardInterrupt keeps what was finished.
        `patience` is in seconds: BusyError when another process still reads the same checkout after them.
        """
        if not locks.in_background():
            return self._update(vectors, progress, yes, patience)
        with self._lock("background").held(locks.START_SECONDS, f"indexing {self.root} in the background"):
            return self._update(vectors, progress, yes, patience)

    def _update(self, vectors: bool, progress: Progress | None, yes: bool, patience: float) -> Report:
        from embedcode.index.embed import Embedded, take_cached

        start = time.monotonic()
        self.check_root()
        with self._lock("update").held(patience, f"reading {self.root}"):
            try:
                changes = self._read(progress, yes)
            except DamagedError as error:
                self._set_aside(error)
                changes = self._read(progress, yes)
        with explained(self.home):
            (self.home / "updated").touch()
        if changes.keys and not vectors:
            take_cached(
                self.store, self._cache, changes.keys
            )  # another checkout may have made them; what is missing is then little
        done = self._embed(progress) if vectors else Embedded()
        self._maintain(MAINTAIN_COMMITS)
        meta = self.store.meta()
        return Report(
            files=changes.files,
            changed=changes.changed,
            removed=changes.removed,
            chunks=meta.chunks,
            embedded=meta.embedded,
            encoded=done.encoded,
            cached=done.cached,
            tokens=done.tokens,
            seconds=time.monotonic() - start,
            skipped=changes.left_out.named,
            skipped_more=changes.left_out.more,
            failed=changes.failed | done.failed,
            remarks=getattr(self.encoder, "remarks", tuple)() if done.encoded else (),
        )

    def _read(self, progress: Progress | None, yes: bool) -> Changes:
        from embedcode.index.build import bring_up_to_date

        self._check_space()
        with explained(self.home):
            if noted_root(self.home) != str(self.root):
                with replacing(self.home / "root") as file:
                    file.write(os.fsencode(self.root))
        return bring_up_to_date(self.store, self.root, self._made[0], self.settings, progress, yes)

    def _set_aside(self, error: DamagedError) -> None:
        """Make room for a new index, whose vectors are in the cache. For who holds the lock of updates."""
        from embedcode.store.database import set_aside

        self.close()
        kept = set_aside(self.home)
        _log.warning("%s; it is made again, and the damaged one is kept as %s", str(error).partition(": run")[0], kept)

    def embed(self, seconds: float, ids: list[int]) -> int:
        """Embed these chunks, best first, for at most `seconds`; returns how many got a vector."""
        from embedcode.index.embed import embed_some
        from embedcode.index.prepare import embedded_text
        from embedcode.store.contract import Pending

        self._check_space()
        held = {ids[i] for i in self.store.vectors(ids)[0]}
        chosen = [
            Pending(id, vector_key(embedded_text(chunk), self.encoder.space), chunk)
            for id, chunk in zip(ids, self.store.get(ids), strict=True)
            if chunk is not None and id not in held
        ]
        known = refused(self.store)
        chosen = [pending for pending in chosen if pending.key not in known]
        self._check_build(0.0 if chosen else inf)
        done = embed_some(self.store, self.encoder, self._cache, chosen, seconds)
        remember(self.store, done.refused)
        self._maintain(MAINTAIN_COMMITS)
        return done.encoded + done.cached

    def embed_best(
        self,
        query: Query | None = None,
        seconds: float = EMBED_SECONDS,
        others: bool = True,
        told: Callable[[str], None] = _log.warning,
    ) -> None:
        """Embed what `query` needs most: its best candidates by words that lack a vector, then any if those are few.

        At most CANDIDATES, for at most `seconds`. With `others` any fill up the number: where nobody makes the rest,
        each search is to get further, whatever it asks for.
        Where the model cannot be used nothing is made: search() then answers by words and says so, or fails itself. Nor
        where a vector cannot be kept, as on a full disk, which `told` is told, else the log.
        """
        best = self.lexical(query, CANDIDATES) if query else []
        held = set(self.store.vectors(best)[0])
        chosen = [id for position, id in enumerate(best) if position not in held]
        if others or self.missing <= FEW:
            known = refused(self.store)
            chosen += (one.id for one in self.store.pending(CANDIDATES + len(known)) if one.key not in known)
        try:
            with suppress(ModelError):
                self.embed(seconds, list(dict.fromkeys(chosen))[:CANDIDATES])
        except StoreError as error:
            told(f"no vectors are made ({str(error).rstrip('.')})")

    def candidates(self, query: Query) -> tuple[int, int]:
        """How many of the query's best candidates by words have a vector, and how many those are."""
        best = self.lexical(query, CANDIDATES)
        return len(self.store.vectors(best)[0]), len(best)

    def embed_few(self, seconds: float = EMBED_SECONDS, told: Callable[[str], None] = _log.warning) -> bool:
        """Embed what lacks a vector if that is few, as after an edit; returns whether any chunk still lacks one."""
        if 0 < self.missing <= FEW:
            self.embed_best(seconds=seconds, told=told)
        return self.missing > 0

    @property
    def missing(self) -> int:
        """Chunks that lack a vector and may get one: the encoder has not refused their text."""
        meta = self.store.meta()
        return meta.chunks - meta.embedded - sum(one.chunks for one in refused(self.store).values())

    def search(
        self,
        query: Query,
        told: Callable[[str], None] = _log.warning,
        vector: Callable[[Query, Callable[[str], None]], Floats] | None = None,
    ) -> list[Hit]:
        """The best chunks for a query, best first. UsageError for an empty or an absurdly long one, and where nothing
        was ever indexed: no hits would say that there is no such code.

        A hybrid query is answered by words where the model cannot be used, and a long one has the vector of its
        beginning; `told` is then told so, else the log. `vector` is asked in place of vector(), as by who cannot wait.
        """
        from embedcode.search.search import Signals, search

        text = _checked(query)
        if not self.exists and "store" not in self.__dict__:  # of one that is open the store says that it was deleted
            raise UsageError(f"{self.root} has no index yet: call update() first.")
        made = None
        if query.mode is not Mode.LEXICAL:
            try:
                made = (vector or self.vector)(query, told)
            except (EncodeError, ModelError) as error:
                if query.mode is Mode.DENSE:
                    raise
                told(f"{WORDS_ALONE}: {error}")
        signals = Signals("" if query.mode is Mode.DENSE else text, made, query.text)
        return search(self.store, signals, query.top_k, self._scope.limited(query.where))

    def vector(self, query: Query, told: Callable[[str], None] = _log.warning) -> Floats:
        """Of a query; EncodeError or ModelError where there is none. As long as the model takes."""
        text = _checked(query)
        self._check_build(TRUSTED_SECONDS)
        if len(text) > self.encoder.max_tokens:
            self._remark_cut(text, told)
        made: Floats = self.encoder.encode([text], Role.QUERY, truncate=Truncate.END)[0]
        return made

    def _remark_cut(self, text: str, told: Callable[[str], None]) -> None:
        (entry,) = self.encoder.tokenize([text], Role.QUERY, truncate=Truncate.END)
        if isinstance(entry, Tokens) and entry.truncated:
            told(f"the query's vector is of the first {entry.used:,} of its {entry.original:,} tokens")

    def check(self, query: Query, since: str = "") -> None:
        """UsageError for what search() or since() would refuse whatever the index holds, without waiting for either."""
        from embedcode.index.changes import commit

        _checked(query)
        self._scope.read(query.where)
        if since:
            commit(self.root, since)

    def lexical(self, query: Query, k: int) -> list[int]:
        """Ids of the k best lexical candidates, for embed()."""
        from embedcode.search.search import lexical_candidates

        where, forms = self._scope.limited(query.where), bool(query.text)
        return [c.id for c in lexical_candidates(self.store, _checked(query), k, where, forms)]

    def since(self, revision: str, name: str = "since") -> frozenset[str]:
        """Relative paths changed since a git revision, work tree and untracked files included, also in the repositories
        below. UsageError if no git, which calls the revision by the `name` that whoever asks gives it under."""
        from embedcode.index.changes import changed_since

        return changed_since(self.root, revision, self.store.files(), name)

    def no_hits(self, where: Filter, words: bool = True) -> str:
        """The remark on a query without hits; `words` is False where it was a place."""
        return f"no hits; {self._scope.cure(where, words)}"

    @property
    def covers_scope(self) -> bool:
        """Whether any file of the index lies in the folder that was opened."""
        return not self._scope.empty

    def related(
        self,
        path: str,
        line: int,
        k: int = 10,
        where: Filter | None = None,
        folder: str = "",
        told: Callable[[str], None] = _log.warning,
    ) -> list[Hit]:
        """Chunks most like the one at path:line, which is left out; globs may start from `folder` too. UsageError for
        what is not in the index, or not in the folder that was opened. By words, and `told` so, where the one has no
        vector and gets none."""
        from embedcode.index.prepare import embedded_text
        from embedcode.search.search import Signals, search

        chunks = self.store.chunks_of(path) if self._scope.holds(path) else []
        found = next(((id, c) for id, c in chunks if c.start_line <= line <= c.end_line), None)
        if found is None:
            known = f"it has {chunks[-1][1].end_line} lines" if chunks else self._why_not(path)
            raise UsageError(f"{path}:{line} is no line of an indexed file ({known}): check the path and the line.")
        id, chunk = found
        at, rows = self.store.vectors([id])
        vector = rows[0] if at else None
        try:
            self._check_build(inf if at else TRUSTED_SECONDS)
            if not at:
                vector = self.encoder.encode([embedded_text(chunk)], Role.PASSAGE, truncate=Truncate.END)[0]
        except (EncodeError, ModelError) as error:
            if not at:
                told(f"{WORDS_ALONE}: {error}")
        hits = search(self.store, Signals(chunk.text, vector), k + 1, self._scope.limited(where or Filter(), folder))
        return [hit for hit in hits if hit.chunk != chunk][:k]

    def _why_not(self, path: str) -> str:
        """Why a path has no chunk here; of what lies outside of the folder that was opened nothing is told."""
        skipped = self.status().skipped
        for left_out in (path, *(f"{folder}/" for folder in PurePosixPath(path).parents)):
            if reason := skipped.get(left_out):
                return f"{left_out} is left out: {reason}"
        known = self._scope.holds(path) and path in self.store.files()
        return "it holds no text" if known else "it is not in the index"

    def source(self, path: str) -> tuple[File, Source]:
        """An indexed file, and its text as it is now: UsageError for any other path, and for a file that became a link,
        a credential or anything else that is not read."""
        from embedcode.index.walk import LINK, Found, Skipped, read

        file = self.store.files().get(path)
        if file is None or not self._scope.holds(path):
            raise UsageError(f"{path} is not in the index: give a path as a hit names it.")
        place = self.root / path
        found = Found(path, place, file.size, file.stamp, file.repo, wanted=True)
        linked = os.path.realpath(place) != str(place)
        source = Skipped(path, LINK) if linked else read(found, max_bytes=self.settings.max_file_bytes)
        if isinstance(source, Skipped):
            raise UsageError(f"{path} cannot be shown ({source.reason}): search again, so that the index knows.")
        return file, source

    @property
    def replaced(self) -> bool:
        """Whether another process has deleted what is open here, as `clean` does: close(), and it is opened anew."""
        with explained(self.home):
            return "store" in self.__dict__ and self.store.replaced

    @property
    def exists(self) -> bool:
        """Whether anything was ever indexed here."""
        return holds_index(self.home)

    @property
    def updated(self) -> float:
        """When it was last brought up to date, as Unix time; 0 before."""
        updated = self.home / "updated"
        return updated.stat().st_mtime if updated.exists() else 0.0

    def status(self) -> Status:
        """Of the whole index; but only paths in the folder that was opened, or around it, are named."""
        if not self.exists:
            return Status(self.root, self.home, self._model, self.encoder.space, 0, 0, 0, 0.0, 0, {}, {}, None)
        meta = self.store.meta()
        files = self.store.files().values()

        scope = self._scope

        def told(reasons: dict[str, str]) -> dict[str, str]:
            return {path: reason for path, reason in reasons.items() if scope.touches(path)}

        skipped = told(json.loads(meta.manifest.get("skipped", "{}")))
        more: dict[str, int] = json.loads(meta.manifest.get("skipped_more", "{}"))
        if self.scope:  # a reason may quote an ignore file of elsewhere
            more = {reason: count for reason, count in more.items() if reason in skipped.values()}
        unparsed: dict[str, str] = json.loads(meta.manifest.get("failed", "{}"))
        unembedded = {one.path: one.reason for one in refused(self.store).values()}

        return Status(
            root=self.root,
            home=self.home,
            model=meta.manifest.get("model", ""),
            space=meta.manifest.get("space") or self.encoder.space,
            files=meta.files,
            chunks=meta.chunks,
            embedded=meta.embedded,
            updated=self.updated,
            bytes=size(self.home),
            languages=Counter(file.language for file in files),
            skipped=skipped,
            skipped_more=more,
            running=self._lock("background").holder(),
            foreground=self.foreground(),
            content=Counter(file.content for file in files),
            repos=Counter(file.repo for file in files if scope.holds(file.path)),
            failed=told(unparsed | unembedded),
            trouble=self.trouble() if self.missing else "",
        )

    def start_background(self) -> bool:
        """Start one niced background `index --wait` for this root unless one runs, or the setting `background` forbids
        it; True if one was started."""
        lock = self._lock("background")
        return self.settings.background and locks.start_background(self.root, lock, self._background_log)

    def trouble(self) -> str:
        """What kept the last background process from its work; "" while one runs, and where nothing did."""
        return locks.trouble(self._lock("background"), self._background_log)

    def stop_background(self) -> bool:
        """Stop it; True if one was running. What it finished is kept."""
        return self.exists and locks.stop_background(self._lock("background"))

    def foreground(self) -> Running | None:
        """The process that reads or embeds in no background, such as an `index` in a terminal."""
        if self._lock("background").holder():
            return None
        return self._lock("embed").holder() or self._lock("update").holder()

    def close(self) -> None:
        for part in ("store", "_cache"):
            if part in self.__dict__:
                self.__dict__.pop(part).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def store(self) -> SqliteStore:
        from embedcode.store.sqlite import SqliteStore

        return SqliteStore.open(self.home, self._made[1])

    @cached_property
    def _cache(self) -> VectorCache:
        from embedcode.store.cache import VectorCache

        space, dim = self._made
        return VectorCache(self.settings.vectors / f"{space}.sqlite", dim)

    @property
    def _made(self) -> tuple[str, int]:
        """Space and length of the encoder's vectors; where it cannot be used, of those that the index holds."""
        from embedcode.store.database import dimensions, remembered

        try:
            return self.encoder.space, self.encoder.dim
        except ModelError:
            space = remembered(self.home, "space")
            if not space:
                raise
            return space, dimensions(self.home)

    @property
    def _scope(self) -> Scope:
        return Scope(self.root, self.scope, self.store.files)

    def _lock(self, name: str) -> Lock:
        return Lock(self.home, name)

    @property
    def _background_log(self) -> Path:
        return self.home / "background.log"

    def _embed(self, progress: Progress | None) -> Embedded:
        """Embed all, or watch another process do it and take over where it ends."""
        from embedcode.index.embed import Embedded, embed_all

        lock = self._lock("embed")
        start = time.monotonic()
        before = self.store.meta().embedded
        while not lock.try_acquire(0.2):
            if locks.in_background():  # a person's own process is at it
                return Embedded()
            meta = self.store.meta()
            if progress is not None:
                seconds = time.monotonic() - start
                holder = lock.holder()
                other = holder.pid if holder else 0
                progress(Step("embed", meta.embedded, meta.chunks, meta.embedded, 0, seconds, before, other))
        try:
            self._check_build(0.0 if self.missing else inf)
            done = embed_all(self.store, self.encoder, self._cache, progress)
            remember(self.store, done.refused)
            self._maintain(1)
        finally:
            lock.release()
        return done

    def _maintain(self, commits: int) -> None:
        """Let the store drop what nothing refers to, if there were so many commits since it last did."""
        meta = self.store.meta()
        if meta.generation - int(meta.manifest.get("maintained", "0")) >= commits:
            from embedcode.index.build import note

            note(self.store, {"maintained": str(meta.generation + 1)})  # before: this is a commit too
            self.store.maintain()

    def _check_space(self) -> Mapping[str, str]:
        """The index and the encoder must speak of the same space; returns the manifest."""
        manifest = self.store.meta().manifest
        space = manifest.get("space")
        if space == self._made[0]:
            return manifest
        name = self._model
        if space is None:
            from embedcode.index.build import note

            note(self.store, {"space": self.encoder.space, "model": name, "source": self.settings.model})
        elif name and manifest.get("model") == name:  # as after an upgrade
            raise StoreError(
                f"the index of {self.root} was made with another version of {name}: "
                f"run `embedcode clean {quote(str(self.root))}` and index again."
            )
        else:
            raise StoreError(
                f"the index of {self.root} was made with another model ({manifest.get('model') or space}): "
                f"use that one, or run `embedcode clean {quote(str(self.root))}` and index again."
            )
        return manifest

    @property
    def _model(self) -> str:
        name: str = getattr(getattr(self.encoder, "conditions", None), "name", "")
        return name

    def _check_build(self, trusted: float) -> None:
        manifest = self._check_space()
        golden.check(self.store, self.encoder, self._cache, manifest, self.root, self._model, trusted)


def _checked(query: Query | str) -> str:
    if isinstance(query, str):
        raise UsageError("a search takes a Query: write search(Query(text)).")
    text = query.joined
    if not text.strip():
        raise UsageError("the query is empty: say what the code does, or give code.")
    if len(text) > MAX_QUERY:
        raise UsageError(f"the query has {len(text):,} characters: give at most {MAX_QUERY:,}, the telling part of it.")
    return text
