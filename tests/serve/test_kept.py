"""A repository that may be asked at any time: also while the vectors for another question do not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode import Index, engine, load
from embedcode.engine.graph import GraphEncoder
from embedcode.errors import StoreError, UsageError
from embedcode.index.home import clean
from embedcode.serve import kept
from embedcode.serve.kept import Kept
from embedcode.serve.mcp import _told
from embedcode.types import Filter, Hit, InputError, Mode, Query


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes late on a busy machine."""
    monkeypatch.setattr(kept, "READ_SECONDS", 20.0)
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 20.0)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    root = tmp_path / "repository"
    root.mkdir()
    (root / "tokens.py").write_text("def refresh_tokens(session):\n    return session.renew()\n")
    return root


def test_vectors_that_do_not_come_keep_nobody_from_an_answer_of_what_there_is(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a served index beside bulk work: each hybrid question got 503 until it was done."""
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 5.0)
    asked = Kept(repository)
    asked.index.update()
    stuck, entered = threading.Event(), threading.Event()

    def never(*_: object, **__: object) -> None:
        entered.set()
        stuck.wait(30)

    monkeypatch.setattr(asked.index, "embed_best", never)
    try:
        answers = [asked.search(Query("refresh tokens"))]
        assert entered.is_set()
        before = threading.active_count()
        answers += [asked.search(Query("refresh tokens")) for _ in range(3)]
        assert all(answer.ready and answer.hits[0].chunk.path == "tokens.py" for answer in answers)
        assert threading.active_count() <= before
    finally:
        stuck.set()


@pytest.mark.usefixtures("patient")
def test_while_all_vectors_are_made_here_no_question_waits_for_its_own(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Kept(repository, load())
    asked.index.update(vectors=False)
    making, chosen = threading.Event(), threading.Event()
    update = asked.index.update

    def slow(*arguments: Any, vectors: bool = True, **options: Any) -> Any:
        if vectors:
            making.wait(30)
        return update(*arguments, vectors=vectors, **options)

    monkeypatch.setattr(asked.index, "update", slow)
    asked.search(Query("refresh tokens", mode=Mode.LEXICAL))  # which has them made
    monkeypatch.setattr(asked.index, "embed_best", lambda *_, **__: chosen.set())
    try:
        answer = asked.search(Query("refresh tokens"))
        assert answer.ready and answer.hits and not chosen.is_set()
        assert answer.notes == ("0 % of the index has vectors so far, the rest is being made in the background",)
    finally:
        making.set()
    assert asked._making is not None
    asked._making.join()
    assert asked.search(Query("refresh tokens")).notes == ()
    assert chosen.is_set()
    asked.index.close()


def test_who_gets_no_answer_in_time_is_told_no_more_than_that(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 0.2)
    asked = Kept(repository)
    go_on = threading.Event()
    monkeypatch.setattr(asked.index, "search", lambda *_: go_on.wait(10))
    answer = asked.search(Query("refresh tokens"), update=False)
    go_on.set()
    said = f"{asked.index.root} gave no answer within 0.2 seconds: ask again in a few seconds"
    assert (answer.ready, answer.notes) == (False, (said,))


def test_what_cannot_be_asked_is_said_however_long_an_answer_takes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told to ask again in place of it would do so for ever."""
    monkeypatch.setattr(kept, "READ_SECONDS", 0.0)
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 0.0)
    asked = Kept(repository)
    for query, since, said in (
        (Query(" "), "", "the query is empty"),
        (Query("x", where=Filter(languages=("klingon",))), "", "'klingon' is not a language"),
        (Query("x", where=Filter(paths=("!web",))), "", "excludes nothing"),
        (Query("x"), "HEAD", "since needs a git repository"),
    ):
        with pytest.raises(UsageError, match=said):
            asked.search(query, since)


def test_before_anything_was_read_an_answer_is_empty_and_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "READ_SECONDS", 0.0)
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 20.0)
    asked = Kept(repository)
    go_on = threading.Event()
    monkeypatch.setattr(asked.index, "update", lambda **_: go_on.wait(20))
    answer = asked.search(Query("refresh tokens", mode=Mode.LEXICAL))
    go_on.set()
    assert (answer.ready, answer.hits) == (True, [])
    assert f"{asked.index.root} is being read: {kept.SO_FAR}, ask again soon" in answer.notes


def test_who_is_answered_without_hits_is_told_of_the_filters(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 20.0)
    asked = Kept(repository)
    asked.index.update()
    for answer in (
        asked.search(Query("refresh", where=Filter(paths=("nosuch/**",)))),
        asked.related("tokens.py", 1, 3, Filter(paths=("nosuch/**",))),
    ):
        assert answer.notes == ("no hits; no file passes the filters together: check the globs of paths first",)
    answer = asked.search(Query("wombat", mode=Mode.LEXICAL))
    assert answer.notes == ("no hits; try other words",)


@pytest.mark.usefixtures("patient")
def test_an_index_that_was_cleaned_is_made_again(repository: Path) -> None:
    asked = Kept(repository)
    asked.index.update()
    query = Query("refresh tokens", mode=Mode.LEXICAL)
    for _ in range(2):
        assert asked.search(query).hits[0].chunk.path == "tokens.py"
        clean(repository, vectors=True, dry_run=False)
    assert asked.status().files == 0
    assert asked.search(query).hits[0].chunk.path == "tokens.py"
    asked.index.stop_background()
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_an_index_that_was_made_again_with_another_model_is_searched_with_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Kept(repository)
    asked.index.update()
    assert asked.search(Query("refresh tokens")).hits
    clean(repository, vectors=False, dry_run=False)
    other = GraphEncoder(replace(load().spec, max_tokens=64), 1)
    monkeypatch.setattr(engine, "configured", lambda *_: other)
    with Index.open(repository, other) as index:
        index.update()
    answer = asked.search(Query("refresh tokens"))
    assert (answer.hits[0].chunk.path, answer.notes) == ("tokens.py", ())
    assert asked.status().space == other.space
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_settings_of_now_hold(repository: Path) -> None:
    asked = Kept(repository)
    query = Query("refresh tokens", mode=Mode.LEXICAL)
    (repository / "tokens_fixture.py").write_text("refresh_tokens = 1\n")
    assert len(asked.search(query).hits) == 2
    (repository / ".embedcode.toml").write_text('ignore = ["*_fixture.py"]\n')
    for _ in range(2):
        assert [hit.chunk.path for hit in asked.search(query).hits] == ["tokens.py"]
        with Index.open(repository) as index:
            assert index.update(vectors=False).changed == 0
    (repository / ".embedcode.toml").write_text("ignore = 1\n")
    answer = asked.search(query)
    assert [hit.chunk.path for hit in answer.hits] == ["tokens.py"]
    assert "until then the settings from before hold" in answer.notes[0]
    asked.index.stop_background()
    asked.index.close()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.usefixtures("patient")
def test_what_keeps_vectors_from_being_made_is_said_and_not_tried_at_each_answer(
    repository: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    noted: list[tuple[str, str]] = []
    asked = Kept(
        repository, load() if own else None, lambda event, level, **fields: noted.append((event, fields["trouble"]))
    )
    asked.index.update(vectors=False)
    attempts: list[int] = []

    def start() -> bool:
        attempts.append(1)
        (asked.index.home / "background.log").write_text("embedcode: the disk is full: make room.\n")
        return True

    def fail(*_: object, vectors: bool = True, **__: object) -> None:
        if vectors:
            attempts.append(1)
            raise StoreError("the disk is full: make room.")

    monkeypatch.setattr(asked.index, "start_background", start)
    monkeypatch.setattr(asked.index, "update", fail)
    query = Query("refresh tokens", mode=Mode.LEXICAL)
    answers = []
    for _ in range(4):
        answers.append(asked.search(query))
        if asked._making is not None:
            asked._making.join()
    assert [answer.notes for answer in answers[1:]] == [
        ("0 % of the index has vectors so far, the rest is not being made: the disk is full: make room",)
    ] * 3
    assert len(attempts) == 1
    assert noted == ([("index", "the disk is full: make room.")] if own else [])  # else its own log has it
    monkeypatch.setattr(kept, "AGAIN_SECONDS", 0.0)
    asked.search(query)
    assert asked._making is not None
    asked._making.join()
    assert len(attempts) == 2
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_where_background_work_is_forbidden_each_question_gets_further(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_BACKGROUND", "false")
    for number in range(300):
        (repository / f"{number}.py").write_text(f"def part_{number}():\n    return {number}\n")
    asked = Kept(repository)
    first = asked.search(Query("refresh tokens", mode=Mode.LEXICAL))
    cure = f"the setting background is false, so `embedcode index --wait {repository}` makes it"
    assert first.notes == (f"0 % of the index has vectors so far, the rest is not being made: {cure}",)
    end = time.monotonic() + 60
    while asked.status().embedded <= 1:  # the first may need its half a second to load the model
        assert time.monotonic() < end
        asked.search(Query("refresh tokens"))
    assert asked.status().running is None
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_a_model_that_has_moved_leaves_the_words(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = repository.parent / "model"
    model.symlink_to(load().spec.folder)
    monkeypatch.setenv("EMBEDCODE_MODEL", str(model))
    with Index.open(repository) as index:
        index.update()
    monkeypatch.delenv("EMBEDCODE_MODEL")
    model.unlink()
    asked = Kept(repository)
    answer = asked.search(Query("refresh tokens"))
    assert "1. tokens.py:1-2" in _told(asked, answer, 2000)
    assert "this answer is by words alone: " in " ".join(answer.notes)
    assert not asked.search(Query("refresh tokens", mode=Mode.LEXICAL)).notes
    asked.index.close()


def test_answers_that_nobody_waits_for_any_more_are_no_more_than_there_may_be(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_ANSWERS", 2)
    asked, go, begun = Kept(repository), threading.Event(), []
    asked.search(Query("refresh tokens"))
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 0.1)

    def slow(*_: object) -> list[Hit]:
        begun.append(1)
        go.wait(60)
        return []

    with monkeypatch.context() as patched:
        patched.setattr(asked, "_hits", slow)
        assert [asked.search(Query("x"), update=False).ready for _ in range(5)] == [False] * 5
        assert len(begun) == 2
    go.set()
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 20.0)
    assert asked.search(Query("refresh tokens")).hits
    asked.index.close()


def test_a_text_without_a_vector_for_good_is_no_rest_that_is_being_made(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "tokens.py").write_text("def refresh_tokens():\n    return poison\n")
    tokenize = GraphEncoder.tokenize

    def refused(self: GraphEncoder, inputs: Sequence[str], *rest: Any, **options: Any) -> Any:
        found = tokenize(self, inputs, *rest, **options)
        return [
            InputError(place, "it is too odd") if "poison" in text else entry
            for place, (text, entry) in enumerate(zip(inputs, found, strict=True))
        ]

    monkeypatch.setattr(GraphEncoder, "tokenize", refused)
    asked = Kept(repository)
    assert list(asked.index.update().failed) == ["tokens.py"]
    started: list[bool] = []
    monkeypatch.setattr(Index, "start_background", lambda self: started.append(True))
    answer = asked.search(Query("refresh tokens", mode=Mode.LEXICAL))
    assert answer.hits and not answer.notes and not started


def test_a_reading_that_is_just_beginning_is_waited_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that makes a served index's vectors ended in a traceback where a search came just then."""
    start = kept.Task.start

    def slow(task: Any) -> None:
        time.sleep(0.3)
        start(task)

    monkeypatch.setattr(kept.Task, "start", slow)
    asked = Kept(repository)
    asking = threading.Thread(target=asked._refresh)
    asking.start()
    time.sleep(0.1)
    asked.finish()
    asking.join()


@pytest.mark.usefixtures("patient")
def test_a_model_that_takes_longer_than_an_answer_leaves_the_words_and_its_vector_is_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question was told to ask again in a few seconds, for ever, and paid for its vector anew."""
    asked = Kept(repository)
    asked.index.update()
    go_on, begun, vector = threading.Event(), [], asked.index.vector

    def slow(*arguments: Any) -> Any:
        begun.append(1)
        go_on.wait(30)
        return vector(*arguments)

    monkeypatch.setattr(asked.index, "vector", slow)
    with monkeypatch.context() as hasty:
        hasty.setattr(kept, "WORDS_SECONDS", 19.9)
        for _ in range(2):
            answer = asked.search(Query("refresh tokens"))
            assert (answer.ready, answer.hits[0].chunk.path) == (True, "tokens.py")
            assert answer.notes[0].startswith("this answer is by words alone: ") and "ask again soon" in answer.notes[0]
            assert "still being loaded" in answer.notes[0] and "cannot be used" not in answer.notes[0]
            assert answer.by_words
    go_on.set()
    answer = asked.search(Query("refresh tokens"))
    assert answer.notes == () and any(why.startswith("vector") for why in answer.hits[0].why)
    assert not answer.by_words
    assert len(begun) == 1
    asked.index.close()


def test_vectors_that_are_waited_for_are_no_more_than_there_may_be(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ANSWER_SECONDS", 20.0)
    monkeypatch.setattr(kept, "WORDS_SECONDS", 20.0)
    monkeypatch.setattr(kept, "MOST_VECTORS", 2)
    asked, go_on = Kept(repository), threading.Event()
    asked.index.update()
    monkeypatch.setattr(asked.index, "vector", lambda *_: go_on.wait(30))
    before = threading.active_count()
    assert all(asked.search(Query(f"tokens {number}"), update=False).hits for number in range(5))
    assert threading.active_count() <= before + 2
    go_on.set()
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_a_disk_that_is_full_takes_no_finished_index_away(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Kept(repository)
    query = Query("refresh tokens")

    def full(*_: object, **__: object) -> None:
        raise StoreError("no space left: free some.")

    with monkeypatch.context() as patched:
        patched.setattr(asked.index, "update", full)
        with pytest.raises(StoreError, match="no space left"):  # nothing was ever read
            asked.search(query)
    asked.index.update()
    monkeypatch.setattr(asked.index, "update", full)
    monkeypatch.setattr(asked.index, "embed", full)
    answer = asked.search(query)
    assert answer.hits[0].chunk.path == "tokens.py"
    assert answer.notes == (
        "no vectors are made (no space left: free some)",
        f"no space left: free some; {kept.SO_FAR}",
    )
    asked.index.close()


@pytest.mark.usefixtures("patient")
def test_no_answer_waits_for_the_process_that_makes_the_rest(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = Kept(repository), threading.Event()
    asked.index.update(vectors=False)
    monkeypatch.setattr(asked.index, "start_background", lambda: go_on.wait(30))
    start = time.monotonic()
    answer = asked.search(Query("refresh tokens", mode=Mode.LEXICAL))
    assert time.monotonic() - start < 10
    go_on.set()
    assert answer.notes == ("0 % of the index has vectors so far, the rest is being made in the background",)
    asked.index.close()
