"""`status`, `doctor` and `clean`: what is there, whether it works, and how to be rid of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcode.cli import output
from embedcode.cli.opening import EMPTY_PATH, cannot, opened
from embedcode.cli.options import Json
from embedcode.errors import EmbedcodeError, UsageError

if TYPE_CHECKING:
    from embedcode.index.home import Freed
    from embedcode.index.report import Status

LEAST_FREE_BYTES = 500_000_000
"""An index of a million lines with its vectors needs less."""
PROCESSOR_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp")
"""What decides how fast, and in which precision, vectors are made."""

Check = tuple[str, str, bool]


def status(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A repository, or a folder in it.")] = ".",
    settings: Annotated[bool, typer.Option("--settings", help="Show every setting and where it was set.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="List the files left out, and why.")] = False,
    as_json: Json = False,
) -> None:
    """Show how old an index is, how much of it has vectors, and whether work goes on in the background."""
    with opened(path) as index:
        found = index.status()
    rows: list[tuple[str, str, str]] = []
    if settings:
        from embedcode.settings import load

        rows = load(root=found.root).explain()
    if as_json:
        from embedcode.index.records import status_record

        record = status_record(found)
        if settings:
            record["settings"] = {name: {"value": value, "source": source} for name, value, source in rows}
        output.put_json(record)
        return
    _put(found, verbose)
    if settings:
        output.put("")
        output.put("settings")
    for name, value, source in rows:
        output.put(f"{name + ':':<16} {value or '-'}  ({source})")


def _put(found: Status, verbose: bool) -> None:
    from embedcode.cli.index import by_reason, put_reasons

    now = time.time()
    languages = sorted(found.languages.items(), key=lambda item: (-item[1], item[0]))
    more = "" if verbose else " (-v lists them)"
    lacking = found.embedded + len(found.failed) < found.chunks  # what failed gets none
    rest = "; `embedcode index` makes the vectors that lack, as do searches" if found.updated and lacking else ""
    rows = {
        "repository": str(found.root),
        "updated": f"{output.duration(max(0.0, now - found.updated))} ago"
        if found.updated
        else ("not to the end: search it once more" if found.files else "never: search it once"),
        "files": f"{found.files:,}  {', '.join(f'{name} {count:,}' for name, count in languages)}".rstrip(),
        "chunks": f"{found.chunks:,}",
        "vectors": f"{found.embedded:,} ({output.share(found.embedded, found.chunks)})",
        "background": _working(found, now) or found.trouble or f"nothing is running{rest}",
        "left out": by_reason(found.skipped, found.skipped_more) + more if found.skipped else "nothing",
        "model": found.model or "packaged",
        "index": f"{output.megabytes(found.bytes)} in {found.home}",
    }
    if found.failed:
        rows["failed"] = f"{len(found.failed):,} files, the rest is whole{more}"
    for name, value in rows.items():
        output.put(f"{name + ':':<16} {value}")
    if verbose:
        put_reasons(found.skipped, more=found.skipped_more)
        put_reasons(found.failed)


def _working(found: Status, now: float) -> str:
    """Which process is at work and for how long; "" where none is."""
    process = found.running or found.foreground
    if process is None:
        return ""
    since = f"for {output.duration(max(0.0, now - process.started))}"
    return f"process {process.pid}, {since}" if found.running else f"{output.foreground(process.pid)}, {since}"


def doctor(as_json: Json = False) -> None:
    """Check that this installation works: versions, processor, the model's known answer, disk.

    Exit code 0 if all is well, else 1. Put its output into a bug report.
    """
    from embedcode.settings import load

    checks = [_python(), *_dependencies(), _processor(), _sqlite(), *_home(load().home), *_engine()]
    sound = all(ok for _, _, ok in checks)
    if as_json:
        output.put_json({"ok": sound, "checks": [{"name": n, "finding": f, "ok": ok} for n, f, ok in checks]})
    else:
        for name, finding, ok in checks:
            output.put(f"{'ok  ' if ok else 'FAIL'}  {name + ':':<20} {finding}")
    if not sound:
        raise typer.Exit(1)


def _python() -> Check:
    import platform

    from embedcode import __version__

    finding = f"embedcode {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return "versions", finding, sys.version_info >= (3, 11)


def _dependencies() -> list[Check]:
    """Versions of what the base install needs; the grammars in one line, since there are many."""
    from importlib import metadata

    try:
        wanted = [line for line in metadata.requires("embedcode") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return [("packages", "embedcode is not installed; run `pip install .`", False)]
    found: list[str] = []
    lost: list[str] = []
    grammars = 0
    for line in wanted:
        name = line.split(";")[0].rstrip("0123456789.,<>=!~ ")
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            lost.append(name)
            continue
        if name.startswith("tree-sitter-"):
            grammars += 1
        else:
            found.append(f"{name} {version}")
    checks = [("packages", f"{', '.join(sorted(found))}, {grammars} tree-sitter grammars", True)]
    if lost:
        checks.append(
            (
                "missing packages",
                f"{', '.join(lost)}; run `pip install --force-reinstall .` in your clone of embedcode",
                False,
            )
        )
    return checks


def _processor() -> Check:
    from embedcode.engine import processor
    from embedcode.settings import cores

    features = [feature for feature in PROCESSOR_FEATURES if feature in processor.listed()]
    return "processor", f"{cores()} cores, {' '.join(features) or 'no features known'}", True


def _sqlite() -> Check:
    import sqlite3

    # Upserts came with 3.24.
    return "SQLite", sqlite3.sqlite_version, sqlite3.sqlite_version_info >= (3, 24)


def _home(home: Path) -> list[Check]:
    import shutil
    import tempfile

    from embedcode.files import make_private

    try:
        make_private(home)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"x")
        free = shutil.disk_usage(home).free
    except OSError as error:
        return [("home", f"{home} cannot be written: {error.strerror}; set EMBEDCODE_HOME to another folder", False)]
    enough = free >= LEAST_FREE_BYTES
    advice = "" if enough else "; `embedcode clean --all` frees what can be made again"
    return [("home", f"{home} can be written", True), ("free disk", output.megabytes(free) + advice, enough)]


def _engine() -> list[Check]:
    """The encoder's own findings. Whatever keeps it from loading is a finding too, not a crash."""
    try:
        from embedcode import engine

        return engine.doctor()
    except (EmbedcodeError, ImportError, OSError) as error:
        return [("encoder", f"{type(error).__name__}: {error}", False)]


def clean(
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The repository whose index goes; the current one if left out.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The indexes of all repositories, and what else can be made again.")
    ] = False,
    gone: Annotated[
        bool, typer.Option("--gone", help="The indexes of repositories that are no longer there, and only these.")
    ] = False,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="The cached vectors too, which all indexes share; they take long to make.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an index, and say how much disk that frees. The next search makes it again; your code is not touched.

    What else --all takes: clones that `eval` made, TensorRT's engines, and what was learned of models and servers; with
    --vectors also the vectors of `eval`.
    """
    given = [*([path] if path is not None else []), *["--all"] * everything, *["--gone"] * gone]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    if path == "":
        raise UsageError(EMPTY_PATH)
    from embedcode.index.home import clean as remove

    place = "." if path is None else path
    try:
        freed = remove(None if everything or gone else Path(place), vectors, dry_run, gone)
    except OSError as error:
        raise cannot(str(error.filename or place), error) from None
    total = sum(one.bytes for one in freed)
    sentence = _not_deleted(freed)
    if as_json:
        mistake = {"error": sentence} if sentence else {}
        output.put_json({"dry_run": dry_run, "bytes": total, "items": [one._asdict() for one in freed], **mistake})
    else:
        for one in freed:
            of = f"  of {one.root}" if one.root else ""
            kept = f"  ({one.kept})" if one.kept else ""
            output.put(f"{output.megabytes(one.bytes):>12}  {one.what}{of}{kept}")
        output.put(f"{output.megabytes(total):>12}  {'would be freed' if dry_run else 'freed'}")
        if sentence:
            output.note(f"embedcode: {sentence}")
    if sentence:
        raise typer.Exit(2)


def _not_deleted(freed: list[Freed]) -> str:
    """What is still there and why, which who cleans to be rid of a text has to know; "" where all is gone."""
    left = [one for one in freed if one.kept]
    if not left:
        return ""
    more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
    what = f"{left[0].what}{more} could not be deleted ({left[0].kept})"
    return f"{what}: make it writable and run this again, or delete it yourself"
