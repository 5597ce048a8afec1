"""`embedcode serve` as a process of its own, and ways to ask it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from embedcode.model.spec import DEFAULT
from repositories import environment

MODEL = "embedcode-small"
PATIENCE = 120.0
"""Seconds for what takes three on an idle machine."""


HEALTH = Path(__file__).parents[2] / "deploy" / "health.py"


@dataclass
class Server:
    process: subprocess.Popen[str]
    address: str
    log: Path
    trust: ssl.SSLContext | None = None
    """For a server that speaks TLS."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def connect(self, timeout: float = PATIENCE) -> HTTPConnection:
        if self.trust is not None:
            return HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.trust)
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def send(self, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """GET, or POST where there is a body (bytes as they are): status, headers in lower case, content."""
        connection = self.connect()
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        try:
            connection.request("GET" if body is None else "POST", path, content, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        status, _, content = self.send(path, body, **headers)
        return status, json.loads(content)

    def embed(self, given: object, **fields: object) -> tuple[int, Any]:
        return self.ask("/v1/embeddings", {"model": MODEL, "input": given, **fields})

    def metric(self, name: str) -> float:
        """The sum over all its labels that `name`, which may give some, does not fix; 0 where there is none."""
        plain, _, labels = name.rstrip("}").partition("{")
        total = 0.0
        for line in self.send("/v1/metrics")[2].decode().splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == plain and all(part in (found[2] or "") for part in labels.split(",")):
                total += float(found[3])
        return total

    def ready(self) -> bool:
        return self.send("/v1/health/ready")[0] == 200

    def wait_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self.ready():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def healthy(self, **variables: str) -> bool:
        """As the image's health check finds it, where that is told the port and, beside it, `variables`."""
        told = {"EMBEDCODE_SERVE_PORT": str(self.port), **variables}
        return subprocess.run([sys.executable, HEALTH], env=told, capture_output=True, timeout=PATIENCE).returncode == 0

    def engine(self) -> int:
        """Process of the engine."""
        mine = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(pid) for path in mine.parents[0].parent.glob("*/children") for pid in path.read_text().split()]
        (engine,) = [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return engine

    def events(self) -> list[dict[str, Any]]:
        time.sleep(0.2)  # the server writes its lines every 100 ms
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(
    home: Path, *arguments: str, ready: bool = True, trust: ssl.SSLContext | None = None, **variables: str
) -> Iterator[Server]:
    """A server on a free port, with its log in `home`."""
    log = home / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "embedcode", "serve", "--port", "0", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=environment(home, **variables), stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        )
    assert process.stdout is not None
    server = Server(process, process.stdout.readline().strip(), log, trust)
    try:
        assert server.address, log.read_text()
        if ready:
            server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def shop(home: Path, code: str = "def forget(session):\n    session.flush()\n") -> Path:
    """A repository of one file, session.py, to be indexed."""
    root = home / "shop"
    (root / ".git").mkdir(parents=True)
    (root / "session.py").write_text(code)
    return root


def prompted(folder: Path) -> Path:
    """The packaged model, as one with a prompt for queries, an instruction and Matryoshka sizes."""
    shutil.copytree(DEFAULT, folder)
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    meta["prompts"]["query"] = "Instruct: {instruction}\nQuery: "
    meta |= {"instruction": "Find the code.", "dimensions": [64, 128, 384], "name": "tiny/prompted"}
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
    return folder
