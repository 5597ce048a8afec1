"""The values that flow through every room: chunks, queries, hits, tokens, pairs, and the Encoder contract.

Knows nothing of files, models or stores, and of ours imports the errors alone. numpy is named for the type
checker only, so that `--help` never pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from embedcode.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
else:
    Floats = object

Content = Literal["code", "docs", "config"]


class Role(StrEnum):
    """Which side of retrieval a text is on. Always explicit: a wrong role ranks near chance, silently."""

    QUERY = "query"
    PASSAGE = "passage"


class Truncate(StrEnum):
    """Which end of a text that is too long is cut off; NONE makes it an error."""

    NONE = "NONE"
    START = "START"
    END = "END"


class Mode(StrEnum):
    """Which candidate lists a search uses."""

    HYBRID = "hybrid"
    LEXICAL = "lexical"
    DENSE = "dense"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was indexed. `path` is relative to the index root, with forward slashes."""

    path: str
    repo: str
    language: str
    content: Content
    size: int
    stamp: int
    """Another one where the file was written or replaced since; 0 where it may have been without showing it."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of whole lines of one file, 1-based and inclusive; `symbol` is "" outside any definition."""

    repo: str
    path: str
    start_line: int
    end_line: int
    language: str
    symbol: str
    text: str

    @property
    def id(self) -> str:
        """32 hex digits of (path, lines, text): the same chunk has the same id in every store."""
        return digest(self.path, f"{self.start_line}-{self.end_line}", self.text).hex()


@dataclass(frozen=True, slots=True)
class Filter:
    """What a search is limited to. Empty fields do not limit; fields are joined by AND, values by OR."""

    paths: tuple[str, ...] = ()
    """Globs over the relative path: `*` stays in a folder, `**` crosses folders. One without a slash inside it (`*.py`,
    `src`) matches at any depth, `/src` only at the top; a plain name also means all below it."""
    languages: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    content: tuple[Content, ...] = ()
    only: frozenset[str] | None = None
    """Exact relative paths, as `--since REV` gives them."""

    def __post_init__(self) -> None:
        for name in ("paths", "languages", "repos", "content"):
            # It would be read letter by letter, and a `*` among them passes all.
            if isinstance(value := getattr(self, name), str):
                raise UsageError(f"{name}={value!r} is one string: write {name}=({value!r},).")
        kinds = get_args(Content)
        if unknown := [kind for kind in self.content if kind not in kinds]:
            raise UsageError(f"content {unknown[0]!r} is none of {', '.join(kinds)}.")

    def __bool__(self) -> bool:
        return bool(self.paths or self.languages or self.repos or self.content) or self.only is not None


@dataclass(frozen=True, slots=True)
class Query:
    """Text, code, or both together (a hybrid query)."""

    text: str = ""
    code: str = ""
    where: Filter = field(default_factory=Filter)
    top_k: int = 10
    mode: Mode = Mode.HYBRID

    def __post_init__(self) -> None:
        for name in ("text", "code"):
            if not isinstance(value := getattr(self, name), str):
                raise UsageError(f"the {name} of a query is a {type(value).__name__}: give a string.")
        if self.top_k < 1:
            raise UsageError(f"top_k {self.top_k} finds nothing: give 1 or more.")
        try:
            # A plain string is equal to a member and is not one.
            object.__setattr__(self, "mode", Mode(self.mode))
        except ValueError:
            raise UsageError(f"mode {self.mode!r} is none of {', '.join(Mode)}.") from None

    @property
    def joined(self) -> str:
        return "\n".join(part for part in (self.text, self.code) if part.strip())


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk with its score (higher is better, comparable within one answer only) and the signals behind it."""

    chunk: Chunk
    score: float
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids an encoder will read, with the receipt: tokens in the whole text, and tokens kept."""

    ids: tuple[int, ...]
    original: int
    used: int
    prompt: int = 0
    """So many of the first ids are the prompt's."""
    estimated: bool = False
    """`original` is estimated, since only the part that is kept was read."""

    @property
    def truncated(self) -> bool:
        return self.used < self.original

    @property
    def receipt(self) -> dict[str, int | bool]:
        """As it stands beside a vector, in a server's answer and in a file."""
        told: dict[str, int | bool] = {"tokens": self.original, "used": self.used, "truncated": self.truncated}
        return told | ({"estimated": True} if self.estimated else {})


@dataclass(frozen=True, slots=True)
class InputError:
    """Why input `index` of a call cannot be encoded."""

    index: int
    message: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One example of training: a query, what answers it, and what looks as if it did."""

    query: str
    positives: tuple[str, ...]
    """At least one. Several answer equally well, as all the places that one issue edits."""
    negatives: tuple[str, ...] = ()
    """Hard ones, mined; none where the others of a batch are to serve."""
    task: str = ""
    """The kind of pair, such as docstring, commit, issue or sql. Training goes by data set and does not read it."""
    language: str = ""
    """Of the code, as `languages` names it."""
    source: str = ""
    """Where it is from, as a split by source needs it: a package and its version, or a repository."""
    licence: str = ""
    """SPDX identifier of the source's licence."""


@runtime_checkable
class Encoder(Protocol):
    """Texts to unit vectors. Every engine, local or remote, implements this and nothing else."""

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def space(self) -> str:
        """hash(weights, tokenizer, passage prompt, pooling, dim, max_tokens, passage format).

        An index refuses another."""
        ...

    @property
    def build(self) -> str:
        """Precision, engine and versions: recorded in an index; a different one is only a warning."""
        ...

    def tokenize(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
    ) -> list[Tokens | InputError]:
        """One entry per text, in order; a text that cannot be encoded is an InputError, never an exception."""
        ...

    def forward(self, tokens: Sequence[Tokens]) -> Floats:
        """float32 [n, dim], unit length, in order; non-finite rows are recomputed alone or raised, never returned."""
        ...

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = Truncate.NONE,
        max_tokens: int | None = None,
        dimensions: int | None = None,
    ) -> Floats:
        """tokenize, then forward, then the Matryoshka cut to `dimensions`.

        EncodeError names the first text that cannot be encoded; UsageError for dimensions the model does not declare.
        """
        ...


def digest(*parts: str | bytes) -> bytes:
    """16 bytes of BLAKE2b over the parts, each with its length, so that no two lists of parts collide."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "little"))
        hasher.update(raw)
    return hasher.digest()
