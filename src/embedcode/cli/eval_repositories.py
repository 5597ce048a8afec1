"""`eval repo-search`: the project's own benchmark of search in repositories, of a clone. Thin over bench/repo_search.

The queries, their labels and the systems live in the clone, not in the package: this verb fetches the repositories by
the registries' own clients and runs the script that made the published figures, so that there is one way to measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.options import Json
from embedcode.errors import UsageError
from embedcode.files import is_file

SCRIPTS = Path("bench") / "repo_search"


def repo_search(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where archives, repositories and indexes are kept between runs (3 GB)."),
    ],
    half: Annotated[
        str, typer.Option(metavar="<tuning|reported|all>", help="Which repositories; tune nothing on `reported`.")
    ] = "reported",
    clone: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A clone of embedcode; else the one this program runs from.")
    ] = None,
    semble: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="Python of an environment with semble, for its row.")
    ] = None,
    ablation: Annotated[bool, typer.Option("--ablation", help="What each ranking rule is worth instead.")] = False,
    as_json: Json = False,
) -> None:
    """Measure search in repositories: the project's own benchmark.

    embedcode eval repo-search bench-data

    18 repositories in 12 languages, 36 queries each. Their archives come from PyPI, npm and Debian by pip, npm and
    apt-get (Debian 12 with deb-src lines), and are checked by sha256; archives that are in DIR/archives already are
    not fetched. It takes an hour or more the first time.
    """
    if half not in ("tuning", "reported", "all"):
        raise UsageError(f"--half {half} is none of tuning, reported, all")
    root = clone or Path(__file__).parents[3]
    if not is_file(root / SCRIPTS / "run.py"):
        raise UsageError(
            f"{root} holds no {SCRIPTS}: the benchmark is in the clone and not in the package; give --clone DIR"
        )
    archives, repos, out = folder / "archives", folder / "repositories", folder / f"{half}.json"
    _run(root, "prepare.py", "--archives", str(archives), "--repos", str(repos))
    more = [*(("--semble", str(semble)) if semble else ()), *(("--ablation",) if ablation else ())]
    places = ("--repos", str(repos), "--home", str(folder / "home"), "--out", str(out))
    shown = _run(root, "run.py", "queries", "--half", half, *places, *more)
    if as_json:
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        output.put_json(found)
        return
    for line in shown.splitlines():
        output.put(line)
    output.put(f"kept in {out}")


def _run(root: Path, script: str, *arguments: str) -> str:
    """What the script prints; its progress goes to our stderr."""
    command = [sys.executable, str(root / SCRIPTS / script), *arguments]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=False)
    if done.returncode:
        raise UsageError(f"{SCRIPTS / script} ended with code {done.returncode}; what it said is above")
    return done.stdout
