"""Summaries of issues: read from a file, or written into it by a chat endpoint of OpenAI's kind.

The file is JSON lines of `instance_id`, `summary` and the `model` that wrote it, if one did. A line is appended as each
answer comes, so what was paid for is kept whatever happens, and a later run asks for the rest. Knows no ranking.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from embedcode.engine.address import Address
from embedcode.engine.chat import Chat
from embedcode.engine.endpoint import Call
from embedcode.engine.remote import key
from embedcode.errors import EmbedcodeError, ModelError, UsageError
from embedcode.evaluate.instances import Instance
from embedcode.files import is_file

PROMPT = (
    "Below is a report of a problem in the repository {repo}. Write a summary of it for someone who has to find the "
    "source files that must be edited to solve it: what goes wrong and under which conditions, and the modules, "
    "classes, functions, options and messages that it names. Do not propose a solution. Write plain text of at most "
    "200 words.\n\n{issue}"
)
"""Ours: the published summaries' prompt is not known."""
MOST_CHARACTERS = 60_000
"""Of an issue: some hold whole logs."""
MOST_TOKENS = 4_096
"""Of an answer: models that think aloud first need more than 200 words take."""
IN_FLIGHT = 4

_THOUGHT = "</think>"


@dataclass(frozen=True, slots=True)
class Summary:
    text: str
    model: str = ""
    """That wrote it, where its line says so."""


def read(path: Path) -> dict[str, Summary]:
    """Summaries by instance_id; UsageError names the line that is wrong. A last line that was cut off is no summary."""
    found: dict[str, Summary] = {}
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check the path.") from None
    lines = raw.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        try:
            row = json.loads(line)
            id, summary = row["instance_id"], row["summary"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # a run was killed while it wrote
                break
            raise UsageError(f"{where} is no object with instance_id and summary: correct or drop it.") from None
        if not isinstance(id, str) or not isinstance(summary, str) or not summary.strip():
            raise UsageError(f"{where} has no text for instance_id and summary: correct or drop it.")
        found[id] = Summary(summary, str(row.get("model") or ""))
    return found


class Writer:
    """Asks a server, whose model is named behind `#` (else the first that it serves). The key is EMBEDCODE_API_KEY."""

    def __init__(self, url: str) -> None:
        """UsageError for what is no address of a server."""
        self._address = Address.read(url)
        self._chat = Chat(self._address, key(self._address))
        self._model = ""

    @property
    def model(self) -> str:
        if not self._model:
            # Also where a name is given: a server that answers once is waited for later.
            answer = self._chat.endpoint.ask("/models")
            self._model = self._address.model
        if not self._model:
            data = answer.value.get("data") if answer.ok else None
            names = [row.get("id") for row in data if isinstance(row, dict)] if isinstance(data, list) else []
            if not names or not isinstance(names[0], str):
                raise ModelError(f"{self._address.url} does not say which models it serves: name one behind #.")
            self._model = names[0]
        return self._model

    def write(
        self, instances: Sequence[Instance], path: Path, told: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, Summary]:
        """The summaries of all instances; those that `path` lacks are asked for and appended to it.

        After an issue that cannot be summarised no other is asked for: ModelError names it, and what is done stays.
        """
        found: dict[str, Summary] = {}
        if is_file(path):
            _mend(path)
            found = read(path)
        left = [one for one in instances if one.id not in found]
        if not left:
            return found
        _ = self.model
        call = Call()
        try:
            with path.open("ab") as file, ThreadPoolExecutor(IN_FLIGHT) as pool:
                try:
                    told(0, len(left))
                    for done, (one, summary) in enumerate(self._answers(left, pool, call), 1):
                        found[one.id] = Summary(summary, self.model)
                        row = {"instance_id": one.id, "summary": summary, "model": self.model}
                        file.write(json.dumps(row).encode() + b"\n")
                        file.flush()
                        told(done, len(left))
                except BaseException:
                    call.end()
                    pool.shutdown(cancel_futures=True)
                    raise
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}): check the path.") from None
        return found

    def _answers(
        self, left: Sequence[Instance], pool: ThreadPoolExecutor, call: Call
    ) -> Iterator[tuple[Instance, str]]:
        waiting: dict[Future[str], Instance] = {}
        rest = iter(left)
        while True:
            while len(waiting) < IN_FLIGHT and (one := next(rest, None)) is not None:
                waiting[pool.submit(self._summary, one, call)] = one
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            failed: EmbedcodeError | None = None
            for future in done:
                one = waiting.pop(future)
                try:
                    yield one, future.result()
                except EmbedcodeError as error:
                    failed = failed or ModelError(f"no summary of {one.id}: {error}")
            if failed:
                raise failed

    def _summary(self, one: Instance, call: Call) -> str:
        text = PROMPT.format(repo=one.repo, issue=one.issue[:MOST_CHARACTERS])
        found = self._chat.ask(self.model, text, MOST_TOKENS, 0, call)
        url = self._address.url
        if not found.answer.ok:
            raise ModelError(f"{url} refuses the request ({found.answer.said}): check its model and limits.")
        if found.text is None:
            raise ModelError(f"{url} gives no chat completion: is it a chat endpoint?")
        if found.cut:
            raise ModelError(f"{url} gives an answer that is cut off at {MOST_TOKENS:,} tokens: take another model.")
        if not (summary := found.text.rpartition(_THOUGHT)[2].strip()):
            raise ModelError(f"{url} gives an empty answer: take another model.")
        return summary


def _mend(path: Path) -> None:
    """End the last line, or take it away where a run was killed while it wrote it."""
    raw = path.read_bytes()
    start = raw.rfind(b"\n") + 1
    if start == len(raw):
        return
    with path.open("rb+") as file:
        try:
            json.loads(raw[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
