"""`search --watch` as a process of its own: what it notices, what it passes over, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import pytest

from embedcode import Hit, Index, Query
from embedcode.cli import watch as watching
from embedcode.index.build import bring_up_to_date
from embedcode.index.locks import Lock
from embedcode.index.report import Report
from embedcode.types import Chunk
from repositories import git, write

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
FILES = {
    "shop/session.py": "def invalidate_session(store, session_id):\n    store.delete(session_id)\n",
    "shop/prices.py": "def gross_price(net, rate):\n    return round(net * (1 + rate), 2)\n",
    "web/retry.js": "export async function retryWithBackoff(call) {\n  return await call();\n}\n",
}
STOPPED_SECONDS = 5.0
"""On a busy machine; else it is less than two."""


class Watcher:
    """A watching process; its output is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said: SimpleQueue[str] = SimpleQueue()
        self.remarks: SimpleQueue[str] = SimpleQueue()
        for stream, lines in ((process.stdout, self.said), (process.stderr, self.remarks)):
            Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream: IO[bytes], lines: SimpleQueue[str]) -> None:
        for line in stream:
            lines.put(line.decode().rstrip("\n"))
        stream.close()

    def line(self) -> str:
        """The next line of stdout."""
        return self.said.get(timeout=60)

    def until(self, text: str) -> list[str]:
        """The next lines, up to one that holds `text`."""
        lines = [self.line()]
        while text not in lines[-1]:
            lines.append(self.line())
        return lines

    def quiet(self, seconds: float) -> bool:
        try:
            self.said.get(timeout=seconds)
        except Empty:
            return True
        return False

    def stop(self, number: signal.Signals) -> tuple[int, str, float]:
        """Exit code, what is left of stderr, and how long it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        seconds = time.monotonic() - start
        remarks = []
        while not self.remarks.empty():
            remarks.append(self.remarks.get())
        return code, "\n".join(remarks), seconds


Watch = Callable[..., Watcher]


@pytest.fixture
def watch(environment: dict[str, str]) -> Iterator[Watch]:
    running = []

    def watch(*arguments: str, cwd: Path, program: tuple[str, ...] = ("-m", "embedcode")) -> Watcher:
        command = [sys.executable, *program, "search", "--watch", *arguments]
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.append(process)
        return Watcher(process)

    yield watch
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = write(tmp_path / "shop", FILES)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


@pytest.fixture
def found(call: Run, shop: Path) -> Callable[[str], str]:
    """found(query): the path of the best hit of a search by another process than the watching one, which reads nothing
    itself."""

    def found(query: str) -> str:
        done = call("search", query, "--no-update", "--json", "-k", "1", cwd=shop)
        answer = json.loads(done.stdout)
        assert answer["indexed"]["embedded"] == answer["indexed"]["chunks"]
        return str(answer["hits"][0]["path"])

    return found


def home(call: Run, shop: Path) -> Path:
    return Path(json.loads(call("status", "--json", cwd=shop).stdout)["home"])


def at_work(tmp_path: Path) -> list[str]:
    """Command lines of the processes that have this test's home."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"EMBEDCODE_HOME={tmp_path}".encode() in (folder / "environ").read_bytes():
                lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


def test_what_changes_is_found_by_another_search(watch: Watch, shop: Path, found: Callable[[str], str]) -> None:
    watcher = watch(cwd=shop)
    assert watcher.line().startswith(f"{shop}: 3 files, 3 chunks, 100 % with a vector, in ")
    write(shop, {"new.py": "def cheapest_price(prices):\n    return min(prices)\n"})
    assert "  1 changed, in " in watcher.line()
    assert found("cheapest price") == "new.py"
    (shop / "new.py.tmp").write_text("def dearest_parcel(parcels):\n    return max(parcels)\n")
    (shop / "new.py.tmp").replace(shop / "new.py")  # as many editors save
    assert "  1 changed, in " in watcher.line()
    assert found("dearest parcel") == "new.py"
    (shop / "new.py").rename(shop / "renamed.py")
    assert "  1 changed, 1 removed, in " in watcher.line()
    assert found("dearest parcel") == "renamed.py"
    (shop / "renamed.py").unlink()
    assert "  1 removed, in " in watcher.line()
    write(shop, {"far/below/here.py": "def rotate_logs(folder):\n    return sorted(folder)\n"})
    assert "  1 changed, in " in watcher.line()
    write(shop, {"far/below/here.py": "def compress_logs(folder):\n    return zip(folder)\n"})
    assert "  1 changed, in " in watcher.line()
    assert found("compress logs") == "far/below/here.py"
    shutil.move(shop / "far", shop / "near")
    assert "  1 changed, 1 removed, in " in watcher.line()
    write(shop, {"near/below/here.py": "def delete_logs(folder):\n    folder.clear()\n"})
    assert "  1 changed, in " in watcher.line()
    assert found("delete logs") == "near/below/here.py"
    assert watcher.process.poll() is None
    assert watcher.remarks.empty()


def test_what_the_walk_leaves_out_is_not_even_looked_at(
    watch: Watch, call: Run, shop: Path, environment: dict[str, str]
) -> None:
    environment["EMBEDCODE_HOME"] = str(shop / "home")  # our own files too
    write(shop, {".gitignore": "out/\n*.tmp\n", "out/a.py": "x = 1\n"})
    watcher = watch(cwd=shop)
    assert ": 4 files" in watcher.line()
    assert watcher.quiet(1)
    updated = home(call, shop) / "updated"
    before = updated.stat().st_mtime_ns
    left_out = ["out/a.py", "out/new/b.py", "node_modules/i/i.js", ".git/index", "notes.tmp", "shop/.session.py.swp"]
    left_out += ["shop/table.csv", ".env", "shop/__pycache__/session.pyc", "home/indexes/note.json"]
    for turn in range(5):
        write(shop, dict.fromkeys(left_out, f"x = {turn}\n"))
        time.sleep(0.3)
    assert watcher.quiet(1.5)
    assert updated.stat().st_mtime_ns == before
    write(shop, {"shop/prices.py": "def net_price(gross):\n    return gross\n"})
    assert "  1 changed, in " in watcher.line()
    assert updated.stat().st_mtime_ns > before


def test_changed_rules_hold_at_once(watch: Watch, shop: Path, found: Callable[[str], str]) -> None:
    write(shop, {"vendor/v.py": "def vendored_tariff():\n    return 7\n", ".gitignore": ".*\n"})
    watcher = watch(cwd=shop)
    assert ": 3 files" in watcher.line()
    write(shop, {".embedcodeignore": "!/vendor/\n"})
    assert "  1 changed, in " in watcher.line()
    assert found("vendored tariff") == "vendor/v.py"
    write(shop, {".gitignore": ".*\nweb/\n"})
    assert "  1 removed, in " in watcher.line()
    write(shop, {".embedcode.toml": 'ignore = ["prices.py"'})
    assert "is not valid TOML" in watcher.remarks.get(timeout=60)
    write(shop, {".embedcode.toml": 'ignore = ["prices.py"]'})
    assert "  1 removed, in " in watcher.line()
    write(shop, {"vendor/v.py": "def vendored_toll():\n    return 8\n"})  # a folder that it watches only since then
    assert "  1 changed, in " in watcher.line()
    assert found("vendored toll") == "vendor/v.py"


def test_a_checkout_of_another_branch_is_one_update(watch: Watch, shop: Path) -> None:
    git(shop, "checkout", "-qb", "other")
    write(shop, {f"other/part{number}.py": f"def part_{number}():\n    return {number}\n" for number in range(25)})
    (shop / "web" / "retry.js").unlink()
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "other")
    watcher = watch(cwd=shop)
    assert ": 27 files" in watcher.line()
    git(shop, "checkout", "-q", "-")
    assert "  1 changed, 25 removed, in " in watcher.line()
    git(shop, "checkout", "-q", "other")
    assert "  25 changed, 1 removed, in " in watcher.line()
    assert watcher.quiet(1)


def test_a_file_that_does_not_rest_is_read_as_it_ends(watch: Watch, call: Run, shop: Path) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        (shop / "busy.py").write_text(f"def turn():\n    return {time.monotonic_ns()}\n" * 50)
        time.sleep(0.01)
    (shop / "busy.py").write_text("def zyzzyva_weevil():\n    return 1\n")
    deadline = time.monotonic() + 30
    # Not by found(), which wants a vector of each chunk: between the words of an update and its vectors there is none.
    while b"def zyzzyva_weevil" not in call("search", "zyzzyva weevil", "--no-update", "--json", cwd=shop).stdout:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(watch: Watch, call: Run, shop: Path, tmp_path: Path, number: signal.Signals) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    code, remarks, seconds = watcher.stop(number)
    assert (code, remarks) == (0, "")
    assert seconds < STOPPED_SECONDS
    assert_nothing_is_left(home(call, shop), tmp_path)


@pytest.mark.parametrize(("phase", "number"), [("read", signal.SIGTERM), ("embed", signal.SIGINT)])
def test_it_stops_cleanly_in_the_first_long_indexing(
    watch: Watch, call: Run, tmp_path: Path, environment: dict[str, str], number: signal.Signals, phase: str
) -> None:
    environment["EMBEDCODE_THREADS"] = "2"
    root = write(tmp_path / "large", {f"p{n}.py": f"def step_{n}(value):\n    return {n}\n" for n in range(1000)})
    folder = home(call, root)
    watcher = watch(cwd=root)
    deadline = time.monotonic() + 60
    while not ((folder / "update.json").exists() if phase == "read" else embedded(call, root)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    code, remarks, seconds = watcher.stop(number)
    assert (code, remarks) == (0, "")
    assert seconds < STOPPED_SECONDS
    assert_nothing_is_left(folder, tmp_path)
    kept = embedded(call, root)
    assert kept < 1000
    done = call("search", "step_7", "--json", cwd=root)
    assert json.loads(done.stdout)["hits"][0]["path"] == "p7.py"
    assert embedded(call, root) > kept


def embedded(call: Run, root: Path) -> int:
    return int(json.loads(call("status", "--json", cwd=root).stdout)["embedded"])


def assert_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    for name in ("update", "embed", "background"):
        assert Lock(folder, name).holder() is None
        assert not (folder / f"{name}.json").exists()
    if Path("/proc/self/environ").exists():
        assert at_work(tmp_path) == []


def test_killed_it_leaves_an_index_that_works(watch: Watch, call: Run, shop: Path, tmp_path: Path) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    write(shop, {f"new/{n}.py": f"def fresh_{n}():\n    return {n}\n" for n in range(60)})
    time.sleep(0.5)
    watcher.process.kill()
    watcher.process.wait()
    done = call("search", "fresh_59", "--json", cwd=shop)
    assert json.loads(done.stdout)["hits"][0]["path"] == "new/59.py"
    assert done.stderr == b""
    assert json.loads(call("status", "--json", cwd=shop).stdout)["running"] is None


def test_a_query_is_answered_again_only_when_the_hits_differ(watch: Watch, shop: Path) -> None:
    watcher = watch("gross price", "-k", "1", cwd=shop)
    assert watcher.until("return round")[0] == " 1  shop/prices.py:1-2  gross_price"
    watcher.until("")
    assert watcher.quiet(1.5)
    write(shop, {"web/other.js": "function unrelated() {\n  return 1\n}\n"})
    assert watcher.quiet(3)
    write(shop, {"shop/prices.py": "# of taxes\ndef gross_price(net, rate):\n    return net * (1 + rate)\n"})
    heading, place = watcher.line(), watcher.line()
    assert heading.endswith("  1 changed:")
    assert place == " 1  shop/prices.py:1-3  gross_price"
    watcher.until("return net")
    watcher.until("")
    (shop / "shop" / "prices.py").unlink()
    watcher.until("  1 removed:")
    assert watcher.process.poll() is None


def test_json_is_a_line_an_update_or_an_answer(watch: Watch, shop: Path) -> None:
    def record(watcher: Watcher) -> dict[str, Any]:
        read = json.loads(watcher.line())
        assert isinstance(read, dict)
        return read

    updates = watch("--json", cwd=shop)
    first = record(updates)
    assert (first["root"], first["files"], first["embedded"]) == (str(shop), 3, first["chunks"])
    write(shop, {"new.py": "x = 1\n"})
    second = record(updates)
    assert (second["files"], second["changed"], second["removed"], second["embedded"]) == (4, 1, 0, second["chunks"])
    assert updates.stop(signal.SIGTERM)[:2] == (0, "")
    answers = watch("gross price", ".", "--json", "-k", "1", cwd=shop)
    assert record(answers)["hits"][0]["end_line"] == 2
    write(shop, {"shop/prices.py": "# of taxes\ndef gross_price(net, rate):\n    return net * (1 + rate)\n"})
    assert record(answers)["hits"][0]["end_line"] == 3
    assert answers.stop(signal.SIGTERM)[:2] == (0, "")


def test_a_change_that_another_process_has_read_is_answered_too(watch: Watch, call: Run, shop: Path) -> None:
    watcher = watch("gross price", "-k", "1", cwd=shop)
    watcher.until("return round")
    watcher.until("")
    with Lock(home(call, shop), "update").held(5, "testing"):
        write(shop, {"shop/prices.py": "# of taxes\ndef gross_price(net, rate):\n    return net * (1 + rate)\n"})
        watcher.remarks.get(timeout=60)  # it has noticed, and waits
        with Index.open(shop) as index:
            bring_up_to_date(index.store, shop, index.encoder.space, index.settings, None, False)
    assert watcher.line().endswith("  another process has read changes:")
    assert watcher.line() == " 1  shop/prices.py:1-3  gross_price"


def test_another_process_that_reads_is_waited_for(watch: Watch, call: Run, shop: Path) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    with Lock(home(call, shop), "update").held(5, "testing"):
        write(shop, {"new.py": "def cheapest_price(prices):\n    return min(prices)\n"})
        assert watcher.remarks.get(timeout=60) == f"process {os.getpid()} is still reading {shop}: waiting for it"
        time.sleep(3)
    assert "  1 changed, in " in watcher.line()
    assert watcher.remarks.empty(), "it is said once"


def test_when_the_root_goes_it_ends_with_a_sentence(watch: Watch, shop: Path) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    shutil.rmtree(shop)
    assert watcher.process.wait(timeout=60) == 2
    remarks = [watcher.remarks.get(timeout=10)]
    while not watcher.remarks.empty():
        remarks.append(watcher.remarks.get())
    assert (
        remarks[-1] == f"embedcode: {shop} is gone, so there is nothing left to watch: start again where the code is."
    )
    assert "Traceback" not in "\n".join(remarks)


def test_an_index_that_was_cleaned_is_made_again(
    watch: Watch, call: Run, shop: Path, found: Callable[[str], str]
) -> None:
    watcher = watch(cwd=shop)
    watcher.line()
    assert call("clean", cwd=shop).returncode == 0
    write(shop, {"new.py": "def cheapest_price(prices):\n    return min(prices)\n"})
    assert "  4 changed, in " in watcher.line()
    assert found("cheapest price") == "new.py"


# (AUDIT_ARCH, number of inotify_add_watch(2)) as in Linux's audit.h and unistd.h.
ADD_WATCH = {"x86_64": (0xC000003E, 254), "aarch64": (0xC00000B7, 27)}.get(platform.machine())

# The kernel then refuses every watch as it does when the user has no more left (ENOSPC). See seccomp(2).
NO_WATCHES = """
import ctypes, struct
arch, add_watch = {}
load, equal, end = 0x20, 0x15, 0x06
instructions = [
    (load, 0, 0, 4), (equal, 0, 3, arch),
    (load, 0, 0, 0), (equal, 0, 1, add_watch),
    (end, 0, 0, 0x00050000 | 28),  # SECCOMP_RET_ERRNO
    (end, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
program = struct.pack("HP", len(instructions), ctypes.addressof(code))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
assert prctl(38, 1, None, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert prctl(22, 2, program, 0, 0) == 0, "PR_SET_SECCOMP, SECCOMP_MODE_FILTER"
from embedcode.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or ADD_WATCH is None, reason="needs Linux on x86_64 or aarch64")
def test_where_the_system_has_no_watches_left_it_looks_by_itself_and_says_so(watch: Watch, shop: Path) -> None:
    watcher = watch(cwd=shop, program=("-c", NO_WATCHES.format(ADD_WATCH)))
    watcher.line()
    remark = watcher.remarks.get(timeout=60)
    assert remark.startswith(
        f"changes in {shop} are not reported (OS file watch limit reached), so it is looked at every"
    )
    assert "fs.inotify.max_user_watches" in remark
    write(shop, {"new.py": "def cheapest_price(prices):\n    return min(prices)\n"})
    assert "  1 changed, in " in watcher.line()
    shutil.rmtree(shop)
    assert watcher.process.wait(timeout=60) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--watch", "--no-update"], "--watch and --no-update exclude each other"),
        (["--watch", "--path", "shop"], "--watch without a query shows no hits"),
        (["--watch", "-k", "3", "shop"], "--watch without a query shows no hits"),
        (["--watch", ""], "the query is empty"),
        (["--watch", "price", "nowhere"], "nowhere: no such file or directory"),
        (["--watch", "price", "--repo", "other"], "there is no repository other"),
        (["--watch", "/"], "is not a repository but everything you have"),
    ],
)
def test_what_a_person_mistypes_is_said_with_the_cure(
    call: Run, shop: Path, arguments: list[str], sentence: str
) -> None:
    done = call("search", *arguments, cwd=shop)
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_what_keeps_an_answer_from_being_whole_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        def search(self, query: Query, told: Callable[[str], None]) -> list[Hit]:
            told("by words alone")
            return []

    report = Report(1, 1, 0, 1, 0, 0, 0, 0, 0.0, {}, {})
    monkeypatch.setattr(watching, "_reports", lambda *_: [report])
    shown = [Hit(Chunk("r", "a.py", 1, 1, "python", "", "x"), 1.0, ())]
    answers: list[Any] = []
    watching.keep_answering(Words(), False, True, shown, lambda: Query("x"), lambda *given: answers.append(given))  # type: ignore[arg-type]
    assert answers == [(Query("x"), [], ["by words alone"])]
