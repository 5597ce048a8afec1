"""Git histories: what a commit or the issue behind it says, paired with the code it edits, as that was before.

Two pairs a commit: with the functions it edits (task `commit`), and with the runs of 512 tokens of the edited files
that it touches, each under its path (task `commit-chunk`), as a search for the place of a bug meets them. Where the
text of the issue is at hand it is the query, under the tasks `issue` and `issue-chunk`. Files that say at their top
that they are under another licence, and those of a folder that has another one, are left out, and so is what was under
another one before the repository was given its own. Knows no list of repositories.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from embedcode.data import archives, comments, licences, never
from embedcode.data.docstrings import CRASHED, FAILED
from embedcode.data.mine import FOREIGN_FOLDER, FOREIGN_HEADER, NEVER, NO_LICENCE, UNKNOWN_LICENCE, names
from embedcode.engine.tokens import TextTokenizer, of_export
from embedcode.errors import UsageError
from embedcode.index import git
from embedcode.index.functions import functions
from embedcode.index.grammars import parse
from embedcode.index.languages import Language, language_of
from embedcode.index.walk import decode
from embedcode.index.workers import Workers
from embedcode.model.passage import passage
from embedcode.model.spec import Spec
from embedcode.types import Pair

TOKENS = 512
MOST_FILES = 8
"""Files that a commit may edit: more are a reformat or a move, of which its text says nothing."""
MOST_MOVED = 100
"""Files that come and that go, up to which those are looked for that were moved and edited."""
MOST_POSITIVES = 8
FEWEST_DIGITS = 7
"""Of a commit's hash; git shortens to no fewer."""
LONGEST = 2_000
"""Characters of a query: an issue's stack trace may have more, and a model reads 512 tokens."""
MOST_BYTES = 1_000_000
LINES = 100_000
"""Of code, whose tokens' places are kept."""

MERGE = "merge, or first commit"
MESSAGE = "message says too little"
MANY = "too many files"
MANY_PLACES = "too many places"
NO_CODE = "no code edited"
NEW = "nothing that was there before"
OTHERWISE = "under another licence then"
UNSAID = "without a licence file then"
QUOTED = "quote or line break in its name"

_LICENCES = ("*licen[cs]e*", "*copying*")
"""Paths that hold all of a repository that may be a licence."""
_EMPTY_WORDS = re.compile(
    r"^(?:merge|revert|bump|release|version|prepare|update (?:changelog|copyright|deps|dependenc)|changelog|wip\b|typo"
    r"|fix(?:ed|es)? (?:typos?|tests?|lint|build|ci|flake8|whitespace|formatting|style|docs?|merge)\b|lint|format"
    r"|cleanup|refactor$|v?\d+\.\d+|\[?bot|auto|apply black|run black|pre-commit|chore|ci\b|build\b|docs?\b|tests?\b"
    r"|style\b)",
    re.IGNORECASE,
)
_TRAILER = re.compile(
    r"^(?:signed-off-by|co-authored-by|reviewed-by|acked-by|change-id|tested-by|cc|git-svn-id|\(cherry picked)[: ]",
    re.IGNORECASE,
)
_BACKPORT = re.compile(r"^\W*this is an? (?:\w+ )?backport of\b[^.;:]{0,150}\W*$", re.IGNORECASE)
"""A paragraph that says no more than which other commit this one is."""
_REFERENCE = re.compile(
    r"\(?(?:(?:fix(?:es|ed)?|clos(?:es|ed?)|resolv(?:es|ed?)|refs?|see|gh-?|pull request|pr)\s*:?\s*|(?<![\w/]))"
    r"#(\d+)\)?",
    re.IGNORECASE,
)
"""Of an issue of the same repository: `other/one#12` is of another."""
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", re.MULTILINE)


@dataclass(slots=True)
class Mined:
    """What the history of one repository gave."""

    source: str
    refused: str = ""
    commits: int = 0
    used: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Commits, by reason."""
    left: Counter[str] = field(default_factory=Counter)
    """Edited files left out of a commit, by reason."""


@dataclass(frozen=True, slots=True)
class Issues:
    """Texts of issues by commit (its hash or the beginning of it), and by repository, if it is said, and number."""

    by_commit: dict[str, str] = field(default_factory=dict)
    by_number: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, commit: str, message: str, repository: str = "") -> str:
        for length in range(len(commit), FEWEST_DIGITS - 1, -1):
            if text := self.by_commit.get(commit[:length]):
                return text
        named = ((name, number) for number in _REFERENCE.findall(message) for name in (repository, ""))
        return next((self.by_number[one] for one in named if one in self.by_number), "")


@dataclass(frozen=True, slots=True)
class Edited:
    """A file as it was before a commit, and the rows that the commit changes, 0-based and inclusive."""

    path: str
    text: str
    language: Language
    ranges: Sequence[tuple[int, int]]


def read_issues(file: Path) -> tuple[Issues, list[str]]:
    """Issues from JSON lines {"text": ..., "commit": ... or "number": ..., "repository": ...}, the last of which may be
    left out, and what is wrong with the other lines."""
    issues, wrong = Issues(), []
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"{file} cannot be read ({why}): give issues in JSON lines.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, commit, issue, repository = (row.get(name) for name in ("text", "commit", "number", "repository"))
            if not (isinstance(text, str) and text.strip()) or (commit is None) == (issue is None):
                raise ValueError
            if not (isinstance(commit, str | None) and isinstance(repository, str | None)):
                raise ValueError
            if isinstance(issue, bool | float | list | dict):
                raise ValueError
        except (ValueError, AttributeError, RecursionError):
            wrong.append(f'{file}, line {number}: not {{"text": ..., "commit": ... or "number": ...}}')
            continue
        if commit is not None:
            issues.by_commit[commit] = text
        else:
            issues.by_number[repository or "", str(issue)] = text
    return issues, wrong


def tokenizer() -> TextTokenizer:
    """That of the packaged model, by which chunks are cut."""
    return of_export(Spec.read())


def mine(
    root: Path,
    tokenizer: TextTokenizer,
    mined: Mined,
    issues: Issues | None = None,
    licence: str = "",
    most: int | None = None,
) -> Iterator[Pair]:
    """The pairs of a repository's history, newest first, of at most so many commits; `mined` is filled as they come.

    A `licence` of the allow-list is written to each pair, and so the repository's own files have to grant it, if it has
    any, and what is under another one is left out. UsageError for what is no repository, and for a shallow clone, whose
    commits have no parents to compare with.
    """
    if entry := never.load().first((mined.source, *names(root))):
        mined.refused = f"{NEVER}: {entry.why}"
        return
    repository = opened(root)
    granted = _Licences(repository, licence) if licences.allowed(licence) else None
    if granted is not None and granted.refused:
        mined.refused = f"{UNKNOWN_LICENCE}: {granted.refused}"
        return
    lines = _Lines(tokenizer)
    with Workers(1, edited, lost, least=1) as parsing:  # never this process, which a parser could take with it
        parsing.start()
        for commit in _commits(root, most):
            mined.commits += 1
            change = _change(root, commit, lines, parsing, mined, issues or Issues(), granted)
            found = list(_pairs(change, mined, licence)) if change else []
            mined.used += bool(found)
            yield from found


def by_file(root: Path, mined: Mined, most: int, seconds: float) -> Iterator[Pair]:
    """Of the user's own repository, what each commit says with the functions it edits in one file, which is the pair's
    `source`; newest first, of at most so many commits, for so long. Otherwise as `mine`, without licences."""
    if entry := never.load().first((mined.source, *names(root))):
        mined.refused = f"{NEVER}: {entry.why}"
        return
    opened(root)
    end = time.monotonic() + seconds
    with Workers(1, edited, lost, least=1) as parsing:
        parsing.start()
        for commit in _commits(root, most):
            if time.monotonic() > end:
                return
            mined.commits += 1
            change = _change(root, commit, None, parsing, mined, Issues(), None)
            if change is None or sum(len(of.functions) for of in change.files) > MOST_POSITIVES:
                continue
            for of in change.files:
                if of.functions:
                    path = of.file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    positives = tuple(dict.fromkeys(of.functions))
                    yield Pair(change.query, positives, (), change.task, of.file.language.name, path)


def renamed(root: Path, most: int) -> dict[str, str]:
    """Paths that were moved by the newest so many commits, each with one name for all that a file was called."""
    asked = ("log", "-z", f"-{most}", "--format=", "--name-status", "--diff-filter=R", "-M", f"-l{MOST_MOVED}")
    listed = git.ask(root, *asked, "HEAD", needed_by="mining a history") or ""
    fields = iter(listed.split("\0")[:-1])
    homes: dict[str, str] = {}

    def home(path: str) -> str:
        while (other := homes.get(path, path)) != path:
            path = other
        return path

    for _, before, after in zip(fields, fields, fields, strict=True):
        homes[home(before)] = home(after)
    return {path: home(path) for path in homes}


def opened(root: Path) -> git.Repository:
    """A clone with its whole history; UsageError for any other."""
    repository = git.Repository(root)
    if repository.shallow:
        raise UsageError(
            f"{root} is a shallow clone: its history is cut off; run `git fetch --unshallow` there, or clone it whole."
        )
    if repository.partial:
        raise UsageError(f"{root} is a partial clone, without old contents: clone it whole.")
    return repository


class _Licences:
    """What the licence files of a repository say at each commit: code is taken as it was, under what it was then."""

    def __init__(self, repository: git.Repository, licence: str) -> None:
        self._repository, self._licence = repository, licence
        self._foreign: dict[str, bool] = {}
        """Whether a folder's licence is none of the allow-list, by its blob: to find out takes 2 to 15 ms."""
        self._last, self._files = "", tuple[git.Entry, ...]()
        self._said = NO_LICENCE, tuple[str, ...]()
        refused, self._now = self._there("HEAD")
        self._said_now = refused != NO_LICENCE
        self.refused = refused if self._said_now else ""  # who claims it where no file says is the owner

    def at(self, commit: str) -> tuple[str, tuple[str, ...]]:
        """Why the licence is not granted there, "" where it is, or where no file says there nor now; and the folders
        that have one out of the allow-list there or now."""
        refused, foreign = self._there(commit)
        return refused if self._said_now or refused != NO_LICENCE else "", foreign + self._now

    def _there(self, commit: str) -> tuple[str, tuple[str, ...]]:
        # Of one commit to the next few files change, so git finds out in 5 ms whether a licence does.
        if not (self._last and self._repository.same(self._last, commit, *_LICENCES)):
            entries = self._repository.files(commit)
            files = tuple(one for one in entries if licences.may_be(one.path) or licences.of_folder(one.path))
            if files != self._files:
                self._files, self._said = files, self._read(files)
        self._last = commit
        return self._said

    def _read(self, files: Sequence[git.Entry]) -> tuple[str, tuple[str, ...]]:
        own, foreign = dict[str, str](), set[str]()
        for entry, raw in zip(files, self._repository.blobs(entry.blob for entry in files), strict=True):
            text = decode(raw or b"")
            if text is None:  # a picture of one, or none at all
                continue
            if licences.is_own(entry.path, ""):
                own[entry.path] = text
            elif licences.of_folder(entry.path) and _language(entry.path) is None:
                if entry.blob not in self._foreign:
                    self._foreign[entry.blob] = not licences.known(text)
                if self._foreign[entry.blob]:
                    foreign.add(entry.path.rpartition("/")[0] + "/")
        found = licences.of(own)
        if found is not None and licences.allowed(self._licence, found.split(" AND ")):
            return "", tuple(foreign)
        return f"{' and '.join(sorted(own))} does not grant {self._licence}" if own else NO_LICENCE, tuple(foreign)


@dataclass(frozen=True, slots=True)
class _Commit:
    hash: str
    parents: list[str]
    message: str


def _commits(root: Path, most: int | None) -> Iterator[_Commit]:
    # No message holds a NUL in UTF-8: with -z one ends each entry, as one stands between its fields.
    asked = ("log", "-z", "--encoding=UTF-8", "--format=%H%x00%P%x00%B", *([f"-{most}"] if most is not None else []))
    listed = git.ask(root, *asked, "HEAD", needed_by="mining a history")
    if listed is None:
        raise UsageError(f"{root} has no commit at HEAD that git can read: run `git fsck` there.")
    fields = iter(listed.split("\0")[:-1])
    for hash_, parents, message in zip(fields, fields, fields, strict=True):
        yield _Commit(hash_, parents.split(), message.strip())


@dataclass(frozen=True, slots=True)
class _OfFile:
    """What a commit edits of a file, as that was before."""

    file: Edited
    functions: list[str]
    chunks: list[str]


@dataclass(frozen=True, slots=True)
class _Change:
    """A commit that says what it does, and does it to code."""

    commit: str
    query: str
    task: str
    files: list[_OfFile]


def _change(
    root: Path,
    commit: _Commit,
    lines: _Lines | None,
    parsing: Workers[Edited, tuple[list[str], str]],
    mined: Mined,
    issues: Issues,
    granted: _Licences | None,
) -> _Change | None:
    """None for a commit that is passed over. Without `lines` there are no chunks; `granted` is None where no open
    licence is claimed."""
    if len(commit.parents) != 1:
        mined.skipped[MERGE] += 1
        return None
    issue = issues.of(commit.hash, commit.message, mined.source)
    query = issue[:LONGEST].strip() if issue else said(commit.message)
    if not issue and message_reason(query) is not None:
        mined.skipped[MESSAGE] += 1
        return None
    edits = _edits(root, commit, mined.left)
    if len(edits) > MOST_FILES:
        mined.skipped[MANY] += 1
        return None
    foreign = tuple[str, ...]()
    if granted is not None and edits:
        otherwise, foreign = granted.at(commit.parents[0])
        if otherwise:
            mined.skipped[UNSAID if otherwise == NO_LICENCE else OTHERWISE] += 1
            return None
    files, why = list[Edited](), ""
    contents = git.blobs(root, (f"{commit.parents[0]}:{path}" for path in edits), MOST_BYTES)
    for (path, ranges), raw in zip(edits.items(), contents, strict=True):
        text = decode(raw) if raw is not None else None
        language = _language(path)
        if text is None or language is None:
            continue
        if granted is not None and (path.startswith(foreign) or licences.foreign_header(text)):
            why = FOREIGN_FOLDER if path.startswith(foreign) else FOREIGN_HEADER
            mined.left[why] += 1
            continue
        files.append(Edited(path, text, language, ranges))
    places = list[_OfFile]()
    for file, (found, failed) in zip(files, parsing.done(files), strict=True):
        if failed:
            mined.left[failed] += 1
        places.append(_OfFile(file, found, list(_chunks(file.path, file.text, file.ranges, lines)) if lines else []))
    if not any(one.functions or one.chunks for one in places):
        mined.skipped[why or (NEW if edits else NO_CODE)] += 1
        return None
    return _Change(commit.hash, query, "issue" if issue else "commit", places)


def _pairs(change: _Change, mined: Mined, licence: str) -> Iterator[Pair]:
    bodies = [one for of in change.files for one in of.functions]
    chunks = [one for of in change.files for one in of.chunks]
    if min(len(one) for one in (bodies, chunks) if one) > MOST_POSITIVES:
        mined.skipped[MANY_PLACES] += 1
        return
    languages = Counter[str]()
    for of in change.files:
        languages[of.file.language.name] += len(of.functions) + len(of.chunks)
    source, language = f"git:{mined.source}@{change.commit[:12]}", languages.most_common(1)[0][0]
    for kind, positives in ((change.task, bodies), (f"{change.task}-chunk", chunks)):
        if positives and len(positives) <= MOST_POSITIVES:
            yield Pair(change.query, tuple(dict.fromkeys(positives)), (), kind, language, source, licence)


def said(message: str) -> str:
    """A commit's subject and the paragraphs below it, without references and trailers, cut at a paragraph."""
    subject, *below = message.split("\n\n")
    whole = "\n\n".join([subject, *(part for part in below if not _BACKPORT.match(part))])
    kept = [line.rstrip() for line in whole.split("\n") if not _TRAILER.match(line)]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(_REFERENCE.sub("", line).rstrip() for line in kept)).strip(" \n:-")
    text = re.sub(r"^(?:(?:\[[\w ./-]+\]|(?:feat|fix|perf|refactor)(?:\([\w ./-]+\))?!?:)\s*)+", "", text)
    while len(text) > LONGEST and "\n\n" in text:
        text = text.rpartition("\n\n")[0]
    return text[:LONGEST].strip()


def message_reason(query: str) -> str | None:
    """Why a commit's words are no query."""
    subject = query.partition("\n")[0]
    if len(subject.split()) < 4 or _EMPTY_WORDS.match(subject):
        return MESSAGE
    return comments.reason(subject)


def _edits(root: Path, commit: _Commit, left: Counter[str]) -> dict[str, list[tuple[int, int]]]:
    """Rows of the parent, 0-based and inclusive, that a commit changes in each code file, by its path there; tests are
    left out."""
    asked = git.ask(
        root, "diff-tree", "-r", "-p", "-U0", "-M", f"-l{MOST_MOVED}", "--no-ext-diff", "--no-textconv", "--no-color",
        "--diff-filter=MR", "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=all", commit.parents[0],
        commit.hash, configuration={"core.quotePath": "false"}, needed_by="mining a history",
    )  # fmt: skip
    if asked is None:
        raise UsageError(f"git cannot compare {commit.hash[:12]} with its parent: run `git fsck` in {root}.")
    edits: dict[str, list[tuple[int, int]]] = {}
    for part in re.split(r"^diff --git ", asked, flags=re.MULTILINE)[1:]:
        path = re.search(r"^--- a/([^\t\n]+)", part, re.MULTILINE)
        if path is None and '\n--- "' in part:
            left[QUOTED] += 1
        if path is None or _language(path[1]) is None or archives.name_reason(path[1], tests=False) is not None:
            continue
        ranges = []
        for start, count in _HUNK.findall(part):
            first = max(int(start) - 1, 0)  # of lines that are only added, the one above them
            ranges.append((first, first + max(int(count or 1), 1) - 1))
        edits[path[1]] = ranges
    return edits


def _language(path: str) -> Language | None:
    found = language_of(path)
    return found if found is not None and found.content == "code" and found.name != "text" else None


def edited(file: Edited) -> tuple[list[str], str]:
    """The innermost functions that changed rows lie in, each once, and why there are none. Never raises: what fails at
    one file must not cost the others."""
    try:
        return _edited(file), ""
    except Exception as error:
        return [], f"{FAILED} ({type(error).__name__})"


def _edited(file: Edited) -> list[str]:
    if file.language.grammar is None:
        return []
    source = file.text.encode("utf-8", "replace")
    root = parse(file.language.grammar, source)
    if root is None:
        return []
    found = list(functions(root, source))
    chosen = set[int]()
    for first, last in file.ranges:
        inside = [i for i, one in enumerate(found) if one.first <= last and first <= one.last]
        chosen |= {
            i for i in inside
            if not any(j != i and found[i].first <= found[j].first and found[j].last <= found[i].last for j in inside)
        }  # fmt: skip
    return [found[i].code for i in sorted(chosen)]


def lost(_file: Edited, _why: str) -> tuple[list[str], str]:
    """What a file gives whose parser ended its process; its chunks need none."""
    return [], CRASHED


class _Lines:
    """Where tokens begin, line by line, since none of the packaged model's goes across. A line is in many versions of
    its file: with what is kept of it three histories took a third to a half of the time."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.specials = len(tokenizer.places("", ""))

        @lru_cache(LINES)
        def starts(line: str) -> tuple[int, ...]:
            return tuple(first for first, end in tokenizer.places("", line) if end)

        self.starts = starts


def _chunks(path: str, text: str, ranges: Sequence[tuple[int, int]], lines: _Lines) -> Iterator[str]:
    """Runs of TOKENS tokens of the file, path and all, that hold a changed row."""
    path, text = (part.encode("utf-8", "replace").decode() for part in (path, text))
    room = TOKENS - lines.specials - len(lines.starts(path))
    if room <= 0:
        return
    borders, tokens, at = [0], 0, 0
    for line in text.split("\n"):
        of_line = lines.starts(line)
        while (index := len(borders) * room - tokens) < len(of_line):
            borders.append(at + of_line[index])
        tokens += len(of_line)
        at += len(line) + 1
    if not tokens:
        return
    borders.append(len(text))
    row = 0
    for first, end in pairwise(borders):
        body = text[first:end]
        rows = body.split("\n")
        last = row + len(rows) - 1
        # A line that was cut off in its indentation, or behind its last word, lies in the other run.
        begins = row + (first > 0 and len(rows) > 1 and not rows[0].strip())
        ends = last - (len(rows) > 1 and not rows[-1].strip())
        if body.strip() and any(a <= ends and begins <= b for a, b in ranges):
            yield passage(path, "", body)
        row = last
