"""Help comes at once: what it imports, how long it takes, and that it lists what there is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from embedcode.cli.app import VERBS

HEAVY = ("rich", "sqlite3", "asyncio", "ssl")
LIGHT = {"typer", "click", "shellingham", "annotated_doc", "typing_extensions"}
"""What help may import besides the standard library and the verb's own module: typer and what it stands on."""
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_imports_nothing_heavy(verb: str) -> None:
    # Not -X importtime: it does not see what importlib.import_module brings in.
    script = """
import sys
from embedcode.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    command = [sys.executable, "-c", script, *filter(None, [verb]), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = done.stderr.split()
    bare = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    others = {module.split(".")[0] for module in set(modules) - set(bare.stdout.split())}
    assert others - sys.stdlib_module_names - {"embedcode"} <= LIGHT
    assert {"typer", f"embedcode.cli.{VERBS.get(verb, 'app')}"} <= set(modules)
    assert {module.split(".")[0] for module in modules}.isdisjoint(HEAVY)
    if verb:  # a verb does not pay for the others
        others = {f"embedcode.cli.{module}" for module in VERBS.values()} - {f"embedcode.cli.{VERBS[verb]}"}
        assert others.isdisjoint(modules)
    assert "Usage: " in done.stdout
    assert "\x1b" not in done.stdout


def test_help_is_quick_beside_the_interpreter_itself(run: Run) -> None:
    """Help is to take less than 0.2 s; loosely here, since a busy machine stretches both sides."""

    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - start

    typer: list[float] = []
    verbs: dict[str, list[float]] = {"search": [], "embed": []}
    for _ in range(7):  # in turns, and the least of each, so that a burst of other work hits both sides or none
        typer.append(seconds("-c", "import typer"))
        for verb, times in verbs.items():
            times.append(seconds("-m", "embedcode", verb, "--help"))
    assert {verb: min(times) for verb, times in verbs.items() if min(times) > max(0.2, 2.5 * min(typer))} == {}


def test_the_overview_names_every_verb_and_is_shown_without_arguments(run: Run) -> None:
    overview = run("--help")
    assert overview.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} ".encode() in overview.stdout
    assert run().stdout == run("-h").stdout == overview.stdout


def test_the_overview_says_what_a_repository_may_set(run: Run) -> None:
    from embedcode.settings import REPOSITORY_SETTINGS

    shown = " ".join(run("--help").stdout.decode().split())
    assert f".embedcode.toml at a repository's root may set {' and '.join(REPOSITORY_SETTINGS)} only" in shown


def test_version(run: Run) -> None:
    from embedcode import __version__

    assert run("--version").stdout.decode() == f"embedcode {__version__}\n"
