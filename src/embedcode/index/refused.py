"""Texts that the encoder could not embed, as the index remembers them: else each search would try them again.

They are tried again when all that lacks a vector is embedded, and by another build of the encoder. Knows the Store
contract and no encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from embedcode.store.contract import Store

NOTE = "refused"
"""Its name in the manifest."""


class Refused(NamedTuple):
    path: str
    reason: str
    chunks: int = 1
    """That have this text."""


def refused(store: Store) -> dict[bytes, Refused]:
    """By key, those that are still in the index and still have no vector."""
    return _still(store, {})


def remember(store: Store, more: Mapping[bytes, Refused]) -> None:
    """Note these too, and drop what is over."""
    from embedcode.index.build import note

    if more or NOTE in store.meta().manifest:
        found = {key.hex(): (one.path, one.reason) for key, one in _still(store, more).items()}
        note(store, {NOTE: json.dumps(found)})


def _still(store: Store, more: Mapping[bytes, Refused]) -> dict[bytes, Refused]:
    noted = json.loads(store.meta().manifest.get(NOTE, "{}"))
    known = {bytes.fromhex(key): Refused(*entry) for key, entry in noted.items()} | dict(more)
    counts = store.lacking(list(known)) if known else {}
    return {key: one._replace(chunks=counts[key]) for key, one in known.items() if key in counts}
