"""Options that several verbs take, and what they mean."""

from __future__ import annotations

from typing import Annotated

import typer

from embedcode.errors import UsageError

EMPTY_MODEL = "the model is empty, as from a variable that is not set: give a folder, or leave it out"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Threads = Annotated[
    str | None, typer.Option(metavar="N", help="Processor threads for embedding; 0 is all that may be used.")
]
Instruction = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="The task, for a model that takes one: bug, bug-summary, general, or a text."),
]


def threads_of(given: str | None) -> int:
    """As many as a flag, or else the settings, say."""
    from embedcode import settings

    return settings.load({"threads": given}).threads


def _checked(model: str | None) -> str | None:
    if model == "":
        raise UsageError(EMPTY_MODEL)
    return model


Model = Annotated[
    str | None,
    typer.Option(
        callback=_checked,
        metavar="MODEL",
        help="A checkpoint's folder, its name on the hub, or a server's URL, not the packaged model.",
    ),
]
LocalModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        callback=_checked,
        metavar="MODEL",
        help="A checkpoint's or an export's folder, or a name on the hub, not the packaged model.",
    ),
]
