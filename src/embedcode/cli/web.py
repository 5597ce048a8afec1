"""`web`: the page in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from embedcode.cli import output
from embedcode.cli.opening import check
from embedcode.errors import extra


def web(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A repository, or a folder in it.")] = ".",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Listen on this port; 0 is a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the link, and open no browser.")] = False,
) -> None:
    """Search in a page, in your browser.

    Needs the extra: pip install '.[serve]' in your clone of embedcode. It listens on 127.0.0.1 alone and prints a link
    with a token, without which it answers nothing. Ctrl-C ends it.
    """
    check(path)
    with extra("serve"):
        from embedcode.serve.web import serve

    def announce(link: str, once: str) -> None:
        output.put(link)
        output.note("Ctrl-C ends it")
        if output.interactive(as_json=False) and not no_open and _has_display():
            import webbrowser
            from threading import Thread

            Thread(target=webbrowser.open, args=[once], daemon=True).start()

    serve(Path(path), port, announce)


def _has_display() -> bool:
    """Whether a browser would open a window; on a bare terminal, Python starts one that takes the terminal over."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
