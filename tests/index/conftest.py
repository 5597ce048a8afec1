"""A small checkout, a home of its own, and the packaged encoder, loaded once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import repositories
from embedcode import Encoder, Index, load
from embedcode.index.prepare import RACY_NS

FILES = {
    "shop/session.py": '''"""Sessions of visitors."""


def invalidate_session(store, session_id):
    """Forget a visitor's session, so that they have to log in again."""
    store.delete(session_id)
    store.publish("session.closed", session_id)
''',
    "shop/prices.py": '''def gross_price(net, rate):
    """Add value added tax to a net price."""
    return round(net * (1 + rate), 2)
''',
    "web/retry.js": """// Call again with growing pauses.
export async function retryWithBackoff(call, attempts) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    try { return await call(); } catch { await sleep(2 ** attempt * 100); }
  }
}
""",
    "tools/rotate.nim": "proc rotateLogs(folder: string) =\n  ## Old log files are compressed, the oldest deleted.\n"
    '  for path in walkFiles(folder / "*.log"):\n    compress(path)\n',
    "README.md": "# Shop\n\nHow to install the shop and log in.\n",
    "settings.toml": "[server]\nport = 8000\n",
}

Open = Callable[..., Index]
Write = Callable[[Path, dict[str, str]], Path]
Git = Callable[..., str]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of whoever runs the tests is read or written."""
    for name in [*os.environ]:
        if name.startswith(("EMBEDCODE_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMBEDCODE_THREADS", "1")  # with more, other processes help to read
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load(threads=2)


@pytest.fixture
def write() -> Write:
    """Write files an hour old, so that none is so new that it has to be read again."""

    def write(root: Path, files: dict[str, str]) -> Path:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            hour_ago = time.time() - 3600
            os.utime(root / path, (hour_ago, hour_ago))
        time.sleep(2 * RACY_NS / 1e9)  # that the time was set is a change, too
        return root

    return write


@pytest.fixture
def git() -> Git:
    return repositories.git


@pytest.fixture
def shop(tmp_path: Path, write: Write) -> Path:
    return write(tmp_path / "shop", FILES)


@pytest.fixture
def opened(encoder: Encoder) -> Iterator[Open]:
    """opened(path): an Index with the shared encoder, closed at the end."""
    with ExitStack() as stack:
        yield lambda path, other=None: stack.enter_context(Index.open(path, other or encoder))
