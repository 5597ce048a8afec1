"""Issues to files over a history: the figures are those of one index for each commit, made the plain way."""

from __future__ import annotations

import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcode import Index, Mode, Query, Role, Truncate, load
from embedcode.errors import EncodeError, UsageError
from embedcode.evaluate import history, localise
from embedcode.evaluate.bm25 import BM25
from embedcode.evaluate.choices import Files
from embedcode.evaluate.cut import Cutting, Words
from embedcode.evaluate.instances import Instance
from embedcode.evaluate.postings import in_a_byte
from embedcode.index.git import Repository
from embedcode.index.walk import decode
from embedcode.model.spec import DEFAULT
from embedcode.store.contract import Scored
from embedcode.types import Encoder

FILE, CHUNK = Cutting("file"), Cutting("chunk", judged=True)
TOKENS = Cutting("tokens", tokens=50, tokenizer=str(DEFAULT / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load(threads=1)


def ranked(
    made: Any, system: localise.System, base: Cutting, files: Files = Files.ALL, tests: bool = True, cores: int = 1
) -> dict[str, localise.Ranking]:
    found = read(made, system, base, files, tests, cores)
    return {one.id: ranking for one, ranking in system.rankings(found, made.instances)}


def read(
    made: Any, system: localise.System, base: Cutting, files: Files = Files.ALL, tests: bool = True, cores: int = 1
) -> history.History:
    wanted = localise.cutting(system, base)
    return history.read(Repository(made.git.root), "acme/shop", made.instances, wanted, files, tests, cores)


def plainly(made: Any, commit: str) -> dict[str, str]:
    """The text files of a commit, asked of git one by one."""
    listed = made.git("ls-tree", "-r", commit).splitlines()
    found = {}
    for line in listed:
        about, _, path = line.partition("\t")
        mode = about.split()[0]
        if mode in ("100644", "100755"):
            command = ["git", "-C", str(made.git.root), "cat-file", "blob", about.split()[2]]
            text = decode(subprocess.run(command, check=True, capture_output=True).stdout)
            if text is not None:
                found[path] = text
    return found


def token_runs(text: str) -> list[str]:
    """Runs of 50 tokens of a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(TOKENS.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    starts = [0] + [offsets[i][0] for i in range(50, len(offsets), 50)] + [len(text)]
    return [text[start:end] for start, end in pairwise(starts)]


def same(found: localise.Ranking, expected: dict[str, float]) -> None:
    assert dict(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("words", [Words(), Words(stem=True), Words(stop_words=True), Words(True, True)])
@pytest.mark.parametrize("paths", [False, True])
def test_bm25_over_files_is_that_of_each_commit(made: Any, words: Words, paths: bool) -> None:
    found = ranked(made, localise.Bm25(words, paths), FILE)
    for one in made.instances:
        texts = plainly(made, one.commit)
        given = [f"{path}\n{text}" if paths else text for path, text in texts.items()]
        index = BM25(given, list(texts), stem=words.stem, stopwords=words.stop_words)
        same(found[one.id], dict(index.search(one.issue, 100)))
    assert any("latin" in path for path in found[made.instances[0].id]) or not paths


def test_bm25_over_chunks_is_that_of_each_commit(made: Any) -> None:
    found = ranked(made, localise.Bm25(Words()), TOKENS)
    for one in made.instances:
        chunks: dict[str, str] = {}
        for path, text in plainly(made, one.commit).items():
            chunks |= {f"{number} {path}": run for number, run in enumerate(token_runs(text))}
        best: dict[str, float] = {}
        for name, score in BM25(list(chunks.values()), list(chunks)).search(one.issue, len(chunks)):
            best.setdefault(name.partition(" ")[2], score)
        same(found[one.id], best)


def test_words_and_rules_are_those_of_an_index_of_each_commit(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    found = ranked(made, localise.Searched(), CHUNK, Files.INDEXED)
    for one in made.instances:
        with Index.open(made.checkout(one.commit, tmp_path / one.id)) as index:
            index.update(vectors=False)
            hits = index.search(Query(one.issue, mode=Mode.LEXICAL, top_k=localise.HITS))
        expected: dict[str, float] = {}
        for hit in hits:
            expected.setdefault(hit.chunk.path, hit.score)
        same(found[one.id], expected)
        assert "shop/tables_pb2.py" not in found[one.id] and "vendor/lib.py" not in found[one.id]


def test_a_line_that_an_issue_names_is_found_as_in_an_index(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    one = made.instances[-1]
    found = read(made, localise.Searched(), CHUNK, Files.INDEXED)
    store = localise._CommitStore(found, found.commits[one.commit], None)
    with Index.open(made.checkout(one.commit, tmp_path / one.id)) as index:
        index.update(vectors=False)
        paths = index.store.files()
        for path in paths:
            expected = [(c.start_line, c.end_line, c.symbol) for _, c in index.store.chunks_of(path)]
            assert [(c.start_line, c.end_line, c.symbol) for _, c in store.chunks_of(path)] == expected
        names = {path.rpartition("/")[2] for path in list(paths)[::2]} | {"none.py"}
        assert [file.path for file in store.called(names)] == [file.path for file in index.store.called(names)]
    ids = [id for path in paths for id, _ in store.chunks_of(path)]
    assert store.get(ids) == [chunk for path in paths for _, chunk in store.chunks_of(path)]


def test_hybrid_is_that_of_an_index_of_each_commit(
    made: Any, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    system = localise.Searched(localise.Model(encoder, tmp_path / "vectors"))
    found = ranked(made, system, CHUNK, Files.INDEXED)
    for one in made.instances[::3]:
        with Index.open(made.checkout(one.commit, tmp_path / one.id), encoder) as index:
            index.update()
            hits = index.search(Query(one.issue, top_k=localise.HITS))
        expected: dict[str, float] = {}
        for hit in hits:
            expected.setdefault(hit.chunk.path, hit.score)
        # An index keeps vectors in 8 bits, which moves scores by some thousandths.
        assert found[one.id] == pytest.approx(expected, abs=0.02)


class Counting:
    """An encoder that counts what it is given, and gives NaN for what begins with `bad`."""

    def __init__(self, encoder: Encoder, bad: str = "\0") -> None:
        self._encoder = encoder
        self._bad = bad
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Any, role: Role, instruction: str | None = None, truncate: Any = Truncate.NONE) -> Any:
        self.asked.update(texts)
        rows = self._encoder.encode(texts, role, instruction, truncate)
        rows[[i for i, text in enumerate(texts) if text.startswith(self._bad)]] = np.nan
        return rows


@pytest.mark.slow
def test_a_model_ranks_files_by_their_best_chunk_and_embeds_each_once(
    made: Any, encoder: Encoder, tmp_path: Path
) -> None:
    counting: Any = Counting(encoder)
    system = localise.Dense(localise.Model(counting, tmp_path / "vectors"))
    found = ranked(made, system, TOKENS, Files.PYTHON, tests=False)
    assert max(counting.asked.values()) == 1
    asked = counting.asked.total()
    assert ranked(made, system, TOKENS, Files.PYTHON, tests=False) == found
    assert counting.asked.total() == asked  # a later run, or one after a kill, computes nothing again
    for one in made.instances[::5]:
        query = encoder.encode([one.issue], Role.QUERY)[0]
        best: dict[str, float] = {}
        for path, text in plainly(made, one.commit).items():
            if path.endswith(".py") and not path.startswith("tests/"):
                texts = [f"{path}\n{run.rstrip()}" for run in token_runs(text)]
                rows = encoder.encode(texts, Role.PASSAGE, truncate=Truncate.END)
                best[path] = float((rows @ query).max())
        assert found[one.id].keys() == best.keys()
        same(found[one.id], best)


def test_every_distinct_version_is_read_once(made: Any) -> None:
    found = read(made, localise.Bm25(Words()), FILE)
    pairs = set()
    for one in made.instances:
        for line in made.git("ls-tree", "-r", one.commit).splitlines():
            if line.startswith("100"):
                pairs.add(line.split(maxsplit=2)[2])
    assert found.versions == len(pairs)
    assert found.commits[made.instances[0].commit].left_out == {"binary content": 1}
    assert sum(commit.files for commit in found.commits.values()) > found.versions


def test_many_processes_give_the_same(made: Any) -> None:
    system = localise.Searched()
    assert ranked(made, system, CHUNK, cores=2) == ranked(made, system, CHUNK, cores=1)


def test_files_and_tests_by_choice(made: Any) -> None:
    system = localise.Bm25(Words())
    instance = [Instance("i", "acme/shop", made.instances[0].commit, "session cache vendored", ("shop/cart.py",))]
    for files, tests, absent, there in (
        (Files.ALL, True, "link.py", "vendor/lib.py"),
        (Files.PYTHON, False, "tests/test_cart.py", "vendor/lib.py"),
        (Files.INDEXED, True, "vendor/lib.py", "shop/cart.py"),
    ):
        found = history.read(
            Repository(made.git.root), "acme/shop", instance, localise.cutting(system, FILE), files, tests, 1
        )
        assert absent not in found.paths and there in found.paths


def test_bad_instances_and_models(made: Any, encoder: Encoder, tmp_path: Path) -> None:
    commit = made.instances[0].commit
    repository = Repository(made.git.root)
    for gold in ("shop/none.py", "link.py", "deps/other"):
        with pytest.raises(UsageError, match=f"i: acme/shop has no {gold} at {commit}"):
            wrong = [Instance("i", "acme/shop", commit, "words", (gold,))]
            history.read(repository, "acme/shop", wrong, FILE, Files.ALL, True, 1)
    bad: Any = Counting(encoder, "shop/render.py")
    with pytest.raises(EncodeError, match=r"chunk of acme/shop 'shop/render\.py #\d+'.*not finite"):
        ranked(made, localise.Dense(localise.Model(bad, tmp_path / "vectors")), CHUNK)


def test_lengths_in_a_byte_are_exact_below_forty_and_never_more() -> None:
    lengths = np.arange(100_000, dtype=np.float64)
    kept = in_a_byte(lengths)
    assert (kept[:41] == lengths[:41]).all()
    assert (kept <= lengths).all() and (kept >= lengths * 0.88).all()


def test_the_first_are_those_of_a_full_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 9, 500).astype(np.float32)
    expected = [Scored(i + 1, float(scores[i])) for i in sorted(range(500), key=lambda i: (-scores[i], i)) if scores[i]]
    for k in (1, 7, 100, 499, 500, 900):
        assert localise._first(scores, k, least=0.0) == expected[:k]
