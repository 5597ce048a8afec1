"""What every result file says besides its figures: commit, date, machine and versions; and what a figure is."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcode.engine import processor
from embedcode.evaluate.made import FEATURES
from embedcode.settings import cores

PACKAGES = ("embedcode", "numpy", "onnxruntime", "tantivy", "tokenizers", "tree-sitter")


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of a table: measured values of one thing, and the bound its median has to keep, if there is one."""

    name: str
    unit: str
    values: Sequence[float]
    below: float | None = None
    at_least: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def target(self) -> str | None:
        if self.below is not None:
            return f"< {self.below:g}"
        return None if self.at_least is None else f">= {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        if self.below is not None:
            return self.median < self.below
        return None if self.at_least is None else self.median >= self.at_least

    def record(self) -> dict[str, Any]:
        low, high = min(self.values), max(self.values)
        return {
            "unit": self.unit, "median": short(self.median), "min": short(low), "max": short(high),
            "n": len(self.values), "target": self.target, "met": self.met, **self.notes,
        }  # fmt: skip

    def __str__(self) -> str:
        verdict = "" if self.target is None else f"  {'met' if self.met else 'MISSED'} ({self.target})"
        span = f"{short(min(self.values)):,} to {short(max(self.values)):,}, n {len(self.values)}"
        return f"{self.name:<24} {short(self.median):>10,} {self.unit:<9} {span:<32}{verdict}".rstrip()


def short(value: float) -> float:
    """Four significant digits; whole numbers as int."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def context() -> dict[str, Any]:
    """Where and with what the figures of this run are made. Take it before the run, with the code that is run."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": processor.name(),
            "cores": cores(),
            "python": platform.python_version(),
            "flags": [name for name in FEATURES if name in processor.features()],
        },
        "versions": {name: _version(name) for name in PACKAGES} | {"sqlite": sqlite3.sqlite_version},
    }


def write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def begun(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that an earlier call left; SystemExit where it measured something else, whose rows would be taken for
    those of `about`."""
    if not path.exists():
        return []
    there: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if differ := [f"{name} {there.get(name)!r}, now {now!r}" for name, now in about.items() if there.get(name) != now]:
        raise SystemExit(f"{path} has rows of another run ({'; '.join(differ)}): give another --out")
    rows: list[dict[str, Any]] = there["rows"]
    return rows


def peak_mb(pid: int | str = "self") -> float:
    """Most memory that a process and the processes it now has below it have held, in MB, mapped files included.

    0 once it has ended. Linux only. The peaks are added as if they fell together, and pages that are shared count each
    time, so this is never too small. VmHWM and not ru_maxrss: that one also counts what the parent held at the start.
    """
    try:
        process = Path(f"/proc/{pid}")
        status = (process / "status").read_text().splitlines()
        below = [child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = next((int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM")), 0.0)
    return own + sum(map(peak_mb, below))


def _git(*arguments: str) -> str:
    """Empty in a copy of the tree, which a machine with a card is lent."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
