"""One suite over every Store. What it asks is in `embedcode/store/contract.py`."""

from __future__ import annotations

import argparse
import base64
import hashlib
import heapq
import math
import random
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embedcode.errors import StoreError
from embedcode.store.contract import Store
from embedcode.store.memory import MemoryStore
from embedcode.store.sqlite import SqliteStore
from embedcode.store.terms import split
from embedcode.types import Chunk, File, Filter, digest

DIM = 32


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore(DIM) if request.param == "memory" else SqliteStore.open(tmp_path / "index", DIM)
    yield opened
    opened.close()


def file(path: str, text: str = "", language: str = "python", repo: str = "r", content: str = "code") -> File:
    return File(path, repo, language, content, len(text), 1, digest(text))  # type: ignore[arg-type]


def chunks(path: str, *texts: str, symbol: str = "", language: str = "python", repo: str = "r") -> list[Chunk]:
    return [Chunk(repo, path, 10 * i + 1, 10 * i + 10, language, symbol, text) for i, text in enumerate(texts)]


def keys(found: list[Chunk]) -> list[bytes]:
    return [digest(chunk.path, chunk.text) for chunk in found]


def put(store: Store, path: str, *texts: str, symbol: str = "", language: str = "python", content: str = "code") -> int:
    made = chunks(path, *texts, symbol=symbol, language=language)
    with store.begin() as transaction:
        transaction.upsert(file(path, "".join(texts), language, content=content), made, keys(made))
        return transaction.commit()


def units(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def embed_all(store: Store, seed: int = 0) -> None:
    pending = store.pending(100_000)
    with store.begin() as transaction:
        transaction.put_vectors([one.key for one in pending], units(len(pending), seed))
        transaction.commit()


def paths(store: Store, *terms: str, where: Filter | None = None) -> list[str]:
    found = store.get([one.id for one in store.lexical(dict.fromkeys(terms, 1.0), 100, where)])
    return sorted({chunk.path for chunk in found if chunk is not None})


def test_an_empty_store_answers(store: Store) -> None:
    assert store.lexical({"a": 1.0}, 10) == []
    assert store.dense(units(1)[0], 10) == []
    assert store.files() == {}
    assert store.pending(10) == []
    assert store.chunks_of("nothing.py") == []
    assert store.get([1, 0, -5]) == [None, None, None]
    places, vectors = store.vectors([1])
    assert places == []
    assert vectors.shape == (0, DIM)
    meta = store.meta()
    assert (meta.generation, dict(meta.manifest), meta.files, meta.chunks, meta.embedded) == (0, {}, 0, 0, 0)
    store.maintain()
    store.maintain(rebuild=True)
    assert store.lexical({"a": 1.0}, 10) == []


def test_what_is_put_in_comes_out(store: Store) -> None:
    put(store, "a.py", "def alpha(): ...", "def beta(): ...", symbol="alpha")
    assert store.files() == {"a.py": file("a.py", "def alpha(): ...def beta(): ...")}
    found = store.chunks_of("a.py")
    assert [chunk for _, chunk in found] == chunks("a.py", "def alpha(): ...", "def beta(): ...", symbol="alpha")
    ids = [id for id, _ in found]
    assert store.get([ids[1], 10_000, ids[0]]) == [found[1][1], None, found[0][1]]
    assert store.meta().chunks == 2


def test_a_file_is_replaced_as_a_whole(store: Store) -> None:
    put(store, "a.py", "one alpha", "two beta")
    put(store, "b.py", "other")
    embed_all(store)
    old = {id for id, _ in store.chunks_of("a.py")}
    put(store, "a.py", "three gamma")
    assert [chunk.text for _, chunk in store.chunks_of("a.py")] == ["three gamma"]
    assert paths(store, "alpha", "beta") == []
    assert paths(store, "gamma") == ["a.py"]
    assert paths(store, "other") == ["b.py"]
    new = store.chunks_of("a.py")[0][0]
    assert new > max(old)
    assert store.get(sorted(old)) == [None, None]
    assert {one.id for one in store.dense(units(1)[0], 10)} == {store.chunks_of("b.py")[0][0]}


def test_a_chunk_that_moves_has_its_new_lines(store: Store) -> None:
    put(store, "a.py", "import os", "def stays(): ...")
    embed_all(store)
    moved = [Chunk("r", "a.py", 5, 7, "python", "", "def stays(): ...")]
    with store.begin() as transaction:
        transaction.upsert(file("a.py", "new"), moved, keys(moved))
        transaction.commit()
    assert [chunk for _, chunk in store.chunks_of("a.py")] == moved
    assert store.get([one.id for one in store.lexical({"stays": 1.0}, 5)]) == moved
    assert store.get([one.id for one in store.dense(units(1)[0], 5)]) == moved
    assert store.pending(10) == []


def test_deleted_files_are_gone(store: Store) -> None:
    put(store, "a.py", "alpha")
    put(store, "b.py", "alpha")
    embed_all(store)
    with store.begin() as transaction:
        transaction.delete(["a.py", "never.py"])
        transaction.commit()
    assert list(store.files()) == ["b.py"]
    assert paths(store, "alpha") == ["b.py"]
    assert len(store.dense(units(1)[0], 10)) == 1
    assert (store.meta().files, store.meta().chunks, store.meta().embedded) == (1, 1, 1)


def test_touch_changes_size_and_time_only(store: Store) -> None:
    put(store, "a.py", "alpha")
    before = store.chunks_of("a.py")
    held = store.files()["a.py"]
    touched = File(held.path, held.repo, held.language, held.content, 77, 99, held.digest)
    with store.begin() as transaction:
        transaction.touch(touched)
        transaction.touch(file("unknown.py"))
        transaction.commit()
    assert store.files() == {"a.py": touched}
    assert store.chunks_of("a.py") == before
    assert paths(store, "alpha") == ["a.py"]


def test_touch_does_not_cover_another_content(store: Store) -> None:
    put(store, "a.py", "alpha")
    held = store.files()["a.py"]
    with store.begin() as transaction:
        transaction.touch(File(held.path, held.repo, held.language, held.content, 77, 99, digest("other")))
        transaction.commit()
    assert store.files() == {"a.py": held}


def test_without_commit_nothing_changes(store: Store) -> None:
    put(store, "a.py", "alpha")
    before = store.meta()
    made = chunks("b.py", "beta")
    with store.begin() as transaction:
        transaction.upsert(file("b.py"), made, keys(made))
        transaction.delete(["a.py"])
        transaction.set_manifest({"x": "1"})
    with pytest.raises(KeyError), store.begin() as transaction:
        transaction.delete(["a.py"])
        raise KeyError("the caller's own error arrives as it is")
    assert store.meta() == before
    assert paths(store, "alpha", "beta") == ["a.py"]
    assert put(store, "c.py", "gamma") == before.generation + 1


def test_the_callers_own_errors_are_not_taken_for_the_stores(store: Store) -> None:
    with pytest.raises(PermissionError), store.begin():
        raise PermissionError("of a source file")


def test_generation_grows_with_changes_only(store: Store) -> None:
    assert put(store, "a.py", "alpha") == 1
    assert put(store, "a.py", "alpha") == 1  # the same again: a second indexer
    assert put(store, "a.py", "beta") == 2
    with store.begin() as transaction:
        transaction.set_manifest({"space": "s", "build": "b"})
        assert transaction.commit() == 3
    with store.begin() as transaction:
        transaction.set_manifest({"space": "s"})
        transaction.delete(["nothing.py"])
        assert transaction.commit() == 3
    with store.begin() as transaction:
        transaction.set_manifest({"build": "c"})
        assert transaction.commit() == 4
    assert dict(store.meta().manifest) == {"space": "s", "build": "c"}
    embed_all(store)
    assert store.meta().generation == 5
    embed_all(store)
    assert store.meta().generation == 5
    assert store.meta().embedded == 1


def test_dense_is_exact(store: Store) -> None:
    for i in range(30):
        put(store, f"f{i}.py", *(f"text {i} {j}" for j in range(10)))
    embed_all(store)
    ids = [id for i in range(30) for id, _ in store.chunks_of(f"f{i}.py")]
    places, held = store.vectors(ids)
    assert places == list(range(300))
    for query in units(5, seed=9):
        scores = held @ query
        expected = [ids[i] for i in np.argsort(-scores)[:10]]
        found = store.dense(query, 10)
        assert [one.id for one in found] == expected
        assert [one.score for one in found] == pytest.approx(np.sort(scores)[::-1][:10], abs=1e-5)
        assert len(store.dense(query, 1000)) == 300
    assert store.dense(units(1)[0], 0) == []


def test_vectors_are_kept_within_what_int8_costs(store: Store) -> None:
    put(store, "a.py", *(f"text {j}" for j in range(100)))
    embed_all(store, seed=3)
    ids = [id for id, _ in store.chunks_of("a.py")]
    _, held = store.vectors(ids)
    assert np.sum(held * units(100, seed=3), axis=1).min() > 0.9995
    assert np.linalg.norm(held, axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert store.vectors([ids[4], 999_999, ids[2]])[0] == [0, 2]


def test_equal_cosines_are_ordered_by_id(store: Store) -> None:
    made = [Chunk("r", "a.py", i + 1, i + 1, "python", "", "same") for i in range(40)]
    with store.begin() as transaction:
        transaction.upsert(file("a.py"), made, [b"k" * 16] * 40)
        transaction.put_vectors([b"k" * 16], units(1))
        transaction.commit()
    ids = [one.id for one in store.dense(units(1)[0], 7)]
    assert ids == sorted(id for id, _ in store.chunks_of("a.py"))[:7]


def test_a_vector_that_is_there_is_left_alone(store: Store) -> None:
    put(store, "a.py", "alpha")
    key = store.pending(1)[0].key
    for seed in (1, 2):
        with store.begin() as transaction:
            transaction.put_vectors([key], units(1, seed))
            transaction.commit()
    assert store.dense(units(1, 1)[0], 1)[0].score > 0.99


def test_a_vector_may_come_before_or_after_its_chunk(store: Store) -> None:
    made = chunks("a.py", "alpha", "beta")
    with store.begin() as transaction:
        transaction.put_vectors(keys(made)[:1], units(1))
        transaction.commit()
    assert store.dense(units(1)[0], 5) == []
    with store.begin() as transaction:
        transaction.upsert(file("a.py"), made, keys(made))
        transaction.commit()
    assert len(store.dense(units(1)[0], 5)) == 1
    embed_all(store, seed=1)
    assert len(store.dense(units(1)[0], 5)) == 2


def test_vectors_of_another_length_are_refused(store: Store) -> None:
    cure = "use the model the index was made with$"
    with pytest.raises(StoreError, match=rf"shape \(7,\) and this index holds vectors of 32 numbers: {cure}"):
        store.dense(np.ones(7, np.float32), 3)
    with store.begin() as transaction:
        with pytest.raises(StoreError, match=rf"shape \(1, 7\) do not fit 1 keys in an index of 32 numbers .*: {cure}"):
            transaction.put_vectors([b"k" * 16], np.ones((1, 7), np.float32))
        with pytest.raises(StoreError, match=r"not finite: run `embedcode doctor`, the model is not sound$"):
            transaction.put_vectors([b"k" * 16], np.full((1, DIM), np.nan, np.float32))


def test_pending_gives_each_missing_key_once(store: Store) -> None:
    made = chunks("a.py", "alpha", "beta", "alpha", "gamma")
    with store.begin() as transaction:
        transaction.upsert(file("a.py"), made, keys(made))
        transaction.commit()
    first = store.pending(2)
    assert [one.chunk.text for one in first] == ["alpha", "beta"]
    rest = store.pending(10, after=first[-1].id)
    assert [one.chunk.text for one in rest] == ["gamma"]
    assert [one.key for one in first + rest] == [keys(made)[i] for i in (0, 1, 3)]
    with store.begin() as transaction:
        transaction.put_vectors([first[0].key], units(1))
        transaction.commit()
    assert [one.chunk.text for one in store.pending(10)] == ["beta", "gamma"]
    assert store.meta().embedded == 2
    assert store.pending(0) == []


def test_lacking_counts_the_chunks_of_keys_without_a_vector(store: Store) -> None:
    made = chunks("a.py", "alpha", "beta", "alpha", "gamma")
    alpha, beta, _, gamma = keys(made)
    with store.begin() as transaction:
        transaction.upsert(file("a.py"), made, keys(made))
        transaction.put_vectors([beta], units(1))
        transaction.commit()
    assert store.lacking([alpha, beta, digest("none")]) == {alpha: 2}
    assert store.lacking([]) == {}
    assert store.lacking([digest(str(number)) for number in range(2000)] + [gamma]) == {gamma: 1}


def test_maintain_drops_vectors_that_nothing_refers_to(store: Store) -> None:
    put(store, "a.py", "alpha")
    put(store, "b.py", "beta")
    embed_all(store)
    put(store, "a.py", "gamma")
    store.maintain()
    put(store, "a.py", "alpha")
    assert [one.chunk.text for one in store.pending(10)] == ["alpha"]
    assert len(store.dense(units(1)[0], 10)) == 1
    store.maintain(rebuild=True)
    assert paths(store, "alpha", "beta") == ["a.py", "b.py"]


def test_lexical_finds_each_field(store: Store) -> None:
    put(store, "src/payments/refund.py", "return amount", symbol="issueCredit")
    put(store, "other.py", "nothing here")
    for term in ("payments", "refund", "issue", "credit", "issuecredit", "amount"):
        assert paths(store, term) == ["src/payments/refund.py"]
    assert paths(store, "other") == ["other.py"]


@pytest.mark.parametrize("line", ['"image/png": "{}\\n",', "key = '{}'", "{}"])
def test_long_unbroken_data_are_not_words(store: Store, line: str) -> None:
    """An image in a notebook or a key is kept as text and found by its file, but no query is about its letters."""
    data = base64.b64encode(random.Random(1).randbytes(4500)).decode()
    text = f"alpha before\n{line.format(data)}\nbeta behind"
    put(store, "a.ipynb", text)
    assert paths(store, "alpha") == paths(store, "beta") == ["a.ipynb"]
    assert paths(store, *(term for term in split(data) if len(term) > 6)) == []
    assert [chunk.text for _, chunk in store.chunks_of("a.ipynb")] == [text]


def test_data_of_usual_length_are_words(store: Store) -> None:
    digest_of = hashlib.sha512(b"a release").hexdigest()
    put(store, "sums.txt", f"{digest_of}  a.tar.gz")
    assert paths(store, split(digest_of)[0]) == ["sums.txt"]


def test_weights_multiply(store: Store) -> None:
    put(store, "a.py", "alpha only here")
    put(store, "b.py", "beta only there")
    scores = {
        weight: {one.id: one.score for one in store.lexical({"alpha": weight, "beta": 1.0}, 10)}
        for weight in (1.0, 3.0)
    }
    a, b = store.chunks_of("a.py")[0][0], store.chunks_of("b.py")[0][0]
    assert scores[3.0][a] == pytest.approx(3 * scores[1.0][a], rel=1e-4)
    assert scores[3.0][b] == pytest.approx(scores[1.0][b], rel=1e-4)


@pytest.mark.parametrize(
    "term", ["", " ", "a b", "\0", "\ud800", "x" * 100_000, "café", "数据", "🎉", "AND", '"', "*", "a:b"]
)
def test_no_term_is_an_error(store: Store, term: str) -> None:
    put(store, "a.py", "alpha")
    assert paths(store, term) == []
    assert paths(store, term, "alpha") == ["a.py"]


@pytest.mark.parametrize("weight", [0.0, math.nan, math.inf, -1.0])
def test_a_weight_that_is_none_is_left_out(store: Store, weight: float) -> None:
    put(store, "a.py", "alpha beta")
    put(store, "b.py", "gamma")
    found = store.lexical({"alpha": weight, "gamma": 1.0}, 10)
    assert [one.id for one in found] == [store.chunks_of("b.py")[0][0]]


@pytest.mark.parametrize(
    "text", ["naïve café", "数据库连接", "emoji 🎉 ok", "nul \0 inside", "lone \ud800 surrogate", ""]
)
def test_any_text_and_path_is_kept(store: Store, text: str) -> None:
    path = "dir/\udce9té 数据.py"
    put(store, path, text, "alpha", symbol="名\ud800")
    assert [chunk.text for _, chunk in store.chunks_of(path)] == [text, "alpha"]
    assert store.chunks_of(path)[0][1].symbol == "名\ud800"
    assert list(store.files()) == [path]
    assert paths(store, "alpha") == [path]
    assert paths(store, "数据") == [path]
    assert paths(store, "alpha", where=Filter(only=frozenset([path]))) == [path]
    with store.begin() as transaction:
        transaction.delete([path])
        transaction.commit()
    assert store.files() == {}


def test_files_are_found_by_their_names(store: Store) -> None:
    odd = "\udce9t\u00e9/a_b.py"
    for path in ("a_b.py", "x/y/a_b.py", odd, "x/axb.py", "x/A_b.py", "xa_b.py", "a_b.py/c.py", "名.py", "x/%.py"):
        put(store, path, "alpha")
    assert store.called(["a_b.py"]) == [file(path, "alpha") for path in sorted(["a_b.py", "x/y/a_b.py", odd])]
    found = store.called({"c.py", "名.py", "%.py", "none.py", "\ud800.py", ""})
    assert [one.path for one in found] == ["a_b.py/c.py", "x/%.py", "名.py"]
    assert [one.path for one in store.called(["a_b.py"], Filter(paths=("x/**",)))] == ["x/y/a_b.py"]
    assert store.called([]) == []


def test_filters_limit_both_searches(store: Store) -> None:
    put(store, "src/a.py", "alpha")
    put(store, "src/deep/b.ts", "alpha", language="typescript")
    put(store, "docs/c.md", "alpha", language="markdown", content="docs")
    embed_all(store)
    cases = {
        Filter(paths=("src",)): ["src/a.py", "src/deep/b.ts"],
        Filter(paths=("*.py", "docs/**")): ["docs/c.md", "src/a.py"],
        Filter(languages=("TypeScript",)): ["src/deep/b.ts"],
        Filter(content=("docs",)): ["docs/c.md"],
        Filter(repos=("r",)): ["docs/c.md", "src/a.py", "src/deep/b.ts"],
        Filter(repos=("elsewhere",)): [],
        Filter(only=frozenset()): [],
        Filter(only=frozenset({"src/a.py", "docs/c.md"}), languages=("python",)): ["src/a.py"],
        Filter(): ["docs/c.md", "src/a.py", "src/deep/b.ts"],
    }
    for where, expected in cases.items():
        assert paths(store, "alpha", where=where) == expected
        dense = store.get([one.id for one in store.dense(units(1)[0], 10, where)])
        assert sorted(chunk.path for chunk in dense if chunk) == expected


def test_a_filter_changes_no_score(store: Store) -> None:
    for i in range(10):
        put(store, f"f{i}.py", "alpha " * (i + 1) + "beta")
    everything = {one.id: one.score for one in store.lexical({"alpha": 1.0, "beta": 2.0}, 10)}
    some = store.lexical({"alpha": 1.0, "beta": 2.0}, 10, Filter(paths=("f3.py", "f4.py")))
    assert len(some) == 2
    for one in some:
        assert one.score == pytest.approx(everything[one.id], rel=1e-5)


def corpus() -> dict[str, list[str]]:
    """Chunks of the standard library's own source."""
    found = {}
    for module in (random, heapq, argparse, textwrap):
        lines = Path(module.__file__ or "").read_text(encoding="utf-8").splitlines()
        found[f"lib/{module.__name__}.py"] = ["\n".join(lines[i : i + 15]) for i in range(0, len(lines), 15)]
    return found


@pytest.mark.parametrize("make", [lambda folder: SqliteStore.open(folder, DIM)], ids=["sqlite"])
def test_lexical_agrees_with_the_reference(tmp_path: Path, make: Callable[[Path], Store]) -> None:
    reference, other = MemoryStore(DIM), make(tmp_path / "index")
    texts = corpus()
    for path, parts in texts.items():
        for one in (reference, other):
            put(one, path, *parts, symbol=path)
    everything = [(path, text) for path, parts in texts.items() for text in parts]
    rng = random.Random(5)
    for size in (1, 3, 12, 60):
        for _ in range(5):
            words = sorted(set(re.findall(r"[a-z]{3,}", rng.choice(everything)[1].lower())))
            terms = {word: rng.choice([1.0, 1.5]) for word in rng.sample(words, min(size, len(words)))}
            expected = {reference.get([one.id])[0]: one.score for one in reference.lexical(terms, 1000)}
            found = [(other.get([one.id])[0], one.score) for one in other.lexical(terms, 1000)]
            assert {chunk for chunk, _ in found} == set(expected)
            # tantivy rounds the length of a field to one of 256 steps, which is what the tolerance is for
            assert [score for _, score in found] == pytest.approx([expected[chunk] for chunk, _ in found], rel=0.06)
            assert expected[found[0][0]] >= max(expected.values()) * 0.98
    other.close()
