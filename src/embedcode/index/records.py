"""Answers and states as JSON objects: what `--json` prints, and what the HTTP API sends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from embedcode.index.report import Running, Status
from embedcode.types import Hit


def hit_record(hit: Hit) -> dict[str, Any]:
    """One hit; `snippet` is the whole chunk."""
    chunk = hit.chunk
    return {
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "language": chunk.language,
        "score": round(float(hit.score), 6),
        "why": list(hit.why),
        "snippet": chunk.text,
    }


def answer_record(query: str, hits: Iterable[Hit], status: Status, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "query": query,
        "root": str(status.root),
        "hits": [hit_record(hit) for hit in hits],
        "indexed": {
            "files": status.files,
            "chunks": status.chunks,
            "embedded": status.embedded,
            "age_seconds": _age(status),
        },
        "notes": list(notes),
    }


def status_record(status: Status) -> dict[str, Any]:
    return {
        "root": str(status.root),
        "home": str(status.home),
        "model": status.model,
        "space": status.space,
        "files": status.files,
        "chunks": status.chunks,
        "embedded": status.embedded,
        "age_seconds": _age(status),
        "bytes": status.bytes,
        "languages": dict(status.languages),
        "content": dict(status.content),
        "repos": dict(status.repos),
        "skipped": dict(status.skipped),
        "skipped_more": dict(status.skipped_more),
        "failed": dict(status.failed),
        "running": _running(status.running),
        "foreground": _running(status.foreground),
        "trouble": status.trouble,
    }


def _running(process: Running | None) -> dict[str, Any] | None:
    return {"pid": process.pid, "started": process.started} if process else None


def _age(status: Status) -> float | None:
    """Seconds since the last update; None before the first has ended."""
    return round(max(0.0, time.time() - status.updated), 1) if status.updated else None
