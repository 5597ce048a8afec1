"""Options of the server: flags above EMBEDCODE_SERVE_* above NVIDIA's names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from embedcode.cli import main
from embedcode.errors import UsageError
from embedcode.serve import options
from embedcode.serve.options import Options


def test_the_first_of_flag_own_variable_and_nvidias_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.load({}) == Options()
    monkeypatch.setenv("NIM_HTTP_API_PORT", "9000")
    assert options.load({}).port == 9000
    monkeypatch.setenv("EMBEDCODE_SERVE_PORT", "9001")
    assert options.load({}).port == 9001
    assert options.load({"port": 9002, "host": None}).port == 9002


def test_nvidias_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NIM_SERVER_BIND_ADDR": "0.0.0.0:8080",
        "NIM_SERVER_GRPC_BIND_ADDR": "[::1]:8081",
        "NIM_SERVER_MAX_QUEUE_SIZE": "7",
        "NIM_SERVER_MAX_WAIT_MS": "1",
        "NIM_SERVER_REQUEST_TIMEOUT_S": "2.5",
        "NIM_SERVER_HTTP_BODY_LIMIT_BYTES": "123456",
        "NIM_SERVER_TLS_CERT_PATH": "/cert",
        "NIM_SERVER_TLS_KEY_PATH": "/key",
        "NIM_SERVED_MODEL_NAME": "mine",
        "NIM_PIPELINE_MAX_BATCH_SIZE": "8",
        "NIM_PIPELINE_MAX_SEQ_LEN": "128",
        "NIM_JSONL_LOGGING": "0",
        "NIM_ENGINE_PRECISION": "bf16",
        "NIM_CACHE_PATH": "/cache",
        "NIM_LOG_LEVEL": "WARNING",
    }.items():
        monkeypatch.setenv(name, value)
    found = options.load({})
    assert (found.host, found.port, found.grpc_host, found.grpc_port) == ("0.0.0.0", 8080, "::1", 8081)
    assert (found.max_requests, found.timeout, found.body_bytes) == (7, 2.5, 123456)
    assert (found.tls_cert, found.tls_key) == (Path("/cert"), Path("/key"))
    assert (found.served_name, found.batch_texts, found.max_tokens, found.json_logs) == ("mine", 8, 128, False)
    for name in ("HOME", "PRECISION", "LOG_LEVEL"):
        monkeypatch.delenv(f"EMBEDCODE_{name}", raising=False)
    assert options.nim_settings() == {"precision": "bf16", "home": "/cache", "log_level": "warning"}
    monkeypatch.setenv("NIM_LOG_LEVEL", "CRITICAL")
    assert options.nim_settings()["log_level"] == "error"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NIM_ENGINE_PRECISION", "fp16", "must be one of fp32, bf16, int8; the nearest of them is bf16"),
        ("NIM_ENGINE_PRECISION", "fp4", "must be one of fp32, bf16, int8"),
        ("NIM_LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
    ],
)
def test_a_setting_of_nvidias_that_there_is_none_of_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for own in ("PRECISION", "LOG_LEVEL"):
        monkeypatch.delenv(f"EMBEDCODE_{own}", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name} = '{value}' {said}$"):
        options.nim_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDCODE_SERVE_PORT", "70000"),
        ("EMBEDCODE_SERVE_PORT", "http"),
        ("EMBEDCODE_SERVE_TIMEOUT", "nan"),
        ("EMBEDCODE_SERVE_TIMEOUT", "-1"),
        ("EMBEDCODE_SERVE_STRICT_NIM", "perhaps"),
        ("EMBEDCODE_SERVE_DEFAULT_INPUT_TYPE", "document"),
        ("NIM_SERVER_MAX_QUEUE_SIZE", "0"),
        ("NIM_SERVER_BIND_ADDR", "host:port"),
        ("EMBEDCODE_SERVE_TLS_CERT", "/cert"),
    ],
)
def test_a_value_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name if "TLS" not in name else "tls_key"):
        options.load({})


def test_repositories_have_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = tmp_path / "my shop"
    assert options.load({"index": [str(shop), f"till={tmp_path}/a=b"]}).index == {
        "my shop": shop,
        "till": tmp_path / "a=b",
    }
    monkeypatch.setenv("EMBEDCODE_SERVE_INDEX", f"{tmp_path}/a=b/shop, till=/x")
    assert options.load({}).index == {"shop": tmp_path / "a=b" / "shop", "till": Path("/x")}
    for wrong, said in (
        (["/x/shop", "/y/shop"], "two indexes of the name shop"),
        (["till="], "NAME=PATH"),
        (["/"], "NAME"),
    ):
        with pytest.raises(UsageError, match=f"--index .*{said}"):
            options.load({"index": wrong})


def test_hosts_are_taken_without_their_port_and_what_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["Embed.Example:8000", "10.1.2.3", "my_pod-1", "[fd00::1]:8000", "[fd00::2]", "fd00::3"]
    wanted = ("embed.example", "10.1.2.3", "my_pod-1", "fd00::1", "fd00::2", "fd00::3")
    assert options.load({"allowed_hosts": given}).allowed_hosts == wanted
    monkeypatch.setenv("EMBEDCODE_SERVE_ALLOWED_HOSTS", ", ".join(given))
    assert options.load({}).allowed_hosts == wanted
    for wrong in ("https://a.example", "*", "*.example", "a.example/", "", " ", "a:http", "a,b", "[fd00::1", ":80"):
        with pytest.raises(UsageError, match=f"^--allowed-host = .* has {re.escape(repr(wrong))}, which is no host: "):
            options.load({"allowed_hosts": ["b.example", wrong]})


def test_every_option_can_be_read() -> None:
    assert options._READERS.keys() == set(Options.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("ALLOWED_HOST", r"did you mean EMBEDCODE_SERVE_ALLOWED_HOSTS\?"),
        ("port", r"did you mean EMBEDCODE_SERVE_PORT\?"),
        ("MODEL", r"did you mean EMBEDCODE_MODEL\?"),
        ("XYZ", r"take it out: docs/serve\.md has a table of those there are"),
    ],
)
def test_a_variable_that_is_no_option_is_named_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, cure: str
) -> None:
    monkeypatch.setenv(f"EMBEDCODE_SERVE_{name}", "a")
    with pytest.raises(UsageError, match=f"environment EMBEDCODE_SERVE_{name} is no option of the server; {cure}"):
        options.load({})


def test_an_option_without_a_flag_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedcode", "serve", "--audit-log", "f"])
    with pytest.raises(SystemExit):
        main()
    assert "set EMBEDCODE_SERVE_AUDIT_LOG" in "".join(capsys.readouterr())


def test_every_option_is_in_the_docs() -> None:
    table = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8").partition("## Options")[2]
    named = set(re.findall(r"`(?:EMBEDCODE_SERVE)?_(\w+)`", table.partition("\n## ")[0]))
    assert {name.upper() for name in Options.__dataclass_fields__} <= named


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("::", "::", 8000),
        ("::1", "::1", 8000),
        ("fd00::1:2", "fd00::1:2", 8000),
        ("[::1]", "::1", 8000),
        ("[::1]:81", "::1", 81),
        (":81", "0.0.0.0", 81),
        ("host", "host", 8000),
        ("host:81", "host", 81),
    ],
)
def test_an_address_may_be_of_ipv6(monkeypatch: pytest.MonkeyPatch, given: str, host: str, port: int) -> None:
    monkeypatch.setenv("NIM_SERVER_BIND_ADDR", given)
    found = options.load({})
    assert (found.host, found.port) == (host, port)
    monkeypatch.setenv("NIM_SERVER_GRPC_BIND_ADDR", given)
    found = options.load({})
    assert (found.grpc_host, found.grpc_port) == (host, port if port != 8000 else options.GRPC_PORT)


def test_grpc_listens_where_http_does_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --host 0.0.0.0 it was on 127.0.0.1, and nothing said so."""
    assert options.load({"host": "0.0.0.0"}).grpc_host == "0.0.0.0"
    assert options.load({"host": "[::1]"}).grpc_host == "::1"
    monkeypatch.setenv("EMBEDCODE_SERVE_GRPC_HOST", "10.1.2.3")
    assert options.load({"host": "0.0.0.0"}).grpc_host == "10.1.2.3"
