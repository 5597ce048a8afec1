"""`search` and `related`: find chunks, and say them in two phases where a person is watching."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from embedcode.cli import output
from embedcode.cli.opening import opened
from embedcode.cli.options import Threads
from embedcode.cli.watch import keep_answering, keep_fresh, until_stopped
from embedcode.errors import BusyError, ModelError, StoreError, UsageError
from embedcode.files import is_folder
from embedcode.types import Content, Filter, Hit, Mode, Query

if TYPE_CHECKING:
    from embedcode.index.index import Index
    from embedcode.index.report import Report

PATIENCE = 1.0
"""Seconds to wait for another process that reads the same checkout, before the answer is one from before."""

SERVER_SECONDS = 5.0
"""How long a model's server is waited for where words can answer too: one that hangs takes two minutes, one that is
overloaded, or whose proxy is alone, one."""

KINDS: tuple[Content, ...] = get_args(Content)

TopK = Annotated[int, typer.Option("-k", "--top-k", min=1, max=1000, metavar="N", help="How many hits.")]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="GLOB", help="Only files that match, such as 'src/**/*.py'; repeatable."),
]
Languages = Annotated[
    list[str] | None,
    typer.Option("--lang", metavar="LANGUAGE", help="Only this language; repeatable, or several with commas."),
]
Repositories = Annotated[
    list[str] | None, typer.Option("--repo", metavar="NAME", help="Only this repository of the index; repeatable.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--content", metavar=f"<{'|'.join(KINDS)}>", help="Only files of this kind; repeatable."),
]
Why = Annotated[bool, typer.Option("--why", help="Show each hit's score and the signals behind it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with a list of hits.")]
Yes = Annotated[bool, typer.Option("--yes", help="Index more than 200,000 files.")]


@dataclass(frozen=True, slots=True)
class _Form:
    """How the answers to a question are printed."""

    asked: str
    """What stands for the question in --json."""
    words: str
    """What the lines that are shown of a hit are to tell of; "" for its first lines."""
    why: bool
    as_json: bool
    watch: bool = False


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
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Stay and keep the index fresh; show the hits again when a change alters them. "
            "With a PATH alone, say what each update did.",
        ),
    ] = False,
    yes: Yes = False,
    threads: Threads = None,
) -> None:
    """Find code by what it does.

    The index is made or brought up to date on the way. Say what the code does, in a sentence or in its own words; a
    whole issue or traceback is a good query too. With --code a single argument is the PATH; for text and code
    together give both: embedcode search "retries with backoff" . --code example.py

    Exit code 0 with hits, 1 without, 2 for a mistake in the request; with --watch, 0 when it is stopped.
    """
    for flag, wanted in (("--wait", wait), ("--watch", watch)):
        if wanted and not update:
            raise UsageError(f"{flag} and --no-update exclude each other; give one of them")
    where = _filter(paths, languages, repositories, content)
    alone = code is None and path is None
    if watch and alone and (query is None or is_folder(query)):
        if since is not None or why or Query(where=where, top_k=top_k, mode=mode) != Query():
            raise UsageError("--watch without a query shows no hits, so leave out what is about them, or give a query")
        with until_stopped(), opened(query or ".", threads) as index:
            keep_fresh(index, yes, as_json)
        return
    text, given = (query or "", path) if code is None or path is not None else ("", query)
    place = "." if given is None else given
    example = _code(code) if code is not None else ""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not text.strip() and not example.strip():
        empty = "the query is empty" if code is None else f"the code in {code} is empty"
        raise UsageError(f'{empty}; say what the code does: embedcode search "where are sessions invalidated?"')
    hint = (
        f"; for text and code together give the path too: embedcode search {query!r} . --code {code}"
        if code is not None and path is None
        else "; put a query of several words in quotes"
    )
    if alone and ("/" in text or text in (".", "..")) and is_folder(text):
        raise UsageError(f'{text} is a folder; give the query first: embedcode search "what the code does" {text}')
    if watch and alone and "/" in text:
        output.note(f"{text} is no folder, so it is taken for the query")
    form = _Form(text or f"code of {code}", text or example, why, as_json, watch)
    hint = hint if given is not None else ""
    with until_stopped() if watch else nullcontext(), opened(place, threads, hint) as index:
        where = _from_here(where, index.root)

        def now() -> Query:
            only = None if since is None else index.since(since, "--since")
            return Query(text, example, replace(where, only=only), top_k, mode)

        remarks = _bring_up_to_date(index, update, wait, yes)
        _check_scope(index)
        hits = _answer(index, now(), form, remarks)
        if watch:
            keep_answering(index, yes, as_json, hits, now, lambda *answer: _put(index, form, *answer))
        elif not hits:
            raise typer.Exit(1)


def related(
    place: Annotated[
        str,
        typer.Argument(
            metavar="FILE:LINE",
            help="A line in the code to start from. Of lines such as 69-86, as hits give them, it is the first.",
        ),
    ],
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
    from embedcode.store.filter import also_from

    name, line = _file_and_line(place)
    where = _filter(paths, languages, repositories, content)
    with opened(name, threads) as index:
        where = _from_here(where, index.root)
        file = Path(name).absolute()
        index.scope = ""  # or only the file itself would be searched
        remarks = _bring_up_to_date(index, update=True, wait=False, yes=yes)
        with _in_time(index, Mode.HYBRID):
            index.embed_few(told=remarks.append)
        resolved = file.parent.resolve() / file.name
        if not resolved.is_relative_to(index.root):
            raise UsageError(f"{name} leads out of its repository; give the file it leads to")
        relative = resolved.relative_to(index.root).as_posix()
        folder = ""
        with suppress(OSError):  # the current folder is gone
            here = Path.cwd()
            if here != index.root and here.is_relative_to(index.root):
                folder = here.relative_to(index.root).as_posix()
        with _in_time(index, Mode.HYBRID):
            hits = index.related(relative, line, top_k, where, folder, remarks.append)
        _put(index, _Form(place, "", why, as_json), Query(where=also_from(folder, where)), hits, remarks)
        if not hits:
            raise typer.Exit(1)


def _file_and_line(place: str) -> tuple[str, int]:
    """Of FILE:LINE, or of FILE:FIRST-LAST, the way hits are printed: its first line."""
    found = re.fullmatch(r"(.+):([0-9]{1,9})(?:-([0-9]{1,9}))?", place, re.DOTALL)
    if found is None or int(found[2]) < 1 or int(found[3] or found[2]) < int(found[2]):
        raise UsageError(f"{place} is not FILE:LINE; write it like src/app.py:42 or src/app.py:42-60")
    return found[1], int(found[2])


def _code(source: str) -> str:
    from embedcode.index.index import MAX_QUERY

    most = 4 * MAX_QUERY  # bytes of so many characters: of what is longer, or has no end, the rest is not even read
    try:
        with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"--code {source} cannot be read: {error.strerror}") from None
    if len(raw) > most:
        raise UsageError(f"--code {source} has more than {most:,} bytes: give the telling part of it")
    return raw.decode("utf-8", "replace")


def _filter(
    paths: list[str] | None, languages: list[str] | None, repositories: list[str] | None, content: list[str] | None
) -> Filter:
    if "" in (paths or ()):
        raise UsageError("--path is empty, as from a variable that is not set: give a glob, or leave it out")
    for kind in content or ():
        if kind not in KINDS:
            raise UsageError(f"--content {kind!r} is no kind of file; give one of {', '.join(KINDS)}")
    return Filter(
        paths=tuple(paths or ()),
        languages=tuple(_language(name) for given in languages or () for name in given.split(",")),
        repos=tuple(repositories or ()),
        content=tuple(kind for kind in KINDS if kind in (content or ())),
    )


def _from_here(where: Filter, root: Path) -> Filter:
    """The filter with the globs that lead into the repository from the current folder, as hits are printed there, read
    from there too. What a folder of the repository means by others is the index's to know."""
    try:
        here = Path.cwd()
    except OSError:  # it is gone
        return where
    inside = here.is_relative_to(root)
    led = [os.path.normpath(here / glob) for glob in where.paths if glob.startswith("..") or not inside]
    return replace(where, paths=(*where.paths, *(path for path in led if path.startswith(f"{root}/"))))


def _language(name: str) -> str:
    from embedcode.index.languages import named

    try:
        return named(name)
    except UsageError as error:
        raise UsageError(f"--lang {error}") from None


def _bring_up_to_date(index: Index, update: bool, wait: bool, yes: bool) -> list[str]:
    """Remarks on the answer: what keeps it from being a whole one of now."""
    if not (update or wait):
        if not index.status().updated:
            raise UsageError(f"{index.root} has no index yet; leave out --no-update to make it")
        return []
    from embedcode.cli.progress import ProgressLine

    def updated(**patience: float) -> Report:
        with ProgressLine() as progress:
            return index.update(vectors=wait, progress=progress, yes=yes, **patience)

    if not index.exists and output.interactive(False):
        output.note(f"{index.root} is indexed for the first time")
    try:
        report = updated(patience=PATIENCE)
    except StoreError as error:  # another process, or a full disk, takes no finished index away
        busy = isinstance(error, BusyError)
        why = str(error).rpartition(":")[0] if busy else str(error).rstrip(".")  # without advice to wait
        if index.status().updated and not wait:
            return [f"{why}; this answer is from before"]
        if not busy:
            raise
        output.note(f"{why}: waiting for it")
        report = updated()
    failed = len(report.failed)
    return [f"{failed:,} files failed, the rest is whole; `embedcode status -v` lists them"] if failed else []


def _check_scope(index: Index) -> None:
    """UsageError where the folder that is to be searched was left out: other words would find nothing either."""
    if index.covers_scope:
        return
    from embedcode.index.walk import explain_nothing

    scope = f"{index.scope}/"
    left_out = {}
    for path, reason in index.status().skipped.items():
        skipped = f"{path.rstrip('/')}/"
        if scope.startswith(skipped) or skipped.startswith(scope):  # around the folder, the folder itself, or in it
            left_out[path] = reason
    if left_out:
        raise UsageError(f"{index.root / index.scope}: {explain_nothing(left_out)}")


def _answer(index: Index, query: Query, form: _Form, remarks: list[str]) -> list[Hit]:
    """Search and print. Where vectors are missing: by words, and again when those that matter most have been made."""
    heading = ""
    with _in_time(index, query.mode):
        lacking = query.mode is not Mode.LEXICAL and index.embed_few(told=remarks.append)
    if lacking:
        if output.interactive(form.as_json):
            heading = "Ranked again with vectors:"
            if query.mode is Mode.HYBRID and (first := index.search(replace(query, mode=Mode.LEXICAL))):
                output.put("By words alone, while the best candidates get vectors:")
                output.put_places(first, index.root)
                output.put("")
        with _in_time(index, query.mode):
            index.embed_best(query, told=remarks.append)
    with _in_time(index, query.mode):
        hits = index.search(query, remarks.append)
    if heading and hits:
        output.put(heading)
    _put(index, form, query, hits, remarks)
    return hits


@contextmanager
def _in_time(index: Index, mode: Mode) -> Iterator[None]:
    """Inside, a server is waited for SERVER_SECONDS, unless there is no answer without its vector."""
    interrupt = None
    if mode is Mode.HYBRID:
        with suppress(ModelError):  # there is no model, as the answer will say
            interrupt = getattr(index.encoder, "interrupt", None)
    if interrupt is None:
        yield
        return
    over = Event()

    def watch() -> None:
        over.wait(SERVER_SECONDS)
        while not over.wait(0.1):  # it may be asked again, and again
            interrupt()

    Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _put(index: Index, form: _Form, query: Query, hits: list[Hit], remarks: Sequence[str]) -> None:
    """Print the answer; where vectors are missing, say how many, and for a person start making them."""
    meta = index.store.meta()
    if not form.as_json:
        output.put_hits(hits, index.root, form.why, form.words)
    notes = [*dict.fromkeys(remarks)]  # what keeps one vector from being made may keep others
    if not hits:
        notes.append(index.no_hits(query.where, bool(query.text or query.code)))
    if query.mode is not Mode.LEXICAL and index.missing:
        rest, started = f"`embedcode index --wait {quote(str(index.root))}` makes the rest", False
        with suppress(StoreError):  # the answer is there, and what is wrong with the disk was said
            started = output.interactive(form.as_json) and not form.watch and index.start_background()
        if form.watch:
            rest = "the rest is being made"
        elif started or index.status().running:
            rest = output.BACKGROUND
        if query.joined.strip() and query.mode is Mode.HYBRID:
            held, best = index.candidates(query)
            if held < best:
                notes.append(f"{held} of the {best} best candidates by words have vectors: the order may still change")
        notes.append(f"{output.share(meta.embedded, meta.chunks)} of the index has vectors; {rest}")
    if form.as_json:
        from embedcode.index.records import answer_record

        output.put_json(answer_record(form.asked, hits, index.status(), notes))
    else:
        for note in notes:
            output.note(note)
