"""A query's two candidate lists, joined into hits that say why; over the reference store with vectors made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedcode.search.search import POOL, Signals, lexical_candidates, search
from embedcode.store.contract import Scored
from embedcode.store.memory import MemoryStore
from embedcode.types import Chunk, File, Filter, digest

DIM = 4
E = np.eye(DIM, dtype=np.float32)
TEXTS = {
    "session.py": "invalidate the session of a visitor",
    "retry.go": "call again with growing pauses",
    "price.py": "gross price from net price and session tax",
    "notes.md": "nothing about the matter",
}
VECTORS = {"session.py": E[0], "retry.go": E[1], "price.py": (E[0] + E[2]) / np.sqrt(np.float32(2))}


def put(store: MemoryStore, texts: dict[str, str], vectors: dict[str, np.ndarray]) -> None:
    with store.begin() as transaction:
        for path, text in texts.items():
            language = {"py": "python", "go": "go", "md": "markdown"}[path.rpartition(".")[2]]
            file = File(path, "shop", language, "docs" if language == "markdown" else "code", 1, 1, b"")
            key = digest(path)
            transaction.upsert(file, [Chunk("shop", path, 1, 1, language, "", text)], [key])
            if path in vectors:
                transaction.put_vectors([key], vectors[path][None])
        transaction.commit()


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(DIM)
    put(store, TEXTS, VECTORS)
    return store


def paths(store: MemoryStore, signals: Signals, k: int = 10, where: Filter | None = None) -> list[str]:
    return [hit.chunk.path for hit in search(store, signals, k, where)]


def test_words_alone(store: MemoryStore) -> None:
    assert paths(store, Signals("session of a visitor")) == ["session.py", "price.py"]


def test_a_vector_alone(store: MemoryStore) -> None:
    assert paths(store, Signals(vector=E[1]))[0] == "retry.go"
    assert paths(store, Signals(vector=E[2]), k=1) == ["price.py"]


def test_a_vector_finds_what_no_word_does(store: MemoryStore) -> None:
    found = paths(store, Signals("visitor", E[1]))
    assert set(found[:2]) == {"session.py", "retry.go"}


def test_both_signals_agree_on_the_first(store: MemoryStore) -> None:
    assert paths(store, Signals("session", E[0]))[0] == "session.py"


def test_a_chunk_without_a_vector_is_still_found(store: MemoryStore) -> None:
    assert "notes.md" in paths(store, Signals("matter", E[1]))


def test_why_names_the_signals(store: MemoryStore) -> None:
    (hit, *_) = search(store, Signals("session of a visitor", E[0]), 10)
    assert hit.chunk.path == "session.py"
    assert hit.why[0].startswith("words #1 (")
    assert hit.why[1] == "vector (1.000)"
    (hit,) = search(store, Signals("matter", E[1]), 10, Filter(paths=("*.md",)))
    assert [why.split()[0] for why in hit.why] == ["words"]
    (hit,) = search(store, Signals(vector=E[1]), 1)
    assert hit.why == ("vector (1.000)",)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_at_most_k(store: MemoryStore, k: int) -> None:
    assert len(paths(store, Signals("session call matter", E[0]), k)) == k


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(languages=("go",)), {"retry.go"}),
        (Filter(paths=("*.py",)), {"session.py", "price.py"}),
        (Filter(content=("docs",)), {"notes.md"}),
        (Filter(only=frozenset({"notes.md", "gone.py"})), {"notes.md"}),
        (Filter(only=frozenset()), set()),
        (Filter(repos=("elsewhere",)), set()),
    ],
)
def test_a_filter_holds_in_both_lists(store: MemoryStore, where: Filter, expected: set[str]) -> None:
    assert set(paths(store, Signals("session call matter price", E[0]), where=where)) == expected


def test_nothing_is_found_for_words_that_are_nowhere(store: MemoryStore) -> None:
    assert paths(store, Signals("zyzzyva")) == []
    assert paths(store, Signals("!?")) == []
    assert search(MemoryStore(DIM), Signals("session", E[0]), 10) == []


def test_a_word_candidate_outside_the_dense_list_gets_its_own_cosine() -> None:
    """More vectors than the dense list is long: what words find beyond it is ranked by its vector all the same."""
    store = MemoryStore(DIM)
    crowd = {f"crowd{number}.py": "filler" for number in range(POOL)}
    near = (E[0] + 0.1 * E[1]) / np.linalg.norm(E[0] + 0.1 * E[1])
    put(store, crowd, dict.fromkeys(crowd, near))
    put(
        store,
        {"far.py": "visitor", "farther.py": "visitor"},
        {"far.py": (E[0] + E[2]) / np.sqrt(2), "farther.py": E[3]},
    )
    hits = search(store, Signals("visitor", E[0]), POOL + 2)
    by_words = [hit for hit in hits if hit.why[0].startswith("words")]
    assert [hit.chunk.path for hit in by_words] == ["far.py", "farther.py"]
    assert [hit.why[1] for hit in by_words] == ["vector (0.707)", "vector (0.000)"]


def test_a_chunk_that_went_away_meanwhile_is_left_out(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may delete it between the candidate lists and the texts."""
    dense = store.dense

    def then_delete(vector: np.ndarray, k: int, where: Filter | None = None) -> list[Scored]:
        found = dense(vector, k, where)
        with store.begin() as transaction:
            transaction.delete(["session.py"])
            transaction.commit()
        return found

    monkeypatch.setattr(store, "dense", then_delete)
    assert paths(store, Signals(vector=E[0]), k=1) == ["price.py"]


@pytest.fixture
def lines() -> MemoryStore:
    """A file of 100 chunks, of which only the others have words of a query, in each of two repositories and beside."""
    store = MemoryStore(DIM)
    with store.begin() as transaction:
        for path, repo in (("one/src/shop/cart.py", "one"), ("two/cart.go", "two"), ("one/docs/cart.py", "one")):
            made = [
                Chunk(repo, path, n, n + 9, "python", "", "goes on" if n == 501 else f"cart error {n}")
                for n in range(1, 1001, 10)
            ]
            transaction.upsert(
                File(path, repo, "python", "code", 1, 1, b""), made, [digest(path, c.text) for c in made]
            )
            transaction.put_vectors(
                [digest(path, c.text) for c in made], np.stack([E[1 if c.start_line == 501 else 0] for c in made])
            )
        transaction.commit()
    return store


CART, CART_GO = ("one/src/shop/cart.py", 501), ("two/cart.go", 501)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("shop/cart.py:505", CART),
        ("cart.go:510", CART_GO),
        ('Traceback\n  File "/home/me/one/src/shop/cart.py", line 501, in total\nError: cart error', CART),
        ('File "/usr/lib/python3/site-packages/shop/cart.py", line 501, in total', CART),
        ('File "/usr/lib/python3/site-packages/shop-1.20.dist/shop/cart.py", line 501, in total', CART),
        ("panic: cart error [5]\n\ngoroutine 19 [running]:\n\t/go/pkg/mod/a.com/two@v1.9.1/cart.go:505 +0x1f", CART_GO),
        ("panic: cart error\n\t/go/pkg/mod/a.com/two/v2@v2.0.1/cart.go:505 +0x1f", CART_GO),
        ("\n".join(f"at f (/gone/m{n}.py:1{n}000)" for n in range(40)) + "\nat cart.go:505", CART_GO),
    ],
)
@pytest.mark.parametrize("vector", [None, E[0]], ids=["words", "hybrid"])
def test_the_chunk_that_holds_a_named_line_is_found(
    lines: MemoryStore, query: str, place: tuple[str, int], vector: np.ndarray | None
) -> None:
    hits = search(lines, Signals(query, vector, query), 10)
    (hit,) = [hit for hit in hits[:3] if (hit.chunk.path, hit.chunk.start_line) == place]
    assert "frames" in hit.why
    assert [why for why in hit.why if why.startswith("vector")] == (["vector (0.000)"] if vector is not None else [])


def test_a_filter_holds_for_named_lines(lines: MemoryStore) -> None:
    query = "cart.py:505"
    found = [hit.chunk.path for hit in search(lines, Signals(query, None, query), 10) if "frames" in hit.why]
    assert sorted(found) == ["one/docs/cart.py", "one/src/shop/cart.py"]
    for where in (Filter(paths=("docs",)), Filter(repos=("two",))):
        hits = search(lines, Signals(query, None, query), 10, where)
        assert [hit.chunk.path for hit in hits if "frames" in hit.why] == ["one/docs/cart.py"] * bool(where.paths)


def test_a_line_is_found_where_no_word_is(lines: MemoryStore) -> None:
    asked = "/usr/two/cart.go:505"
    (hit,) = search(lines, Signals("zyzzyva", None, asked), 10)
    assert (hit.chunk.path, hit.chunk.start_line) == CART_GO


@pytest.fixture
def many() -> MemoryStore:
    """A hundred chunks with the parts of a name, one of a thousand words that defines it, and a hundred others."""
    store = MemoryStore(DIM)
    near = {f"reset{n % 7}/timeout{n}.py": f"reset timeout {'reset ' * (n % 9)}view {n}" for n in range(100)}
    far = {f"far{n}.py": f"nothing about {n}" for n in range(100)}
    defined = {"settings.py": "\n".join(f"key{n} = {n}" for n in range(1000)) + "\nRESET_TIMEOUT = 60"}
    vectors = {path: E[n % 3] + 0.01 * n * E[3] for n, path in enumerate([*near, *far])}
    put(store, near | defined | far, {path: vector / np.linalg.norm(vector) for path, vector in vectors.items()})
    return store


@pytest.mark.parametrize("vector", [None, E[0]], ids=["words", "hybrid"])
def test_a_name_that_is_all_of_the_query_brings_what_holds_it(many: MemoryStore, vector: np.ndarray | None) -> None:
    assert search(many, Signals("RESET_TIMEOUT", vector, "RESET_TIMEOUT"), 10)[0].chunk.path == "settings.py"
    elsewhere = search(many, Signals("RESET_TIMEOUT", vector, "RESET_TIMEOUT"), 200, Filter(paths=("far*",)))
    assert "settings.py" not in [hit.chunk.path for hit in elsewhere]


@pytest.mark.parametrize("query", ["reset of the view", "RESET_TIMEOUT", "where is the timeout of a view reset?"])
def test_a_larger_k_only_adds_hits(many: MemoryStore, query: str) -> None:
    *fewer, most = (search(many, Signals(query, E[0], query), k) for k in (1, 10, 60, 75, 100))
    assert [hit.score for hit in most] == sorted((hit.score for hit in most), reverse=True)
    for hits in fewer:
        assert hits == most[: len(hits)]


def test_lexical_candidates_are_ids_best_first(store: MemoryStore) -> None:
    found = lexical_candidates(store, "session of a visitor", 10)
    chunks = store.get([candidate.id for candidate in found])
    assert [chunk.path for chunk in chunks if chunk] == ["session.py", "price.py"]
    assert found[0].score > found[1].score
    assert len(lexical_candidates(store, "session", 1)) == 1
