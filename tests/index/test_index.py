"""One checkout opened, searched, described and deleted, as Python users do."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode import Filter, Index, Mode, Query, load
from embedcode.engine import doctor
from embedcode.engine.graph import GraphEncoder
from embedcode.errors import EncodeError, ModelError, StoreError, UsageError
from embedcode.index import build, golden
from embedcode.index import index as index_module
from embedcode.index.home import clean
from embedcode.index.index import MAX_QUERY, WORDS_ALONE
from embedcode.types import Floats, Tokens

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]
Git = Callable[..., str]
Serve = Callable[..., Any]


def paths(index: Index, text: str, **options: object) -> list[str]:
    return [hit.chunk.path for hit in index.search(Query(text, **options))]  # type: ignore[arg-type]


# ---- which checkout ----------------------------------------------------------------------------------------------


def test_a_subfolder_opens_its_repository_and_limits_what_is_found(shop: Path, opened: Open, git: Git) -> None:
    git(shop, "init", "-q")
    index = opened(shop / "web")
    assert (index.root, index.scope) == (shop, "web")
    assert index.update().files == 6
    assert set(paths(index, "session price retry log")) == {"web/retry.js"}
    assert paths(index, "session", where=Filter(only=frozenset({"shop/session.py"}))) == []
    assert index.home == opened(shop).home
    assert paths(opened(shop), "forget the session of a visitor")[0] == "shop/session.py"
    one_file = opened(shop / "shop" / "prices.py")
    assert (one_file.root, one_file.scope) == (shop, "shop/prices.py")
    assert set(paths(one_file, "session price")) == {"shop/prices.py"}
    assert {hit.chunk.path for hit in opened(shop / "shop").related("shop/session.py", 4)} == {"shop/prices.py"}
    with pytest.raises(UsageError, match=r"session\.py:4 is no line of an indexed file .it is not in the index"):
        index.related("shop/session.py", 4)


def test_a_scope_is_a_folder_and_no_prefix(tmp_path: Path, write: Write, opened: Open, git: Git) -> None:
    root = write(tmp_path / "r", {"app/a.py": "session = 1\n", "app2/b.py": "session = 2\n"})
    git(root, "init", "-q")
    index = opened(root / "app")
    index.update(vectors=False)
    assert paths(index, "session") == ["app/a.py"]


def test_a_home_in_the_checkout_is_not_indexed(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(shop / "own"))
    index = opened(shop)
    assert [(report.files, report.changed) for report in (index.update(), index.update())] == [(6, 6), (6, 0)]
    assert set(index.status().skipped) == {"own/indexes/", "own/vectors/"}


def test_without_git_the_folder_itself(shop: Path, opened: Open) -> None:
    index = opened(shop / "shop")
    assert (index.root, index.scope) == (shop / "shop", "")
    assert index.update(vectors=False).files == 2
    assert {hit.chunk.repo for hit in index.search(Query("session"))} == {"shop"}
    one_file = opened(shop / "web" / "retry.js")
    assert (one_file.root, one_file.scope) == (shop / "web", "retry.js")


def test_the_innermost_repository(shop: Path, opened: Open, git: Git) -> None:
    git(shop, "init", "-q")
    git(shop / "web", "init", "-q")
    assert opened(shop / "web").root == shop / "web"


def test_dotfiles_in_git_do_not_make_the_home_folder_the_repository(
    tmp_path: Path, write: Write, opened: Open, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    git(tmp_path, "init", "-q")
    project = write(tmp_path / "project", {"a.py": "x = 1\n"})
    assert opened(project).root == project


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist: check the path"):
        Index.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0inside"])
def test_a_path_that_cannot_exist(name: str) -> None:
    with pytest.raises(UsageError):
        Index.open(name)


def test_everything_you_have_is_refused(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write(tmp_path / "me", {"a.py": "x = 1\n"})
    monkeypatch.setenv("HOME", str(home))
    for place in (Path("/"), home):
        with pytest.raises(UsageError, match="is not a repository but everything you have: give a folder in it"):
            opened(place).update()
    link = tmp_path / "link"
    link.symlink_to(home)
    with pytest.raises(UsageError, match="everything you have"):
        opened(link).update()


def test_a_user_without_a_home_folder(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that run under a number: HOME is not set and the number has no entry in the user database."""
    import pwd

    monkeypatch.delenv("HOME")

    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    assert opened(shop).update(vectors=False).files == 6


def test_very_many_files_need_a_yes(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MANY_FILES", 5)
    with pytest.raises(UsageError, match=r"more than 5 files: .*\.embedcodeignore, or run `embedcode index --yes /"):
        opened(shop).update(vectors=False)
    index = opened(shop)
    assert index.update(vectors=False, yes=True).files == 6
    assert opened(shop).update(vectors=False).files == 6  # it was asked for once
    monkeypatch.setattr(build, "MANY_FILES", 6)
    clean(shop, vectors=False, dry_run=False)
    assert opened(shop).update(vectors=False, yes=True).files == 6
    monkeypatch.setattr(build, "MANY_FILES", 5)
    with pytest.raises(
        UsageError, match="or run `embedcode index --yes /"
    ):  # where it was not needed it does not count
        opened(shop).update(vectors=False)


# ---- searching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", Mode)
def test_each_mode_finds_it(shop: Path, opened: Open, mode: Mode) -> None:
    index = opened(shop)
    index.update()
    hits = index.search(Query("forget the session of a visitor", mode=mode))
    assert (hits[0].chunk.path, hits[0].chunk.symbol) == ("shop/session.py", "invalidate_session")
    assert hits[0].why
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    signals = {why.split()[0] for why in hits[0].why} & {"words", "vector"}
    expected = {Mode.LEXICAL: {"words"}, Mode.DENSE: {"vector"}, Mode.HYBRID: {"words", "vector"}}
    assert signals == expected[mode]


def test_meaning_is_found_without_a_common_word(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    question = "how much VAT is charged on goods"
    assert paths(index, question, mode=Mode.LEXICAL) == []
    assert paths(index, question)[0] == "shop/prices.py"


def test_code_is_a_query_too(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    code = (
        "func Retry(call func() error, n int) error {\n\tfor i := 0; i < n; i++ {\n\t\ttime.Sleep(backoff(i))\n\t}\n}"
    )
    assert index.search(Query(code=code))[0].chunk.path == "web/retry.js"
    assert (
        index.search(Query("rotate old logs", code="proc rotate(folder: string)"))[0].chunk.path == "tools/rotate.nim"
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(languages=("python",)), {"shop/session.py", "shop/prices.py"}),
        (Filter(languages=("Py", "js")), {"shop/session.py", "shop/prices.py", "web/retry.js"}),
        (Filter(paths=("web",)), {"web/retry.js"}),
        (Filter(paths=("**/*.py", "*.md")), {"shop/session.py", "shop/prices.py", "README.md"}),
        (Filter(content=("docs",)), {"README.md"}),
        (Filter(content=("config",)), {"settings.toml"}),
        (Filter(repos=("shop",), languages=("nim",)), {"tools/rotate.nim"}),
        (Filter(repos=("shop",), paths=("nowhere",)), set()),
        (Filter(only=frozenset({"settings.toml"})), {"settings.toml"}),
    ],
)
def test_filters(shop: Path, opened: Open, where: Filter, expected: set[str]) -> None:
    index = opened(shop)
    index.update()
    for mode in (Mode.HYBRID, Mode.DENSE):
        assert set(paths(index, "session price retry log port", where=where, mode=mode)) == expected


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (Filter(languages=("pyhton",)), "'pyhton' is not a language known here: did you mean 'python'"),
        (
            Filter(repos=("shop", "Web", "other")),
            "no repository Web or other in .*: give one of shop, web",
        ),
    ],
)
def test_a_language_or_repository_that_there_is_not(shop: Path, opened: Open, where: Filter, sentence: str) -> None:
    (shop / "web" / ".git").mkdir()
    index = opened(shop)
    index.update()
    for ask in (
        lambda: index.search(Query("session", where=where)),
        lambda: index.lexical(Query("session", where=where), 5),
        lambda: index.related("shop/session.py", 4, where=where),
    ):
        with pytest.raises(UsageError, match=sentence):
            ask()


def test_a_model_that_cannot_be_used_leaves_the_words(
    shop: Path, opened: Open, encoder: GraphEncoder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with opened(shop) as index:
        index.update()
    shutil.copytree(encoder.spec.folder, tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"")
    index = opened(shop, load(str(tmp_path / "model"), 1))
    words = [hit.chunk for hit in index.search(Query("forget the session", mode=Mode.LEXICAL))]
    assert not caplog.records
    assert [hit.chunk for hit in index.search(Query("forget the session"))] == words
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("this answer is by words alone: ")
    assert "model.onnx cannot be loaded" in record.getMessage()
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded"):
        index.search(Query("forget the session", mode=Mode.DENSE))


def test_a_query_without_a_vector_leaves_its_words(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise EncodeError("input 0 has no finite vector: report this", 0)

    with opened(shop) as index:
        index.update()
        monkeypatch.setattr(index.encoder, "encode", refused)
        words = [hit.chunk for hit in index.search(Query("forget the session", mode=Mode.LEXICAL))]
        assert [hit.chunk for hit in index.search(Query("forget the session"))] == words
        assert "by words alone" in caplog.records[-1].getMessage()
        with pytest.raises(EncodeError):
            index.search(Query("forget the session", mode=Mode.DENSE))


def test_a_query_longer_than_the_model_reads_says_so(shop: Path, opened: Open) -> None:
    said: list[str] = []
    with opened(shop) as index:
        index.update()
        assert index.search(Query("forget the session " * 400), said.append)
        (remark,) = said
        assert re.fullmatch(r"the query's vector is of the first 512 of its 1,2\d\d tokens", remark)
        index.search(Query("forget the session " * 100), said.append)  # long, and read whole
        index.search(Query("forget the session " * 400, mode=Mode.LEXICAL), said.append)
    assert len(said) == 1


def test_a_model_that_has_moved_leaves_the_words(
    shop: Path, encoder: GraphEncoder, write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shop.parent / "model"
    model.symlink_to(encoder.spec.folder)
    monkeypatch.setenv("EMBEDCODE_MODEL", str(model))
    with Index.open(shop) as index:
        made = index.update()
    monkeypatch.delenv("EMBEDCODE_MODEL")
    model.unlink()
    with Index.open(shop) as index:
        assert not index.stop_background()
        status = index.status()
        assert (status.chunks, status.embedded, status.space) == (made.chunks, made.chunks, encoder.space)
        write(shop, {"shop/new.py": "def cheapest_price(prices):\n    return min(prices)\n"})
        assert index.update(vectors=False).changed == 1
        assert paths(index, "cheapest price", mode=Mode.LEXICAL)[0] == "shop/new.py"
        index.embed_few()
        assert not caplog.records
        assert paths(index, "cheapest price")[0] == "shop/new.py"
        assert f"by words alone: {model} is no folder" in caplog.records[0].getMessage()
        for work in (index.update, lambda: index.search(Query("price", mode=Mode.DENSE))):
            with pytest.raises(ModelError, match=f"{model} is no folder"):
                work()


def test_the_doctor_looks_at_the_configured_model(
    encoder: GraphEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(encoder.spec.folder, broken)
    with (broken / "model.onnx").open("ab") as file:
        file.write(b"x")
    monkeypatch.setenv("EMBEDCODE_MODEL", str(broken))
    for findings in (doctor(), doctor(str(broken))):
        checks = {name: (finding, fine) for name, finding, fine in findings}
        assert checks["weights"] == ("changed on disk: export it again", False)
        assert f"in {broken}" in checks["model"][0]
    monkeypatch.delenv("EMBEDCODE_MODEL")
    assert ("weights", "as published", True) in doctor()


def test_top_k(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    assert len(paths(index, "session", top_k=2)) == 2
    assert len(paths(index, "session", top_k=1000)) == 6


@pytest.mark.parametrize("query", [Query(), Query(" \n\t"), Query("", " "), Query(mode=Mode.DENSE)])
def test_an_empty_query(shop: Path, opened: Open, query: Query) -> None:
    with pytest.raises(UsageError, match="the query is empty: say what the code does, or give code"):
        opened(shop).search(query)


def test_a_string_is_no_query(shop: Path, opened: Open) -> None:
    text: Any = "session"
    with pytest.raises(UsageError, match=r"write search\(Query\(text\)\)"):
        opened(shop).search(text)


def test_long_queries(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    start = "how is the session of a visitor forgotten?"
    pasted = (
        start + "\n" + "".join(f"  at frame{number} (bundle:{number}:{number}), column\n" for number in range(3000))
    )
    assert len(pasted) > 100_000
    for mode in Mode:
        assert paths(index, pasted, mode=mode)[0] == "shop/session.py"
    with pytest.raises(UsageError, match=r"the query has 1,000,001 characters: give at most 1,000,000"):
        index.search(Query("x" * (MAX_QUERY + 1)))


@pytest.mark.parametrize(
    "text", ["\ud800 session", "session\0", "🙂 session", "'\"); DROP TABLE chunks; -- session", "session*~2 AND OR"]
)
def test_any_text_is_a_query(shop: Path, opened: Open, text: str) -> None:
    index = opened(shop)
    index.update()
    for mode in Mode:
        assert paths(index, text, mode=mode)


def test_before_the_first_update_there_is_no_answer(shop: Path, opened: Open) -> None:
    """None is another one than that nothing was found."""
    index = opened(shop)
    for mode in Mode:
        with pytest.raises(UsageError, match=r"has no index yet: call update\(\) first"):
            paths(index, "session", mode=mode)
    status = index.status()
    assert (status.files, status.chunks, status.updated, status.running) == (0, 0, 0.0, None)


def test_half_an_index_has_vectors(shop: Path, opened: Open) -> None:
    index = opened(shop)
    report = index.update(vectors=False)
    assert (report.embedded, report.encoded) == (0, 0)
    query = Query("forget the session of a visitor, retry, log in")
    assert index.search(query)[0].chunk.path == "shop/session.py"
    candidates = index.lexical(query, 2)
    assert index.embed(60, candidates) == 2
    assert index.status().embedded == 2
    assert index.embed(60, candidates) == 0
    hits = index.search(query)
    assert hits[0].chunk.path == "shop/session.py"
    assert sum("vector (" in " ".join(hit.why) for hit in hits) == 2 < len(hits)
    assert {"web/retry.js", "README.md"} <= {hit.chunk.path for hit in hits}
    assert len(paths(index, query.text, mode=Mode.DENSE)) == 2
    assert index.update().encoded == report.chunks - 2


def test_what_a_query_needs_is_embedded_first_and_then_any(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "CANDIDATES", 2)
    monkeypatch.setattr(index_module, "FEW", 1)
    index = opened(shop)
    chunks = index.update(vectors=False).chunks
    index.embed_best(Query("rotate and compress old log files"), 60)
    assert index.status().embedded == 2
    assert "tools/rotate.nim" in paths(index, "rotate", mode=Mode.DENSE)
    index.embed_best(Query("zyzzyva"), 60, others=False)
    assert index.status().embedded == 2
    index.embed_best(Query("zyzzyva"), 60)
    assert index.status().embedded == 4
    index.embed_best(None, 60)
    assert index.status().embedded == min(chunks, 6)


def test_few_missing_vectors_are_made_and_many_are_left(
    shop: Path, opened: Open, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(shop)
    index.update()
    assert not index.embed_few()
    write(shop, {f"new/{n}.py": f"def fresh_{n}():\n    return {n}\n" for n in range(3)})
    index.update(vectors=False)
    monkeypatch.setattr(index_module, "FEW", 2)
    before = index.status().embedded
    assert index.embed_few()
    assert index.status().embedded == before
    monkeypatch.setattr(index_module, "FEW", 3)
    assert not index.embed_few(60)
    assert index.status().embedded == index.status().chunks == before + 3


def test_nothing_to_embed(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    assert index.embed(60, []) == 0
    assert index.embed(60, [10**9]) == 0


def test_functions_whose_name_has_no_word(tmp_path: Path, write: Write, opened: Open) -> None:
    text = "@area.register\ndef _(shape: Circle):\n    return 3 * shape.radius ** 2\n"
    index = opened(write(tmp_path / "shapes", {"area.py": text, "ruby.rb": "def <=>(other)\n  area\nend\n"}))
    index.update(vectors=False)
    assert set(paths(index, "area of a circle")) == {"area.py", "ruby.rb"}


# ---- related -----------------------------------------------------------------------------------------------------


def test_related(shop: Path, opened: Open, write: Write) -> None:
    write(shop, {"shop/logout.py": "def close_session(store, session_id):\n    store.delete(session_id)\n"})
    index = opened(shop)
    for vectors in (False, True):
        index.update(vectors=vectors)
        hits = index.related("shop/session.py", 6)
        assert hits[0].chunk.path == "shop/logout.py"
        assert "shop/session.py" not in {hit.chunk.path for hit in hits}
    assert [hit.chunk.path for hit in index.related("shop/session.py", 6, k=1)] == ["shop/logout.py"]
    by_language = index.related("shop/session.py", 6, where=Filter(languages=("javascript",)))
    assert {hit.chunk.path for hit in by_language} == {"web/retry.js"}


def test_related_without_its_vector_is_by_words_while_the_server_is_down(
    shop: Path, opened: Open, write: Write, serve: Serve
) -> None:
    write(shop, {"shop/logout.py": "def close_session(store, session_id):\n    store.delete(session_id)\n"})
    server = serve()
    with opened(shop, load(server.url)) as index:
        index.update(vectors=False)
    server.stop()
    told: list[str] = []
    hits = opened(shop, load(server.url)).related("shop/session.py", 6, told=told.append)
    assert hits[0].chunk.path == "shop/logout.py"
    (note,) = told
    assert note.startswith(WORDS_ALONE) and "refuses the connection" in note


@pytest.mark.parametrize("given", [("*",) * 201, ("a" * 10_001,)])
def test_paths_that_would_take_long_to_compile(shop: Path, opened: Open, given: tuple[str, ...]) -> None:
    index = opened(shop)
    index.update(vectors=False)
    with pytest.raises(UsageError, match="give at most 200 of 10,000 together"):
        index.search(Query("session", where=Filter(paths=given)))


@pytest.mark.parametrize(
    ("path", "line", "reason"),
    [("shop/session.py", 400, "it has 7 lines"), ("shop/none.py", 1, "it is not in the index")],
)
def test_related_to_a_line_that_is_not_there(shop: Path, opened: Open, path: str, line: int, reason: str) -> None:
    index = opened(shop)
    index.update(vectors=False)
    with pytest.raises(UsageError, match=f"{path}:{line} is no line of an indexed file .{reason}.: check the path"):
        index.related(path, line)


# ---- status and clean --------------------------------------------------------------------------------------------


def test_status(shop: Path, opened: Open, write: Write) -> None:
    write(shop, {".gitignore": "*.tmp\n", "a.tmp": "x", "logo.png": "x", "key.pem": "x"})
    index = opened(shop)
    report = index.update()
    status = index.status()
    assert (status.files, status.chunks, status.embedded) == (report.files, report.chunks, report.chunks)
    assert report.files == sum(status.languages.values()) == 7  # with .gitignore itself
    assert status.languages["python"] == 2
    assert set(status.skipped) == {"a.tmp", "logo.png", "key.pem"}
    assert status.skipped["a.tmp"] == "ignored by .gitignore: *.tmp"
    assert dict(report.skipped) == dict(status.skipped)
    assert status.model == "embedcode-small"
    assert status.root == shop
    assert status.bytes == sum(path.stat().st_size for path in index.home.rglob("*") if path.is_file()) > 0
    assert status.updated > 0


def test_status_of_a_folder_names_what_is_in_it_or_around_it(shop: Path, opened: Open, write: Write, git: Git) -> None:
    git(shop, "init", "-q")
    write(
        shop, {"key.pem": "x", "web/logo.png": "x", "web2/logo.png": "x", ".gitignore": "/web/out/\n", "web/out/a": "x"}
    )
    whole = opened(shop)
    whole.update()
    status = opened(shop / "web").status()
    assert set(status.skipped) == {"web/logo.png", "web/out/"}
    assert (status.files, status.chunks) == (whole.status().files, whole.status().chunks)
    assert set(opened(shop / "web" / "out").status().skipped) == {"web/out/"}


def test_repositories_beside_the_folder_are_not_named(shop: Path, opened: Open, git: Git) -> None:
    for place in (".", "tools"):
        git(shop / place, "init", "-q")
    with opened(shop) as index:
        index.update(vectors=False)
        assert set(index.status().repos) == {"shop", "tools"}
    inside = opened(shop / "web")
    assert inside.status().repos == {"shop": 1}
    with pytest.raises(UsageError, match=r"there is no repository tools in .*: give one of shop\."):
        inside.search(Query("session", mode=Mode.LEXICAL, where=Filter(repos=("tools",))))


def test_a_folder_that_goes_while_it_is_measured(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(shop)
    index.update()
    scandir = os.scandir

    def last_look(place: str | Path | int) -> Iterator[os.DirEntry[str]]:
        found = scandir(place)
        if str(place) == str(index.home):  # its folders have been listed, and then another process takes one
            shutil.rmtree(index.home / "lexical")
        return found

    monkeypatch.setattr(os, "scandir", last_look)
    assert index.status().bytes > 0


def test_nothing_is_written_into_the_repository(shop: Path, opened: Open, git: Git) -> None:
    git(shop, "init", "-q")
    before = sorted(shop.rglob("*"))
    index = opened(shop / "shop")
    index.update()
    index.search(Query("session"))
    assert sorted(shop.rglob("*")) == before


def test_clean_says_what_it_frees(shop: Path, tmp_path: Path, write: Write, opened: Open, own_home: Path) -> None:
    other = write(tmp_path / "other", {"a.py": "x = 1\n"})
    for root in (shop, other):
        with opened(root) as index:
            index.update()
            home = index.home
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert clean(other, vectors=False, dry_run=True) == [(str(home), size, str(other), "")]
    assert clean(other, vectors=False, dry_run=False) == [(str(home), size, str(other), "")]
    assert not home.exists()
    assert [one.what for one in clean(None, vectors=True, dry_run=False)] == [
        str(Index.open(shop).home),
        str(own_home / "vectors"),
    ]
    assert list((own_home / "indexes").iterdir()) == []
    assert not (own_home / "vectors").exists()
    assert clean(shop, vectors=True, dry_run=False) == []


def test_after_clean_the_next_update_takes_vectors_from_the_cache(shop: Path, opened: Open) -> None:
    with opened(shop) as index:
        chunks = index.update().chunks
    clean(shop, vectors=False, dry_run=False)
    report = opened(shop).update()
    assert (report.encoded, report.cached) == (0, chunks)


def test_clean_of_a_path_that_is_not_there_deletes_nothing(shop: Path, opened: Open, git: Git) -> None:
    git(shop, "init", "-q")
    with opened(shop) as index:
        index.update(vectors=False)
    with pytest.raises(UsageError, match="shup does not exist"):
        clean(shop / "shup", vectors=False, dry_run=False)
    assert index.home.is_dir()


def test_clean_of_a_repository_that_was_deleted(shop: Path, opened: Open, tmp_path: Path) -> None:
    with opened(shop) as index:
        index.update(vectors=False)
    shop.rename(tmp_path / "elsewhere")
    assert [one.what for one in clean(shop, vectors=False, dry_run=False)] == [str(index.home)]


def test_indexes_of_repositories_that_are_gone(shop: Path, opened: Open, write: Write, tmp_path: Path) -> None:
    odd = write(tmp_path / os.fsdecode(b"caf\xe9"), {"a.py": "x = 1\n"})
    homes = {}
    for root in (shop, odd, write(tmp_path / "other", {"a.py": "x = 1\n"})):
        with opened(root) as index:
            index.update(vectors=False)
            homes[root] = index.home
    assert clean(None, vectors=False, dry_run=False, gone=True) == []
    odd.rename(tmp_path / "elsewhere")
    shutil.rmtree(shop)
    for dry_run in (True, False):
        found = clean(None, vectors=False, dry_run=dry_run, gone=True)
        assert {(one.what, one.root) for one in found} == {(str(homes[root]), str(root)) for root in (shop, odd)}
    assert [home.exists() for home in homes.values()] == [False, False, True]


# ---- spaces and builds -------------------------------------------------------------------------------------------


class Mirrored(GraphEncoder):
    """A model of the same space with other vectors, which its own golden vector does not tell."""

    def _one(self, tokens: Tokens, index: int = 0) -> Floats:
        return super()._one(tokens, index)[::-1]


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("another", "with another model .embedcode-small.: use that one, or run `embedcode clean {}` and index again"),
        ("embedcode-small", "with another version of embedcode-small: run `embedcode clean {}` and index again"),
    ],
)
def test_another_space_is_refused(shop: Path, opened: Open, encoder: GraphEncoder, name: str, cure: str) -> None:
    shop = shop.rename(shop.parent / "my shop")
    with opened(shop) as index:
        index.update()
    other = GraphEncoder(replace(encoder.spec, weights="0" * 64, name=name), 2)
    index, cure = opened(shop, other), cure.format(f"'{shop}'")  # to be pasted
    for use in (index.update, lambda: index.search(Query("session")), lambda: index.embed(1, [1])):
        with pytest.raises(StoreError, match=cure):
            use()
    assert paths(opened(shop), "session")[0] == "shop/session.py"


def test_vectors_of_another_length_are_refused(shop: Path, opened: Open, encoder: GraphEncoder) -> None:
    with opened(shop) as index:
        index.update()
    with pytest.raises(StoreError, match=r"holds vectors of 384 numbers, this model gives 256: .*embedcode clean"):
        opened(shop, GraphEncoder(replace(encoder.spec, dim=256), 2)).update()


def test_another_build_is_only_noted(
    shop: Path, opened: Open, encoder: GraphEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shop) as index:
        index.update()
    other = GraphEncoder(replace(encoder.spec, precision="int8 on another engine"), 2)
    index = opened(shop, other)
    assert paths(index, "session")[0] == "shop/session.py"
    assert index.store.meta().manifest["build"] == other.build
    assert not caplog.records


def test_another_build_with_other_vectors_is_warned_of(
    shop: Path, opened: Open, encoder: GraphEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shop) as index:
        index.update()
    golden = replace(encoder.spec.golden, vector=encoder.spec.golden.vector[::-1])
    index = opened(shop, Mirrored(replace(encoder.spec, precision="bf16", golden=golden), 2))
    assert index.search(Query("session"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"run `embedcode clean --vectors {shop}` and index again" in record.getMessage()


def test_other_weights_under_the_name_of_a_server_are_not_mixed_with_those_of_before(
    shop: Path, opened: Open, write: Write, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("openai")
    index = opened(shop, load(server.url))
    index.update()
    count = len(server.embeddings)
    index.search(Query("session"))
    assert len(server.embeddings) == count + 1  # a query is not compared each time
    former = server.vector
    server.vector = lambda text, role: former(text, role)[::-1]
    write(shop, {"new.py": "quokka = 1\n"})
    index, told = opened(shop, load(server.url)), []
    said = f"gives other vectors than before .cosine .*run `embedcode clean --vectors {shop}` and index again"
    with pytest.raises(ModelError, match=said):
        index.update()
    assert index.search(Query("session"), told.append)[0].chunk.path == "shop/session.py"
    assert told[0].startswith(WORDS_ALONE) and "clean --vectors" in told[0]
    root = write(shop.parent / "other", {"quokka.py": "quokka = 1\n"})
    other = opened(root, load(server.url))  # whose vectors the cache has from before
    with pytest.raises(ModelError, match="gives other vectors"):
        other.update()
    server.vector = former
    assert index.update().encoded == 1
    server.vector = lambda text, role: former(text, role)[::-1]
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "TRUSTED_SECONDS", 0.0)
        index.search(Query("session"), told.append)
    assert len(told) == 2


def test_a_server_that_tells_its_weights_is_compared_once(shop: Path, opened: Open, write: Write, serve: Serve) -> None:
    server = serve(metadata={"modelInfo": [{"modelUrl": "a"}]})
    for text in ("quokka = 1\n", "wombat = 1\n"):
        write(shop, {"new.py": text})
        opened(shop, load(server.url)).update()
    sent = [text for asked in server.embeddings for text in asked.body["input"]]
    assert sent.count(golden.GOLDEN) == 1


# ---- several at once ---------------------------------------------------------------------------------------------


def test_one_sees_what_another_indexed(shop: Path, opened: Open, write: Write) -> None:
    one, other = opened(shop), opened(shop)
    one.update()
    assert paths(other, "forget the session")[0] == "shop/session.py"
    write(shop, {"new/feature.py": "def brand_new_feature():\n    return 42\n"})
    other.update()
    for index in (one, other):
        assert paths(index, "brand new feature")[0] == "new/feature.py"


def test_small_edits_leave_no_growing_pile(
    shop: Path, opened: Open, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a program does it that asks after every edit: never is everything embedded at once."""
    monkeypatch.setattr(index_module, "MAINTAIN_COMMITS", 10)
    index = opened(shop)
    index.update(vectors=False)

    def pile() -> int:
        with sqlite3.connect(index.home / "index.sqlite") as connection:
            tables = ("vectors", "gone", "history")
            (rows,) = connection.execute("SELECT " + "+".join(f"(SELECT COUNT(*) FROM {t})" for t in tables))
        connection.close()
        return int(sum(rows))

    sizes = []
    for turn in range(40):
        write(shop, {"README.md": f"# Shop\n\nRevision {turn} of the guide.\n"})
        index.update(vectors=False)
        index.embed(60, [pending.id for pending in index.store.pending(10)])
        sizes.append(pile())
        assert index.search(Query(f"revision {turn}"))[0].chunk.path == "README.md"
    assert max(sizes) == max(sizes[:10]) < 40
    maintained = index.store.meta().generation
    index.update(vectors=False)
    assert index.store.meta().generation == maintained


def test_an_index_deleted_while_it_is_open(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    clean(shop, vectors=False, dry_run=False)
    with pytest.raises(StoreError, match="deleted or replaced while it was in use: run again"):
        index.search(Query("session"))


def test_closed_twice_and_as_a_context(shop: Path, encoder: GraphEncoder) -> None:
    with Index.open(shop, encoder) as index:
        index.update(vectors=False)
    index.close()


def test_a_copy_takes_what_is_cached_before_it_computes_anything(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of a second checkout are there after reading: a search then needs to make none."""
    opened(shop).update()
    copy = shop.parent / "copy"
    shutil.copytree(shop, copy)
    index = opened(copy)
    monkeypatch.setattr(index.encoder, "forward", lambda _: pytest.fail("computed again"))
    report = index.update(vectors=False)
    assert report.embedded == report.chunks > 0
