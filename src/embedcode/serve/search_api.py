"""Search over HTTP: routes that ask kept repositories. JSON in, the JSON of `--json` out, ProblemError for the rest.

Knows no address, no token and no page: an application decides who may ask (`web.py`, `server.py`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode.engine.encoder import accepted
from embedcode.errors import BusyError, EmbedcodeError, EncodeError, UsageError
from embedcode.index.records import answer_record, hit_record, status_record
from embedcode.search.excerpt import telling
from embedcode.search.forms import with_forms
from embedcode.serve.asked import LARGE_BODY, SHOWN, named, whole
from embedcode.serve.body import GONE, Bodies, Held, Holding
from embedcode.serve.highlight import coloured
from embedcode.serve.indexes import Indexes
from embedcode.serve.kept import ANSWER_SECONDS, Answer, Kept
from embedcode.serve.keys import Key, asker
from embedcode.serve.problem import ProblemError, encodable, overloaded
from embedcode.serve.queue import FullError
from embedcode.store.terms import query_terms
from embedcode.types import Content, Filter, Hit, Mode, Query, Role, Truncate

MOST_BYTES = 5_000_000
"""Of a request's body: a query of a million characters fits, whatever its language."""
MOST_HITS = 1000
COLOURED_BYTES = 1_000_000
"""Of sources that are parsed to colour one answer, which takes 0.2 s: the best hits come first."""
RETRY_SECONDS = 2
AT_WORK = 32
"""Searches at a time, each in a thread of the 40 that there are."""

Values = dict[str, Any]

# What a request may say, with the values of what it leaves out.
HITS: Values = {"index": "", "paths": [], "languages": [], "repos": [], "content": [], "top_k": 10, "highlight": False}
SEARCH: Values = {"query": "", "code": "", "since": "", "mode": "hybrid", "update": True, **HITS}
RELATED: Values = {"path": "", "line": 1, **HITS}
FILE: Values = {"index": "", "path": "", "query": ""}

ASKED = ("query", "code")
"""What of a search becomes vectors, and counts against its key's tokens."""


class NotShownError(UsageError):
    """A file that is not in the index, or may no longer be read."""


def routes(indexes: Indexes, bodies: Bodies) -> list[Route]:
    """POST /v1/search, /v1/search/related and /v1/search/file, GET /v1/search/status and /v1/search/indexes."""
    turns = asyncio.Semaphore(AT_WORK)

    def search(kept: Kept, asked: Values) -> Values:
        if asked["mode"] not in list(Mode):
            raise _wrong("mode", f"mode {asked['mode'][:SHOWN]!r} is none: give one of {', '.join(Mode)}.")
        count = _count(asked["top_k"], "top_k", MOST_HITS)
        query = Query(asked["query"], asked["code"], _filter(asked), count, Mode(asked["mode"]))
        return _record(kept, kept.search(query, asked["since"], asked["update"]), asked)

    def related(kept: Kept, asked: Values) -> Values:
        line, count = _count(asked["line"], "line"), _count(asked["top_k"], "top_k", MOST_HITS)
        return _record(kept, kept.related(asked["path"], line, count, _filter(asked)), asked)

    def file(kept: Kept, asked: Values) -> Values:
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

    def status(kept: Kept, _: Values) -> Values:
        step = kept.reading
        return {**status_record(kept.status()), "reading": {"done": step.done, "total": step.total} if step else None}

    async def names(request: Request) -> Response:
        return _json({"indexes": indexes.names(asker(request))})

    return [
        Route("/v1/search/indexes", names, methods=["GET"]),
        Route("/v1/search", _answering(search, SEARCH, indexes, bodies, turns), methods=["POST"]),
        Route("/v1/search/related", _answering(related, RELATED, indexes, bodies, turns), methods=["POST"]),
        Route("/v1/search/file", _answering(file, FILE, indexes, bodies, turns), methods=["POST"]),
        Route("/v1/search/status", _answering(status, {}, indexes, bodies, turns), methods=["GET"]),
    ]


# ---- requests ----------------------------------------------------------------------------------------------------


def _answering(
    work: Callable[[Kept, Values], Values], fields: Values, indexes: Indexes, bodies: Bodies, turns: asyncio.Semaphore
) -> Held:
    """An endpoint that gives the repository that is asked, and a request's fields, to `work`, in a thread."""

    async def endpoint(request: Request, holding: Holding) -> Response:
        asked = {}
        if fields:
            body = await bodies.read(request, holding, MOST_BYTES)
            large = len(body) > LARGE_BODY
            asked = await run_in_threadpool(_read, body, fields) if large else _read(body, fields)
        key = asker(request)
        kept = indexes.pick(asked.get("index", request.query_params.get("index", "")), key)
        texts = [asked[name] for name in ASKED if asked[name]] if fields is SEARCH else []
        if (note := getattr(request.state, "note", None)) is not None:
            note["texts"] = texts
        async with _turn(turns):
            if await request.is_disconnected():
                return Response(status_code=GONE)
            return await answer(kept, asked, texts, key, holding)

    async def answer(kept: Kept, asked: Values, texts: list[str], key: Key | None, holding: Holding) -> Response:
        spent = 0

        def give_back() -> None:
            if key is not None and spent:
                key.spend(-spent, time.monotonic())

        def worked() -> tuple[Response, bool]:
            record = work(kept, asked)
            return _json(record), record.get("by_words", False)

        try:
            if key is not None and key.tokens_per_minute and texts and asked["mode"] != Mode.LEXICAL:
                cost = await run_in_threadpool(_cost, kept, texts)
                _spend(key, cost)
                spent = cost
            found, by_words = await run_in_threadpool(worked)
            holding(len(found.body))
        except Exception as error:
            give_back()  # there was no answer for it
            if isinstance(error, EmbedcodeError):
                raise _problem(error) from None
            raise
        if by_words:  # which cost nothing
            give_back()
        return found

    return Held(bodies, endpoint)


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """ProblemError where it does not come while an answer would be waited for."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await turns.acquire()
    except TimeoutError:
        raise overloaded(FullError(RETRY_SECONDS, "searches")) from None
    try:
        yield
    finally:
        turns.release()


def _cost(kept: Kept, texts: list[str]) -> int:
    """Tokens of what is asked."""
    return sum(entry.used for entry in accepted(kept.index.encoder.tokenize(texts, Role.QUERY, truncate=Truncate.END)))


def _spend(key: Key, cost: int) -> None:
    """ProblemError where the key has used up its tokens."""
    try:
        key.spend(cost, time.monotonic())
    except FullError as full:
        problem = overloaded(full)
        problem.reason = "search_quota"
        raise problem from None


def _json(value: Values) -> Response:
    """As UTF-8; half a surrogate pair, which UTF-8 does not have, leaves as JSON escapes it."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(content, media_type="application/json")


def _problem(error: EmbedcodeError) -> ProblemError:
    if isinstance(error.__cause__, ProblemError):  # of the server's own engine, which is not there or has no room
        return error.__cause__
    if isinstance(error, BusyError):
        return ProblemError(503, str(error), code="not_ready", retry_after=RETRY_SECONDS)
    if isinstance(error, NotShownError):
        return ProblemError(404, str(error), "path", "not_found")
    if isinstance(error, EncodeError):
        return ProblemError(400, str(error), "query")
    return ProblemError(400 if isinstance(error, UsageError) else 500, str(error))


def _wrong(param: str | None, message: str) -> ProblemError:
    return ProblemError(422, message, param)


def _read(body: bytes, fields: Values) -> Values:
    """The fields of a request, of the types of their defaults, with text that can be encoded. Else ProblemError."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _wrong(None, f"the request is not JSON ({error}): send one object.") from None
    if not isinstance(given, dict):
        said = f"the request is {type(given).__name__}, not an object: send the fields {', '.join(fields)}."
        raise _wrong(None, said)
    for name, value in given.items():
        if name not in fields:
            shown = name[:SHOWN]
            raise _wrong(shown, f"unknown field {shown!r}: the fields are {', '.join(fields)}.")
        usual = fields[name]
        if type(usual) is int:
            given[name] = value = whole(value)
        if type(value) is not type(usual) or (usual == [] and not all(isinstance(part, str) for part in value)):
            wanted = {str: "a text", list: "a list of texts", int: "a whole number", bool: "true or false"}[type(usual)]
            raise _wrong(name, f"{name} is {named(value)}: send {wanted}.")  # not its value, which may be a text
    return {name: _clean(given.get(name, usual)) for name, usual in fields.items()}


def _clean(value: Any) -> Any:
    """JSON can spell half a surrogate pair; neither git nor a tokenizer takes one."""
    if isinstance(value, list):
        return list(map(_clean, value))
    return encodable(value) if isinstance(value, str) else value


def _filter(asked: Values) -> Filter:
    kinds: Sequence[Content] = get_args(Content)
    for kind in asked["content"]:
        if kind not in kinds:
            raise _wrong("content", f"content {kind[:SHOWN]!r} is no kind of file: give one of {', '.join(kinds)}.")
    content = tuple(kind for kind in kinds if kind in asked["content"])
    return Filter(tuple(asked["paths"]), tuple(asked["languages"]), tuple(asked["repos"]), content)


def _count(value: int, name: str, most: int | None = None) -> int:
    if value < 1 or (most is not None and value > most):
        bounds = f"between 1 and {most}" if most else "1 or more"
        raise _wrong(name, f"{name} {value} is not {bounds}: give one that is.")
    return value


# ---- answers -----------------------------------------------------------------------------------------------------


def _record(kept: Kept, answer: Answer, asked: Values) -> Values:
    if not answer.ready:
        raise BusyError(answer.notes[0])
    record = answer_record(asked.get("query", ""), answer.hits, kept.status(), answer.notes)
    record["by_words"] = answer.by_words
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
