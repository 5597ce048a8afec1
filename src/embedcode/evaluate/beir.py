"""Reads and writes a retrieval task as a folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv.

Knows no model and no metric, and downloads nothing. What is wrong with a file is said with its name and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.evaluate import rows
from embedcode.files import is_file, replacing

CURE = "a task needs corpus.jsonl, queries.jsonl (objects with _id and text, one a line) and qrels.tsv, in UTF-8"


@dataclass(frozen=True, slots=True)
class Task:
    """Documents and queries by id, and judgements {query: {document: relevance}}."""

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    bare: dict[str, str] = field(default_factory=dict)
    """The text alone of each document that has a title: what a copy of it elsewhere looks like."""

    @property
    def own(self) -> set[str]:
        """Queries that are documents themselves, by id and text, as in ArguAna and Quora, and are not judged so: to
        find them is no merit and no mistake."""
        return {
            query
            for query, text in self.queries.items()
            if query in self.corpus
            and query not in self.qrels.get(query, {})
            and text.strip() in (self.corpus[query].strip(), self.bare.get(query, "").strip())
        }

    @property
    def content(self) -> str:
        """12 hex digits that two tasks share only where documents, queries and judgements are the same."""
        found = sha256()
        for part in (self.corpus, self.queries, self.qrels):
            for id, value in sorted(part.items()):
                found.update(json.dumps([id, value], sort_keys=True).encode())
            found.update(b"\n")
        return found.hexdigest()[:12]


def load(folder: Path) -> Task:
    """The task in a folder, named after it; a document's text is its title, if any, a newline and its text.

    qrels.tsv may be in BEIR's place, `qrels/test.tsv`. Raises UsageError naming file and line.
    """
    corpus, bare = {}, {}
    for document, row, where in _rows(folder / "corpus.jsonl"):
        title, text = _text(row, "title", where), _text(row, "text", where)
        corpus[document] = "\n".join(part for part in (title, text) if part)
        if title:
            bare[document] = text
    queries = {query: _text(row, "text", where) for query, row, where in _rows(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, int]] = {}
    file = folder / "qrels.tsv"
    for query, document, relevance, where in _judgements(file if is_file(file) else folder / "qrels" / "test.tsv"):
        for id, known, name in ((query, queries, "queries.jsonl"), (document, corpus, "corpus.jsonl")):
            if id not in known:
                raise UsageError(f"{where} judges {id!r}, which {name} does not have; add it or drop the line.")
        qrels.setdefault(query, {})[document] = relevance
    return Task(folder.resolve().name, corpus, queries, qrels, bare)


def write(task: Task, folder: Path) -> None:
    """A folder that load() reads. UsageError where the disk does not take it."""
    texts = (("corpus", task.corpus), ("queries", task.queries))
    files = {
        f"{name}.jsonl": "".join(f"{json.dumps({'_id': id, 'text': text})}\n" for id, text in rows.items())
        for name, rows in texts
    }
    judged = (f"{query}\t{id}\t{score}\n" for query, row in task.qrels.items() for id, score in row.items())
    files["qrels.tsv"] = "query-id\tcorpus-id\tscore\n" + "".join(judged)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with replacing(folder / name) as out:
                out.write(content.encode("utf-8", "surrogatepass"))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({(error.strerror or str(error)).lower()}).") from None


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(id, object, "file, line n") of each line that is not blank."""
    seen: set[str] = set()
    for row, where in rows.rows(file, CURE):
        id = _text(row, "_id", where)
        if not id or id in seen:
            raise UsageError(f"{where} has {'the _id ' + repr(id) + ' again' if id else 'no _id'}; make ids distinct.")
        seen.add(id)
        yield id, row, where


def _text(row: dict[str, Any], field: str, where: str) -> str:
    value = row.get(field, "" if field != "text" else None)
    if not isinstance(value, str):
        raise UsageError(f"{where} has {value!r} for {field!r}; it must be a string.")
    return value


def _judgements(file: Path) -> Iterator[tuple[str, str, int, str]]:
    """(query, document, relevance, "file, line n") of each line after the header, which may be absent."""
    for i, (line, where) in enumerate(rows.lines(file, CURE)):
        fields = line.split("\t")
        if i == 0 and fields[-1] == "score":
            continue
        try:
            query, document, relevance = fields
            yield query, document, int(relevance), where
        except ValueError as error:
            raise UsageError(f"{where} is not 'query-id TAB corpus-id TAB whole number'; correct it.") from error
