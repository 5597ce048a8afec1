"""What a search that is refused for lack of room is told, in this process and without an index."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from embedcode.serve import keys, search_api
from embedcode.serve.body import HELD, Bodies
from embedcode.serve.guard import Guard
from embedcode.serve.indexes import Indexes
from embedcode.serve.journal import Journal
from embedcode.serve.kept import Kept
from embedcode.serve.metrics import Metrics
from embedcode.serve.server import application
from embedcode.types import Tokens

from .asgi import ask


class Ten:
    """Ten tokens a text."""

    def tokenize(self, texts: list[str], *_: Any, **__: Any) -> list[Tokens]:
        return [Tokens((1,) * 10, 10, 10)] * len(texts)


@pytest.mark.parametrize("overload", [429, 503])
def test_a_search_that_is_refused_has_the_status_of_an_overload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overload: int
) -> None:
    path, metrics = tmp_path / "keys.toml", Metrics()
    made = {"authorization": f"Bearer {keys.add(path, 'reader', tokens_per_minute=10)}"}
    known = keys.Keys(path)
    cast(keys.Key, known.find(made["authorization"][7:])).spend(10, time.monotonic())
    kept = cast(Kept, SimpleNamespace(index=SimpleNamespace(encoder=Ten())))
    journal = Journal("error", True, io.StringIO())
    guard = Guard(journal, metrics, frozenset(), frozenset(), known, overload=overload)

    def asked() -> tuple[int, dict[str, str], Any]:
        routes = search_api.routes(Indexes({"shop": kept}), Bodies(1000))
        return ask(application(list(routes), guard), "/v1/search", {"query": "x"}, **made)

    status, headers, answer = asked()
    assert (status, answer["error"]["code"]) == (overload, "overloaded")
    assert "This key has used up its tokens" in answer["message"]
    assert 1 <= int(headers["retry-after"]) <= 60
    monkeypatch.setattr(search_api, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(search_api, "AT_WORK", 0)  # as if others were
    status, headers, answer = asked()
    assert (status, headers["retry-after"]) == (overload, "2")
    for reason in ("search_quota", "searches"):
        assert f'embedcode_refused_requests_total{{reason="{reason}"}} 1.0' in metrics.text().decode()


def test_an_answer_that_finds_no_room_costs_its_key_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, metrics, bodies = tmp_path / "keys.toml", Metrics(), Bodies(1000)
    made = {"authorization": f"Bearer {keys.add(path, 'reader', tokens_per_minute=10)}"}
    known = keys.Keys(path)
    kept = cast(Kept, SimpleNamespace(index=SimpleNamespace(encoder=Ten()), search=lambda *_: None))
    monkeypatch.setattr(search_api, "_record", lambda *_: {"hits": "x" * 500})
    guard = Guard(Journal("error", True, io.StringIO()), metrics, frozenset(), frozenset(), known)
    app = application(list(search_api.routes(Indexes({"shop": kept}), bodies)), guard)
    with bodies.open() as other:
        other(HELD * 1000 - 100)
        for _ in range(2):  # for ten tokens of ten
            status, _, answer = ask(app, "/v1/search", {"query": "x"}, **made)
            assert (status, answer["error"]["code"]) == (429, "overloaded")
            assert "memory" in answer["message"]
    assert ask(app, "/v1/search", {"query": "x"}, **made)[0] == 200
    assert ask(app, "/v1/search", {"query": "x"}, **made)[0] == 429


def test_a_search_by_words_alone_or_by_mistake_costs_its_key_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, metrics = tmp_path / "keys.toml", Metrics()
    made = {"authorization": f"Bearer {keys.add(path, 'reader', tokens_per_minute=10)}"}
    known = keys.Keys(path)
    kept = cast(Kept, SimpleNamespace(index=SimpleNamespace(encoder=Ten()), search=lambda *_: None))
    guard = Guard(Journal("error", True, io.StringIO()), metrics, frozenset(), frozenset(), known)
    app = application(list(search_api.routes(Indexes({"shop": kept}), Bodies(1000))), guard)

    def broken(*_: Any) -> Any:
        raise KeyError

    for record, status in ((lambda *_: {"by_words": True}, 200), (broken, 500), (lambda *_: {"by_words": False}, 200)):
        monkeypatch.setattr(search_api, "_record", record)
        assert ask(app, "/v1/search", {"query": "x"}, **made)[0] == status
    assert ask(app, "/v1/search", {"query": "x"}, **made)[0] == 429  # the last one took all of it
