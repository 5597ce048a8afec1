"""Systems by name: bm25, lexical, hybrid, a model, a server. Each ranks the documents of a task for its queries.

    bm25, bm25:stem, bm25:stop, bm25:stem,stop    the baseline (bm25.py), with stemming, without stop words
    lexical, lexical:plain                        the product's search by words, with its ranking rules or without
    hybrid, hybrid:MODEL                          the product's search by words and vectors, ranked
    MODEL, dense:MODEL                            a model's vectors alone, compared exactly

MODEL is what `embedcode --model` takes: a folder, a name on the hub, or the address of a server; `packaged` is the
package's, and without one it is that of the settings. Knows no metric.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedcode.errors import UsageError
from embedcode.evaluate import dense
from embedcode.evaluate.beir import Task
from embedcode.evaluate.bm25 import BM25, K1, B
from embedcode.evaluate.vectors import UNCOUNTED, Moment, Progress, Vectors, embed
from embedcode.files import is_folder
from embedcode.model.spec import DEFAULT
from embedcode.types import Chunk, Encoder, File, Role, digest

if TYPE_CHECKING:
    from embedcode.settings import Settings
    from embedcode.store.sqlite import SqliteStore

PACKAGED = "packaged"
"""What results call the model that comes with the package."""
SWITCHES = {"bm25": ("stem", "stop"), "lexical": ("plain",)}
ADDED = 2000
"""Documents of one transaction."""
_NAMELESS = str.maketrans("0123456789", "!$%&'()*+,")


_COMPARED = {"float": "fp32", "int8": "int8 of both sides", "binary": "bits of both sides"}


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answers of a system: {query: {document: score}}, seconds of each stage, and queries without an answer."""

    run: dict[str, dict[str, float]]
    seconds: dict[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)
    """By query: why it has none."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """Vectors that were there from an earlier run, of documents and of queries: their seconds are not in `seconds`."""
    cut: Mapping[str, int | str] = field(default_factory=dict)
    """Documents and queries that a model read the beginning of only."""


class System(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def conditions(self) -> Mapping[str, Any]:
        """All that its answers depend on beside the task."""
        ...

    def rank(self, task: Task, k: int, progress: Progress) -> Ranked:
        """The k best documents of every query of the task."""
        ...


@dataclass(frozen=True, slots=True)
class Name:
    """A system's name, taken apart."""

    kind: str
    """bm25, lexical, hybrid or dense."""
    label: str
    """What results call the system."""
    switches: Sequence[str] = ()
    """Of bm25 or lexical."""
    model: str = ""
    """What results call the model."""
    place: str = ""
    """What the model is loaded from."""


def parsed(name: str, model: str, switches: Mapping[str, Sequence[str]], instruction: str | None) -> Name:
    """`model` is that of the settings, which stands where a name has none; `packaged` is the package's whatever it is.

    UsageError for a switch that is not among those of its kind, or an instruction for what takes none.
    """
    kind, _, detail = name.partition(":")
    if kind in switches:
        if instruction is not None:
            raise UsageError(f"{kind} takes no instruction: leave it out")
        given = {switch for switch in detail.split(",") if switch}
        if not given <= set(switches[kind]):
            known = ", ".join(switches[kind]) or "none"
            raise UsageError(f"{name} has a switch that {kind} does not know: it knows {known}")
        found = [switch for switch in switches[kind] if switch in given]
        return Name(kind, f"{kind}:{','.join(found)}" if found else kind, found)
    if kind not in ("hybrid", "dense"):
        kind, detail = "dense", name
    place = shown = detail or model or PACKAGED
    if place == PACKAGED:
        place = str(DEFAULT)
    elif is_folder(place) and (last := Path(place).resolve().name) != PACKAGED:
        shown = last
    label = shown if kind == "dense" else kind if shown == PACKAGED else f"{kind}:{shown}"
    return Name(kind, label, model=shown, place=place)


def named(
    name: str,
    chosen: Settings,
    instruction: str | None = None,
    default: str = "",
    load: Callable[[str], Encoder] | None = None,
    dimensions: int | None = None,
    kind: str = "float",
) -> System:
    """The system of a name; `instruction` is for a model that takes one, and `default` for one that also has none of
    its own. `load` gives the model of a place, where several systems share it. Vectors are compared cut to `dimensions`
    and packed as `kind`. UsageError as of `parsed`, and for a cut that the model does not declare.
    """
    asked = parsed(name, chosen.model, SWITCHES, instruction)
    if kind not in dense.KINDS:
        raise UsageError(f"--type {kind} is none of {', '.join(dense.KINDS)}")
    if asked.kind != "dense" and (dimensions is not None or kind != "float"):
        raise UsageError(f"--dimensions and --type are of a model alone, and {asked.label} is none: leave them out")
    if asked.kind == "bm25":
        return Words(asked)
    if asked.kind == "lexical":
        return Product(asked.label, rules=not asked.switches)
    from embedcode.engine import configured

    encoder = asked_now(load(asked.place) if load else configured(chosen, asked.place))
    known = getattr(encoder, "conditions", None)
    if instruction is None and known and "{instruction}" in known.prompts.get(Role.QUERY, "") and not known.instruction:
        instruction = default or None
    check(encoder, instruction)
    if dimensions is not None:  # refused before hours of documents
        encoder.encode(["query"], Role.QUERY, instruction, dimensions=dimensions)
    if asked.kind == "hybrid":
        return Product(asked.label, True, _Model(asked.model, encoder, chosen.home, instruction))
    return Dense(asked.model, encoder, chosen.home, instruction, dimensions, kind)


def asked_now(encoder: Encoder) -> Encoder:
    """The encoder; where it is a server, that was asked what it serves, or vectors kept of an earlier model would be
    taken for those of a new one behind the same address."""
    from embedcode.engine.remote import RemoteEncoder

    if isinstance(encoder, RemoteEncoder):
        encoder.ask()
    return encoder


def check(encoder: Encoder, instruction: str | None) -> None:
    """EmbedcodeError for an instruction that queries do not take: before hours of documents, and not after them."""
    from embedcode.engine.encoder import accepted
    from embedcode.engine.remote import RemoteEncoder

    tokens = accepted(encoder.tokenize(["query"], Role.QUERY, instruction))
    if isinstance(encoder, RemoteEncoder):
        encoder.ask(tokens)


def conditions_of(model: str, encoder: Encoder, instruction: str | None) -> dict[str, Any]:
    """All of a model, by the name that results give it, that a figure depends on."""
    from embedcode.engine.served import NOT_TOLD

    seen = getattr(encoder, "seen", "")  # first: a server is asked what it serves now
    known = getattr(encoder, "conditions", None)
    prompts = {str(role): prompt for role, prompt in known.prompts.items()} if known else {}
    takes = any("{instruction}" in prompt for prompt in prompts.values())
    default = known.instruction if known and takes else None
    return {
        "model": model,
        **({"served": known.name} if known and encoder.build.startswith("remote ") else {}),
        "space": encoder.space,
        **({"weights": seen} if seen else {}),
        "precision": encoder.build,
        "dimensions": encoder.dim,
        "max_tokens": "not told" if encoder.max_tokens >= NOT_TOLD else encoder.max_tokens,
        "prompts": prompts,
        "instruction": default if instruction is None else instruction,
    }


class Words:
    """BM25 over whole documents."""

    def __init__(self, asked: Name) -> None:
        self.name = asked.label
        self._stem, self._stop = "stem" in asked.switches, "stop" in asked.switches

    @property
    def conditions(self) -> Mapping[str, Any]:
        return {"k1": K1, "b": B, "identifiers": "split", "stem": self._stem, "stop words": not self._stop}

    def rank(self, task: Task, k: int, progress: Progress) -> Ranked:
        begun = time.perf_counter()
        index = BM25(list(task.corpus.values()), list(task.corpus), stem=self._stem, stopwords=self._stop)
        built = time.perf_counter()
        run = {}
        for query, text in _watched(task.queries, "asking", progress):
            run[query] = dict(index.search(text, k))
        return Ranked(run, {"documents": built - begun, "search": time.perf_counter() - built})


@dataclass(frozen=True, slots=True)
class _Model:
    """An encoder, and where its vectors are kept."""

    name: str
    encoder: Encoder
    home: Path
    instruction: str | None

    @property
    def conditions(self) -> dict[str, Any]:
        return conditions_of(self.name, self.encoder, self.instruction)

    def embedded(self, task: Task, progress: Progress) -> tuple[Vectors, Vectors, dict[str, float]]:
        """Vectors of documents and queries, with seconds."""
        begun = time.perf_counter()
        documents = embed(self.encoder, task.corpus, Role.PASSAGE, self.home, what="document", progress=progress)
        between = time.perf_counter()
        queries = embed(
            self.encoder, task.queries, Role.QUERY, self.home,
            what="query", instruction=self.instruction, optional=True, progress=progress,
        )  # fmt: skip
        seconds = {"documents": between - begun, "queries": time.perf_counter() - between}
        return documents, queries, seconds


def _told(documents: Vectors, queries: Vectors) -> dict[str, dict[str, Any]]:
    """What a Ranked has of vectors."""
    both = {"documents": documents, "queries": queries}
    return {
        "failed": dict(queries.failed),
        "kept": {name: one.kept for name, one in both.items()},
        "cut": {name: UNCOUNTED if one.cut is None else one.cut for name, one in both.items()},
    }


class Dense:
    """A model alone: every query's vector with every document's."""

    def __init__(
        self, name: str, encoder: Encoder, home: Path, instruction: str | None = None, dimensions: int | None = None,
        kind: str = "float",
    ) -> None:  # fmt: skip
        self.name = name
        self._model = _Model(name, encoder, home, instruction)
        self._dimensions, self._kind = dimensions, kind

    @property
    def conditions(self) -> Mapping[str, Any]:
        cut = {} if self._dimensions is None else {"dimensions": self._dimensions}
        return self._model.conditions | cut | {"comparison": f"exact, {_COMPARED[self._kind]}"}

    def rank(self, task: Task, k: int, progress: Progress) -> Ranked:
        documents, queries, seconds = self._model.embedded(task, progress)
        begun = time.perf_counter()
        asked, known = (dense.Packed(one, self._dimensions, self._kind) for one in (queries, documents))
        places, scores = dense.search(asked, known, k, progress)
        run = {
            query: {documents.ids[place]: float(score) for place, score in zip(*row, strict=True)}
            for query, *row in zip(queries.ids, places, scores, strict=True)
        }
        return Ranked(run, seconds | {"search": time.perf_counter() - begun}, **_told(documents, queries))


class Product:
    """embedcode's own search over a store that holds each document as a file of one chunk, without path and symbol."""

    def __init__(self, name: str, rules: bool, model: _Model | None = None) -> None:
        self.name = name
        self._rules = rules
        self._model = model

    @property
    def conditions(self) -> Mapping[str, Any]:
        own = {"rules": self._rules, "documents": "whole, without path and symbol"}
        return own | self._model.conditions | {"comparison": "exact, int8"} if self._model else own

    def rank(self, task: Task, k: int, progress: Progress) -> Ranked:
        from embedcode.search.rank import ALL
        from embedcode.search.search import Signals, search
        from embedcode.store.sqlite import SqliteStore

        seconds: dict[str, float] = {}
        documents, queries = None, None
        if self._model:
            documents, queries, seconds = self._model.embedded(task, progress)
        begun = time.perf_counter()
        with ExitStack() as open:
            folder = open.enter_context(tempfile.TemporaryDirectory(prefix="embedcode-"))
            store = open.enter_context(SqliteStore.open(Path(folder), self._model.encoder.dim if self._model else 1))
            _fill(store, task, documents, progress)
            seconds["index"] = time.perf_counter() - begun
            begun = time.perf_counter()
            names = list(task.corpus)
            places = {query: at for at, query in enumerate(queries.ids)} if queries is not None else {}
            run = {}
            for query, text in _watched(task.queries, "asking", progress):
                if queries is not None and query not in places:
                    continue
                vector = None if queries is None else queries.block(places[query], places[query] + 1)[0]
                hits = search(store, Signals(text, vector, text), k, rules=ALL if self._rules else frozenset())
                run[query] = {names[_number(hit.chunk.path)]: hit.score for hit in hits}
            seconds["search"] = time.perf_counter() - begun
        if documents is None or queries is None:
            return Ranked(run, seconds)
        return Ranked(run, seconds, **_told(documents, queries))


def _fill(store: SqliteStore, task: Task, documents: Vectors | None, progress: Progress) -> None:
    """One file a document. Its path is its number in signs that are no words, so that no query meets it by words."""
    rows = list(enumerate(task.corpus.values()))
    for start in range(0, len(rows), ADDED):
        part = rows[start : start + ADDED]
        keys = [digest(text) for _, text in part]
        with store.begin() as transaction:
            for (number, text), key in zip(part, keys, strict=True):
                path = str(number).translate(_NAMELESS)
                file = File(path, "", "text", "code", len(text), 0, key)
                transaction.upsert(file, [Chunk("", path, 1, 1 + text.count("\n"), "text", "", text)], [key])
            if documents is not None:
                transaction.put_vectors(keys, documents.block(start, start + len(part)))
            transaction.commit()
        progress(Moment("indexing documents", start + len(part), len(rows), None))
    store.refresh()


def _number(path: str) -> int:
    return int(path.translate({to: chr(sign) for sign, to in _NAMELESS.items()}))


def _watched(queries: Mapping[str, str], what: str, progress: Progress) -> Any:
    begun = time.monotonic()
    for done, item in enumerate(queries.items(), 1):
        yield item
        if done % 50 == 0 or done == len(queries):
            left = (time.monotonic() - begun) / done * (len(queries) - done)
            progress(Moment(f"{what} queries", done, len(queries), left))
