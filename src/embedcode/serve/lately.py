"""Lately: the last minutes of the server in numbers, for the page that a person looks at. Prometheus has the rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedcode.serve.keys import Key
from embedcode.serve.queue import Lane

KEPT = 1024
"""Embedding requests of a lane whose latency is kept."""
ERRORS = 20
WINDOW = 60
"""Seconds that the tokens a second are shown for."""


class Meter:
    """Tokens computed in each of the last WINDOW seconds."""

    def __init__(self) -> None:
        self._tokens: deque[tuple[int, int]] = deque(maxlen=WINDOW + 1)

    def add(self, tokens: int) -> None:
        second = int(time.time())
        if self._tokens and self._tokens[-1][0] == second:
            self._tokens[-1] = (second, self._tokens[-1][1] + tokens)
        else:
            self._tokens.append((second, tokens))

    def per_second(self) -> list[int]:
        """Oldest first; the second that is under way is left out."""
        now = int(time.time())
        known = dict(self._tokens)
        return [known.get(second, 0) for second in range(now - WINDOW, now)]


@dataclass(slots=True)
class Lately:
    started: float = field(default_factory=time.time)
    seconds: dict[Lane, deque[float]] = field(default_factory=lambda: {lane: deque(maxlen=KEPT) for lane in Lane})
    errors: deque[tuple[str, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=ERRORS))
    """Of which key each, by its name."""

    def answered(
        self, path: str, status: int, seconds: float, note: Mapping[str, Any], request_id: str, said: str
    ) -> None:
        if status >= 400 and not path.startswith("/v1/health/"):
            error = {"time": time.time(), "id": request_id, "path": path[:100], "status": status, "message": said[:300]}
            self.errors.append((note.get("key", ""), error))
        if status == 200 and (lane := note.get("lane")):
            self.seconds[Lane(lane)].append(seconds)

    def told(self, key: Key | None) -> list[dict[str, Any]]:
        """The last errors, newest first. A key of some indexes or none has its own: a message may name others, and what
        is in them."""
        mine = key.name if key is not None and (key.indexes or "search" not in key.scopes) else None
        return [error for name, error in reversed(self.errors) if mine is None or name == mine]

    def latencies(self, lane: Lane) -> dict[str, float | int]:
        """p50, p95 and p99 in milliseconds, and of how many requests."""
        found = sorted(self.seconds[lane])
        return {"count": len(found)} | {f"p{share}": _share(found, share) for share in (50, 95, 99)}


def _share(found: Sequence[float], percent: int) -> float:
    return round(1000 * found[min(len(found) - 1, len(found) * percent // 100)], 1) if found else 0.0
