"""The server of `embedcode web`, a process of its own, over HTTP: answers, refusals, and how it starts and ends."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcode.cli.web import web as verb
from embedcode.errors import UsageError
from embedcode.serve.pages import ASSETS

from .conftest import Web, ended, environment, started

QUESTION = "where is a visitor logged out?"


def cli(shop: tuple[Path, Path], *arguments: str) -> Any:
    command = [sys.executable, "-m", "embedcode", *arguments, "--json"]
    done = subprocess.run(command, env=environment(shop[1]), cwd=shop[0], capture_output=True, check=False)
    return json.loads(done.stdout)


# ---- answers -----------------------------------------------------------------------------------------------------


def test_a_search_is_what_the_command_line_prints(web: Web, shop: tuple[Path, Path]) -> None:
    status, found = web.ask("/v1/search", {"query": QUESTION, "languages": ["py"], "top_k": 3})
    printed = cli(shop, "search", QUESTION, ".", "--lang", "py", "-k", "3")
    assert status == 200
    assert found["hits"][0]["symbol"] == "invalidate_session"
    assert found.pop("by_words") is False
    for record in (found, printed):
        record["indexed"].pop("age_seconds")
    assert found == printed


def test_related_and_status_are_what_the_command_line_prints(web: Web, shop: tuple[Path, Path]) -> None:
    _, found = web.ask("/v1/search/related", {"path": "shop/prices.py", "line": 2, "languages": ["javascript"]})
    assert found["hits"] == cli(shop, "related", "shop/prices.py:2", "--lang", "javascript")["hits"]
    assert found["hits"][0]["symbol"] == "grossPrice"
    status, state = web.ask("/v1/search/status")
    printed = cli(shop, "status")
    assert status == 200
    assert state.pop("reading") is None
    assert state.keys() == printed.keys()
    for name in ("root", "files", "chunks", "embedded", "languages", "content", "repos", "skipped"):
        assert state[name] == printed[name]
    assert state["content"]["code"] == sum(state["languages"][name] for name in ("python", "javascript"))


def test_code_is_a_query_too_and_filters_hold(web: Web) -> None:
    code = "def price_with_tax(net, rate):\n    return net * (1 + rate)\n"
    for body in ({"code": code}, {"query": "in JavaScript", "code": code}):
        _, found = web.ask("/v1/search", body)
        assert {hit["symbol"] for hit in found["hits"][:2]} == {"gross_price", "grossPrice"}
    _, found = web.ask("/v1/search", {"query": "price", "paths": ["web/**"], "content": ["code"], "mode": "lexical"})
    assert {hit["path"].split("/")[0] for hit in found["hits"]} == {"web"}
    assert all(hit["why"][0].startswith("words") for hit in found["hits"])


def test_lines_to_show_are_the_snippet_in_runs(web: Web) -> None:
    body = {"query": "forget a session", "top_k": 30}
    _, plain = web.ask("/v1/search", body)
    _, shown = web.ask("/v1/search", {**body, "highlight": True})
    for one, other in zip(plain["hits"], shown["hits"], strict=True):
        lines = ["".join(text for text, kind in runs if kind != "more") for runs in other.pop("lines")]
        assert lines == [line[:1000] for line in one.pop("snippet").rstrip().split("\n")]
        first, last = other.pop("excerpt")
        assert one["start_line"] <= first <= last <= min(one["end_line"], first + 9)
        assert one == other
    _, found = web.ask("/v1/search", {**body, "highlight": True})
    (hit,) = (hit for hit in found["hits"] if hit["path"] == "shop/session.py")
    assert hit["lines"][0][:4] == [["def", "k"], [" ", ""], ["invalidate_", "d"], ["session", "d m"]]
    assert hit["lines"][1][1] == ['"""', "s"]
    assert ["Forget", "s m"] in hit["lines"][1]


def test_the_excerpt_of_a_long_chunk_is_where_the_words_are(web: Web) -> None:
    _, found = web.ask("/v1/search", {"query": "audit trail", "paths": ["shop/steps.py"], "highlight": True})
    (hit,) = found["hits"]
    first, last = hit["excerpt"]
    assert len(hit["lines"]) == 40
    assert first <= 31 <= last


def test_what_is_typed_is_answered_without_reading_first(start: Callable[..., Web]) -> None:
    web = start({"a.py": "def first_thing():\n    pass\n"})
    deadline = time.monotonic() + 30
    while web.ask("/v1/search", {"query": "first_thing"})[1].get("hits", []) == [] and time.monotonic() < deadline:
        time.sleep(0.1)
    (web.root / "b.py").write_text("def second_thing():\n    pass\n")
    body = {"query": "second_thing", "mode": "lexical"}
    assert "b.py" not in [hit["path"] for hit in web.ask("/v1/search", {**body, "update": False})[1]["hits"]]
    assert web.ask("/v1/search", body)[1]["hits"][0]["path"] == "b.py"


def test_a_file_is_shown_as_it_is_now(start: Callable[..., Web]) -> None:
    web = start({"a.py": "def thing():\n    return 'é'\n"})
    assert shown(web, "a.py", ready=True)["lines"][1] == [["    ", ""], ["return", "k"], [" ", ""], ["'é'", "s"]]
    assert shown(web, "a.py")["changed"] is False
    (web.root / "a.py").write_text("# new\n\ndef thing():\n    pass\n")
    found = shown(web, "a.py")
    assert found["changed"] is True
    assert found["lines"][:2] == [[["# new", "c"]], []]


def shown(web: Web, path: str, ready: bool = False) -> Any:
    status, found = web.ask("/v1/search/file", {"path": path})
    deadline = time.monotonic() + 30
    while ready and status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        status, found = web.ask("/v1/search/file", {"path": path})
    return found


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "wrong", "é", "x" * 32])
def test_without_the_token_nothing_is_said(web: Web, token: str) -> None:
    sent = token.encode().decode("latin-1")
    for path, body in (("/v1/search", {"query": QUESTION}), ("/v1/search/status", None), ("/v1/none", None)):
        status, headers, content = web.send(path, body, token=sent)
        assert status == 401
        assert headers["www-authenticate"] == "Bearer"
        assert json.loads(content)["error"]["code"] == "invalid_token"
        assert str(web.root).encode() not in content


def test_the_page_holds_neither_the_token_nor_anything_of_the_repository(web: Web) -> None:
    for path in ("/", *ASSETS):
        status, _, content = web.send(path, token="")
        assert status == 200
        assert web.token.encode() not in content
        assert web.root.name.encode() + b"/" not in content


def test_a_name_that_points_here_is_not_answered(web: Web) -> None:
    for host in ("evil.example", f"evil.example:{web.port}", "127.0.0.1", f"127.0.0.1:{web.port + 1}", ""):
        for path in ("/", "/v1/search/status"):
            assert web.send(path, Host=host)[0] == 403
    assert web.send("/v1/search/status", Host=f"localhost:{web.port}")[0] == 200


def test_other_sites_are_not_answered(web: Web) -> None:
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{web.port + 1}", f"https://127.0.0.1:{web.port}"):
        assert web.send("/v1/search", {"query": QUESTION}, Origin=origin)[0] == 403
    assert web.send("/v1/search", {"query": QUESTION}, Origin=f"http://127.0.0.1:{web.port}")[0] == 200
    _, headers, _ = web.send("/v1/search/status", Origin="https://evil.example")
    assert not [name for name in headers if name.startswith("access-control")]


def test_every_answer_has_the_headers_that_guard_it(web: Web) -> None:
    for path, token in (
        ("/", ""),
        *((path, "") for path in ASSETS),
        ("/v1/search/status", None),
        ("/v1/search/status", "no"),
        ("/x", None),
    ):
        _, headers, _ = web.send(path, token=token)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    _, headers, content = web.send("/")
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["style-src"] == "'self'"
    assert b"<style" not in content
    assert "unsafe" not in headers["content-security-policy"]
    assert not re.search(rb"<script(?! type=\"module\" src=\"/app\.js\"></script>)|\son\w+=\"|\sstyle=\"", content)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "ignored.py",
        "../outside.py",
        "/etc/passwd",
        "",
        ".",
        "shop",
        "none.py",
        "shop/../shop/prices.py",
        "a\0b",
    ],
)
def test_what_is_not_in_the_index_is_not_shown(web: Web, path: str) -> None:
    (web.root.parent / "outside.py").write_text("secret = 'opensesame'\n")
    status, _, content = web.send("/v1/search/file", {"path": path})
    assert status == 404
    assert b"not in the index" in content
    assert b"opensesame" not in content


def test_a_file_that_became_a_link_or_a_secret_is_not_shown(start: Callable[..., Web]) -> None:
    web = start(dict.fromkeys(("a.py", "b.py", "sub/c.py", "d.py", "e.py"), "def thing():\n    pass\n"))
    shown(web, "e.py", ready=True)
    outside = web.root.parent / "outside"
    outside.mkdir()
    for name in ("a.py", "c.py"):
        (outside / name).write_text("secret = 'opensesame'\n")
    (web.root / "a.py").unlink()
    (web.root / "a.py").symlink_to(outside / "a.py")
    (web.root / "b.py").write_text("-----BEGIN RSA PRIVATE KEY-----\nopensesame\n-----END RSA PRIVATE KEY-----\n")
    (web.root / "sub" / "c.py").unlink()
    (web.root / "sub").rmdir()
    (web.root / "sub").symlink_to(outside)
    (web.root / "d.py").unlink()
    os.mkfifo(web.root / "d.py")
    (web.root / "e.py").unlink()
    for path in ("a.py", "b.py", "sub/c.py", "d.py", "e.py"):
        status, _, content = web.send("/v1/search/file", {"path": path})
        assert status == 404
        assert b"cannot be shown" in content
        assert b"opensesame" not in content


def test_only_the_folder_that_was_given_is_shown(shop: tuple[Path, Path]) -> None:
    web = started(shop[0] / "web", shop[1])
    try:
        assert web.ask("/v1/search/file", {"path": "web/prices.js"})[0] == 200
        assert web.ask("/v1/search/file", {"path": "shop/prices.py"})[0] == 404
        status, refused = web.ask("/v1/search/related", {"path": "shop/prices.py", "line": 400})
        assert (status, "it is not in the index" in refused["message"]) == (400, True)
        _, state = web.ask("/v1/search/status")
        assert state["skipped"] == {}
    finally:
        ended(web)


@pytest.mark.parametrize(
    ("path", "body", "status", "sign"),
    [
        ("/v1/search", {"query": "  "}, 400, "query is empty"),
        ("/v1/search", {}, 400, "query is empty"),
        ("/v1/search", b"{", 422, "not JSON"),
        ("/v1/search", b"\xff", 422, "not JSON"),
        ("/v1/search", b"[" * 200_000, 422, "not JSON"),
        ("/v1/search", [], 422, "not an object"),
        ("/v1/search", {"query": "x", "limit": 3}, 422, "unknown field 'limit'"),
        ("/v1/search", {"query": 3}, 422, "query is the number 3: send a text"),
        ("/v1/search", {"query": "x", "paths": "src"}, 422, "send a list of texts"),
        ("/v1/search", {"query": "x", "paths": [1]}, 422, "send a list of texts"),
        ("/v1/search", {"query": "x", "top_k": True}, 422, "send a whole number"),
        ("/v1/search", {"query": "x", "top_k": 0}, 422, "between 1 and 1000"),
        ("/v1/search", {"query": "x", "top_k": 10**9}, 422, "between 1 and 1000"),
        ("/v1/search", {"query": "x", "mode": "fast"}, 422, "hybrid, lexical, dense"),
        ("/v1/search", {"query": "x", "content": ["poem"]}, 422, "code, docs, config"),
        ("/v1/search", {"query": "x", "languages": ["klingon"]}, 400, "klingon"),
        ("/v1/search", {"query": "x", "since": "none"}, 400, "git"),
        ("/v1/search", {"query": "x", "since": "a\0b"}, 400, "git"),
        ("/v1/search", {"query": "x" * 1_000_001}, 400, "1,000,001 characters"),
        ("/v1/search", b" " * 5_000_001, 413, "larger than 5,000,000 bytes"),
        ("/v1/search/related", {"path": "shop/prices.py", "line": 99}, 400, "it has 3 lines"),
        ("/v1/search/related", {"path": "shop/prices.py", "line": -1}, 422, "line -1"),
        ("/v1/search/related", {"path": "../x.py", "line": 1}, 400, "not in the index"),
        ("/v1/search/status", {}, 405, "method not allowed"),
        ("/v1/nothing", None, 404, "not found"),
        ("/v1/search/", {"query": "x"}, 404, "not found"),
    ],
)
def test_a_mistake_is_a_sentence(web: Web, path: str, body: object, status: int, sign: str) -> None:
    found = web.ask(path, body)
    assert found[0] == status
    assert found[1].keys() == {"object", "message", "type", "detail", "error"}
    assert found[1]["message"] == found[1]["error"]["message"]
    assert sign in found[1]["message"]


def test_half_a_surrogate_pair_does_no_harm(web: Web) -> None:
    status, found = web.ask("/v1/search", b'{"query": "price \\ud800", "paths": ["\\udcff", "**"]}')
    assert status == 200
    assert found["hits"]


# ---- start and end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(shop: tuple[Path, Path], number: signal.Signals) -> None:
    web = started(*shop)
    idle = http.client.HTTPConnection("127.0.0.1", web.port)
    idle.connect()  # a browser keeps its connection
    assert web.ask("/v1/search", {"query": QUESTION})[0] == 200
    code, seconds, rest, errors = ended(web, number)
    idle.close()
    assert (code, rest, errors) == (0, "", "Ctrl-C ends it\n")
    assert seconds < 2


def test_it_listens_on_the_loopback_address_alone_and_on_the_port_it_is_given(shop: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "embedcode", "web", str(shop[0]), "--port", str(port)]
        done = subprocess.run(command, env=environment(shop[1]), capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"embedcode: 127.0.0.1 port {port} cannot be used (")
    assert done.stderr.count("\n") == 1
    web = started(*shop, "--port", str(port))
    try:
        assert web.port == port
        with pytest.raises(ConnectionRefusedError):  # it would be taken if it listened on all addresses
            socket.create_connection(("127.0.0.2", port), timeout=5)
    finally:
        ended(web)


@pytest.mark.parametrize(("arguments", "opened"), [([], True), (["--no-open"], False)])
def test_the_link_that_a_browser_gets_is_good_once(
    shop: tuple[Path, Path], tmp_path: Path, arguments: list[str], opened: bool
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/got.part\nmv {tmp_path}/got.part {tmp_path}/got\n')
    browser.chmod(0o755)
    ours, theirs = pty.openpty()
    env = environment(shop[1]) | {"BROWSER": str(browser), "DISPLAY": ":0", "CI": ""}
    command = [sys.executable, "-m", "embedcode", "web", str(shop[0]), *arguments]
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        told = b""
        while b"ends it" not in told:
            told += os.read(ours, 1000)
        web = Web(shop[0], process, told.decode().split()[0])  # type: ignore[arg-type]
        deadline = time.monotonic() + (10 if opened else 1)
        while not (tmp_path / "got").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "got").exists() == opened
        if opened:
            once = (tmp_path / "got").read_text().strip().partition("#token=")[2]
            assert web.token not in (once, "")
            status, headers, _ = web.send("/v1/search/status", token=once)
            assert (status, headers["x-token"]) == (200, web.token)
            assert web.send("/v1/search/status", token=once)[0] == 401
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0
        os.close(ours)


def test_without_the_extra_it_says_what_to_install(shop: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "embedcode.serve.web", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"this needs uvicorn; run `pip install '\.\[serve\]'`"):
        verb(str(shop[0]))
