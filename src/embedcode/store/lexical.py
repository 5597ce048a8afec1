"""Lexical search: BM25 over path, symbol and body terms, in a tantivy index derived from the SQLite file.

The one adapter to tantivy. It splits text with `terms.joined` and gives tantivy ready terms. Knows no query language.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import tantivy
from tantivy import Occur, Query

from embedcode.store.contract import Scored
from embedcode.store.database import Database, Mark, Snapshot
from embedcode.store.derived import Derived, Stamp, UnusableError, checksums, verify
from embedcode.store.faults import full
from embedcode.store.fields import BOOSTS
from embedcode.store.terms import joined, searchable

HEAP_BYTES = 64 << 20
"""What tantivy's one writing thread collects before it writes a segment."""


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for field in BOOSTS:
        builder.add_text_field(field, tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field("chunk", indexed=True, fast=True)
    builder.add_unsigned_field("file", indexed=True, fast=True)
    return builder.build()


_SCHEMA = _schema()


class Terms:
    """An open tantivy index."""

    def __init__(self, index: tantivy.Index) -> None:
        index.config_reader("manual")
        self._searcher = index.searcher()

    def search(self, terms: Mapping[str, float], k: int, files: Collection[int] | None) -> list[Scored]:
        """The k best chunks, limited to file ids: sum of field boost x term weight x BM25 of the term in the field."""
        wanted = [(term, weight) for term, weight in terms.items() if _usable(term, weight)]
        # Flat boosted term queries, nothing nested: only then does tantivy skip blocks that cannot reach the top k.
        query = Query.boolean_query(
            [
                (Occur.Should, Query.boost_query(Query.term_query(_SCHEMA, field, term, "freq"), boost * weight))
                for field, boost in BOOSTS.items()
                for term, weight in wanted
            ]
        )
        if files is not None:
            within = Query.const_score_query(Query.term_set_query(_SCHEMA, "file", list(files)), 0.0)
            query = Query.boolean_query([(Occur.Must, query), (Occur.Must, within)])
        hits = self._searcher.search(query, k, count=False).hits
        chunks = self._searcher.fast_field_values("chunk", [address for _, address in hits])
        found = [Scored(int(chunk), score) for chunk, (score, _) in zip(chunks, hits, strict=True) if chunk is not None]
        return sorted(found, key=lambda scored: (-scored.score, scored.id))


class Lexical(Derived[Terms]):
    """The lexical side of a database."""

    FORMAT = 2
    """To be raised with every change of `terms.split`, of `terms.searchable` or of the schema."""

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder, database)
        self._home = database.folder

    def load(self, folder: Path, stamp: Stamp) -> Terms:
        with self._plainly(folder):
            return Terms(tantivy.Index.open(str(folder)))

    def grow(self, folder: Path, stamp: Stamp, snapshot: Snapshot, since: Mark) -> Stamp:
        gone = snapshot.gone(since)
        added = snapshot.texts(since)
        first = next(added, None)
        if first is None and not gone and stamp.files:
            return stamp
        # Who was killed before the stamp was written may have added the same already, which no reader would see: the
        # lists of segments tell, as they are written with each commit.
        verify(folder, replace(stamp, files={name: sum for name, sum in (stamp.files or {}).items() if _lists(name)}))
        rows = stamp.rows
        with self._plainly(folder):
            index = tantivy.Index(_SCHEMA, path=str(folder))
            writer = index.writer(HEAP_BYTES, 1)
            if gone:
                writer.delete_documents_by_query(Query.term_set_query(_SCHEMA, "chunk", gone))
            for chunk, file, path, symbol, text in chain([first] if first else [], added):
                document = tantivy.Document()
                document.add_unsigned("chunk", chunk)
                document.add_unsigned("file", file)
                document.add_text("path", _path_terms(path))
                document.add_text("symbol", joined(symbol))
                document.add_text("body", joined(searchable(text)))
                writer.add_document(document)
                rows += 1
            writer.commit()
            writer.wait_merging_threads()
        names = sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
        known = stamp.files or {}
        sums = {name: known[name] for name in names if name in known and not _lists(name)}
        sums |= checksums(folder, (name for name in names if name not in sums))
        return replace(stamp, rows=rows, dead=stamp.dead + len(gone), files=sums)

    @contextmanager
    def _plainly(self, folder: Path) -> Iterator[None]:
        """tantivy's errors and panics become UnusableError, or a StoreError where the disk is full."""
        try:
            yield
        except BaseException as error:
            # A panic in Rust arrives as pyo3's PanicException, which is not an Exception and cannot be imported.
            if not isinstance(error, ValueError | RuntimeError) and type(error).__name__ != "PanicException":
                raise
            if any(sign in str(error) for sign in ("os error 28", "os error 27", "StorageFull", "FileTooLarge")):
                raise full(self._home) from error
            raise UnusableError(f"{folder.name}: {error}") from error


def _lists(name: str) -> bool:
    """Whether it is one of tantivy's two lists, which it writes anew; the files of a segment it writes once."""
    return name.endswith(".json")


@lru_cache(maxsize=1024)
def _path_terms(path: str) -> str:
    return joined(path)


def _usable(term: str, weight: float) -> bool:
    return weight > 0 and math.isfinite(weight) and term.isprintable()
