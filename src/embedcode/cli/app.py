"""The typer application: which verbs there are, and in which module each lives.

Only typer and the module of the verb that was asked for are imported, so that its help comes at once; what a verb
needs is imported when it runs. The application's own options are flags with a default: for any other kind, typer
imports its validation library even to print a verb's help (90 ms).
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from embedcode.cli.output import writing
from embedcode.errors import UsageError

VERBS = {
    "search": "search",
    "related": "search",
    "index": "index",
    "status": "state",
    "embed": "embed",
    "models": "models",
    "eval": "evaluate",
    "data": "data",
    "train": "train",
    "doctor": "state",
    "clean": "state",
    "serve": "serve",
    "web": "web",
    "mcp": "mcp",
    "install": "install",
    "uninstall": "install",
}


class Verb(TyperCommand):
    """A command whose help may meet a full disk: typer prints it as it parses."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with writing():
            return super().make_context(*arguments, **options)


def run(arguments: list[str]) -> int:
    """Parse and carry out; returns the exit code, raises what goes wrong."""
    command = typer.main.get_command(_app(arguments[:1] if arguments[0] in VERBS else list(VERBS)))
    try:
        # Not app(): its main() maps errors to messages and codes of its own.
        with writing():
            context = command.make_context("embedcode", list(arguments))
        with context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's errors, which not every version of typer exports
            raise
        place = getattr(getattr(error, "ctx", None), "command_path", "embedcode")
        message = " ".join(error.format_message().split()).rstrip(".")
        if "unexpected extra argument" in message:
            message += "; put a query of several words in quotes"
        cure = f"see `{place} --help`"
        if arguments[0] == "serve" and (variable := _variable(error)):
            cure = f"it has no flag: set {variable}, or {cure}"
        if _begins_with_hyphen(arguments, message):
            cure = f"put -- before a query that begins with a hyphen, or {cure}"
        cure = f" {cure[:1].upper()}{cure[1:]}" if message.endswith("?") else f"; {cure}"
        raise UsageError(f"{message[:1].lower()}{message[1:]}{cure}") from None
    return 0


def _variable(error: Exception) -> str | None:
    """By which the server takes an option that was given as a flag; not all have one."""
    from embedcode.serve.options import variable

    return variable(getattr(error, "option_name", ""))


def _begins_with_hyphen(arguments: list[str], message: str) -> bool:
    """Whether a query was taken for an option: it holds a blank, or comes first and is no option of ours."""
    verb, *given = arguments
    if verb != "search":
        return False
    unknown = "no such option" in message.lower() and given[0].startswith("-")
    return unknown or any(re.match(r"-[^=]*\s", argument) for argument in given)


def _app(verbs: list[str]) -> typer.Typer:
    app = typer.Typer(
        help="Find code by what it does, on this computer: no key, no server.\n\n"
        '\b\nStart with\n  embedcode search "where are sessions invalidated?" path/to/repository',
        epilog="Settings are EMBEDCODE_HOME, EMBEDCODE_THREADS and so on in the environment, or home, threads ... in "
        "~/.config/embedcode/config.toml; .embedcode.toml at a repository's root may set ignore and max_file_bytes "
        "only. `embedcode status --settings` shows each value and its source.",
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(add_help_option=False)(_options)
    for verb in verbs:
        found = getattr(import_module(f"embedcode.cli.{VERBS[verb]}"), verb)
        if isinstance(found, typer.Typer):
            for command in found.registered_commands:
                command.cls = Verb
            app.add_typer(found, name=verb)
        else:
            app.command(cls=Verb)(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from embedcode import __version__

        typer.echo(f"embedcode {__version__}")
        raise typer.Exit


def _print_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(context.get_help())
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    # Ours, since the built-in one has no False: it is None where it is not given, and so has to be validated.
    wanted: Annotated[
        bool, typer.Option("-h", "--help", callback=_print_help, is_eager=True, help="Show this message.")
    ] = False,
) -> None:
    pass
