"""semble's own chunker, BM25 and ranker, without its model: run in the environment of bench/env/semble.txt.

Reads {"root": ..., "queries": [...], "top_k": n} from stdin, a line each, and answers with the places of every query
and the seconds one took. Without a model the ranker gets the BM25 list alone; all else is semble's.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from semble.chunking import chunk_source
from semble.index import file_walker
from semble.index.bm25 import BM25
from semble.index.files import detect_language, get_extensions, read_file_text
from semble.index.sparse import enrich_for_bm25
from semble.ranking import apply_query_boost, boost_multi_chunk_files, rerank_topk
from semble.search import _rrf_scores, _search_bm25
from semble.tokens import tokenize
from semble.types import Chunk, ContentType

_load_ignore = file_walker._load_ignore_for_dir


def lenient(directory: Path) -> GitIgnoreSpec | None:
    """A bad pattern ends semble's walk, and black's test data has some; git passes over them."""
    try:
        return _load_ignore(directory)
    except GitIgnorePatternError:
        return None


file_walker._load_ignore_for_dir = lenient


def build(root: Path) -> tuple[BM25, list[Chunk]]:
    chunks: list[Chunk] = []
    for file in file_walker.walk_files(root, get_extensions((ContentType.CODE,))):
        chunks += chunk_source(read_file_text(file), str(file.relative_to(root)), detect_language(file))
    index = BM25.empty()
    names = [str(number) for number in range(len(chunks))]
    for name, chunk in zip(names, chunks, strict=True):
        index.add_document(name, tokenize(enrich_for_bm25(chunk)))
    index.set_doc_order(names)
    return index, chunks


def search(index: BM25, chunks: list[Chunk], query: str, top_k: int) -> list[tuple[str, int, int]]:
    found = {result.chunk: result.score for result in _search_bm25(query, index, chunks, 5 * top_k, None)}
    scores = dict(sorted(_rrf_scores(found).items(), key=lambda item: item[0].start_line))
    boost_multi_chunk_files(scores)
    scores = apply_query_boost(scores, query, chunks)
    ranked = rerank_topk(scores, top_k, penalise_paths=True)
    return [(chunk.file_path, chunk.start_line, chunk.end_line) for chunk, _ in ranked]


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        index, chunks = build(Path(request["root"]))
        start = time.perf_counter()
        places = [search(index, chunks, query, request["top_k"]) for query in request["queries"]]
        seconds = (time.perf_counter() - start) / max(1, len(places))
        print(json.dumps({"places": places, "seconds": seconds, "chunks": len(chunks)}), flush=True)


if __name__ == "__main__":
    main()
