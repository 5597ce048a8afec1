"""`mcp`: the door for coding assistants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from embedcode.cli import output
from embedcode.cli.opening import check
from embedcode.errors import UsageError


def mcp(
    roots: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROOT...", help="Repositories to answer about; the current folder's if none."),
    ] = None,
) -> None:
    """Serve search to coding assistants, over the Model Context Protocol on stdin and stdout.

    Needs the extra: pip install '.[mcp]' in your clone of embedcode. An assistant starts it itself, once `embedcode
    install` has entered it into the assistant's configuration. Tools: search, related, status.
    """
    # Claude Code names the project so, and may start a server elsewhere; the other assistants start it there, or say.
    paths = roots or [os.environ.get("CLAUDE_PROJECT_DIR") or "."]
    for path in paths:
        try:
            check(path)
        except UsageError as error:  # as of a worktree that was removed: it costs the others nothing
            if not path or len(paths) == 1:
                raise
            output.note(str(error))
    from embedcode.serve.mcp import serve

    serve([Path(path) for path in paths])
