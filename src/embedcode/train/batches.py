"""Batches: which rows of the mix go together, and what of them the loss compares.

Everything is decided by the seed and the place in the run, never by what was drawn before, so that a run that goes on
after a kill draws what it would have drawn. Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.sampler import DefaultBatchSampler

from embedcode.engine.tokens import TextTokenizer
from embedcode.errors import UsageError
from embedcode.train.losses import NEGATIVE, POSITIVE, UNKNOWN
from embedcode.train.mix import Mix, key
from embedcode.train.near import GROUP
from embedcode.types import Pair, Tokens, Truncate, digest

MANY, PART = 512, 64
"""Texts from which threads share them, and how many one takes: before a card, mining would mostly wait for tokens."""


class MixedBatches(DefaultBatchSampler):
    """Batches of rows in which every data set has its share.

    `shares` of a batch, `sizes` in rows, in the order of the mix. What a batch owes a set by rounding the next ones
    pay, so that after any number of batches a set has had its share to within one row for each other set. Within a
    set every row comes once before any comes again, each time in another order; with `groups`, the group of every
    row by its number, below 0 where it has none, up to GROUP rows of one group follow each other.
    """

    def __init__(
        self, sizes: Sequence[int], shares: Sequence[float], batch: int, batches: int, seed: int,
        groups: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(range(sum(sizes)), batch, drop_last=True)
        self.groups = groups
        self.sizes, self.shares = list(sizes), np.array(shares) / sum(shares)
        self.batch, self.batches, self.seed = batch, batches, seed

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._rows(number) for number in range(len(self.sizes))]
        given = np.zeros(len(self.sizes))
        for number in range(self.batches):
            counts = quotas(self.shares * self.batch * (number + 1) - given, self.batch)
            given += counts
            rows = [next(stream) for stream, count in zip(streams, counts, strict=True) for _ in range(count)]
            np.random.default_rng((self.seed, 1, number)).shuffle(rows)
            yield rows

    def _rows(self, number: int) -> Iterator[int]:
        start, size = sum(self.sizes[:number]), self.sizes[number]
        turn = 0
        while True:
            rng = np.random.default_rng((self.seed, 2, number, turn))
            order = rng.permutation(size)
            if self.groups is not None:
                order = together(order, self.groups[start + order], rng)
            yield from (start + order).tolist()
            turn += 1


def groups_of(mix: Mix) -> NDArray[np.int64] | None:
    """The number of each pair's group, -1 in a set that has none; None where no set has."""
    if all(one.data.group == "none" for one in mix.sets):
        return None
    numbers: dict[tuple[str, str | int], int] = {}
    found = np.full(len(mix.pairs), -1, np.int64)
    for one in mix.sets:
        if one.data.group != "none":
            for row in range(one.start, one.stop):
                value = _group(mix, row, one.data.group)
                if value == -1:
                    continue
                found[row] = numbers.setdefault((one.data.name, value), len(numbers))
    return found


def _group(mix: Mix, row: int, by: str) -> str | int:
    if by == "near":
        return -1 if mix.near is None else int(mix.near[row])
    value: str = getattr(mix.pairs[row], by)
    return value


def together(order: NDArray[np.int64], groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """`order` with up to GROUP of the same group beside each other, and these parts in a random order."""
    by_group = np.argsort(groups, kind="stable")
    parts: list[NDArray[np.int64]] = []
    for group in np.split(by_group, np.flatnonzero(np.diff(groups[by_group])) + 1):
        each = GROUP if groups[group[0]] >= 0 else 1
        parts += np.split(group, range(each, len(group), each))
    mixed: NDArray[np.int64] = np.concatenate([parts[place] for place in rng.permutation(len(parts))])
    return order[mixed]


class Pieces(DefaultBatchSampler):
    """Batches cut into equal parts that are computed one after the other, in their order.

    With `places`, which is for parts of one row, its place in the run follows it, for Collator to draw by.
    """

    def __init__(self, whole: MixedBatches, size: int, places: bool = False) -> None:
        super().__init__(range(sum(whole.sizes)), size, drop_last=True)
        self.whole, self.size, self.places = whole, size, places

    def __len__(self) -> int:
        return len(self.whole) * (self.whole.batch // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        place = 0
        for rows in self.whole:
            for start in range(0, len(rows), self.size):
                yield rows[start : start + self.size] + [place] * self.places
                place += 1


def quotas(owed: NDArray[np.float64], batch: int) -> list[int]:
    """Whole rows of each set, `batch` together, nearest to what is owed."""
    counts = np.maximum(np.floor(owed + 1e-9), 0).astype(int)
    while counts.sum() > batch:
        counts[np.argmin(np.where(counts > 0, owed - counts, np.inf))] -= 1
    for _ in range(batch - int(counts.sum())):
        counts[np.argmax(owed - counts)] += 1
    return [int(count) for count in counts]


def draw(negatives: Sequence[str], count: int, temperature: float, rng: np.random.Generator) -> list[str]:
    """`count` hard negatives of those that a pair has, which are hardest first.

    At temperature 0 the hardest; above, without replacement, the one of rank r (from 0) with weight
    exp(-r / temperature), so that a mistaken hardest one does not come every time. Fewer where there are no more.
    """
    if not temperature or len(negatives) <= count:
        return list(negatives[:count])
    # Gumbel's top k: the largest of log weight + noise are a draw without replacement.
    marks = -np.arange(len(negatives)) / temperature + rng.gumbel(size=len(negatives))
    return [negatives[place] for place in np.argsort(-marks)[:count]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of a batch, each document once, and their relation, int8 [queries, documents] (losses.py)."""

    queries: list[str]
    documents: list[str]
    relation: NDArray[np.int8]


def relate(
    chosen: Sequence[tuple[Pair, str, Sequence[str]]], answers: dict[bytes, frozenset[bytes]], in_batch: bool
) -> Batch:
    """A batch of (pair, the positive drawn for it, the negatives drawn for it).

    Equal documents become one column. A document that answers a query by any pair of the mix is never its negative,
    and compared with only if it was drawn for it. With `in_batch` all others are negatives, else only its own.
    """
    places: dict[bytes, int] = {}
    documents: list[str] = []

    def place(text: str) -> int:
        name = key(text)
        if name not in places:
            places[name] = len(documents)
            documents.append(text)
        return places[name]

    columns = [(place(positive), [place(text) for text in negatives]) for _, positive, negatives in chosen]
    names = list(places)
    relation = np.full((len(chosen), len(documents)), NEGATIVE if in_batch else UNKNOWN, np.int8)
    for row, ((pair, _, _), (positive, negatives)) in enumerate(zip(chosen, columns, strict=True)):
        relation[row, negatives] = NEGATIVE
        known = answers.get(key(pair.query), ())
        relation[row, [column for column, name in enumerate(names) if name in known]] = UNKNOWN
        relation[row, positive] = POSITIVE
    return Batch([pair.query for pair, _, _ in chosen], documents, relation)


@dataclass(frozen=True, slots=True)
class Texts:
    """How texts become tokens: prompts as the finished model has them, longer texts cut at the end."""

    tokenizer: TextTokenizer
    query_prompt: str
    passage_prompt: str
    instruction: str
    query_tokens: int
    passage_tokens: int

    def query(self, texts: Sequence[str], instructions: Sequence[str] | None = None) -> list[Tokens]:
        said = instructions or [self.instruction] * len(texts)
        prompts = [self.query_prompt.replace("{instruction}", one or self.instruction) for one in said]
        if len(set(prompts)) == 1:
            return self._tokens(texts, prompts[0], self.query_tokens)
        return [self._tokens([text], prompt, self.query_tokens)[0] for text, prompt in zip(texts, prompts, strict=True)]

    def passage(self, texts: Sequence[str]) -> list[Tokens]:
        return self._tokens(texts, self.passage_prompt, self.passage_tokens)

    def _tokens(self, texts: Sequence[str], prompt: str, limit: int) -> list[Tokens]:
        # A space has a token where an empty text may have none.
        said = [text or " " for text in texts]
        if len(said) < MANY:
            entries = self.tokenizer(said, prompt, Truncate.END, limit)
        else:  # the tokenizer gives up Python's lock
            parts = [said[start : start + PART] for start in range(0, len(said), PART)]
            with ThreadPoolExecutor() as pool:
                found = pool.map(lambda part: self.tokenizer(part, prompt, Truncate.END, limit), parts)
                entries = [entry for part in found for entry in part]
        for text, entry in zip(texts, entries, strict=True):
            if not isinstance(entry, Tokens):
                raise UsageError(f"{text[:60]!r} cannot be read by this tokenizer ({entry.message}): leave it out.")
        return [entry for entry in entries if isinstance(entry, Tokens)]


class Collator:
    """Rows of the mix to what the trainer hands to the loss: two packs of tokens, and the relation as the label."""

    valid_label_columns = ("label",)

    def __init__(
        self, mix: Mix, texts: Texts, negatives: int, temperature: float, in_batch: bool, seed: int, first: int = 0,
        places: bool = False,
    ) -> None:  # fmt: skip
        """`first` is the position of a text's first token; `places` as of Pieces."""
        self.mix, self.texts = mix, texts
        self.negatives, self.temperature, self.in_batch, self.seed = negatives, temperature, in_batch, seed
        self.first, self.places = first, places

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        numbers = [int(row["row"]) for row in rows]
        numbers, place = (numbers[:1], numbers[1:]) if self.places else (numbers, [])
        batch = self.batch(numbers, place)
        said = [self.mix.set_of(number).data.instruction for number in numbers]
        queries = self.texts.query(batch.queries, said)
        documents, relation = by_length(self.texts.passage(batch.documents), batch.relation)
        return {
            **packed("query_", queries, self.first),
            **packed("document_", documents, self.first),
            "label": torch.from_numpy(relation),
        }

    def batch(self, numbers: Sequence[int], place: Sequence[int] = ()) -> Batch:
        """What is drawn depends on the seed and the rows, which meet in another order each time; of a single row, on
        its place in the run too, or it would draw the same each time."""
        rng = np.random.default_rng(int.from_bytes(digest(str(self.seed), *map(str, (*numbers, *place))), "little"))
        chosen = []
        for number in numbers:
            pair = self.mix.pairs[number]
            positive = pair.positives[int(rng.integers(len(pair.positives)))]
            chosen.append((pair, positive, draw(pair.negatives, self.negatives, self.temperature, rng)))
        return relate(chosen, self.mix.answers, self.in_batch)


def by_length(documents: list[Tokens], relation: NDArray[np.int8]) -> tuple[list[Tokens], NDArray[np.int8]]:
    """Documents in the order of their lengths: attention computes equal ones together."""
    order = sorted(range(len(documents)), key=lambda place: documents[place].used)
    return [documents[place] for place in order], relation[:, order]


def packed(prefix: str, tokens: Sequence[Tokens], first: int = 0) -> dict[str, Any]:
    """Texts side by side, without padding: ids and positions [1, T], borders, and tokens of each text's prompt."""
    ids = [number for entry in tokens for number in entry.ids]
    places = [place for entry in tokens for place in range(first, first + entry.used)]
    borders = [0]
    for entry in tokens:
        borders.append(borders[-1] + entry.used)
    return {
        f"{prefix}input_ids": torch.tensor([ids]),
        f"{prefix}position_ids": torch.tensor([places]),
        f"{prefix}borders": borders,
        f"{prefix}prompts": [entry.prompt for entry in tokens],
    }


def steps_of(size: int, batch: int, epochs: float) -> int:
    """Batches that have seen every row `epochs` times, on the mean."""
    return max(1, math.ceil(size * epochs / batch))
