"""Scope: the folder of a checkout that was opened, and what a filter means there. Knows the files and no chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from embedcode.errors import UsageError
from embedcode.types import File, Filter

MAX_GLOBS = 200
"""Of one filter: twice as many, as a folder's own reading of them makes it, are fewer than `store/filter.py` keeps
compiled."""
MAX_GLOB_CHARACTERS = 10_000
"""Of all of them, which are compiled in half a second while nothing else runs in this process."""


@dataclass(frozen=True, slots=True)
class Scope:
    root: Path
    folder: str
    """Below root; "" = root itself."""
    files: Callable[[], Mapping[str, File]]
    """Of the whole index."""

    def holds(self, path: str) -> bool:
        """Whether a relative path lies in the folder."""
        return not self.folder or f"{path}/".startswith(f"{self.folder}/")

    def touches(self, path: str) -> bool:
        """Whether it does, or the folder lies in it: it then ends in a slash."""
        return self.holds(path) or (path.endswith("/") and f"{self.folder}/".startswith(path))

    @property
    def empty(self) -> bool:
        """Whether no file of the index lies in the folder."""
        return bool(self.folder) and not any(map(self.holds, self.files()))

    def read(self, where: Filter, folder: str = "") -> Filter:
        """The filter as it is meant: languages by the names that chunks have, globs from `folder` or the one that was
        opened, too. UsageError for a language that there is not, and for paths that are too many, too long or written
        as other programs take them.
        """
        from embedcode.store.filter import also_from, from_top, unsupported

        characters = sum(map(len, where.paths))
        if len(where.paths) > MAX_GLOBS or characters > MAX_GLOB_CHARACTERS:
            raise UsageError(
                f"the filter has {len(where.paths):,} paths of {characters:,} characters: give at most {MAX_GLOBS} of "
                f"{MAX_GLOB_CHARACTERS:,} together."
            )
        for glob in where.paths:
            if why := unsupported(glob):
                raise UsageError(f"the path {glob!r} {why}")
        if where.languages:
            from embedcode.index.languages import named

            where = replace(where, languages=tuple(map(named, where.languages)))
        return also_from(self.folder or folder, from_top(str(self.root), where))

    def limited(self, where: Filter, folder: str = "") -> Filter:
        """What read() gives, within the folder. UsageError for a repository that there is not, too."""
        where = self.read(where, folder)
        if where.repos:
            known = {file.repo for file in self.files().values() if self.holds(file.path)}
            if known and (unknown := set(where.repos) - known):
                raise UsageError(
                    f"there is no repository {' or '.join(sorted(unknown))} in the index of {self.root}: "
                    f"give one of {', '.join(sorted(known))}."
                )
        if not self.folder:
            return where
        inside = frozenset(filter(self.holds, self.files()))
        return replace(where, only=inside if where.only is None else inside & where.only)

    def cure(self, where: Filter, words: bool) -> str:
        """What may help where a query has no hits: filters that no file passes are the first suspect. `words` says that
        it had any, which may be others."""
        from embedcode.store.filter import matches

        if self.empty:
            return f"no file of the index lies in {self.root / self.folder}"
        where = self.read(where)
        files = self.files().values()
        if not where or any(matches(where, file) for file in files):
            if not words:
                return "nothing else here is like it" if not where else "nothing that passes the filters is like it"
            return "try other words, or fewer filters" if where else "try other words"
        if where.only is not None and not where.only:
            return "nothing has changed since that revision"
        if where.languages and not any(matches(Filter(languages=where.languages), file) for file in files):
            return f"no file here is in {' or '.join(where.languages)}"
        return "no file passes the filters together: check the globs of paths first"
