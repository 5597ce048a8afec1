"""Nothing leaves this computer, the base install is small, and a search loads only what it needs."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import embedcode

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MAX_INSTALL_MB = 350

# Every process of Python started with this on its path notes, and refuses, what Python does with sockets; as it ends
# it also notes the sockets that native code left open.
WATCH = """
import atexit, os, sys
def note(what):
    with open(os.environ["WATCH_FILE"], "a") as file:
        file.write(what + chr(10))
def hook(event, arguments):
    if event.startswith("socket.") or event in ("urllib.Request", "http.client.connect"):
        note(event)
        raise RuntimeError(f"{event}: no network here")
def opened():
    if os.path.isdir("/proc/self/fd"):
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:") and int(name) > 2:
                note(f"{target} is open")
sys.addaudithook(hook)
atexit.register(opened)
"""

# (AUDIT_ARCH, number of socket(2)) as in Linux's audit.h and unistd.h; None where the kernel cannot watch.
KERNEL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}.get(platform.machine())
KERNEL = KERNEL if sys.platform == "linux" else None

# Then the kernel watches native code too: a process, or one that it starts, ends at its first socket(2) of any family
# but AF_UNIX, which does not leave the computer (the C library looks up users by it). See seccomp(2).
WATCH_NATIVE = """
import ctypes, struct
arch, socket = {}
load, equal, end = 0x20, 0x15, 0x06
instructions = [
    (load, 0, 0, 4), (equal, 0, 5, arch),
    (load, 0, 0, 0), (equal, 0, 2, socket),
    (load, 0, 0, 16), (equal, 0, 1, 1),  # the first argument, AF_UNIX
    (end, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    (end, 0, 0, 0x80000000),  # SECCOMP_RET_KILL_PROCESS
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
program = struct.pack("HP", len(instructions), ctypes.addressof(code))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong
assert prctl(38, 1, None, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert prctl(22, 2, program, 0, 0) == 0, "PR_SET_SECCOMP, SECCOMP_MODE_FILTER"
"""


@pytest.fixture
def watched(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of a watched process, and the file of what it did."""
    (tmp_path / "watch").mkdir()
    native = WATCH_NATIVE.format(KERNEL) if KERNEL else ""
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH + native)
    return {"PYTHONPATH": str(tmp_path / "watch"), "WATCH_FILE": str(tmp_path / "did")}, tmp_path / "did"


def test_index_and_search_open_no_socket(run: Run, tmp_path: Path, watched: tuple[dict[str, str], Path]) -> None:
    env, did = watched
    env["EMBEDCODE_THREADS"] = "2"
    root = tmp_path / "repository"
    for number in range(105):  # enough that other processes help to read
        (root / f"part{number}").mkdir(parents=True)
        (root / f"part{number}" / "step.py").write_text(f"step{number} = {number}\n")
    for arguments in (
        ["index", str(root), "--wait"],
        ["search", "step 7", str(root)],
        ["related", str(root / "part7" / "step.py:1")],
        ["status", str(root)],
        ["doctor"],
        ["embed", "--role", "query", "--text", "x"],
        ["clean", str(root), "--vectors"],
    ):
        done = run(*arguments, env=env)
        assert done.returncode == 0, (arguments, done.returncode, done.stderr)
        assert "failed" not in done.stdout, "a process that helps to read has ended"
        assert not did.exists(), did.read_text()


def test_nothing_is_written_into_the_user_s_home_but_the_index(run: Run, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 keeps an id of the device there, to be sent some seconds later."""
    user = tmp_path / "user"
    (user / "repository").mkdir(parents=True)
    (user / "repository" / "step.py").write_text("step = 1\n")
    home = user / "cache"
    env = {"HOME": str(user), "XDG_CACHE_HOME": str(user / ".cache"), "EMBEDCODE_HOME": str(home)}
    assert run("search", "a step", str(user / "repository"), "--wait", env=env).returncode == 0
    assert {path.name for path in user.iterdir()} == {"repository", "cache"}


def test_the_watch_sees_a_socket(watched: tuple[dict[str, str], Path]) -> None:
    env, did = watched
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True, check=False)
    assert done.returncode == 1
    assert did.read_text().startswith("socket.")


@pytest.mark.skipif(KERNEL is None, reason="needs Linux on x86_64 or aarch64")
def test_the_kernel_ends_whoever_opens_a_socket(watched: tuple[dict[str, str], Path]) -> None:
    """Also a program that the watched one starts, here a Python without the watch (-I)."""
    code = "import socket as s; s.socket(s.AF_UNIX).close(); print('local', flush=True); s.socket(s.AF_INET)"
    start = f"import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-c', {code!r}])"
    done = subprocess.run([sys.executable, "-c", start], env=os.environ | watched[0], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGSYS, b"local\n", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_nobody_else_can_look_into_an_index(run: Run, home: Path, tmp_path: Path) -> None:
    """It holds the text of a repository that may be private, so its folders are, whatever the umask."""
    (tmp_path / "repository").mkdir(mode=0o700)
    (tmp_path / "repository" / "step.py").write_text("step = 1\n")
    done = run("index", str(tmp_path / "repository"), "--wait", umask=0o022)
    assert done.returncode == 0, done.stderr
    modes = {path: oct(path.stat().st_mode & 0o777) for path in (home, *home.rglob("*")) if path.is_dir()}
    assert {path.name for path in modes} > {"home", "indexes", "vectors", "lexical", "dense"}
    assert set(modes.values()) == {"0o700"}, modes


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_the_folder_of_indexes_is_private_whatever_makes_it(run: Run, home: Path, tmp_path: Path) -> None:
    assert run("doctor", umask=0o022).returncode == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "difflib.py").write_text("raise ZeroDivisionError\n")
    env = {"PYTHONPATH": str(tmp_path / "broken"), "EMBEDCODE_HOME": str(tmp_path / "other" / "home")}
    assert run("search", "text", "--lang", "nonsense", env=env, umask=0o022).returncode == 70
    assert (tmp_path / "other" / "home" / "crash.log").exists()
    for folder in (home, tmp_path / "other", tmp_path / "other" / "home"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of what `name` needs here, itself included."""
    seen: set[tuple[str, str]] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        for line in metadata.requires(name) or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                todo += [(wanted.name, inner) for inner in ("", *wanted.extras)]
    return {name for name, _ in seen}


def test_the_base_install_is_small() -> None:
    names = closure("embedcode") - {"embedcode"}
    assert {"onnxruntime", "numpy", "tantivy", "tree-sitter-python"} <= names
    assert not {"torch", "transformers", "sentence-transformers"} & names
    # Of an editable install only a link is listed: its own files are counted where they are.
    ours = [path for path in Path(embedcode.__file__).parent.rglob("*") if path.is_file()]
    theirs = [Path(str(file.locate())) for name in names for file in metadata.distribution(name).files or []]
    total = sum(path.stat().st_size for path in {*ours, *theirs} if path.is_file())
    assert 50e6 < total <= MAX_INSTALL_MB * 1e6, f"{total / 1e6:.0f} MB"


def loaded(code: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules a program has loaded when it ends."""
    code = f"import json, sys\ntry:\n    {code}\nfinally:\n    print(json.dumps(list(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    names = json.loads(done.stderr.splitlines()[-1])
    return {str(name).partition(".")[0] for name in names}


def test_importing_embedcode_costs_nothing() -> None:
    heavy = {
        "numpy",
        "sqlite3",
        "onnxruntime",
        "tokenizers",
        "tantivy",
        "tree_sitter",
        "typer",
        "rich",
        "asyncio",
        "ssl",
    }
    assert not heavy & loaded("import embedcode")
    assert not heavy & loaded("from embedcode import Query, Role, Truncate, Filter, Hit, Mode, Chunk")
    assert not heavy & loaded("import embedcode.cli")


@pytest.mark.parametrize(
    ("mode", "unneeded"),
    [("lexical", {"onnxruntime", "tokenizers", "numpy", "tree_sitter_python"}), ("hybrid", {"tree_sitter_python"})],
)
def test_a_warm_search_loads_only_what_it_needs(indexed: Path, home: Path, mode: str, unneeded: set[str]) -> None:
    arguments = ["embedcode", "search", "forget the session", str(indexed), "--mode", mode]
    code = f"sys.argv = {arguments!r}; from embedcode.cli import main; main()"
    modules = loaded(code, {"EMBEDCODE_HOME": str(home)})
    assert "tantivy" in modules
    assert unneeded & modules == set()
    assert not {"torch", "transformers", "requests", "urllib3", "http", "watchfiles", "anyio"} & modules
