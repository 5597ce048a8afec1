"""What every result says of how it was made: version, commit, files, date, machine; and how much memory it took.

Knows no figure.
"""

from __future__ import annotations

import datetime
import platform
import resource
import sys
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedcode.engine import memory, processor
from embedcode.index import git
from embedcode.settings import cores

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16")
PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "transformers", "tokenizers", "tantivy", "bm25s")


def made() -> dict[str, Any]:
    """Now, by this code, on this machine. `commit` is "" where the code is not a checkout's, and ends in + where files
    differ from it; `files` tells the code in any case."""
    return {
        "version": version("embedcode"),
        "commit": commit(),
        "files": code(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


@cache
def commit() -> str:
    package = Path(__file__).parents[1]
    if _git(package, "ls-files", "types.py") != "types.py":  # installed into a folder below somebody else's checkout
        return ""
    dirty = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return _git(package, "rev-parse", "--short", "HEAD") + ("+" if dirty else "")


@cache
def code() -> str:
    """8 hex digits of the package's own sources and tables, which say what runs where an installation has no commit,
    and what differs from one."""
    package = Path(__file__).parents[1]
    found = sha256()
    for file in sorted(file for file in package.rglob("*") if file.suffix in (".py", ".toml")):
        found.update(f"{file.relative_to(package).as_posix()}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return found.hexdigest()[:8]


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(terse=True),
        "processor": processor.name() or platform.processor(),
        "cores": cores(),
        "flags": [name for name in FEATURES if name in processor.features()],
        "python": platform.python_version(),
    }


def peak_mb() -> float:
    """The most memory that this process has held, in MB, mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return (memory.peak_of("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) / 1e6


def forget_peak() -> bool:
    """Have `peak_mb` tell the most from now on; False where the system cannot, and it is that of the process so far."""
    memory.give_back()  # what a task before has freed is none of the next
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = git.run(folder, *arguments)
    except OSError:  # there is no git
        return ""
    return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()
