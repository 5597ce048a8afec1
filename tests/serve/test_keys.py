"""Keys: the file, what a key is for, its quota, and the server that asks for one."""

from __future__ import annotations

import base64
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedcode.cli import main
from embedcode.errors import UsageError
from embedcode.serve import keys
from embedcode.serve.keys import Key, Keys
from embedcode.serve.queue import FullError
from embedcode.serve.server import audited

from .serving import MODEL, PATIENCE, Server, environment, serving, shop


@dataclass
class Clock:
    now: float = 10.0

    def __call__(self) -> float:
        return self.now


def test_a_key_that_was_made_is_found_and_stands_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    secret = keys.add(path, "indexer", ("embed",), 500)
    other = keys.add(path, "person")
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text()
    known = Keys(path)
    found = known.find(secret)
    assert found is not None
    assert (found.name, found.scopes, found.tokens_per_minute) == ("indexer", ("embed",), 500)
    assert known.find(other).name == "person"  # type: ignore[union-attr]
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), "\ud800", found.sha256):
        assert known.find(wrong) is None


def test_a_file_that_may_not_be_read_is_not_to_be_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it was mounted into a container, whose user is another."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(UsageError, match="make it with --new-key"):
        keys.read(tmp_path / "keys.toml")
    monkeypatch.setattr(keys, "read_small", refuse)
    with pytest.raises(UsageError, match=r"cannot be read \(permission denied\): let this user read it$"):
        keys.read(tmp_path / "keys.toml")


def test_a_file_that_changes_is_read_again_and_a_broken_one_is_not_taken(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    secret = keys.add(path, "one", tokens_per_minute=60)
    known = Keys(path, clock)
    known.find(secret).spend(50, 1)  # type: ignore[union-attr]
    later = keys.add(path, "two")
    clock.now += 2
    assert known.find(later) is not None
    assert known.find(secret).left == 10  # type: ignore[union-attr]
    whole = path.read_text()
    path.write_text(whole + "[[key]\n")
    clock.now += 2
    assert known.find(secret) is not None
    assert "TOML" in known.trouble
    path.write_text("")  # as an editor does, that writes it anew
    clock.now += 2
    assert known.find(secret) is not None
    clock.now += 2
    assert known.find(secret) is None, "the last key is taken out, too"
    assert "no key" in known.trouble
    path.write_text(whole)
    clock.now += 2
    assert known.find(secret) is not None
    path.write_text(whole.partition("\n\n")[2])
    clock.now += 2
    assert known.find(secret) is None
    assert known.find(later) is not None
    assert known.trouble == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no key"),
        ("x = 1\n", "more than"),
        ("[[key]]\n", "no name"),
        ("[key]\nname='a'\n", "more than"),
        ("[[key]]\nname='a'\nsha256='opensesame'\n", "no sha256"),
        ("[[key]]\nname='a'\nkey='opensesame'\n", "unknown field"),
        (f"[[key]]\nname='a'\nsha256='{'0' * 64}'\nscopes=['all']\n", "scope"),
        (f"[[key]]\nname='a'\nsha256='{'0' * 64}'\ntokens_per_minute='5'\n", "int"),
        (f"[[key]]\nname='a'\nsha256='{'0' * 64}'\n" * 2, "two keys"),
    ],
)
def test_a_file_that_is_none_is_an_error_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(str(path))) as error:
        Keys(path)
    assert told in str(error.value)
    assert "opensesame" not in str(error.value)


def test_a_key_that_is_as_it_was_has_what_requests_under_way_give_back(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.toml", 0.0
    secret = keys.add(path, "a", tokens_per_minute=600)
    known = Keys(path, lambda: now)
    under_way = known.find(secret)
    assert under_way is not None
    under_way.spend(600, 1.0)
    keys.add(path, "b")
    now = 10.0
    again = known.find(secret)
    assert again is not None
    under_way.spend(-600, 1.0)  # there was no answer for it
    assert again.left == 600


def test_a_quota_fills_up_by_the_minute() -> None:
    key = Key("a", "", tokens_per_minute=600)
    key.spend(600, 100.0)
    with pytest.raises(FullError) as full:
        key.spend(100, 102.0)  # 20 have come back
    assert (full.value.retry_after, full.value.reason) == (8, "quota")
    key.spend(100, 110.0)
    Key("b", "").spend(10**9, 1.0)
    large = Key("c", "", tokens_per_minute=600)
    large.spend(1500, 1.0)  # more than a minute's: taken when the minute is full, and paid for afterwards
    with pytest.raises(FullError):
        large.spend(1, 61.0)
    large.spend(-100, 61.0)  # what is given back is taken, however much is owed
    assert large.left == -200


# ---- the server --------------------------------------------------------------------------------------------------


@dataclass
class Keyed:
    server: Server
    embedder: str
    searcher: str
    guest: str
    audit: Path

    def send(self, path: str, body: object = None, key: str = "") -> tuple[int, dict[str, str], bytes]:
        return self.server.send(path, body, **({"Authorization": f"Bearer {key}"} if key else {}))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    home = tmp_path_factory.mktemp("keyed")
    path = home / "keys.toml"
    command = [sys.executable, "-m", "embedcode", "serve", "--api-keys", str(path), "--new-key"]
    made = [
        subprocess.run(
            [*command, name, "--scope", scope, "--quota", quota],
            env=environment(home), capture_output=True, encoding="utf-8", check=True,
        ).stdout.strip()
        for name, scope, quota in (("indexer", "embed", "300"), ("reader", "search", "0"), ("guest", "search", "60"))
    ]  # fmt: skip
    with serving(
        home, "--api-keys", str(path), "--index", str(shop(home)), "--host", "0.0.0.0",
        EMBEDCODE_SERVE_AUDIT_LOG=str(home / "audit"), EMBEDCODE_SERVE_LOG_TEXTS="true",
    ) as server:  # fmt: skip
        yield Keyed(server, *made, home / "audit")


def test_nothing_but_health_is_answered_without_a_key(keyed: Keyed) -> None:
    asked: dict[str, object] = {"/v1/embeddings": {"model": MODEL, "input": "a"}, "/v1/search": {"query": "a"}}
    told = ["/v1/models", "/v1/metrics", "/metrics", "/v1/metadata", "/v1/search/status", "/v1/status", "/none"]
    paths = [*told, "/", "/docs", "/search", "/openapi.json", *asked]
    for path in paths:
        for key in ("", "ec-wrong"):
            status, headers, content = keyed.send(path, asked.get(path), key)
            assert (path, status) == (path, 401)
            assert json.loads(content)["error"]["code"] == "invalid_api_key"
            assert ("not known" if key else "needs a key") in json.loads(content)["message"]
            browser = path in ("/", "/docs", "/search")
            assert headers["www-authenticate"].startswith("Basic" if browser else "Bearer")
    assert keyed.send("/v1/health/ready")[0] == keyed.send("/v1/health/live")[0] == 200
    assert keyed.send("/v1/models", key=keyed.searcher)[0] == 200


def test_a_key_is_good_for_what_it_is_for(keyed: Keyed) -> None:
    body = {"model": MODEL, "input": "a"}
    assert keyed.send("/v1/embeddings", body, keyed.embedder)[0] == 200
    assert keyed.send("/v1/embeddings", body, keyed.searcher)[0] == 403
    assert keyed.send("/v1/search/status", key=keyed.searcher)[0] == 200
    assert keyed.send("/v1/search/status", key=keyed.embedder)[0] == 403
    assert keyed.send("/", key=keyed.embedder)[0] == 200
    assert keyed.server.send("/v1/models", **{"api-key": keyed.searcher})[0] == 200  # Azure's client
    assert keyed.server.send("/v1/models", **{"api-key": "ec-wrong"})[0] == 401
    password = base64.b64encode(f"me:{keyed.searcher}".encode()).decode()
    assert keyed.server.send("/", Authorization=f"Basic {password}")[0] == 200
    assert keyed.server.send("/", Authorization="Basic ???")[0] == 401


def test_a_key_has_its_tokens_a_minute(keyed: Keyed) -> None:
    text = "the parcel goes to the harbour by ship " * 20
    answers = [keyed.send("/v1/embeddings", {"model": MODEL, "input": f"{i} {text}"}, keyed.embedder) for i in range(4)]
    status, headers, content = answers[-1]
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert json.loads(content)["type"] == "rate_limit_error"
    told = {name: headers[f"x-ratelimit-{name}-tokens"] for name in ("limit", "remaining", "reset")}
    assert told["limit"] == "300" and int(told["remaining"]) < 200 and 1 <= int(told["reset"].removesuffix("s")) <= 60
    assert "x-ratelimit-limit-tokens" not in keyed.send("/v1/models", key=keyed.searcher)[1]  # which has no quota


def test_the_index_is_searched_with_the_servers_own_engine(keyed: Keyed) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        status, _, content = keyed.send("/v1/search", {"query": "log a visitor out"}, keyed.searcher)
        if status == 200 and json.loads(content)["indexed"]["embedded"] == 1:
            break
        assert time.monotonic() < end, content
        time.sleep(0.2)
    found = json.loads(keyed.send("/v1/search", {"query": "log a visitor out"}, keyed.searcher)[2])
    assert found["hits"][0]["path"] == "session.py"
    assert any(reason.startswith("vector") for reason in found["hits"][0]["why"])
    assert keyed.send("/search", key=keyed.searcher)[0] == 200
    metrics = keyed.send("/metrics", key=keyed.searcher)[2].decode()
    assert re.search(r'embedcode_search_seconds_count\{path="/v1/search"\} [1-9]', metrics)


def test_a_search_counts_what_it_asks(keyed: Keyed) -> None:
    def asked(**more: str) -> tuple[int, dict[str, str], bytes]:
        return keyed.send("/v1/search", {"query": "where is the visitor logged out? " * 6, **more}, keyed.guest)

    assert asked(mode="lexical")[0] == 200
    for _ in range(5):
        assert asked(since="no such revision")[0] == 400  # which costs nothing
    assert asked()[0] == 200  # with 44 tokens of the 60
    status, headers, content = asked()
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "This key has used up its tokens" in json.loads(content)["message"]
    assert (
        keyed.server.send("/v1/metrics", Authorization=f"Bearer {keyed.guest}")[2]
        .decode()
        .count('embedcode_refused_requests_total{reason="search_quota"} 1.0')
        == 1
    )
    assert asked(mode="lexical")[0] == 200


def test_texts_are_logged_where_that_is_asked_for_and_nowhere_else(keyed: Keyed) -> None:
    keyed.send("/v1/embeddings", {"model": MODEL, "input": ["a lighthouse " * 100, *"bcdefghijk"]}, keyed.embedder)
    keyed.send("/v1/embeddings", {"model": MODEL, "input": "half a \ud800 lighthouse"}, keyed.embedder)
    keyed.send("/v1/search", {"query": "a lighthouse"}, keyed.searcher)
    end, logged = time.monotonic() + PATIENCE, []
    while len(logged) < 3:  # a thread of its own writes them
        assert time.monotonic() < end, logged
        time.sleep(0.1)
        lines = keyed.server.log.read_text().split("\n")[:-1]
        logged = [event["texts"] for event in map(json.loads, lines) if "lighthouse" in str(event.get("texts"))]
    assert logged == [[("a lighthouse " * 100)[:200], *"bcdefgh"], ["half a \ufffd lighthouse"], ["a lighthouse"]]
    assert "lighthouse" not in keyed.audit.read_text()
    assert "lighthouse" not in keyed.send("/v1/status", key=keyed.embedder)[2].decode()


def test_the_audit_log_tells_which_key_did_what(keyed: Keyed) -> None:
    lines = [json.loads(line) for line in keyed.audit.read_text().splitlines()]
    assert lines.pop(0)["event"] == "opened"
    assert {line["key"] for line in lines} == {"indexer", "reader", "guest", None}
    assert any((line["key"], line["path"], line["status"]) == ("reader", "/v1/embeddings", 403) for line in lines)
    assert all(line["status"] == 401 for line in lines if line["key"] is None)
    assert keyed.audit.stat().st_mode & 0o777 == 0o600
    for secret in (keyed.embedder, keyed.searcher):
        assert secret not in keyed.audit.read_text() + keyed.server.log.read_text()


def test_without_keys_it_listens_to_this_machine_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedcode", "serve", "--port", "0", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert "--api-keys" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_of_a_new_key_alone_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--quota", "5"], ["--scope", "embed"], ["--key-index", "shop"], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["embedcode", "serve", "--port", "0", *wrong])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, wrong[0] in "".join(capsys.readouterr())) == (2, True)


def test_an_audit_log_that_cannot_be_written_at_the_start_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"/dev/full cannot be written \(No space left on device\): give another"):
        audited(Path("/dev/full"))


def test_an_audit_log_that_cannot_be_written_any_more_is_told_once_and_its_lines_are_counted(tmp_path: Path) -> None:
    file, audit = tmp_path / "keys.toml", tmp_path / "audit"
    header = f"Bearer {keys.add(file, 'reader')}"
    audit.write_bytes(b"\n" * 2_000_000)  # the log is smaller
    with serving(tmp_path, "--api-keys", str(file), EMBEDCODE_SERVE_AUDIT_LOG=str(audit)) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (audit.stat().st_size,) * 2)
        for _ in range(3):
            assert server.ask("/v1/models", Authorization=header)[0] == 200
            time.sleep(0.2)  # they are written together
        metrics = server.send("/metrics", Authorization=header)[2]
        assert b"embedcode_audit_unwritten_lines_total 3.0" in metrics
        assert server.end() == 0
        told = [event for event in server.events() if event["event"] == "audit"]
    assert [(event["level"], event["file"]) for event in told] == [("error", str(audit))]
    assert "File too large" in told[0]["trouble"]
