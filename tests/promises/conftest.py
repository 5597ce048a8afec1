"""`embedcode` as a person runs it, on a small repository that is indexed once and copied for whoever harms it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import repositories
from embedcode.cli import main

FILES = {
    "shop/session.py": '''def invalidate_session(store, session_id):
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
    "tools/rotate.nim": 'proc rotateLogs(dir: string) =\n  for path in walkFiles(dir / "*.log"):\n    zip(path)\n',
    "README.md": "# Shop\n\nHow to install the shop and log in.\n",
}

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def environment(home: Path) -> dict[str, str]:
    return repositories.environment(home, EMBEDCODE_THREADS="1", PYTHONDONTWRITEBYTECODE="1")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, home) of a repository with every vector in. Only to be copied."""
    place = tmp_path_factory.mktemp("template")
    root = repositories.write(place / "shop", FILES)
    hour_ago = time.time() - 3600
    for path in FILES:
        os.utime(root / path, (hour_ago, hour_ago))
    command = [sys.executable, "-m", "embedcode", "index", str(root), "--wait"]
    subprocess.run(command, env=environment(place / "home"), check=True, capture_output=True)
    return root, place / "home"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def indexed(template: tuple[Path, Path], home: Path) -> Path:
    """The root of the repository, whose index in `home` is this test's own."""
    shutil.copytree(template[1], home)
    return template[0]


@pytest.fixture
def index_folder(indexed: Path, home: Path) -> Path:
    (folder,) = (home / "indexes").iterdir()
    return folder


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    """run("search", "text", ...): a finished process of its own."""

    def run(*arguments: str | bytes, **options: object) -> Done:
        env = environment(home) | options.pop("env", {})  # type: ignore[operator]
        command = [sys.executable, "-m", "embedcode", *arguments]
        options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False, **options)  # type: ignore

    return run


@pytest.fixture
def call(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The same as run() without the second of a process of its own."""

    def call(*arguments: str, stdin: bytes = b"") -> Done:
        for name, value in environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["embedcode", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, captured.out, captured.err)  # type: ignore

    return call
