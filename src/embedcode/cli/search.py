"""`search` and `related`: find chunks, and say them in two phases where a person is watching."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli import output
from embedcode.cli.opening import Threads, opened
from embedcode.errors import UsageError
from embedcode.types import Filter, Hit, Mode, Query

if TYPE_CHECKING:
    from embedcode.index.index import Index

CANDIDATES = 200
"""Lexical candidates that are embedded at once where vectors are missing."""
EMBED_SECONDS = 2.0
"""For at most so long."""
FEW = 32
"""So many missing vectors are made at once, whether candidates or not: it is a second's work after an edit."""


class Kind(StrEnum):
    """What a file is, as `--content` takes it."""

    CODE = "code"
    DOCS = "docs"
    CONFIG = "config"


TopK = Annotated[int, typer.Option("-k", "--top-k", min=1, max=1000, metavar="N", help="How many hits.")]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="GLOB", help="Only files that match, such as 'src/**/*.py'; repeatable."),
]
Languages = Annotated[
    list[str] | None, typer.Option("--lang", metavar="LANGUAGE", help="Only this language; repeatable.")
]
Repositories = Annotated[
    list[str] | None, typer.Option("--repo", metavar="NAME", help="Only this repository of the index; repeatable.")
]
Kinds = Annotated[list[Kind] | None, typer.Option("--content", help="Only files of this kind; repeatable.")]
Why = Annotated[bool, typer.Option("--why", help="Show each hit's score and the signals behind it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with a list of hits.")]
Yes = Annotated[bool, typer.Option("--yes", help="Index more than 200,000 files.")]


def search(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="What the code does; may be left out with --code.")
    ] = None,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A repository, or a folder in it; the current one if left out.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(metavar="FILE", help="Find what is like this code; - reads it from stdin.")
    ] = None,
    paths: Paths = None,
    languages: Languages = None,
    repositories: Repositories = None,
    content: Kinds = None,
    since: Annotated[
        str | None, typer.Option(metavar="REV", help="Only files changed since this git revision, such as main.")
    ] = None,
    top_k: TopK = 10,
    mode: Annotated[Mode, typer.Option(help="Words and vectors together, or one of them.")] = Mode.HYBRID,
    why: Why = False,
    as_json: Json = False,
    wait: Annotated[bool, typer.Option("--wait", help="First embed everything that has no vector yet.")] = False,
    update: Annotated[
        bool, typer.Option("--update/--no-update", help="Bring the index up to date first.", show_default=True)
    ] = True,
    yes: Yes = False,
    threads: Threads = None,
) -> None:
    """Find code by what it does.

    The index is made or brought up to date on the way. Say what the code does, in a sentence or in its own words; a
    whole issue or traceback is a good query too. With --code a single argument is the PATH; for text and code
    together give both: embedcode search "retries with backoff" . --code example.py

    Exit code 0 with hits, 1 without, 2 for a mistake in the request.
    """
    text, place = (query or "", path or ".") if code is None or path is not None else ("", query or ".")
    example = _code(code) if code is not None else ""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not text.strip() and not example.strip():
        empty = "the query is empty" if code is None else f"the code in {code} is empty"
        raise UsageError(f'{empty}; say what the code does: embedcode search "where are sessions invalidated?"')
    asked = text or f"code of {code}"
    where = _filter(paths, languages, repositories, content)
    hint = (
        f"; for text and code together give the path too: embedcode search {query!r} . --code {code}"
        if code is not None and path is None
        else "; put a query of several words in quotes"
    )
    with opened(place, threads, hint) as index:
        missing = _bring_up_to_date(index, update, wait, yes, words_only=mode is Mode.LEXICAL)
        if since is not None:
            where = replace(where, only=index.since(since))
        wanted = Query(text, example, where, top_k, mode)
        if missing and mode is not Mode.LEXICAL:
            _answer_twice(index, wanted, asked, why, as_json)
        else:
            _put(index, asked, index.search(wanted), why, as_json, where=wanted.where)


def related(
    place: Annotated[str, typer.Argument(metavar="FILE:LINE", help="A line in the code to start from.")],
    paths: Paths = None,
    languages: Languages = None,
    repositories: Repositories = None,
    content: Kinds = None,
    top_k: TopK = 10,
    why: Why = False,
    as_json: Json = False,
    yes: Yes = False,
    threads: Threads = None,
) -> None:
    """Find code like the code at FILE:LINE, anywhere in the same repository.

    Exit code 0 with hits, 1 without, 2 for a mistake in the request.
    """
    name, _, number = place.rpartition(":")
    if not name or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise UsageError(f"{output.printable(place)} is not FILE:LINE; write it like src/app.py:42")
    file = Path(name).absolute()
    where = _filter(paths, languages, repositories, content)
    with opened(name) as index:
        root = index.root
    with opened(str(root), threads) as index:  # at its root, since a search is limited to the folder that was opened
        missing = _bring_up_to_date(index, update=True, wait=False, yes=yes)
        resolved = file.parent.resolve() / file.name
        if not resolved.is_relative_to(root.resolve()):
            raise UsageError(f"{output.printable(name)} leads out of its repository; give the file it leads to")
        relative = resolved.relative_to(root.resolve()).as_posix()
        hits = index.related(relative, int(number), top_k, where)
        _put(index, place, hits, why, as_json, missing, where)


def _code(source: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"--code {output.printable(source)} cannot be read: {error.strerror}") from None
    return raw.decode("utf-8", "replace")


def _filter(
    paths: list[str] | None, languages: list[str] | None, repositories: list[str] | None, content: list[Kind] | None
) -> Filter:
    return Filter(
        paths=tuple(paths or ()),
        languages=tuple(map(_language, languages or ())),
        repos=tuple(repositories or ()),
        content=tuple(kind.value for kind in content or ()),
    )


def _language(name: str) -> str:
    from embedcode.index.languages import NAMES, canonical

    if found := canonical(name):
        return found
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), NAMES, n=1)
    cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(NAMES))}"
    raise UsageError(f"--lang {name!r} is not a language known here; {cure}")


def _bring_up_to_date(index: Index, update: bool, wait: bool, yes: bool, words_only: bool = False) -> bool:
    """Whether chunks without a vector are left."""
    if update or wait:
        from embedcode.cli.progress import ProgressLine

        if not index.exists and output.interactive(False):
            output.note(f"{index.root} is indexed for the first time")
        with ProgressLine() as progress:
            report = index.update(vectors=wait, progress=progress, yes=yes)
        if report.failed:
            output.note(f"{len(report.failed):,} files could not be read or cut; `embedcode index -v` lists them")
    elif not index.status().updated:
        raise UsageError(f"{index.root} has no index yet; leave out --no-update to make it")
    if words_only:
        return False
    if 0 < _missing(index) <= FEW:
        index.embed(EMBED_SECONDS, [pending.id for pending in index.store.pending(FEW)])
    return _missing(index) > 0


def _missing(index: Index) -> int:
    meta = index.store.meta()
    return meta.chunks - meta.embedded


def _answer_twice(index: Index, query: Query, asked: str, why: bool, as_json: bool) -> None:
    """Vectors are missing: answer by words, make the vectors that matter most, answer again."""
    watched = output.interactive(as_json)
    if watched and query.mode is Mode.HYBRID and (first := index.search(replace(query, mode=Mode.LEXICAL))):
        output.put("By words alone, while the best candidates get vectors:")
        output.put_places(first, index.root)
        output.put("")
    index.embed(EMBED_SECONDS, index.lexical(query, CANDIDATES))
    hits = index.search(query)
    if watched and hits:
        output.put("Ranked again with vectors:")
    _put(index, asked, hits, why, as_json, missing=True, where=query.where)


def _put(
    index: Index,
    asked: str,
    hits: list[Hit],
    why: bool,
    as_json: bool,
    missing: bool = False,
    where: Filter = Filter(),  # noqa: B008 (frozen)
) -> None:
    """Print the answer; where vectors are missing, say how many, and for a person start making them."""
    meta = index.store.meta()
    remark = rest = ""
    if missing and meta.embedded < meta.chunks:
        remark = f"{output.share(meta.embedded, meta.chunks)} of the index has vectors"
        rest = f"{remark}; `embedcode index --wait {quote(str(index.root))}` makes the rest"
    if as_json:
        output.put_json(output.answer_record(asked, hits, index.status(), [rest] if rest else []))
    else:
        output.put_hits(hits, index.root, why)
        if not hits:
            output.note(f"no hits; {_cure(index, where)}")
        if rest and output.interactive(as_json):
            index.start_background()
            output.note(f"{remark}; {output.BACKGROUND}")
        elif rest:
            output.note(rest)
    if not hits:
        raise typer.Exit(1)


def _cure(index: Index, where: Filter) -> str:
    """What may help a query without hits: filters that no file passes are the first suspect."""
    from embedcode.store.filter import matches

    files = index.store.files().values()
    if not where or any(matches(where, file) for file in files):
        return "try other words, or fewer filters"
    if where.only is not None and not where.only:
        return "nothing has changed since that revision"
    if where.repos and not any(file.repo in where.repos for file in files):
        return (
            f"there is no repository {' or '.join(where.repos)} here, only {', '.join(sorted({f.repo for f in files}))}"
        )
    if where.languages and not any(matches(Filter(languages=where.languages), file) for file in files):
        return f"no file here is in {' or '.join(where.languages)}"
    return "no file passes the filters together: check the pattern of --path first"
