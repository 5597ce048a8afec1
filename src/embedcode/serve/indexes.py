"""Indexes: the repositories that a server searches, by their names, and which of them a request is for.

Knows no HTTP: a request's `index` and its key come in, a Kept or a ProblemError goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from embedcode.serve.kept import Kept
from embedcode.serve.keys import Key
from embedcode.serve.problem import ProblemError

SHOWN = 80
"""Characters of a name that a message shows."""


def searchable(names: Iterable[str], key: Key | None) -> list[str]:
    """Those of `names` that a key may search, and so may know of; all where none is needed."""
    return [name for name in names if key is None or key.searches(name)]


class Indexes:
    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self._kept = dict(kept)

    def names(self, key: Key | None = None) -> list[str]:
        """Those that a key may search; all where none is needed."""
        return searchable(self._kept, key)

    def pick(self, name: str, key: Key | None = None) -> Kept:
        """The one that is named, or the only one that there is for this key. ProblemError where there is none such."""
        names = self.names(key)
        if not name and len(names) == 1:
            return self._kept[names[0]]
        if name in names:
            return self._kept[name]
        shown = name[:SHOWN]
        if key is not None and key.indexes and (name or not names):
            wrong = f"the index {shown}" if name else "any index of this server"
            said = f"The key {key.name} is not for {wrong}: use one that is."
            raise ProblemError(403, said, "index", "scope", reason="scope")
        if not name:
            raise ProblemError(400, f"this server has several indexes: give index, one of {', '.join(names)}.", "index")
        said = f"there is no index {shown!r}: this server has {', '.join(names)}."
        raise ProblemError(404, said, "index", "index_not_found")
