"""`mcp`: the door for coding assistants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedcode.cli.opening import check


def mcp(
    roots: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROOT", help="Repositories to answer about; the current folder's if none."),
    ] = None,
) -> None:
    """Serve search to coding assistants, over the Model Context Protocol on stdin and stdout.

    Needs the extra: pip install '.[mcp]' in your clone of embedcode. An assistant starts it itself; its configuration
    names the command "embedcode" with the arguments ["mcp", "path/to/repo"]. Tools: search, related, status.
    """
    paths = roots or ["."]
    for path in paths:
        check(path)
    from embedcode.serve.mcp import serve

    serve([Path(path) for path in paths])
