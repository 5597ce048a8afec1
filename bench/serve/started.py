"""The servers under test, each started as a user starts it, as a process of its own on a port of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "embedcode-small"
MAX_TOKENS = 256
"""Of a text: as many as all-MiniLM-L6-v2 reads, which the peers serve and ours was made from."""
START_SECONDS = 180
HERE = Path(__file__).parent


@dataclass(slots=True)
class Server:
    name: str
    port: int
    path: str
    process: subprocess.Popen[bytes]
    log: Path
    versions: list[str] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series that have these labels."""
        total = 0.0
        for line in self.get("/v1/metrics")[1].decode().splitlines():
            found = re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    def tree(self) -> list[int]:
        """This process and all below it."""
        found = [self.process.pid]
        for pid in found:
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    found += map(int, path.read_text().split())
        return found

    def engine(self) -> int | None:
        for pid in self.tree()[1:]:
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def resident_mb(self) -> float:
        """Of all its processes; pages that they share count each time."""
        total = 0
        for pid in self.tree():
            with suppress(OSError, IndexError):
                total += int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
        return total / 1024

    def cpu_seconds(self, *of: int) -> float:
        """Of all its processes, or of some."""
        total = 0
        for pid in of or self.tree():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    port: int,
    work: Path,
    health: str,
    path: str = "/v1/embeddings",
    folder: Path | None = None,
    **more: str,
) -> Iterator[Server]:
    strange = ("EMBEDCODE_", "NIM_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(strange)} | more
    log = work / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    server = Server(name, port, path, process, log)
    end = time.monotonic() + START_SECONDS
    try:
        while health and server.get(health)[0] != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not start; the end of its log:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        if not health:
            time.sleep(0.5)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def embedcode(work: Path, **variables: str) -> Iterator[Server]:
    """With its engine killed once: what is measured is a server that has been through it."""
    port = free_port()
    own = {"EMBEDCODE_HOME": str(work / "home"), "XDG_CONFIG_HOME": str(work / "config")}
    own |= {"EMBEDCODE_SERVE_MAX_TOKENS": str(MAX_TOKENS)} | variables
    command = [sys.executable, "-m", "embedcode", "serve", "--port", str(port)]
    with started("embedcode", command, port, work, "/v1/health/ready", **own) as server:
        engine = server.engine()
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        while server.metric("embedcode_engine_restarts_total") < 1 or server.get("/v1/health/ready")[0] != 200:
            time.sleep(0.05)
        yield server


@contextmanager
def fastapi(python: Path, work: Path, dtype: str = "float32") -> Iterator[Server]:
    port = free_port()
    command = [str(python), str(HERE / "peer_fastapi.py"), "--port", str(port), "--dtype", dtype]
    with started(f"fastapi-{dtype}", command, port, work, "/health") as server:
        yield server


@contextmanager
def infinity(python: Path, work: Path, folder: Path, engine: str) -> Iterator[Server]:
    """Started in the model's folder: its engine `optimum` looks for a file of a path within the path itself."""
    port = free_port()
    command = [
        str(python.with_name("infinity_emb")), "v2", "--model-id", ".", "--served-model-name", MODEL,
        "--engine", engine, "--device", "cpu", "--port", str(port), "--host", "127.0.0.1", "--no-bettertransformer",
        "--pooling-method", "mean",
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    with started(f"infinity-{engine}", command, port, work, "/health", "/embeddings", folder, **quiet) as server:
        yield server


@contextmanager
def null(work: Path, texts: int) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(HERE / "null_server.py"), str(port), str(texts)]
    with started("null", command, port, work, "") as server:
        yield server
