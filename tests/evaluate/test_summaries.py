"""Summaries: what a faulty chat server does is waited for or named, and nothing that was answered is asked again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedcode.errors import ModelError, UsageError
from embedcode.evaluate import instances, summaries
from embedcode.evaluate.instances import Instance
from embedcode.evaluate.summaries import Summary

ISSUES = [Instance(f"acme__shop-{i}", "acme/shop", "a" * 40, f"Problem number {i}.", ("x.py",)) for i in range(12)]
Reply = tuple[int, dict[str, str], bytes] | None


def completion(text: str | None, reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": reason}]}).encode()


@dataclass
class Chat:
    """A chat server on loopback; `faults` are given first, one a request: None cuts the connection."""

    faults: list[Reply] = field(default_factory=list)
    answer: Callable[[str], Reply] = lambda text: (200, {}, completion(f"About {text.split()[-1]}"))
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def chat() -> Iterator[Chat]:
    made = Chat()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply((200, {}, b'{"data": [{"id": "writer-1"}]}'))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.keys.append(self.headers.get("Authorization"))
            made.asked.append(body)
            self.reply(made.faults.pop(0) if made.faults else made.answer(body["messages"][0]["content"]))

        def reply(self, reply: Reply) -> None:
            if reply is None:
                self.close_connection = True
                return
            status, headers, raw = reply
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(raw))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_written_read_and_put_in_place_of_issues(chat: Chat, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "summaries.jsonl"
    found = summaries.Writer(chat.url).write(ISSUES, path, lambda done, total: told.append((done, total)))
    assert found == {one.id: Summary(f"About {i}.", "writer-1") for i, one in enumerate(ISSUES)}
    assert summaries.read(path) == found
    assert told[-1] == (12, 12)
    texts = {id: summary.text for id, summary in found.items()}
    assert [one.issue for one in instances.summarised(ISSUES, texts)] == [f"About {i}." for i in range(12)]
    assert {body["model"] for body in chat.asked} == {"writer-1"}
    assert all("acme/shop" in body["messages"][0]["content"] for body in chat.asked)
    del texts[ISSUES[3].id]
    with pytest.raises(UsageError, match="no summary of acme__shop-3"):
        instances.summarised(ISSUES, texts)


def test_faults_that_pass_are_waited_for(chat: Chat, tmp_path: Path) -> None:
    chat.faults = [
        (429, {"Retry-After": "0"}, b"slow down"),
        (500, {}, b"oops"),
        None,
        (503, {"Retry-After": "0"}, b""),
    ]
    found = summaries.Writer(f"{chat.url}#other").write(ISSUES, tmp_path / "s.jsonl")
    assert len(found) == 12 and len(chat.asked) == 16
    assert {body["model"] for body in chat.asked} == {"other"}


def test_a_later_run_asks_for_the_rest_only(chat: Chat, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    usual = chat.answer
    chat.answer = lambda text: (400, {}, b'{"error": "too long"}') if text.endswith("number 7.") else usual(text)
    with pytest.raises(ModelError, match=r"no summary of acme__shop-7: http\S+ refuses the request \(400 .*too long"):
        summaries.Writer(chat.url).write(ISSUES, path)
    done = summaries.read(path)
    assert 4 <= len(done) <= 11 and "acme__shop-7" not in done
    with path.open("ab") as file:
        file.write(b'{"instance_id": "acme__shop-7", "summ')  # killed while it wrote
    assert summaries.read(path) == done
    chat.answer = usual
    chat.asked.clear()
    found = summaries.Writer(chat.url).write(ISSUES, path)
    assert len(found) == 12 and len(chat.asked) == 12 - len(done)
    assert summaries.read(path) == found
    chat.asked.clear()
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # a whole line without its end is one
    assert summaries.Writer(chat.url).write(ISSUES, path) == found and not chat.asked


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (completion(" \n"), "gives an empty answer"),
        (completion("<think>hm</think>\n"), "gives an empty answer"),
        (completion("It is", "length"), "cut off at 4,096 tokens"),
        (completion(None), "gives no chat completion"),
        (b'{"object": "list"}', "gives no chat completion"),
        (b"<html>", "refuses the request"),
    ],
)
def test_an_answer_that_is_no_summary_is_refused(chat: Chat, tmp_path: Path, raw: bytes, says: str) -> None:
    chat.answer = lambda text: (200, {}, raw)
    with pytest.raises(ModelError, match=f"no summary of acme__shop-[0-3]: .*{says}"):
        summaries.Writer(chat.url).write(ISSUES, tmp_path / "s.jsonl")
    assert summaries.read(tmp_path / "s.jsonl") == {}


def test_thoughts_are_no_part_of_it(chat: Chat, tmp_path: Path) -> None:
    chat.answer = lambda text: (200, {}, completion("<think>Let me see.</think>\nIt fails."))
    found = summaries.Writer(chat.url).write(ISSUES, tmp_path / "s.jsonl")
    assert {one.text for one in found.values()} == {"It fails."}


def test_the_key_is_sent_and_its_refusal_named(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_API_KEY", "secret")
    chat.answer = lambda text: (401, {}, b"")
    with pytest.raises(ModelError, match="denies access"):
        summaries.Writer(chat.url).write(ISSUES, tmp_path / "s.jsonl")
    assert set(chat.keys) == {"Bearer secret"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing\n", "line 1, is no object"),
        ('{"instance_id": "a"}\n', "line 1, is no object"),
        ('{"instance_id": "a", "summary": "b"}\n{"instance_id": "c", "summary": " "}\n', "line 2, has no text"),
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(UsageError, match=says):
        summaries.read(tmp_path / "s.jsonl")
