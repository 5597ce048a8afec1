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

    Its lock lies elsewhere and leaves no file, of which there would be one for each output.
    """
    from embedcode.index.locks import Lock

    folder, name = _folder(), digest(os.path.realpath(out)).hex()
    with Lock(folder, name).held(0, f"writing {out}"):
        try:
            yield
        finally:
            with suppress(OSError):  # while it is held: who locks the file afterwards sees that it is gone
                (folder / f"{name}.lock").unlink()


def _folder() -> Path:
    """For locks: in our home, or among what is temporary where that cannot be written, as in a read-only image."""
    import tempfile

    from embedcode import settings
    from embedcode.files import make_private

    home = settings.load().home / "outputs"
    with suppress(OSError):
        make_private(home)
        if os.access(home, os.W_OK | os.X_OK):
            return home
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()) / f"embedcode-{user}"
