"""The files in deploy/: they can be read, and name only what there is."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from embedcode import __version__
from embedcode.serve.guard import Guard
from embedcode.serve.journal import Journal
from embedcode.serve.metrics import Metrics
from embedcode.serve.options import Options, load, nim_settings

from .serving import HEALTH

DEPLOY = Path(__file__).parents[2] / "deploy"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


def test_alerts_name_metrics_that_the_server_has() -> None:
    known = {"up"}
    for family in text_string_to_metric_families(Metrics().text().decode()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        known |= {family.name + suffix for suffix in suffixes}
    assert len(rules()) == len({rule["alert"] for rule in rules()})
    for rule in rules():
        named = set(re.findall(r"\b(?:embedcode_\w+|up)\b", rule["expr"]))
        assert named
        assert named <= known, named - known
        assert len(re.findall(r'\{job="embedcode"', rule["expr"])) == len(
            re.findall(r"\b(?:embedcode_|up\b)", rule["expr"])
        )
        assert rule["annotations"]["summary"]


def test_the_first_mistake_is_a_rise_that_an_alert_sees() -> None:
    """Of a counter that begins at 1 there is none; and one mistake in an hour is no rate above 0 for five minutes."""
    (rule,) = [rule for rule in rules() if rule["alert"] == "EmbedcodeServerErrors"]
    assert "increase(" in rule["expr"]
    assert "for" not in rule
    metrics = Metrics()
    Guard(Journal("error", True, io.StringIO()), metrics, frozenset(), frozenset({"/v1/embeddings"}))
    assert b'embedcode_requests_total{path="/v1/embeddings",status="500"} 0.0' in metrics.text()


def test_texts_that_are_cut_are_a_share_of_all_that_are_answered() -> None:
    """Not of those that are computed: the same long text five times was 500 %."""
    (rule,) = [rule for rule in rules() if rule["alert"] == "EmbedcodeTruncates"]
    cut, answered = rule["expr"].split("/")
    assert "embedcode_truncated_texts_total" in cut
    wanted = {f"embedcode_{name}_total" for name in ("cache_hits", "cache_misses", "shared_texts")}
    assert set(re.findall(r"embedcode_\w+", answered)) == wanted


def test_searches_that_find_no_turn_are_among_what_is_refused() -> None:
    """As they are among what is asked."""
    (rule,) = [rule for rule in rules() if rule["alert"] == "EmbedcodeRefuses"]
    refused, asked = rule["expr"].split("/ sum")
    assert "searches" in refused and "/v1/search" in asked


def test_every_alert_is_in_the_docs() -> None:
    told = (DEPLOY.parent / "docs" / "operate.md").read_text()
    for name in re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text()):
        assert f"`{name}`" in told


def test_the_image_has_keys_and_sets_options_that_there_are() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    named = {name.lower() for name in re.findall(r"EMBEDCODE_SERVE_(\w+)=", text)}
    assert named <= {one.name for one in fields(Options)}
    assert "api_keys" in named
    assert "INSECURE" not in text
    services = compose()["services"]
    labelled = re.findall(r'image\.version="([^"]+)"', text)
    assert labelled == [__version__] and services["embedcode"]["image"] == f"embedcode:{__version__}"
    assert all(re.search(r":v?\d", service["image"]) for service in services.values())
    assert all(service["mem_limit"] and service["pids_limit"] and service["logging"] for service in services.values())
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    grace = services["embedcode"]["stop_grace_period"]
    assert int(grace.rstrip("s")) > Options().drain_seconds


@pytest.mark.parametrize(
    ("given", "address", "grpc"),
    [
        ({}, ("0.0.0.0", 8000), ("0.0.0.0", 8001)),
        ({"NIM_HTTP_API_PORT": "9000"}, ("0.0.0.0", 9000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_BIND_ADDR": "127.0.0.1:9000"}, ("127.0.0.1", 9000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_GRPC_BIND_ADDR": "127.0.0.1:9001"}, ("0.0.0.0", 8000), ("127.0.0.1", 9001)),
        ({"EMBEDCODE_SERVE_PORT": "9000", "NIM_HTTP_API_PORT": "9002"}, ("0.0.0.0", 9000), ("0.0.0.0", 8001)),
        ({"EMBEDCODE_SERVE_GRPC_PORT": "9001"}, ("0.0.0.0", 8000), ("0.0.0.0", 9001)),
        ({"EMBEDCODE_SERVE_HOST": "10.1.2.3"}, ("10.1.2.3", 8000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_BIND_ADDR": "fd00::1"}, ("fd00::1", 8000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_BIND_ADDR": "[fd00::1]:9000"}, ("fd00::1", 9000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_BIND_ADDR": "::"}, ("::", 8000), ("0.0.0.0", 8001)),
        ({"NIM_SERVER_BIND_ADDR": "[::]:9000"}, ("::", 9000), ("0.0.0.0", 8001)),
    ],
)
def test_the_image_listens_where_it_is_told_by_either_name(
    given: dict[str, str], address: tuple[str, int], grpc: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dict(re.findall(r"((?:NIM|EMBEDCODE_SERVE)_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    for name, value in (image | given).items():
        monkeypatch.setenv(name, value)
    found = load({})
    assert (found.host, found.port) == address
    assert (found.grpc_host, found.grpc_port) == grpc
    asking = "import urllib.request as u; u.OpenerDirector.open = lambda self, url, **_: print(url)"
    said = subprocess.run(
        [sys.executable, "-c", f"{asking}\n{HEALTH.read_text()}"],
        env=image | given, capture_output=True, text=True, check=True,
    )  # fmt: skip
    asked = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "fd00::1": "[fd00::1]"}.get(address[0], address[0])
    assert said.stdout == f"http://{asked}:{address[1]}/v1/health/ready\n"


def test_the_images_health_check_asks_no_proxy() -> None:
    """Docker gives its own to every container, and a healthy server was restarted for ever."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {"HTTP_PROXY": place, "http_proxy": place, "EMBEDCODE_SERVE_PORT": str(server.getsockname()[1])}
        with subprocess.Popen([sys.executable, str(HEALTH)], env=environment) as asking:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100).startswith(b"GET /v1/health/ready")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert asking.wait(30) == 0


def test_the_images_folder_is_where_it_is_told_by_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    image = dict(re.findall(r"((?:NIM|EMBEDCODE)_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    monkeypatch.delenv("EMBEDCODE_HOME", raising=False)
    for given, home in (({}, "/data"), ({"NIM_CACHE_PATH": "/opt/nim/.cache"}, "/opt/nim/.cache")):
        for name, value in (image | given).items():
            monkeypatch.setenv(name, value)
        assert nim_settings() == {"home": home}
    monkeypatch.setenv("EMBEDCODE_HOME", "/elsewhere")
    assert nim_settings() == {}


def test_the_folder_of_the_keys_is_mounted_and_is_no_part_of_the_repository() -> None:
    """A new key replaces the file: mounted alone, as a secret is, the server saw the old one until its next start."""
    (path,) = re.findall(r"EMBEDCODE_SERVE_API_KEYS=(\S+)", (DEPLOY / "Dockerfile").read_text())
    service = compose()["services"]["embedcode"]
    assert "secrets" not in service
    assert f"./keys:{Path(path).parent}:ro" in service["volumes"]
    kept_out = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "/deploy/keys/" in kept_out
    clear = compose()["secrets"]["prometheus.key"]["file"]
    assert "/deploy/" + clear.removeprefix("./") in kept_out
