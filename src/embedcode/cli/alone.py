"""Alone: the only process that writes an output which grows, and which a second one would spoil."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedcode.types import digest


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """BusyError while another process is here with `out`, a file or a folder, under whatever name.

    Its lock is in our home and leaves no file, of which there would be one for each output.
    """
    from embedcode import settings
    from embedcode.index.locks import Lock

    folder, name = settings.load().home / "outputs", digest(os.path.realpath(out)).hex()
    with Lock(folder, name).held(0, f"writing {out}"):
        try:
            yield
        finally:
            with suppress(OSError):  # while it is held: who locks the file afterwards sees that it is gone
                (folder / f"{name}.lock").unlink()
