"""A repository that may be asked at any time: also while the vectors for another question do not come."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embedcode.serve import kept
from embedcode.serve.kept import Kept
from embedcode.types import Query


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    root = tmp_path / "repository"
    root.mkdir()
    (root / "tokens.py").write_text("def refresh_tokens(session):\n    return session.renew()\n")
    return root


def test_who_asks_while_another_s_vectors_do_not_come_is_answered_from_what_there_is(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 5.0)
    asked = Kept(repository)
    asked.index.update()
    stuck, entered = threading.Event(), threading.Event()

    def never(*_: object, **__: object) -> None:
        entered.set()
        stuck.wait(30)

    monkeypatch.setattr(asked.index, "embed_best", never)
    first = threading.Thread(target=asked.search, args=(Query("refresh tokens"),))
    first.start()
    try:
        assert entered.wait(20)
        before = threading.active_count()
        answers = [asked.search(Query("refresh tokens")) for _ in range(3)]
        assert all(answer.ready and answer.hits[0].chunk.path == "tokens.py" for answer in answers)
        assert threading.active_count() <= before
    finally:
        stuck.set()
        first.join()
