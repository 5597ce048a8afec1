"""Sources held out of training: on some the gain is reported, on others a run is steered. Chosen once, by seed, and
kept in a list; the tasks are made from it.

    [reported]
    go = ["debian:etcd", "github:gohugoio/hugo"]
    [validation]
    go = ["debian:caddy"]

A source is held out under all its names: what one registry has of a project is not trained on because another calls it
otherwise. Copies in other sources are a matter for `overlap`. Knows no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from embedcode.data import sources
from embedcode.data.never import Entry, Never
from embedcode.data.overlap import source_names
from embedcode.errors import UsageError
from embedcode.evaluate.beir import Task
from embedcode.types import Pair, digest

PARTS = ("reported", "validation")
SHARE = 3
"""No source has more than a third of the functions asked for, or it would be the task."""
SMALLEST = 6
"""Nor less than a sixth of an even share, or there would be many more than asked for."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Names of sources without their versions, such as `pypi:networkx`, `npm:@angular/*` or the name of a folder or
    archive, by part and language."""

    parts: Mapping[str, Mapping[str, Sequence[str]]]

    def entries(self) -> tuple[Entry, ...]:
        """What training leaves out, in the form of never.toml."""
        return tuple(
            Entry(name, "repository", part, f"Held out of training: {part}", aliases=source_names(name))
            for part, languages in self.parts.items()
            for names in languages.values()
            for name in map(_pattern, names)
        )


def load(file: Path) -> HeldOut:
    """The list in a file; UsageError names what is wrong with it."""
    parts = sources.table(file)
    seen: dict[str, str] = {}
    for part, languages in parts.items():
        if part not in PARTS or not isinstance(languages, dict):
            raise UsageError(f"{file}: {part!r} is no part: write tables called {' and '.join(PARTS)}.")
        for language, names in languages.items():
            if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
                raise UsageError(f'{file}: {part}.{language} must be a list of sources, such as ["pypi:networkx"].')
            for name in names:
                if seen.setdefault(name, part) != part:
                    raise UsageError(f"{file}: {name} is in both parts: leave it in one.")
    return HeldOut(parts)


def text(held: HeldOut, head: str) -> str:
    """What load() reads, with `head` as its comment."""
    lines = [f"# {line}".rstrip() for line in head.strip().split("\n")]
    for part, languages in held.parts.items():
        lines += ["", f"[{part}]"]
        for language, names in sorted(languages.items()):
            key = language if re.fullmatch(r"[A-Za-z0-9_-]+", language) else _quoted(language)
            lines += [f"{key} = [", *(f"  {_quoted(name)}," for name in sorted(names)), "]"]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pattern(name: str) -> str:
    """As never.toml has it, where `*`, `?` and `[` are of a pattern: only the `*` of a scope of npm is meant so."""
    return escape(name.removesuffix("/*")) + "/*" if name.startswith("npm:@") and name.endswith("/*") else escape(name)


def name_of(source: str) -> str:
    """A pair's source without its version; the packages of a scope of npm are one, as they are of one repository."""
    name = source.partition(" ")[0]
    return name.partition("/")[0] + "/*" if name.startswith("npm:@") else name


def sizes(pairs: Iterable[Pair]) -> dict[str, Counter[str]]:
    """Of each language, how many pairs each source has."""
    found: dict[str, Counter[str]] = {}
    for pair in pairs:
        found.setdefault(pair.language, Counter())[name_of(pair.source)] += 1
    return found


def choose(
    found: Mapping[str, Mapping[str, int]], languages: Sequence[str], wanted: Mapping[str, tuple[int, int]], seed: int,
    known: HeldOut,
) -> HeldOut:  # fmt: skip
    """The known list with sources of more languages, drawn by the seed; `wanted` is the least number of sources and
    functions by part.

    A source stands in one place only; one without a name, or whose name cannot be written, in none. UsageError where a
    language is in the list, or has not enough for all parts and as much to train on.
    """
    parts: dict[str, dict[str, Sequence[str]]] = {part: dict(known.parts.get(part, {})) for part in wanted}
    taken = {one for of in parts.values() for names in of.values() for name in names for one in source_names(name)}
    largest = Counter[str]()
    for counts in found.values():
        for name, count in counts.items():
            largest[name] = max(largest[name], count)
    for language in languages:
        if any(language in of for of in parts.values()):
            raise UsageError(f"{language} is in the list, and figures were made with it: leave it out of --languages.")
        counts = found.get(language, Counter[str]())
        if sum(counts.values()) < 2 * sum(functions for _, functions in wanted.values()):
            raise UsageError(f"{language} has {sum(counts.values()):,} functions: too few to hold some out and train.")
        own = [name for name, count in counts.items() if count == largest[name]]  # not the bindings of a library in C
        own = [name for name in own if name and name.isprintable()]
        order = sorted(own, key=lambda name: digest(f"{seed} {language} {name}"))
        for part, (fewest, functions) in wanted.items():
            chosen, total = list[str](), 0
            for name in order:
                names = set(source_names(name))
                fits = functions / fewest / SMALLEST <= counts[name] <= functions / SHARE
                if fits and not names & taken and (len(chosen) < fewest or total < functions):
                    taken |= names
                    chosen.append(name)
                    total += counts[name]
            if len(chosen) < fewest or total < functions:
                raise UsageError(
                    f"{language} has {len(chosen)} sources of a fit size with {total:,} functions left for {part}: "
                    f"{fewest} with {functions:,} are asked for. Mine more, or ask for less."
                )
            parts[part][language] = chosen
    return HeldOut(parts)


def split(pairs: Iterable[Pair], held: HeldOut) -> Iterator[tuple[Pair, str]]:
    """Each pair with "" where it may be trained on; `PART LANGUAGE` where it is of that task, and "-" where it is of a
    source that is held out for another language, or of the same project from another registry."""
    known = Never(held.entries())
    places = {
        (name, language): f"{part} {language}"
        for part, languages in held.parts.items()
        for language, names in languages.items()
        for name in names
    }
    for pair in pairs:
        name = name_of(pair.source)
        forbidden = known.first((name, *source_names(pair.source))) is not None
        yield pair, places.get((name, pair.language), "-") if forbidden else ""


def task(name: str, pairs: Sequence[Pair], most: int) -> Task:
    """A retrieval task: all positives are its documents, and at most so many queries, as evenly by source as they come.

    Pairs with the same query share it. The order of documents says nothing of which answers what.
    """
    documents: dict[str, str] = {}
    for pair in pairs:
        for positive in pair.positives:
            documents.setdefault(positive, f"c{digest(positive).hex()[:16]}")
    queries: dict[str, set[str]] = {}
    waiting: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=lambda pair: digest(pair.query)):
        if pair.query not in queries:
            waiting.setdefault(name_of(pair.source), []).append(pair.query)
        queries.setdefault(pair.query, set()).update(documents[positive] for positive in pair.positives)
    chosen: list[str] = []
    while waiting and len(chosen) < most:
        for source in sorted(waiting):
            chosen.append(waiting[source].pop())
            if not waiting[source]:
                del waiting[source]
    ids = {query: f"q{number}" for number, query in enumerate(chosen[:most])}
    return Task(
        name,
        dict(sorted((id, text) for text, id in documents.items())),
        {id: query for query, id in ids.items()},
        {id: dict.fromkeys(sorted(queries[query]), 1) for query, id in ids.items()},
    )
