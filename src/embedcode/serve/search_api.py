"""Search over HTTP: routes that ask one kept repository. JSON in, the JSON of `--json` out, an error as one sentence.

Knows no address, no token and no page: an application decides who may ask (`web.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode.errors import BusyError, EmbedcodeError, UsageError
from embedcode.index.records import answer_record, hit_record, status_record
from embedcode.search.excerpt import telling
from embedcode.search.forms import with_forms
from embedcode.serve.highlight import coloured
from embedcode.serve.kept import Answer, Kept
from embedcode.store.terms import query_terms
from embedcode.types import Content, Filter, Hit, Mode, Query

MOST_BYTES = 5_000_000
"""Of a request's body: a query of a million characters fits, whatever its language."""
MOST_HITS = 1000
COLOURED_BYTES = 1_000_000
"""Of sources that are parsed to colour one answer, which takes 0.2 s: the best hits come first."""
RETRY_SECONDS = 2

Values = dict[str, Any]

# What a request may say, with the values of what it leaves out.
HITS: Values = {"paths": [], "languages": [], "repos": [], "content": [], "top_k": 10, "highlight": False}
SEARCH: Values = {"query": "", "code": "", "since": "", "mode": "hybrid", "update": True, **HITS}
RELATED: Values = {"path": "", "line": 1, **HITS}
FILE: Values = {"path": "", "query": ""}

_log = logging.getLogger("embedcode")


class NotShownError(UsageError):
    """A file that is not in the index, or may no longer be read."""


def routes(kept: Kept) -> list[Route]:
    """POST /v1/search, /v1/search/related and /v1/search/file, GET /v1/search/status."""

    def search(asked: Values) -> Values:
        try:
            mode = Mode(asked["mode"])
        except ValueError:
            raise UsageError(f"mode {asked['mode']!r} is none: give one of {', '.join(Mode)}.") from None
        query = Query(asked["query"], asked["code"], _filter(asked), _count(asked["top_k"], "top_k", MOST_HITS), mode)
        return _record(kept, kept.search(query, asked["since"], asked["update"]), asked)

    def related(asked: Values) -> Values:
        line, count = _count(asked["line"], "line"), _count(asked["top_k"], "top_k", MOST_HITS)
        return _record(kept, kept.related(asked["path"], line, count, _filter(asked)), asked)

    def file(asked: Values) -> Values:
        try:
            known, source = kept.index.source(asked["path"])
        except UsageError as error:
            raise NotShownError(str(error)) from None
        return {
            "path": known.path,
            "language": known.language,
            "changed": source.digest != known.digest,
            "lines": coloured(source.text, known.language, known.path, asked=_terms(asked["query"])),
        }

    def status(_: Values) -> Values:
        step = kept.reading
        return {**status_record(kept.status()), "reading": {"done": step.done, "total": step.total} if step else None}

    return [
        Route("/v1/search", _answering(search, SEARCH), methods=["POST"]),
        Route("/v1/search/related", _answering(related, RELATED), methods=["POST"]),
        Route("/v1/search/file", _answering(file, FILE), methods=["POST"]),
        Route("/v1/search/status", _answering(status, {}), methods=["GET"]),
    ]


def respond(value: Values, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON as UTF-8; half a surrogate pair, which UTF-8 does not have, leaves as JSON escapes it."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(content, status, headers, "application/json")


# ---- requests ----------------------------------------------------------------------------------------------------


def _answering(work: Callable[[Values], Values], fields: Values) -> Callable[[Request], Any]:
    """An endpoint that gives a request's fields to `work`, in a thread."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return respond({"error": f"the request is larger than {MOST_BYTES:,} bytes: send the telling part."}, 413)
        try:
            return respond(await run_in_threadpool(work, _read(body, fields)))
        except BusyError as error:
            return respond({"error": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})
        except NotShownError as error:
            return respond({"error": str(error)}, 404)
        except EmbedcodeError as error:
            return respond({"error": str(error)}, 400 if isinstance(error, UsageError) else 500)
        except Exception as error:
            what = " ".join(f"unexpected {type(error).__name__}: {error}".split())
            _log.error("%s %s: %s", request.method, request.url.path, what, exc_info=_log.isEnabledFor(logging.DEBUG))
            return respond({"error": what}, 500)

    return endpoint


async def _body(request: Request) -> bytes | None:
    """None where it is too large; no more than that is held."""
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _read(body: bytes, fields: Values) -> Values:
    """The fields of a request, of the types of their defaults, with text that can be encoded. UsageError otherwise."""
    if not fields:
        return {}
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error}): send one object.") from None
    if not isinstance(given, dict):
        raise UsageError(f"the request is {type(given).__name__}, not an object: send the fields {', '.join(fields)}.")
    for name, value in given.items():
        if name not in fields:
            raise UsageError(f"unknown field {name!r}: the fields are {', '.join(fields)}.")
        usual = fields[name]
        if type(value) is not type(usual) or (usual == [] and not all(isinstance(part, str) for part in value)):
            wanted = {str: "a text", list: "a list of texts", int: "a whole number", bool: "true or false"}[type(usual)]
            raise UsageError(f"{name} is {json.dumps(value)[:100]}: send {wanted}.")
    return {name: _clean(given.get(name, usual)) for name, usual in fields.items()}


def _clean(value: Any) -> Any:
    """JSON can spell half a surrogate pair; neither git nor a tokenizer takes one."""
    if isinstance(value, list):
        return list(map(_clean, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _filter(asked: Values) -> Filter:
    kinds: Sequence[Content] = get_args(Content)
    for kind in asked["content"]:
        if kind not in kinds:
            raise UsageError(f"content {kind!r} is no kind of file: give one of {', '.join(kinds)}.")
    content = tuple(kind for kind in kinds if kind in asked["content"])
    return Filter(tuple(asked["paths"]), tuple(asked["languages"]), tuple(asked["repos"]), content)


def _count(value: int, name: str, most: int | None = None) -> int:
    if value < 1 or (most is not None and value > most):
        raise UsageError(f"{name} {value} is not {f'between 1 and {most}' if most else '1 or more'}: give one that is.")
    return value


# ---- answers -----------------------------------------------------------------------------------------------------


def _record(kept: Kept, answer: Answer, asked: Values) -> Values:
    if not answer.ready:
        raise BusyError(answer.notes[0])
    record = answer_record(asked.get("query", ""), answer.hits, kept.status(), answer.notes)
    if asked["highlight"]:
        record["hits"] = list(_highlighted(kept, answer.hits, asked.get("query", "")))
    return record


def _highlighted(kept: Kept, hits: Sequence[Hit], query: str) -> Iterator[Values]:
    """Hits with `lines`, which are runs of (text, classes), in place of `snippet`; `excerpt` is the first and the last
    line of those that tell most."""
    terms, left = _terms(query), COLOURED_BYTES
    for hit in hits:
        chunk = hit.chunk
        record = hit_record(hit)
        text = record.pop("snippet").rstrip()
        lines = text.split("\n")
        # Of the whole file, since a part of one may begin in the middle of a string.
        whole = "\n".join(part.text for _, part in kept.index.store.chunks_of(chunk.path))
        first = chunk.start_line - 1
        left -= len(whole)
        if left >= 0 and whole.split("\n")[first : chunk.end_line] == chunk.text.split("\n"):
            record["lines"] = coloured(whole, chunk.language, chunk.path, first, first + len(lines), terms)
        else:
            record["lines"] = coloured(text, "", "", asked=terms)
        shown = telling(lines, terms)
        record["excerpt"] = [chunk.start_line + shown.start, chunk.start_line + shown.stop - 1]
        yield record


def _terms(query: str) -> frozenset[str]:
    """What is marked: the words of a query, and the forms of them that a search finds too."""
    return frozenset(with_forms(query_terms(query)))
