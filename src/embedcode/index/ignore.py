"""Ignore rules as git reads them: patterns to regular expressions, rule files to an ordered list, a path to a verdict.

Knows neither the walk (which never enters an ignored folder, so nothing below it can be re-included) nor the
built-in exclusions. Written here because pathspec 1.1 differs from git where it matters to a walk: `a/**` matches
`a/` itself, which takes `!a/keep` with it, a bracket may match `/`, `[[:digit:]]` is not a class, a trailing
tab is dropped and a trailing backslash raises. The tests compare this module with git itself.

Two differences from git remain on purpose: names are compared by character, not by byte, so `?` matches `é`;
and `x**/y` means `x*/y` as git's manual says, where git 2.39 reads it as `x/**/y`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from embedcode.files import read_small

POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a rule file. `source` names that file for the user; `regex` reads "a/b", or "a/b/" for a folder."""

    text: str
    source: str
    negated: bool
    anchored: bool
    """Compared with the whole path below the rule file's folder; otherwise with the last name only."""
    regex: re.Pattern[str]


class Rules:
    """The patterns of one rule file. `base` is the folder they are relative to: "" or "docs/"."""

    def __init__(self, text: str, source: str, base: str = "") -> None:
        found = [pattern for line in text.split("\n") if (pattern := _parse(line, source)) is not None]
        self._base = len(base)
        self._patterns = found[::-1]
        # Most paths match nothing: one regex over all patterns says so without trying each.
        self._names = _any([pattern for pattern in found if not pattern.anchored])
        self._paths = _any([pattern for pattern in found if pattern.anchored])

    @classmethod
    def read(cls, path: Path, source: str, base: str = "") -> Self:
        """The rules in a file; none when there is no readable one. UsageError when it is no regular file or huge."""
        try:
            return cls(read_small(path).decode("utf-8-sig", "surrogateescape"), source, base)
        except OSError:
            return cls("", source, base)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: str, name: str, is_dir: bool) -> Pattern | None:
        """The last pattern that matches `path` (relative to the top, without a trailing slash), if any does."""
        mark = "/" if is_dir else ""
        path, name = path[self._base :] + mark, name + mark
        if self._names.fullmatch(name) is None and self._paths.fullmatch(path) is None:
            return None
        return next(p for p in self._patterns if p.regex.fullmatch(path if p.anchored else name))


def verdict(stack: Sequence[Rules], path: str, name: str, is_dir: bool) -> Pattern | None:
    """The pattern that decides: of the rule files in rising precedence, the last one with an opinion."""
    for rules in reversed(stack):
        pattern = rules.match(path, name, is_dir)
        if pattern is not None:
            return pattern
    return None


def repository_rules(folder: Path, base: str) -> Iterator[Rules]:
    """What git applies to the repository whose top is `folder` beside its .gitignore files, in rising precedence:
    the user's ignore file at its default place, and the repository's info/exclude. Needs no git installed."""
    home = os.path.expanduser("~")  # noqa: PTH111 (Path's raises where there is no home)
    config = os.environ.get("XDG_CONFIG_HOME") or Path(home, ".config")
    yield Rules.read(Path(config, "git", "ignore"), "the user's git ignore file", base)
    yield Rules.read(common_dir(folder / ".git") / "info" / "exclude", f"{base}.git/info/exclude", base)


def git_dir(git: Path) -> Path:
    """Where a checkout keeps what is its own: .git, or what a .git file leads to."""
    try:
        return (git.parent / _line(git).partition("gitdir:")[2].strip()).resolve() if git.is_file() else git
    except (OSError, ValueError, RuntimeError):  # of a file that leads nowhere a path can
        return git


def common_dir(git: Path) -> Path:
    """Where a repository keeps what its worktrees share (gitrepository-layout)."""
    own = git_dir(git)
    try:
        return (own / _line(own / "commondir") if (own / "commondir").is_file() else own).resolve()
    except (OSError, ValueError, RuntimeError):
        return own


def _line(path: Path) -> str:
    return read_small(path).decode("utf-8", "surrogateescape").strip()


def _any(patterns: Sequence[Pattern]) -> re.Pattern[str]:
    return re.compile("|".join(pattern.regex.pattern for pattern in patterns) or "(?!)", re.DOTALL)


def _parse(line: str, source: str) -> Pattern | None:
    """A line as git's dir.c reads it; None for blanks, comments and patterns that can match nothing."""
    text = _trim(line.removesuffix("\r"))
    if not text or text.startswith("#"):
        return None
    glob = text.removeprefix("!")
    only_dirs = glob.endswith("/")
    glob = glob.removesuffix("/")
    regex = _translate(glob.removeprefix("/"))
    if not glob or regex is None:
        return None
    return Pattern(
        text=text,
        source=source,
        negated=text.startswith("!"),
        anchored="/" in glob,
        regex=re.compile(f"(?:{regex}){'/' if only_dirs else '/?'}", re.DOTALL),
    )


def _trim(line: str) -> str:
    """Without trailing spaces, except those behind a backslash; other white space stays."""
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    escaped = backslashes % 2 == 1 and len(stripped) < len(line)
    return stripped + " " if escaped else stripped


def _translate(glob: str) -> str | None:
    """A regex for a glob without leading or trailing slash; None when it can match nothing.

    Atomic groups keep a hostile pattern (`*a*a*a*b`) from backtracking: as in `fnmatch.translate`, the leftmost match
    of what follows a wildcard is always good enough, but for the last one. The same holds for folders behind `**`.
    """
    runs: list[list[str]] = [[]]  # folder and file names between one "**" and the next
    tokens: list[str] = []  # of the name being read: a regex for one character each, or "*"
    at, end = 0, len(glob)
    while at <= end:
        char = glob[at : at + 1]
        if char == "\\":
            at += 1
            char = glob[at : at + 1]
            if not char:
                return None
            if char != "/":
                tokens.append(re.escape(char))
        elif char == "*":
            width = len(glob[at:]) - len(glob[at:].lstrip("*"))
            tokens.append("*" if width == 1 else "**")
            at += width - 1
        elif char == "?":
            tokens.append("[^/]")
        elif char == "[":
            bracket = _bracket(glob, at + 1)
            if bracket is None:
                return None
            regex, at = bracket
            tokens.append(regex)
        elif char not in ("", "/"):
            tokens.append(re.escape(char))
        if char in ("", "/"):
            if tokens == ["**"]:
                runs.append([])
            else:
                runs[-1].append(_name(tokens))
            tokens = []
        at += 1
    if len(runs) == 1:
        return "/".join(runs[0])
    first, *middle, last = runs
    return (
        "".join(f"{name}/" for name in first)
        + "".join("(?>(?:[^/]+/)*?" + "".join(f"{name}/" for name in run) + ")" for run in middle if run)
        + ("(?:[^/]+/)*" + "/".join(last) if last else ".+")
    )


def _name(tokens: Sequence[str]) -> str:
    """A regex for one name from its tokens."""
    fixed = [""]
    for token in tokens:
        if token in ("*", "**"):
            fixed.append("")
        else:
            fixed[-1] += token
    if len(fixed) == 1:
        return fixed[0]
    if not any(fixed):
        return "[^/]+"
    first, *middle, last = fixed
    return first + "".join(f"(?>[^/]*?{part})" for part in middle if part) + "[^/]*" + last


def _bracket(glob: str, at: int) -> tuple[str, int] | None:
    """A regex for the bracket whose "[" is before `at`, and the place of its "]"; None when git gives up on it.

    Follows wildmatch.c: a backslash escapes, `[:alpha:]` is a class, a "]" in first place is a character.
    """
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    start, items, previous = at, "", ""
    while at < len(glob):
        char = glob[at]
        if char == "]" and at > start:
            if negated:
                return f"[^/{items}]", at
            return (f"(?!/)[{items}]" if items else "(?!)"), at
        low, previous = previous, char
        if char == "\\":
            at += 1
            previous = glob[at : at + 1]
            items += re.escape(previous)
        elif char == "-" and low and glob[at + 1 : at + 2] not in ("", "]"):
            at += 2 if glob[at + 1] == "\\" else 1
            high = glob[at : at + 1]
            items += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
            previous = ""
        elif char == "[" and glob[at + 1 : at + 2] == ":":
            close = glob.find("]", at + 2)
            if close < 0:
                return None
            if close - at >= 3 and glob[close - 1] == ":":
                known = POSIX_CLASSES.get(glob[at + 2 : close - 1])
                if known is None:
                    return None
                items += known
                at, previous = close, ""
            else:
                items += re.escape("[")
        else:
            items += re.escape(char)
        at += 1
    return None
