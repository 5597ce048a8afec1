"""Near duplicates among short texts, which have too few words for `minhash`: questions, commands, one-liners.

A text is the words of its tokens (those of `never`), casefolded and without stop words, each occurrence its own. Two
are near where at most one word of either is not the other's and 80 % agree, so that "how to sort a list in python" is a
copy of "python sort list", and an ascending sort none of a descending one. Knows no pairs and no evaluation sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from embedcode.data.minhash import THRESHOLD
from embedcode.store.terms import STOP_WORDS

FEWEST, MOST = 3, 12
"""Words of a text that is compared; of more, one that differs is for `minhash`. Of some 35,000 unrelated texts
(questions and code of other sets) none is near one of 500 of CoSQA's queries, and one each near those of conala and
nl2bash; of those 500 behind "how to " 499 are found, with four words as the fewest 465."""
REPLACED = 9
"""Words from which on one may be another: 8 of 10 agree. Of fewer, thousands may differ so, "find files named X"."""

Words = frozenset[tuple[str, int]]


def words(tokens: Sequence[str]) -> Words:
    """With the number of the occurrence; none of a text that has too few or too many."""
    seen = Counter(word for word in re.findall(r"\w+", " ".join(tokens).casefold()) if word not in STOP_WORDS)
    if not FEWEST <= seen.total() <= MOST:
        return frozenset()
    return frozenset((word, number) for word, count in seen.items() for number in range(count))


class Index:
    """Texts by number, asked which of them are near a new one, in the time of a dozen look-ups however many there are:
    of two sets of which each has at most one word more, some sum of all words, or of all but one, is the same."""

    def __init__(self) -> None:
        self._words: dict[int, Words] = {}
        self._whole: dict[int, list[int]] = {}
        self._less: dict[int, list[int]] = {}

    def add(self, number: int, found: Words) -> None:
        if found:
            self._words[number] = found
            whole, less = _sums(found)
            self._whole.setdefault(whole, []).append(number)
            for key in less:
                self._less.setdefault(key, []).append(number)

    def near(self, found: Words) -> Iterator[tuple[int, float]]:
        """(number, similarity) of those at or above the threshold, each once."""
        if not found:
            return
        whole, less = _sums(found)
        numbers = {*self._whole.get(whole, ()), *self._less.get(whole, ())}
        for key in less:
            numbers.update(self._whole.get(key, ()))
            if len(found) >= REPLACED:
                numbers.update(self._less.get(key, ()))
        for number in sorted(numbers):
            other = self._words[number]
            similarity = len(found & other) / len(found | other)
            if similarity >= THRESHOLD:
                yield number, similarity


def _sums(found: Words) -> tuple[int, set[int]]:
    """Of the hashes of all words, and of all but each."""
    hashes = [hash(word) for word in found]
    whole = sum(hashes)
    return whole, {whole - one for one in hashes}
