"""Where chunks and vectors live: one contract, two implementations, each imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcode.store.memory import MemoryStore as MemoryStore
    from embedcode.store.sqlite import SqliteStore as SqliteStore

_HOMES = {"MemoryStore": "memory", "SqliteStore": "sqlite"}
__all__ = ["MemoryStore", "SqliteStore"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'embedcode.store' has no attribute {name!r}")
    return getattr(import_module(f"embedcode.store.{home}"), name)
