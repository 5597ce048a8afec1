"""Reading ahead: the system fetches the tensors of a checkpoint from the disk while those before them are converted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate
from threading import Thread

from embedcode.model.weights import Entry

AHEAD = 1_000_000_000
"""Bytes that are fetched before they are wanted, however little memory is free."""


class Ahead:
    """Has tensors fetched some way ahead of the one that is wanted, in the order in which they will be.

    Through the pages of a mapped file a disk is read by 128 kB, and stands still while a weight is made int8.
    """

    def __init__(self, order: Iterable[Entry], room: int) -> None:
        """`room` is the memory that nobody needs, in bytes: tensors that are fetched stay in it until they are used."""
        self._order = list(dict.fromkeys(order))
        self._places = {entry: place for place, entry in enumerate(self._order)}
        self._ends = list(accumulate(entry.size for entry in self._order))
        self._room = max(AHEAD, room)
        self._place = self._asked = 0

    def wanted(self, entry: Entry) -> None:
        """That `entry` is read now. One that lies before the last begins another pass over them."""
        place = self._places[entry]
        if place < self._place:
            self._asked = place
        self._place, first = place, max(self._asked, place)
        self._asked = first
        while self._asked < len(self._order) and self._ends[self._asked] <= self._ends[place] + self._room:
            self._asked += 1
        if hasattr(os, "posix_fadvise") and (fetched := self._order[first : self._asked]):  # macOS has none
            with suppress(RuntimeError):  # no room for one more thread
                Thread(target=_fetch, args=(fetched,), daemon=True).start()  # it waits where the disk's queue is full


def _fetch(entries: Iterable[Entry]) -> None:
    with suppress(OSError):  # it is advice: what keeps a file from being read is said by who reads it
        for entry in entries:
            with entry.file.open("rb") as file:
                os.posix_fadvise(file.fileno(), entry.start, entry.size, os.POSIX_FADV_WILLNEED)
