"""Bringing an index up to date: everything that changed is seen, and nothing else is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcode import Index, Mode, Query
from embedcode.errors import UsageError
from embedcode.index import build, exclude, prepare, walk, workers
from embedcode.index.prepare import Job, Prepared
from embedcode.index.report import Step
from embedcode.index.walk import Found, Source

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]


def found(index: Index, text: str) -> list[str]:
    return [hit.chunk.path for hit in index.search(Query(text, mode=Mode.LEXICAL))]


def contents(index: Index) -> dict[str, list[str]]:
    return {path: [chunk.text for _, chunk in index.store.chunks_of(path)] for path in sorted(index.store.files())}


@pytest.fixture
def reads(shop: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources in `shop` that are opened from here on; ignore files and settings are read every time."""
    names: list[str] = []
    opening = os.open

    def listed(path: Any, *args: Any, **kwargs: Any) -> int:
        if Path(path).is_relative_to(shop) and Path(path).suffix not in ("", ".toml"):
            names.append(Path(path).name)
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", listed)
    return names


def test_the_first_update_reads_every_file_and_the_second_none(shop: Path, opened: Open, reads: list[str]) -> None:
    index = opened(shop)
    first = index.update()
    assert (first.files, first.changed, first.removed) == (6, 6, 0)
    assert first.chunks == first.embedded == first.encoded > 0
    assert first.tokens > first.chunks
    assert not first.failed
    assert {"session.py", "rotate.nim"} <= set(reads)
    reads.clear()
    generation = index.store.meta().generation
    second = opened(shop).update()
    assert set(reads) == set()
    assert (second.files, second.changed, second.removed, second.encoded, second.cached) == (6, 0, 0, 0, 0)
    assert (second.chunks, second.embedded) == (first.chunks, first.embedded)
    assert index.store.meta().generation == generation


def test_a_change_an_addition_a_removal_and_a_new_name(
    shop: Path, opened: Open, write: Write, reads: list[str]
) -> None:
    index = opened(shop)
    index.update()
    reads.clear()
    write(shop, {"README.md": "# Shop\n\nQuokkas are welcome here.\n", "docs/new.md": "# Wombats\n\nDig burrows.\n"})
    (shop / "web" / "retry.js").unlink()
    (shop / "shop" / "prices.py").rename(shop / "shop" / "tariffs.py")
    report = index.update()
    assert (report.files, report.changed, report.removed) == (6, 3, 2)
    assert set(reads) == {"README.md", "new.md", "tariffs.py"}
    assert found(index, "quokkas") == ["README.md"]
    assert found(index, "wombats burrows") == ["docs/new.md"]
    assert found(index, "growing pauses backoff") == []
    assert found(index, "install") == []
    assert set(found(index, "gross price")) == {"shop/tariffs.py"}
    assert report.embedded == report.chunks


def test_a_folder_that_goes_away(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update()
    (shop / "shop").rename(shop.parent / "moved")
    assert index.update().removed == 2
    assert found(index, "session price") == []


def test_another_size_is_seen_although_the_time_is_the_same(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    readme = shop / "README.md"
    before = readme.stat()
    readme.write_text("# Quokka\n")
    os.utime(readme, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.update(vectors=False).changed == 1
    assert found(index, "quokka") == ["README.md"]


def test_a_file_that_takes_the_place_of_one_of_its_size_and_time_is_seen(
    shop: Path, opened: Open, write: Write
) -> None:
    write(shop, {"a.py": "wombat = 1\n", "b.py": "quokka = 1\n"})
    before = (shop / "a.py").stat()
    os.utime(shop / "b.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    index = opened(shop)
    index.update(vectors=False)
    (shop / "b.py").replace(shop / "a.py")
    assert (shop / "a.py").stat().st_mtime_ns == before.st_mtime_ns
    report = index.update(vectors=False)
    assert (report.changed, report.removed) == (1, 1)
    assert (found(index, "quokka"), found(index, "wombat")) == (["a.py"], [])
    (shop / "a.py").write_text("bilby  = 1\n")
    os.utime(shop / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.update(vectors=False).changed == 1
    assert found(index, "bilby") == ["a.py"]


def test_another_time_with_the_same_content_changes_nothing(shop: Path, opened: Open, reads: list[str]) -> None:
    index = opened(shop)
    index.update()
    os.utime(shop / "README.md", (1e9, 1e9))
    time.sleep(2 * prepare.RACY_NS / 1e9)
    reads.clear()
    report = index.update()
    assert (report.changed, report.encoded) == (0, 0)
    assert set(reads) == {"README.md"}
    reads.clear()
    index.update()
    assert set(reads) == set()


def test_a_time_in_the_future_does_not_have_a_file_read_again_each_time(
    shop: Path, opened: Open, reads: list[str]
) -> None:
    tomorrow = time.time() + 86400
    os.utime(shop / "README.md", (tomorrow, tomorrow))
    time.sleep(2 * prepare.RACY_NS / 1e9)
    index = opened(shop)
    index.update(vectors=False)
    reads.clear()
    index.update(vectors=False)
    assert set(reads) == set()
    (shop / "README.md").write_text("# Quokka\n")
    os.utime(shop / "README.md", (tomorrow, tomorrow))
    assert index.update(vectors=False).changed == 1


def test_a_file_rewritten_in_the_same_instant_it_was_read(tmp_path: Path, opened: Open) -> None:
    """Same size, and on a file system with coarse time stamps the same time: only reading it again tells."""
    root = tmp_path / "r"
    root.mkdir()
    index = opened(root)
    for turn in range(3):
        (root / "a.py").write_text(f"word_a{turn} = 1\n")
        index.update(vectors=False)
        stamp = (root / "a.py").stat().st_mtime_ns
        (root / "a.py").write_text(f"word_b{turn} = 1\n")
        os.utime(root / "a.py", ns=(stamp, stamp))
        if time.time_ns() - stamp < prepare.RACY_NS:
            index.update(vectors=False)
            assert contents(index) == {"a.py": [f"word_b{turn} = 1"]}


def test_content_that_is_no_text_is_remembered(shop: Path, opened: Open, reads: list[str]) -> None:
    (shop / "data.py").write_bytes(b"\x00\x01" * 100)
    hour_ago = time.time() - 3600
    os.utime(shop / "data.py", (hour_ago, hour_ago))
    index = opened(shop)
    assert index.update(vectors=False).skipped["data.py"] == "binary content"
    reads.clear()
    report = index.update(vectors=False)
    assert set(reads) == set()
    assert (report.skipped["data.py"], report.files) == ("binary content", 6)
    assert "data.py" in index.status().skipped
    (shop / "data.py").write_text("quokka = 1\n")
    report = index.update(vectors=False)
    assert (report.changed, "data.py" in report.skipped) == (1, False)
    assert found(index, "quokka") == ["data.py"]
    (shop / "data.py").write_bytes(b"\x00\x01" * 100)
    assert index.update(vectors=False).removed == 1
    assert found(index, "quokka") == []


def test_new_ignore_rules_take_files_out_and_back(shop: Path, opened: Open, write: Write) -> None:
    index = opened(shop)
    index.update()
    write(shop, {".embedcodeignore": "shop/\n"})
    report = index.update()
    assert (report.removed, report.skipped["shop/"]) == (2, "ignored by .embedcodeignore: shop/")
    assert "shop/session.py" not in found(index, "session")
    (shop / ".embedcodeignore").unlink()
    report = index.update()
    assert (report.changed, report.encoded) == (2, 0)
    assert found(index, "session")


def test_no_file_at_all_says_what_was_left_out(tmp_path: Path, write: Write, opened: Open) -> None:
    root = write(tmp_path / "r", {".gitignore": "*\n", "src/a.py": "x = 1\n", "b.py": "y = 1\n"})
    with pytest.raises(UsageError, match=r'No file to index: 3 left out as "ignored by .gitignore", such as src/;'):
        opened(root).update()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="No file to index: the folder is empty; give the folder that holds the code"):
        opened(tmp_path / "empty").update()


def test_a_repository_emptied_later(shop: Path, opened: Open, write: Write) -> None:
    index = opened(shop)
    index.update()
    write(shop, {".gitignore": "*\n"})
    with pytest.raises(UsageError, match="No file to index"):
        index.update()
    assert found(index, "session") == []
    (shop / ".gitignore").unlink()
    assert index.update().files == 6


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.EIO])
def test_a_fault_of_the_system_costs_no_file(
    shop: Path, opened: Open, write: Write, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    index = opened(shop)
    index.update(vectors=False)
    write(shop, {"README.md": "# Shop\n\nQuokkas are welcome here.\n", "new.md": "# Wombats\n"})
    opening = os.open

    def fail(path: Any, *args: Any, **kwargs: Any) -> int:
        if Path(path).suffix == ".md":
            raise OSError(fault, os.strerror(fault))
        return opening(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        report = index.update(vectors=False)
    reason = f"cannot be read: {os.strerror(fault).lower()}"
    assert (report.files, report.removed) == (6, 0)
    assert dict(report.skipped) == {"README.md": reason, "new.md": reason}
    assert found(index, "install") == ["README.md"]
    assert index.update(vectors=False).changed == 2
    assert (found(index, "install"), found(index, "quokkas")) == ([], ["README.md"])


def test_a_folder_that_cannot_be_listed_for_a_moment_costs_nothing_in_it(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(shop)
    index.update(vectors=False)
    listing = os.scandir

    def fail(path: Any) -> Any:
        if Path(path).name == "shop" and Path(path) != shop:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return listing(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        report = index.update(vectors=False)
    assert (report.files, report.removed, list(report.skipped)) == (6, 0, ["shop/"])
    assert found(index, "session")
    assert index.update(vectors=False).changed == 0


def test_of_folders_that_cannot_be_listed_those_that_are_not_named_lose_nothing(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(write(tmp_path / "r", {"a/a.py": "a = 1\n", "b/b.py": "b = 1\n", "c.py": "c = 1\n"}))
    index.update(vectors=False)
    listing = os.scandir

    def fail(path: Any) -> Any:
        if Path(path).name in ("a", "b"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return listing(path)

    monkeypatch.setattr(walk, "NAMED", 1)
    monkeypatch.setattr(os, "scandir", fail)
    report = index.update(vectors=False)
    assert (report.files, report.removed, list(report.skipped), sum(report.skipped_more.values())) == (3, 0, ["a/"], 1)


def test_a_drive_that_is_away_empties_no_index(shop: Path, opened: Open) -> None:
    index = opened(shop)
    index.update(vectors=False)
    drive = shop.rename(shop.parent / "drive")
    shop.mkdir()
    with pytest.raises(UsageError, match=r"the folder is empty; .* what is indexed of it is kept"):
        index.update(vectors=False)
    assert found(index, "session")
    shop.rmdir()
    drive.rename(shop)
    report = index.update(vectors=False)
    assert (report.files, report.changed) == (6, 0)


FUNCTIONS = {
    name: f"def {name}(value):\n" + "".join(f"    value = {name}_step_{line}(value, {line})\n" for line in range(30))
    for name in ("alpha", "beta", "gamma")
}


def test_moving_a_function_within_a_file_embeds_nothing(tmp_path: Path, write: Write, opened: Open) -> None:
    root = write(tmp_path / "r", {"a.py": "\n\n".join(FUNCTIONS[name] for name in ("alpha", "beta", "gamma"))})
    index = opened(root)
    index.update()
    before = {chunk.symbol: chunk.start_line for _, chunk in index.store.chunks_of("a.py")}
    assert before["alpha"] < before["beta"]
    (root / "a.py").write_text("\n\n".join(FUNCTIONS[name] for name in ("beta", "alpha", "gamma")))
    report = index.update()
    assert (report.changed, report.encoded, report.embedded) == (1, 0, report.chunks)
    (hit, *_) = index.search(Query("alpha step", mode=Mode.LEXICAL))
    assert hit.chunk.symbol == "alpha"
    assert hit.chunk.start_line == before["beta"]


def test_a_new_chunker_cuts_everything_again(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    index = opened(shop)
    index.update()
    reads.clear()
    monkeypatch.setattr(build, "CHUNKER_VERSION", "another")
    report = index.update()
    assert (report.changed, report.encoded, report.embedded) == (6, 0, report.chunks)
    assert "session.py" in set(reads)
    assert index.update().changed == 0


def test_an_interrupted_update_to_a_new_chunker_goes_on_where_it_ended(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: Step) -> None:
        if step.done == 4:
            raise KeyboardInterrupt

    index = opened(shop)
    index.update(vectors=False)
    monkeypatch.setattr(build, "CHUNKER_VERSION", "another")
    with pytest.raises(KeyboardInterrupt):
        index.update(vectors=False, progress=interrupt)
    assert found(index, "session")
    assert index.update(vectors=False).changed == 2
    assert index.update(vectors=False).changed == 0


def test_new_rules_on_content_read_everything_again_and_cut_nothing(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    index = opened(shop)
    index.update()
    assert found(index, "gross price")
    reads.clear()
    before = exclude.text_reason

    def stricter(name: str, text: str) -> str | None:
        return exclude.CREDENTIALS if "gross_price" in text else before(name, text)

    monkeypatch.setattr(exclude, "text_reason", stricter)
    monkeypatch.setattr(build, "RULES_VERSION", "another")
    report = index.update()
    assert {"session.py", "rotate.nim"} <= set(reads)
    assert (report.changed, report.removed, report.skipped["shop/prices.py"]) == (0, 1, exclude.CREDENTIALS)
    assert found(index, "gross price") == []
    reads.clear()
    index.update()
    assert set(reads) == set()
    monkeypatch.setattr(exclude, "text_reason", before)
    monkeypatch.setattr(build, "RULES_VERSION", "a third")
    assert index.update().changed == 1
    assert found(index, "gross price")


def test_the_folder_was_renamed(shop: Path, opened: Open, encoder: object) -> None:
    """Another path is another index, made from the cache; the repository's new name is what a filter knows."""
    with opened(shop) as index:
        chunks = index.update().chunks
    moved = shop.rename(shop.parent / "store")
    index = opened(moved)
    report = index.update()
    assert (report.encoded, report.cached) == (0, chunks)
    assert {hit.chunk.repo for hit in index.search(Query("session"))} == {"store"}


def test_a_parser_that_fails_on_one_file_costs_that_file(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = prepare.chunk

    def fail(path: str, *rest: Any) -> Any:
        if path == "shop/prices.py":
            raise RecursionError("too deep")
        return cut(path, *rest)

    monkeypatch.setattr(prepare, "chunk", fail)
    index = opened(shop)
    report = index.update()
    failed = {"shop/prices.py": "cut at lines, since its syntax failed (RecursionError: too deep)"}
    assert dict(report.failed) == failed
    assert found(index, "session")
    assert found(index, "gross price") == ["shop/prices.py"]
    assert dict(opened(shop).update().failed) == dict(index.status().failed) == failed
    os.utime(shop / "shop" / "prices.py", (1e9, 1e9))
    assert dict(index.update().failed) == failed
    monkeypatch.setattr(prepare, "chunk", cut)
    (shop / "shop" / "prices.py").write_text("def gross_price(net, rate):\n    return net * rate\n")
    assert dict(index.update().failed) == dict(index.status().failed) == {}
    assert found(index, "gross price") == ["shop/prices.py"]


@pytest.mark.parametrize(
    ("fault", "again"), [(MemoryError, 6), (ImportError, 6), (OSError, 6), (ModuleNotFoundError, 0)]
)
def test_what_failed_for_want_of_the_process_is_cut_again(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], again: int
) -> None:
    """But not where a grammar is not there: it is not at the next search either, which would cut all anew."""

    def fail(*_: object) -> None:
        raise fault

    index = opened(shop)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "chunk", fail)
        assert len(index.update(vectors=False).failed) == 6
    assert found(index, "gross price") == ["shop/prices.py"]
    report = index.update(vectors=False)
    assert (report.changed, len(report.failed)) == (again, 6 - again)
    assert (index.store.chunks_of("shop/prices.py")[0][1].symbol == "gross_price") == bool(again)
    assert index.update(vectors=False).changed == 0


def test_times_of_whole_seconds_tell_of_no_edit_within_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HFS+ and ext3 keep them: within a second a file may change twice under one time."""
    second = 1_700_000_000_000_000_000

    def stamp(changed: int) -> int:
        monkeypatch.setattr(prepare, "read", lambda *_, **__: Source("x = 1\n", b"", 6, 7, changed))
        file = prepare.prepare(Job(Found("a.py", Path("a.py"), 6, 7, "r"), None, 100, "")).file
        assert file is not None
        return file.stamp

    monkeypatch.setattr(time, "time_ns", lambda: second + 1_900_000_000)
    assert stamp(second) == stamp(second + 1_899_000_001) == 0
    assert stamp(second - 1_000_000_000) == stamp(second + 1) == 7


def test_a_file_that_fails_is_forgotten_when_it_goes(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "chunk", lambda *_: 1 / 0)
    index = opened(shop)
    assert len(index.update(vectors=False).failed) == 6
    (shop / "README.md").unlink()
    (shop / "settings.toml").write_bytes(b"\0")
    assert set(index.update(vectors=False).failed) == {
        "shop/session.py",
        "shop/prices.py",
        "web/retry.js",
        "tools/rotate.nim",
    }


def test_failures_before_an_interrupt_are_remembered(shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(step: Step) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    cut = prepare.chunk
    monkeypatch.setattr(prepare, "chunk", lambda *_: 1 / 0)
    index = opened(shop)
    with pytest.raises(KeyboardInterrupt):
        index.update(vectors=False, progress=interrupt)
    kept = set(index.store.files())
    assert len(kept) == 3
    monkeypatch.setattr(prepare, "chunk", cut)
    assert set(opened(shop).update(vectors=False).failed) == kept


def deadly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers are native code. Here every other process than this one crashes as it opens a file of this name."""
    hook = (
        "import signal, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('deadly.py'):\n"
        "        signal.raise_signal(signal.SIGSEGV)\n"
        "sys.addaudithook(hook)\n"
    )
    (folder / "sitecustomize.py").write_text(hook)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_a_parser_that_kills_its_process_costs_one_file(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly(tmp_path, monkeypatch)
    monkeypatch.setenv("EMBEDCODE_THREADS", "2")
    files = {f"part{number}.py": f"word{number} = {number}\n" for number in range(130)}
    index = opened(write(tmp_path / "r", files | {"deadly.py": "x = 1\n"}))
    report = index.update(vectors=False)
    assert dict(report.failed) == {"deadly.py": "the parser crashed on it"}
    assert index.update(vectors=False).failed == index.status().failed == report.failed
    assert set(index.store.files()) == set(files)
    assert found(index, "word129")[0] == "part129.py"


def test_what_crashed_an_earlier_version_is_tried_once_by_another_in_a_process_apart(
    shop: Path, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that an earlier one noted wrongly stayed out until it changed."""
    deadly(tmp_path, monkeypatch)
    monkeypatch.setenv("EMBEDCODE_THREADS", "1")
    (shop / "deadly.py").write_text("quokka = 1\n")
    index = opened(shop)
    with monkeypatch.context() as patch:
        patch.setattr(build, "prepare", lambda job, _: prepare.lost(job, workers.CRASHED))
        with pytest.raises(UsageError):
            index.update(vectors=False)  # which notes it of all files, deadly.py among them
    monkeypatch.setattr(build, "__version__", "next")
    assert list(index.update(vectors=False).failed) == ["deadly.py"]
    started: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(workers.Workers, "start", lambda self, certain=False: started.append(certain))
        assert index.update(vectors=False).changed == 0
        patch.setattr(build, "__version__", "a third")  # and no process can be started: it would crash this one
        assert list(index.update(vectors=False).failed) == ["deadly.py"]
    assert started == [True]
    (tmp_path / "sitecustomize.py").unlink()
    monkeypatch.setattr(build, "__version__", "a fourth")
    assert not index.update(vectors=False).failed
    assert found(index, "quokka") == ["deadly.py"]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_parser_that_kills_the_process_of_a_search_does_so_once(
    shop: Path, tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    """Few files are cut in the process itself; where that died at it, the next has another one try."""
    index = opened(shop)
    index.update(vectors=False)
    (shop / "deadly.py").write_text("x = 1\n")
    (shop / "README.md").write_text("# Quokka\n")
    code = (
        "import signal, sys\n"
        "from embedcode import Index\n"
        "from embedcode.index import prepare\n"
        "prepare.chunk = lambda *_: signal.raise_signal(signal.SIGSEGV)\n"
        "Index.open(sys.argv[1]).update(vectors=False)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(shop)], capture_output=True, check=False)
    assert died.returncode == -signal.SIGSEGV, died.stderr
    deadly(tmp_path, monkeypatch)
    monkeypatch.setenv("EMBEDCODE_THREADS", threads)
    index = opened(shop)
    assert dict(index.update(vectors=False).failed) == {"deadly.py": "the parser crashed on it"}
    assert found(index, "quokka") == ["README.md"]
    assert index.update(vectors=False).changed == 0
    assert not index.store.meta().manifest["cutting"]


def test_files_at_which_a_process_was_ended_are_tried_again_by_another(
    shop: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory runs out: a process may be killed for what another one does."""

    def ended(job: Job, *_: object) -> Prepared:
        return prepare.lost(job, workers.ENDED)

    started: list[bool] = []
    monkeypatch.setattr(workers.Workers, "start", lambda self, certain=False: started.append(certain))
    index = opened(shop)
    with monkeypatch.context() as patch, pytest.raises(UsageError, match='6 left out as "cannot be read"'):
        patch.setattr(build, "prepare", ended)
        index.update(vectors=False)
    assert not started
    assert index.update(vectors=False).files == 6
    assert set(started) == {True}
    started.clear()
    (shop / "README.md").write_text("# Quokka\n")
    assert index.update(vectors=False).changed == 1
    assert not started


def test_progress_counts_every_file(shop: Path, opened: Open) -> None:
    steps: list[Step] = []
    opened(shop).update(progress=steps.append)
    reading = [step for step in steps if step.phase == "read"]
    assert [step.done for step in reading] == [1, 2, 3, 4, 5, 6]
    assert {step.total for step in reading} == {6}
    embedding = [step for step in steps if step.phase == "embed"]
    assert embedding[-1].done == embedding[-1].total == embedding[-1].chunks > 0
    assert embedding[-1].tokens > 0
    assert all(step.seconds >= 0 for step in steps)


def test_an_interrupt_while_reading_keeps_what_was_committed(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"part{number}.py": f"word{number} = {number}\n" for number in range(30)}
    root = write(tmp_path / "r", files)
    monkeypatch.setattr(build, "COMMIT_SECONDS", 0.0)

    def interrupt(step: Step) -> None:
        if step.done == 20:
            raise KeyboardInterrupt

    index = opened(root)
    with pytest.raises(KeyboardInterrupt):
        index.update(progress=interrupt)
    kept = len(index.store.files())
    assert 15 <= kept < 30
    assert found(index, "word12")[0] == "part12.py"
    report = index.update()
    assert report.files == len(index.store.files()) == 30
    assert contents(index) == {path: [text.rstrip("\n")] for path, text in sorted(files.items())}


def test_many_files_are_prepared_in_other_processes_with_the_same_result(
    tmp_path: Path, write: Write, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order and the content of what is stored do not tell who did the work."""
    files = {f"m{number}/part{number}.py": f"def word{number}():\n    return {number}\n" for number in range(150)}
    one, other = write(tmp_path / "one" / "r", files), write(tmp_path / "other" / "r", files)
    monkeypatch.setenv("EMBEDCODE_THREADS", "2")
    shared = opened(one)
    assert shared.update(vectors=False).files == 150
    monkeypatch.setenv("EMBEDCODE_THREADS", "1")
    alone = opened(other)
    assert alone.update(vectors=False).files == 150
    assert contents(shared) == contents(alone)
    assert [id for path in files for id, _ in shared.store.chunks_of(path)] == [
        id for path in files for id, _ in alone.store.chunks_of(path)
    ]
