"""Names on the hub: what is downloaded, and when the hub is asked. The hub is one of our own, on loopback."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from embedcode.errors import ModelError
from embedcode.model.hub import find, local

NAME, REVISION = "acme/encoder", "a" * 40


class Hub(BaseHTTPRequestHandler):
    """What snapshot_download asks of huggingface.co."""

    files: dict[str, bytes]
    lost: set[str]
    asked: list[str]
    revision = REVISION

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/{NAME}/resolve/{self.revision}/")
        if path.startswith(f"/api/models/{NAME}/tree/"):
            raw = [{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in self.files.items()]
            self._send(200, json.dumps(raw).encode())
        elif path.startswith(f"/api/models/{NAME}"):
            self._send(200, json.dumps({"id": NAME, "sha": self.revision, "siblings": []}).encode())
        elif name in self.files and name not in self.lost:
            self._send(200, self.files[name], _oid(self.files[name]))
        else:
            self._send(404, b"")

    def _send(self, status: int, raw: bytes, etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", self.revision)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    files = {
        name: name.encode() for name in ("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json")
    }
    mine = type(
        "Mine",
        (Hub,),
        {"files": files | {"code.py": b"", "README.md": b"", "LICENSE.txt": b""}, "lost": set(), "asked": []},
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), mine)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield mine
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_is_asked_until_all_of_a_model_is_here_and_then_no_more(hub: type[Hub]) -> None:
    hub.lost.add("modules.json")  # without it the rest would load, with other vectors
    for _ in range(2):
        with pytest.raises(ModelError, match=r"acme/encoder cannot be downloaded"):
            find(NAME)
    hub.lost.clear()
    folder = find(NAME)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == hub.files.keys() - {"code.py"}
    for name in ("", "README.md"):  # which was not fetched before
        if name:
            (folder / name).unlink()
        hub.asked.clear()
        assert find(NAME) == folder
        assert hub.asked == []


def test_a_revision_is_not_another_one_that_is_here(hub: type[Hub]) -> None:
    """An adapter names that of its base: over other weights its product is of no model."""
    assert find(NAME).name == REVISION
    hub.revision, hub.files = "b" * 40, hub.files | {"model.safetensors": b"other"}
    other = find(NAME, hub.revision)
    assert (other.name, (other / "model.safetensors").read_bytes()) == (hub.revision, b"other")
    hub.asked.clear()
    assert (find(NAME).name, find(NAME, hub.revision)) == (REVISION, other)
    assert hub.asked == []


def test_an_adapter_that_is_here_is_found(hub: type[Hub]) -> None:
    hub.files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b""}
    assert local(NAME) is None
    find(NAME)
    folder = local(NAME)
    assert folder is not None
    assert (folder / "adapter_config.json").is_file()


def test_nothing_is_downloaded_for_who_cannot_use_it(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModelError, match=r"acme/encoder is no folder here, and .* it needs torch: check the path, or run"
    ):
        find(NAME)
    assert hub.asked == []
