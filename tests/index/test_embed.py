"""Vectors of an index: from the cache where they were made before, else made, batch by batch."""

from __future__ import annotations

import _thread
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write as write_checkpoint
from layouts import LAYOUTS

from embedcode import Encoder, Index, Mode, Query, Role, Truncate, load
from embedcode.engine.graph import GraphEncoder, Session
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import EncodeError, UsageError
from embedcode.index import embed
from embedcode.index import index as index_module
from embedcode.index.prepare import embedded_text
from embedcode.index.report import Step
from embedcode.store.cache import VectorCache
from embedcode.types import Floats, Tokens

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]
Git = Callable[..., str]


@pytest.fixture
def many(tmp_path: Path, write: Write) -> Path:
    return write(
        tmp_path / "many",
        {f"part{number}.py": f"def step_{number}(value):\n    return {number}\n" for number in range(60)},
    )


def test_a_chunk_s_vector_is_the_encoder_s_vector_of_its_passage(shop: Path, opened: Open, encoder: Encoder) -> None:
    index = opened(shop)
    index.update()
    stored = [entry for path in index.store.files() for entry in index.store.chunks_of(path)]
    at, vectors = index.store.vectors([id for id, _ in stored])
    assert at == list(range(len(stored)))
    passages = [f"{c.path} {c.symbol}".rstrip() + f"\n{c.text}" for _, c in stored]
    expected = encoder.encode(passages, Role.PASSAGE, truncate=Truncate.END)
    assert (vectors * expected).sum(1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_an_update_looks_for_the_vectors_of_what_it_has_cut_alone(
    shop: Path, many: Path, opened: Open, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others are still to be made: to look for those too takes seconds, at each edit of a large repository."""
    opened(shop).update()  # else there is no vector to look for
    asked: list[int] = []
    get = VectorCache.get
    monkeypatch.setattr(VectorCache, "get", lambda self, keys: asked.append(len(keys)) or get(self, keys))
    write(many, {"README.md": (shop / "README.md").read_text()})
    index = opened(many)
    report = index.update(vectors=False)
    assert (asked, report.embedded) == ([report.chunks], 1)
    asked.clear()
    write(many, {"part0.py": "def quokka(value):\n    return 0\n"})
    assert index.update(vectors=False).changed == 1
    assert asked == [1]


def test_a_second_worktree_embeds_nothing_twice(shop: Path, opened: Open, write: Write, git: Git) -> None:
    git(shop, "init", "-q")
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "all")
    first = opened(shop).update()
    worktree = shop.parent / "worktree"
    git(shop, "worktree", "add", "-q", str(worktree))
    index = opened(worktree / "shop")
    assert index.root == worktree
    second = index.update()
    assert (second.encoded, second.cached, second.embedded) == (0, first.chunks, first.chunks)
    write(worktree, {"web/new.js": "export function brandNew() { return 42; }\n"})
    third = index.update()
    assert (third.encoded, third.cached, third.changed) == (1, 0, 1)
    hits = opened(worktree).search(Query("forget the session of a visitor", mode=Mode.DENSE))
    assert hits[0].chunk.path == "shop/session.py"


def test_a_copy_answers_as_the_original(shop: Path, opened: Open) -> None:
    opened(shop).update()
    copy = Path(shutil.copytree(shop, shop.parent / "copy" / "shop"))
    report = opened(copy).update()
    assert report.encoded == 0
    for mode in Mode:
        query = Query("log in again after the session was closed", mode=mode)
        assert opened(copy).search(query) == opened(shop).search(query)


def test_back_to_an_earlier_branch_embeds_nothing(shop: Path, opened: Open, write: Write) -> None:
    before = (shop / "README.md").read_text()
    index = opened(shop)
    index.update()
    write(shop, {"README.md": "# Another branch\n\nwith its own text.\n"})
    assert index.update().encoded == 1
    write(shop, {"README.md": before})
    assert index.update().encoded == 0


def test_the_same_passage_is_computed_once(tmp_path: Path, write: Write, opened: Open) -> None:
    function = "def same(value):\n" + "".join(f"    value += {line} * value\n" for line in range(40))
    root = write(tmp_path / "r", {"a.py": f"{function}\n\n{function}\n\n{function}\n\nx = 1\n"})
    index = opened(root)
    report = index.update()
    texts = [chunk.text for _, chunk in index.store.chunks_of("a.py")]
    assert len(set(texts)) < len(texts) == report.embedded
    assert report.encoded == len(set(texts))


def test_without_a_cache_work_goes_on(
    shop: Path, opened: Open, own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_home.mkdir()
    (own_home / "vectors").write_text("a file where the folder should be")
    report = opened(shop).update()
    assert report.encoded == report.embedded == report.chunks
    assert "work goes on without it" in caplog.text


def by_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many cores there are."""
    monkeypatch.setattr(embed, "BATCH", 8)
    monkeypatch.setattr(GraphEncoder, "bulk", 1)


def test_an_interrupt_keeps_the_batches_that_are_done(
    many: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_eight(monkeypatch)

    def interrupt(step: Step) -> None:
        if step.phase == "embed" and step.done >= 24:
            raise KeyboardInterrupt

    index = opened(many)
    with pytest.raises(KeyboardInterrupt):
        index.update(progress=interrupt)
    kept = index.status().embedded
    assert 24 <= kept < 60
    assert index.status().running is None
    report = index.update()
    assert (report.encoded, report.embedded) == (60 - kept, 60)


def test_an_interrupt_keeps_the_batch_that_is_computed_and_begins_no_other(
    many: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_eight(monkeypatch)
    forward = GraphEncoder.forward
    begun: list[int] = []

    def interrupted(self: GraphEncoder, tokens: Sequence[Tokens]) -> Floats:
        begun.append(len(tokens))
        if len(begun) == 2:
            _thread.interrupt_main()
            time.sleep(0.5)  # as work that takes long
        return forward(self, tokens)

    index = opened(many)
    index.update(vectors=False)
    index.search(Query("step", mode=Mode.DENSE))  # the encoder is ready
    monkeypatch.setattr(GraphEncoder, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.update()
    assert begun == [8, 8]
    assert index.status().embedded == 16


def test_an_interrupt_is_not_taken_for_what_progress_raises(
    many: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`search --watch` ends a batch so when a file has changed, and went on after a Ctrl-C that came with it."""
    by_eight(monkeypatch)
    prepare, prepared = embed._prepare, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal prepared
        prepared += 1
        if prepared == 3:
            raise KeyboardInterrupt
        return prepare(*arguments)

    def changed(step: Step) -> None:
        if prepared == 3:
            raise RuntimeError("a file has changed")

    monkeypatch.setattr(embed, "_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(many).update(progress=changed)


def test_a_deadline_ends_the_work_after_a_batch(many: Path, opened: Open) -> None:
    index = opened(many)
    index.update(vectors=False)
    candidates = index.lexical(Query("step value"), 60)
    assert len(candidates) == 60
    made = index.embed(0, candidates)
    assert made <= embed.SMALL_BATCH
    assert index.embed(60, candidates) == 60 - made
    assert index.status().embedded == 60


def test_the_best_candidates_come_first(many: Path, opened: Open) -> None:
    index = opened(many)
    index.update(vectors=False)
    candidates = index.lexical(Query("step value 17 step_42"), 60)
    index.embed(0.01, candidates)
    at, _ = index.store.vectors(candidates)
    assert at == list(range(len(at)))


def test_long_chunks_are_cut_not_refused(tmp_path: Path, write: Write, opened: Open) -> None:
    root = write(tmp_path / "r", {"data.txt": "lorem ipsum " * 20_000, "small.py": "x = 1\n"})
    report = opened(root).update()
    assert report.embedded == report.chunks
    assert not report.failed


def test_one_chunk_without_a_vector_costs_no_other(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(
        tmp_path / "r", {f"{name}.py": f"def {name}():\n    return 1\n" for name in ("good", "poison", "fine")}
    )
    index = opened(root)
    encoder = index.encoder
    assert isinstance(encoder, GraphEncoder)
    (poison,) = encoder.tokenize(["poison"], Role.PASSAGE)
    assert isinstance(poison, Tokens)
    compute, mark = GraphEncoder._states, poison.ids[1]

    def broken(self: GraphEncoder, tokens: Sequence[Tokens], session: Session) -> Floats:
        states = compute(self, tokens, session)
        return states * np.float32(np.nan) if mark in tokens[0].ids else states

    monkeypatch.setattr(GraphEncoder, "_states", broken)
    report = index.update()
    assert (report.chunks, report.embedded) == (3, 2)
    assert list(report.failed) == ["poison.py"]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The encoder refuses texts that say poison; the lengths of the calls that were made of it."""
    tokenize, forward, calls = GraphEncoder.tokenize, GraphEncoder.forward, list[int]()
    poisoned: list[tuple[int, ...]] = []

    def noted(self: GraphEncoder, inputs: Sequence[str], *rest: object, **options: object) -> list[Tokens]:
        found: list[Tokens] = tokenize(self, inputs, *rest, **options)  # type: ignore[arg-type,assignment]
        poisoned.extend(one.ids for text, one in zip(inputs, found, strict=True) if "poison" in text)
        return found

    def refused(self: GraphEncoder, tokens: Sequence[Tokens]) -> Floats:
        calls.append(len(tokens))
        for place, entry in enumerate(tokens):
            if entry.ids in poisoned:
                raise EncodeError(f"Input {place} has no finite vector: leave it out.", place)
        return forward(self, tokens)

    monkeypatch.setattr(GraphEncoder, "tokenize", noted)
    monkeypatch.setattr(GraphEncoder, "forward", refused)
    return calls


def test_a_text_that_was_refused_is_said_and_not_tried_by_every_search(
    shop: Path, opened: Open, write: Write, refusing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = "def poison():\n    return 1\n" + "    # a line that keeps it apart\n" * 12
    write(shop, {"bad.py": same + "\n" + same})
    index = opened(shop)
    report = index.update()
    assert list(report.failed) == ["bad.py"]
    status = index.status()
    assert status.failed == report.failed
    assert (status.embedded, index.missing) == (status.chunks - 2, 0)
    refusing.clear()
    assert not opened(shop).embed_few(60)
    index.embed_best(Query("poison"), 60)
    assert refusing == []
    # What is new gets its vector, and a new text that is refused is known after one try, too.
    write(shop, {"new.py": "def fresh():\n    return 2\n", "worse.py": "def more_poison():\n    return 3\n"})
    index.update(vectors=False)
    assert index.missing == 2
    assert not index.embed_few(60)
    assert set(index.status().failed) == {"bad.py", "worse.py"}
    # Nothing is said any more of a text that has gone.
    write(shop, {"bad.py": "def good():\n    return 1\n"})
    index.update(vectors=False)
    assert set(index.status().failed) == {"worse.py"}
    # All is tried again by who asks for all, and by another build.
    monkeypatch.undo()
    assert not index.update().failed
    assert index.status().embedded == index.status().chunks


def test_another_build_of_the_encoder_tries_again_what_one_refused(
    shop: Path, opened: Open, write: Write, refusing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(write(shop, {"bad.py": "def poison():\n    return 1\n"}))
    assert list(index.update().failed) == ["bad.py"]
    monkeypatch.undo()
    monkeypatch.setattr(index.encoder, "build", "another")
    index.search(Query("price"))
    assert not index.embed_few(60)
    assert index.status().failed == {}
    assert index.status().embedded == index.status().chunks


def test_many_texts_that_were_refused_keep_no_other_from_its_vector(
    tmp_path: Path, write: Write, opened: Open, refusing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "CANDIDATES", 3)
    root = write(tmp_path / "r", {f"a{n}.py": f"def poison_{n}():\n    return 1\n" for n in range(5)})
    index = opened(root)
    assert len(index.update().failed) == 5
    write(root, {"z.py": "def last():\n    return 1\n"})
    index.update(vectors=False)
    index.embed_best(None, 60)
    assert index.status().embedded == 1


def test_a_text_without_a_vector_costs_few_calls(many: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of which a streamed model reads its weights for."""
    index = opened(many)
    forward, calls = GraphEncoder.forward, []

    def broken(self: GraphEncoder, tokens: Sequence[Tokens]) -> Floats:
        calls.append(len(tokens))
        for place, entry in enumerate(tokens):
            if entry.ids == poison.ids:
                raise EncodeError(f"Input {place} has no finite vector: leave it out.", place)
        return forward(self, tokens)

    index.update(vectors=False)
    (chunk,) = (chunk for _, chunk in index.store.chunks_of("part7.py"))
    (poison,) = index.encoder.tokenize([embedded_text(chunk)], Role.PASSAGE)
    assert isinstance(poison, Tokens)
    monkeypatch.setattr(GraphEncoder, "forward", broken)
    report = index.update()
    assert (report.embedded, list(report.failed)) == (59, ["part7.py"])
    assert len(calls) <= 2 + 1 + 2 * 5  # of 32, then halves of halves; one is of a known text


def test_an_encoder_is_given_as_many_texts_as_a_call_is_worth(
    many: Path, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streamed model reads all its weights for each."""
    assert load(threads=2).bulk <= embed.BATCH < load(threads=16).bulk  # of 32 texts each of 16 threads had two
    folder = write_checkpoint(LAYOUTS["minilm"], tmp_path)
    assert load(str(folder), precision="fp32").bulk <= embed.BATCH
    streamed = load(str(folder), precision="fp32", stream=True)
    forward, calls = TorchEncoder.forward, []

    def counted(self: TorchEncoder, tokens: Sequence[Tokens]) -> Floats:
        calls.append(len(tokens))
        return forward(self, tokens)

    monkeypatch.setattr(TorchEncoder, "forward", counted)
    report = opened(many, streamed).update()
    assert report.embedded == 60
    assert calls == [1, 60]  # the first is of a known text


def test_a_lone_string_is_not_taken_for_a_list_of_letters(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="given as a list"):
        encoder.encode("where are tokens refreshed?", Role.QUERY)
