"""A small repository, hostile files included, and `embedcode web` on it as a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

import repositories
from repositories import write

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
    "web/prices.js": """// Net price and value added tax.
function grossPrice(net, rate) {
  return Math.round(net * (1 + rate) * 100) / 100
}
""",
    "web/retry.js": """// Call again with growing pauses.
export async function retryWithBackoff(call, attempts) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    try { return await call(); } catch { await sleep(2 ** attempt * 100); }
  }
}
""",
    "shop/steps.py": "".join(f"total = {'audit_trail' if i == 30 else 'add_step'}({i})\n" for i in range(40)),
    "README.md": "# Shop\n\nHow to install the shop and log in.\n",
    "notes.txt": "A line of a megabyte about parcels: " + "parcel " * 130_000 + "\n",
    ".env": "PASSWORD=opensesame\n",
    "ignored.py": "def ignored_secret():\n    return 'opensesame'\n",
    ".gitignore": "ignored.py\n",
    "<img src=x onerror=alert(1)>.py": "def hostile_markup():\n    return '<script>alert(2)</script></code><b>bold'\n",
    "evil \u202ecod\x1b[31m.py": """def hostile_controls():
    # \u202e } if admin \u2066 then\x07
    return '{{7*7}} ${7*7}'
""",
}


@dataclass
class Web:
    """`embedcode web` at work."""

    root: Path
    process: subprocess.Popen[str]
    link: str

    @property
    def port(self) -> int:
        return int(self.link.split(":")[2].split("/")[0])

    @property
    def token(self) -> str:
        return self.link.partition("#token=")[2]

    def send(
        self, path: str, body: object = None, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """GET, or POST where there is a body (bytes as they are): status, headers in lower case, content."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Authorization": f"Bearer {self.token if token is None else token}", **headers}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        try:
            connection.request("GET" if body is None else "POST", path, content, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON. A search is asked again where a busy machine has made no vector of the query in time."""
        for _ in range(50):
            status, _, content = self.send(path, body)
            if not path.startswith("/v1/search") or b"came in time, as while" not in content:
                return status, json.loads(content)
            time.sleep(0.2)
        raise AssertionError(f"no vector of {body} came in ten seconds")


def environment(home: Path) -> dict[str, str]:
    return repositories.environment(home, EMBEDCODE_THREADS="1")


def started(root: Path, home: Path, *arguments: str) -> Web:
    command = [sys.executable, "-m", "embedcode", "web", str(root), *arguments]
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    link = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=[\w-]{32}", link), (link, process.communicate())
    return Web(root, process, link)


def ended(web: Web, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, str, str]:
    """Exit code, seconds it took, and what it had still to say on stdout and stderr."""
    start = time.monotonic()
    web.process.send_signal(number)
    rest, errors = web.process.communicate(timeout=30)
    return web.process.returncode, time.monotonic() - start, rest, errors


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, home), with every vector in."""
    place = tmp_path_factory.mktemp("web")
    root = write(place / "shop", FILES)
    (root / ".git").mkdir()
    command = [sys.executable, "-m", "embedcode", "index", str(root), "--wait"]
    subprocess.run(command, env=environment(place / "home"), check=True, capture_output=True)
    return root, place / "home"


@pytest.fixture(scope="session")
def web(shop: tuple[Path, Path]) -> Iterator[Web]:
    """Shared by all tests that change nothing."""
    web = started(*shop)
    yield web
    ended(web)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """start(files, *arguments): a server on a repository of its own."""
    running: list[Web] = []

    def start(files: dict[str, str], *arguments: str) -> Web:
        web = started(write(tmp_path / "own", files), tmp_path / "home", *arguments)
        running.append(web)
        return web

    yield start
    for web in running:
        if web.process.poll() is None:
            ended(web)
        stop = [sys.executable, "-m", "embedcode", "index", "--stop", str(web.root)]
        subprocess.run(stop, env=environment(tmp_path / "home"), check=True, capture_output=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser come last: its loop runs on in this thread, where `asyncio.run` then refuses to, and
    CPython 3.11 loses count of its recursion. Their files do, too, since a process of several is given whole files."""

    def seen(item: pytest.Item) -> bool:
        return "browser" in getattr(item, "fixturenames", ())

    files = {item.path for item in items if seen(item)}
    items.sort(key=lambda item: (item.path in files, seen(item)))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        wanted = f"the page is tested in Chromium, and none of {', '.join(names)} is installed"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(wanted)
        pytest.skip(wanted)
    expect.set_options(timeout=15_000)
    with sync_playwright() as driver:
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium has none for root
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()
