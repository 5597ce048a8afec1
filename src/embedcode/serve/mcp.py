"""The door for coding assistants: an MCP server on stdin and stdout, with the tools search, related and status.

The one adapter to the `mcp` SDK. Answers are text for a language model: places, why, and code within a budget of
tokens. Only what lies in the given roots can be asked about.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from inspect import cleandoc
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from embedcode import __version__
from embedcode.errors import EmbedcodeError, ModelError, UsageError, extra
from embedcode.files import is_file, is_folder
from embedcode.index.report import Status
from embedcode.printable import printable
from embedcode.serve.halves import mend_stdin
from embedcode.serve.kept import Answer, Kept, Task
from embedcode.types import Content, Filter, Hit, Query, Role, Tokens, Truncate

TOKENS = 2_000
"""Of code in one answer, unless another budget is asked for: ten functions, a hundredth of an assistant's window."""
MOST_TOKENS = 50_000
MOST_HITS = 100

INSTRUCTIONS = (
    "Find code by what it does. `search` takes a question, a name half-remembered, or a whole issue or traceback, and "
    "gives places (path:first-last line) with code. It reads what has changed on the way, so never index first. "
    "Prefer it to listing or grepping when you do not know the exact words."
)


class Roots:
    """The repositories that may be asked about. Each is opened when it is first asked: what is wrong with one, such as
    its settings, costs the others nothing, and is over once it is mended."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(dict.fromkeys(path.resolve() for path in paths))
        self._kept: dict[Path, Kept] = {}
        self._opening = Lock()

    def kept(self, path: Path) -> Kept:
        """Of one of `paths`; UsageError where it cannot be opened."""
        with self._opening:
            if path not in self._kept:
                self._kept[path] = Kept(path)
            return self._kept[path]

    def warm(self, path: Path) -> None:
        with suppress(EmbedcodeError):
            self.kept(path).warm()

    def at(self, root: str) -> Path:
        """The one that was named: its path, or the name of its folder; UsageError where that is none or several."""
        if not root:
            if len(self.paths) == 1:
                return self.paths[0]
            raise UsageError(f"there are several roots: give `root`, one of {self._names()}.")
        named = Path(root)  # without the slash at its end
        found = [path for path in self.paths if named == path or str(named) == path.name]
        if len(found) != 1:
            what = "the name of several" if found else "none of the"
            raise UsageError(f"{root!r} is {what} roots of this server: give one of {self._names()}.")
        return found[0]

    def holding(self, path: str, root: str) -> tuple[Kept, str]:
        """The root that holds a file, and the file's path in the repository."""
        place = Path(path)
        tops = [self.at(root)] if root else self.paths
        found: dict[Path, tuple[Path, Kept]] = {}
        for top in sorted(tops, key=lambda top: len(top.parts)):  # the innermost comes last
            # A name too long for any file; and of several roots one may be unusable.
            with suppress(OSError, *[EmbedcodeError] * (len(tops) > 1)):
                kept = self.kept(top)
                file = Path(os.path.normpath(place if place.is_absolute() else top / place))
                if not file.exists() and not place.is_absolute():
                    file = Path(os.path.normpath(kept.index.root / place))  # as hits name it
                if file.exists() and file.resolve().is_relative_to(top):
                    found[file.resolve()] = file.resolve().relative_to(kept.index.root), kept
        if not path or not found:
            raise UsageError(f"{path[:200]!r} is no file in {self._names()}: give a path as a hit names it.")
        if len(found) > 1:
            raise UsageError(f"several roots have a file {path!r}: give `root`, one of {self._names()}.")
        ((relative, kept),) = found.values()
        return kept, relative.as_posix()

    def _names(self) -> str:
        return ", ".join(map(str, self.paths))


def serve(paths: Sequence[Path]) -> None:
    """Answer on stdin and stdout until stdin ends. UsageError without the extra `mcp`, or for a path that is none."""
    with extra("mcp"):
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
        from pydantic import ValidationError
    roots = Roots(paths)
    for path in roots.paths:
        Thread(target=roots.warm, args=[path], daemon=True).start()

    class Server(MCPServer[Any]):
        """Says in a sentence that can be acted on what is wrong with a call: the SDK passes over an argument that it
        does not know, quotes its validation library on the rest, and puts the same words before all else."""

        async def list_tools(self) -> list[Any]:
            tools = await super().list_tools()
            for tool in tools:  # the assistant pays for each word: a title is the name again, an empty default nothing
                properties = tool.input_schema["properties"]
                for schema in (tool.input_schema, *properties.values()):
                    schema.pop("title", None)
                    if not schema.get("default", True):
                        del schema["default"]
            return tools

        async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
            takes = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}.get(name)
            if takes is not None:
                if unknown := arguments.keys() - takes:
                    said = f"{name} has no argument {', '.join(sorted(unknown))}: give {', '.join(takes)}."
                    raise ToolError(printable(said))
                given = {key: value for key, value in arguments.items() if value is not None}
                arguments = {key: _listed(value, takes[key]) for key, value in given.items()}
            try:
                return await super().call_tool(name, arguments, context)
            except ToolError as error:
                if isinstance(error.__cause__, ValidationError):
                    wrong = error.__cause__.errors()[0]
                    said = f"{'.'.join(map(str, wrong['loc']))} of {name}: {wrong['msg'].lower()}."
                elif isinstance(error.__cause__, EmbedcodeError):
                    said = str(error.__cause__)
                else:
                    raise
                raise ToolError(printable(said)) from None

    # Without these a client has to take a tool for one that deletes things, and asks before each call.
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    server = Server("embedcode", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")

    def search(
        query: str,
        code: str = "",
        paths: Sequence[str] = (),
        languages: Sequence[str] = (),
        repos: Sequence[str] = (),
        content: Sequence[Content] = (),
        since: str = "",
        top_k: int = 10,
        max_tokens: int = TOKENS,
        root: str = "",
    ) -> str:
        """Find code by what it does, by a name half-remembered, or by a whole issue or traceback.

        query: what the code does, in a sentence or in its own words. code: find what is like this code, too.
        paths: globs such as src/**/*.py. languages: such as python. repos: names of repositories that lie inside of
        the one that is searched. since: only files changed since this git revision. top_k: how many hits, at most 100.
        max_tokens: of code in the answer, at most 50000. root: which repository, where the server has several.
        """
        kept = roots.kept(roots.at(root))
        where = Filter(tuple(paths), tuple(languages), tuple(repos), tuple(content))
        answer = kept.search(Query(query, code, where, _between(top_k, "top_k", MOST_HITS)), since)
        return _told(kept, answer, _between(max_tokens, "max_tokens", MOST_TOKENS))

    def related(
        path: str,
        line: int,
        paths: Sequence[str] = (),
        languages: Sequence[str] = (),
        repos: Sequence[str] = (),
        content: Sequence[Content] = (),
        top_k: int = 10,
        max_tokens: int = TOKENS,
        root: str = "",
    ) -> str:
        """Find code like the code at a line of a file, elsewhere in the same repository.

        path: as a hit names it, or absolute. line: from 1. The rest as in search.
        """
        kept, relative = roots.holding(path, root)
        where = Filter(tuple(paths), tuple(languages), tuple(repos), tuple(content))
        answer = kept.related(relative, line, _between(top_k, "top_k", MOST_HITS), where)
        return _told(kept, answer, _between(max_tokens, "max_tokens", MOST_TOKENS))

    def status(root: str = "") -> str:
        """Say which repositories can be searched, and how far their indexes are."""
        return "\n".join(_state(roots, path) for path in ([roots.at(root)] if root else roots.paths))

    for function in (search, related, status):
        about = cleandoc(function.__doc__ or "")
        server.tool(description=about, annotations=looks, structured_output=False)(function)
    mend_stdin()
    # In a thread of its own: an interrupt would wait for stdin there, which may never end.
    answering = Task(lambda: server.run("stdio"))
    answering.start()
    answering.join()
    answering.outcome()


def _listed(value: Any, schema: dict[str, Any]) -> Any:
    """A value in the place of a list of one is taken; a list may come as its JSON, as some clients send it."""
    if schema.get("type") != "array" or not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        if isinstance(parsed := json.loads(value), list):
            return parsed
    return [value] if value else []


def _between(value: int, name: str, most: int) -> int:
    if not 1 <= value <= most:
        raise UsageError(f"{name} {value} is not between 1 and {most}: give one that is.")
    return value


def _state(roots: Roots, path: Path) -> str:
    """One line, whatever is wrong with the root."""
    if not (is_folder(path) or is_file(path)):
        return printable(f"{path}: does not exist any more; check the path")
    try:
        return printable(_described(roots.kept(path).status()))
    except EmbedcodeError as error:
        return printable(f"{path}: {error}")


def _described(found: Status) -> str:
    rest = ""
    if found.running:
        rest = f", process {found.running.pid} is making vectors"
    elif found.trouble:
        rest = f", and the rest is not being made ({found.trouble.rstrip('.')})"
    left_out = len(found.skipped) + sum(found.skipped_more.values())
    languages = ", ".join(f"{name} {count}" for name, count in sorted(found.languages.items(), key=lambda i: -i[1])[:8])
    return (
        f"{found.root}: {found.files} files ({languages or 'none read yet'}), {found.chunks} chunks, "
        f"{found.embedded} of them with vectors{rest}; {left_out} files and folders left out"
    )


def _told(kept: Kept, answer: Answer, budget: int) -> str:
    """The hits as text: places of all, code of the best as far as so many tokens go, then the remarks."""
    texts = [hit.chunk.text for hit in answer.hits]
    lengths = list(map(len, texts))
    with suppress(ModelError):  # without it they are counted as characters
        entries = kept.index.encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END)
        lengths = [
            entry.original if isinstance(entry, Tokens) else length
            for entry, length in zip(entries, lengths, strict=True)
        ]
    parts = []
    for rank, (hit, whole) in enumerate(zip(answer.hits, lengths, strict=True), 1):
        lines = hit.chunk.text.split("\n")
        shown = len(lines) if whole <= budget else len(lines) * budget // whole
        budget = max(0, budget - whole)
        parts.append(f"{rank}. {_place(hit)}{_code(hit.chunk.language, lines, shown)}")
    told = "\n".join([*parts, *(printable(f"Note: {note}.") for note in answer.notes)])
    return told.encode("utf-8", "replace").decode()  # a notebook may spell half a surrogate pair, which has no UTF-8


def _place(hit: Hit) -> str:
    """One line, or a file's name could end it and go on in words that look like ours."""
    chunk = hit.chunk
    symbol = f"  {chunk.symbol}" if chunk.symbol else ""
    return printable(f"{chunk.path}:{chunk.start_line}-{chunk.end_line}{symbol}  [{', '.join(hit.why)}]")


def _code(language: str, lines: Sequence[str], shown: int) -> str:
    """The first lines as a fenced block; "" for none. The fence is longer than any in them, as Markdown wants it: what
    stands in a file is never taken for our words."""
    if not shown:
        return ""
    fence = "`" * max(3, 1 + max(len(run) for run in re.findall("`*", "\n".join(lines[:shown]))))
    rest = [f"… {len(lines) - shown} more lines"] if shown < len(lines) else []
    return "\n".join(["", f"{fence}{language}", *lines[:shown], *rest, fence])
