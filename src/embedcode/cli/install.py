"""`install` and `uninstall`: this server in a coding assistant's configuration, and out of it again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.opening import check
from embedcode.errors import UsageError
from embedcode.files import is_folder

if TYPE_CHECKING:
    from embedcode.serve.assistants import Assistant, Place
    from embedcode.serve.configuration import Change

DECLINED = 1

User = Annotated[bool, typer.Option("--user", help="In your own configuration, for every project, not this one's.")]
Yes = Annotated[bool, typer.Option("--yes", help="Write without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the change.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; asks nothing.")]


def install(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="claude, cursor, codex or vscode; none lists what there is.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH",
            help="The project's folder; the current repository if left out. In your own configuration: the one "
            "repository to answer about, whatever is open.",
        ),
    ] = None,
    user: User = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a coding assistant start this server: enter it into the assistant's configuration.

    Shows the change, then asks. Only lines of its own are added; `embedcode uninstall` takes them out again. For codex
    it is always your own configuration, for vscode always the project's.
    """
    if name is None:
        if user or yes or dry_run:
            raise UsageError("say which assistant: claude, cursor, codex or vscode")
        _list(as_json)
        return
    from embedcode.serve.assistants import command, is_ours, named
    from embedcode.serve.configuration import Configuration

    assistant = named(name)
    place = _place(assistant, path, user)
    root = Path(path).resolve() if path and place.project is None else None
    configuration = Configuration(place)
    entry = assistant.entry(command(shared=place.project is not None), root)
    if configuration.entry == entry:
        _put_settled(configuration.file, assistant, "is installed already", as_json)
        return
    if configuration.entry is not None and not is_ours(configuration.entry):
        raise UsageError(
            f"{configuration.file} has an entry embedcode that somebody changed: keep it, or take it out first with "
            f"`embedcode uninstall {name}`"
        )
    lacking = _lacking()
    if lacking and not dry_run:
        raise UsageError(f"nothing was written: {lacking}, then this again")
    notes = [*filter(None, [lacking]), *_notes(place, str(entry["command"]))]
    _carry_out(configuration.putting(entry), assistant.next_step, notes, yes, dry_run, as_json)


def uninstall(
    name: Annotated[str, typer.Argument(metavar="NAME", help="claude, cursor, codex or vscode.")],
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="The project's folder; the current repository if left out."),
    ] = None,
    user: User = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take this server out of a coding assistant's configuration.

    Shows the change, then asks. The entry embedcode goes, whatever was added to it; everything else stays as it is.
    """
    from embedcode.serve.assistants import named
    from embedcode.serve.configuration import Configuration

    assistant = named(name)
    place = _place(assistant, path, user)
    if place.project is None and path is not None:
        raise UsageError(f"{place.file} has one entry for all projects: leave {path} out")
    configuration = Configuration(place)
    if configuration.entry is None:
        _put_settled(configuration.file, assistant, "is not installed", as_json)
        return
    next_step = f"{assistant.title} drops it when it is started again"
    _carry_out(configuration.taking(), next_step, [], yes, dry_run, as_json)


def _place(assistant: Assistant, path: str | None, user: bool) -> Place:
    from embedcode.serve.assistants import project_place, user_place

    if path is not None:
        check(path)
        if not is_folder(path):
            raise UsageError(f"{path} is no folder: give a project's folder")
    if user and not assistant.user_file:
        raise UsageError(
            f"{assistant.title} starts a server of your own configuration in your home folder, without saying which "
            "project is open: leave --user out"
        )
    if user or not assistant.project_file:
        return user_place(assistant)
    check(path or ".")
    return project_place(assistant, path)


def _lacking() -> str:
    """What keeps the server from starting here, with the cure; "" for nothing."""
    from importlib.util import find_spec

    return (
        "" if find_spec("mcp") else "the server needs the extra: run `pip install '.[mcp]'` in your clone of embedcode"
    )


def _notes(place: Place, command: str) -> list[str]:
    """What keeps the entry from working elsewhere."""
    if place.project is not None and Path(command).is_absolute():
        return [
            f"{command} is on this computer only: to share the file, first install embedcode where every shell finds it"
        ]
    return []


def _carry_out(change: Change, next_step: str, notes: Sequence[str], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Show the change and, if that is wanted, make it."""
    write = yes and not dry_run
    if as_json:
        if not yes and not dry_run:
            raise UsageError("--json asks nothing: add --yes to write the change or --dry-run to see it")
        if write:
            change.write()
        _put_record(change.file, write, change.diff(), next_step if write else "", notes)
        return
    for line in change.diff():
        output.put(line)
    for note in notes:
        output.note(note)
    if dry_run:
        return
    if not yes:
        if not output.is_terminal(sys.stdin) or not output.is_terminal(sys.stdout):
            raise UsageError("nothing was written, since there is nobody to ask: add --yes to write it")
        if not _agreed():
            output.note("nothing was written")
            raise typer.Exit(DECLINED)
    change.write()
    output.put(f"{'removed' if change.after is None else 'written'}: {change.file}")
    output.put(f"next: {next_step}")


def _agreed() -> bool:
    try:
        return input("write this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _put_settled(file: Path, assistant: Assistant, what: str, as_json: bool) -> None:
    """There is nothing to do."""
    if as_json:
        _put_record(file, False, [], "", [f"embedcode {what}"])
    else:
        output.put(f"{assistant.title}: embedcode {what} in {file}")


def _put_record(file: Path, written: bool, diff: Sequence[str], next_step: str, notes: Sequence[str]) -> None:
    output.put_json(
        {"file": str(file), "written": written, "diff": list(diff), "next": next_step, "notes": list(notes)}
    )


def _list(as_json: bool) -> None:
    """Which assistants have it, in the current project and for the user."""
    from embedcode.serve.assistants import places

    records = [_state(place) for place in places()]
    if as_json:
        output.put_json({"assistants": records})
        return
    for record in records:
        found = record["error"] or (
            f"installed, {' '.join(record['command'])}" if record["command"] else "not installed"
        )
        output.put(f"{record['name']:<7} {record['scope']:<8} {record['file']}: {found}")
    output.note("`embedcode install NAME` enters the server in the project, with --user for all your projects")


def _state(place: Place) -> dict[str, Any]:
    from shutil import which

    from embedcode.serve.configuration import Configuration

    started, problem = None, None
    try:
        entry = Configuration(place).entry
    except UsageError as error:
        problem = str(error)
    else:
        if entry is not None:
            started = _started(entry)
            if which(started[0]) is None:
                problem = f"{started[0]} is not found: install again"
    scope = "user" if place.project is None else "project"
    name = place.assistant.name
    return {"name": name, "scope": scope, "file": str(place.file), "command": started, "error": problem}


def _started(entry: Any) -> list[str]:
    """Command and arguments of an entry that may be anybody's."""
    fields = entry if isinstance(entry, dict) else {}
    arguments = fields.get("args")
    return [str(fields.get("command", "?")), *map(str, arguments if isinstance(arguments, list) else [])]
