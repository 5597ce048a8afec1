"""TLS: the handshake over HTTP and gRPC with one certificate, and files that are none."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from openai import DefaultHttpxClient, OpenAI

from embedcode.errors import UsageError
from embedcode.serve import kserve, tls

from .serving import MODEL, PATIENCE, Server, environment, serving


@dataclass
class Pair:
    certificate: Path
    key: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


def made(folder: Path, name: str, kind: str = "ec -pkeyopt ec_paramgen_curve:P-256") -> Pair:
    """A certificate of this machine's, good for a hundred years, and its key."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("certificates are made with openssl, which is not installed")
        pytest.skip("certificates are made with openssl, which is not installed")
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = f"openssl req -x509 -newkey {kind} -nodes -days 36500 -subj /CN=localhost"
    files = ["-addext", names, "-out", str(pair.certificate), "-keyout", str(pair.key)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture(scope="module")
def both(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The server, and where its gRPC is."""
    trust = ssl.create_default_context(cafile=pair.certificate)
    home = tmp_path_factory.mktemp("tls-home")
    with serving(home, "--grpc-port", "0", *pair.arguments, trust=trust) as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline().strip()
        assert re.fullmatch(r"grpcs://127\.0\.0\.1:\d+", line)
        yield server, line.removeprefix("grpcs://")


def test_http_is_spoken_over_tls(both: tuple[Server, str]) -> None:
    server, _ = both
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", server.address)
    assert server.embed("a session")[0] == 200
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
        assert server.trust is not None
        with server.trust.wrap_socket(line, server_hostname="localhost") as secured:
            assert secured.version() in ("TLSv1.2", "TLSv1.3")
    client = DefaultHttpxClient(verify=server.trust)
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, http_client=client) as openai:
        assert len(openai.embeddings.create(model=MODEL, input="a session").data[0].embedding) == 384


def test_the_image_s_health_check_asks_over_tls_where_the_server_speaks_it(both: tuple[Server, str]) -> None:
    server, _ = both
    assert server.healthy(EMBEDCODE_SERVE_TLS_CERT="/keys/certificate.pem")
    assert not server.healthy()


def test_who_does_not_trust_the_certificate_gets_nothing(both: tuple[Server, str]) -> None:
    server, place = both
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(line, server_hostname="localhost")
    with grpc.secure_channel(place, grpc.ssl_channel_credentials()) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{kserve.SERVICE}/ServerLive")(b"", timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_is_sent_in_the_clear_is_not_answered(both: tuple[Server, str]) -> None:
    server, place = both
    port = int(place.rpartition(":")[2])
    for one in (server.port, port):
        for content in (
            b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01" + b"\xff" * 500,
            b"\0" * 99,
        ):
            found = b""
            with socket.create_connection(("127.0.0.1", one), timeout=PATIENCE) as line, suppress(ConnectionError):
                line.sendall(content)
                line.shutdown(socket.SHUT_WR)
                while block := line.recv(4096):
                    found += block
            assert b"HTTP/" not in found
            assert b"embedcode" not in found
    with grpc.insecure_channel(place) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{kserve.SERVICE}/ServerLive")(b"", timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.ready()


def test_grpc_is_spoken_over_tls_with_the_same_certificate(both: tuple[Server, str], pair: Pair) -> None:
    server, place = both
    text = triton.InferInput("text", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([["a session"]], object))
    with triton.InferenceServerClient(place, ssl=True, root_certificates=str(pair.certificate)) as client:
        found = client.infer("embedcode_small", [text], client_timeout=PATIENCE)
    expected = server.embed("a session")[1]["data"][0]["embedding"]
    assert np.array_equal(found.as_numpy("embeddings")[0], np.array(expected, np.float32))


def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    first, second = made(tmp_path, "first"), made(tmp_path, "second", "rsa:2048")
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")

    def put(pair: Pair) -> None:
        for source, place in ((pair.certificate, used.certificate), (pair.key, used.key)):
            shutil.copy(source, place.with_suffix(".new"))
            place.with_suffix(".new").replace(place)

    def seen(port: int) -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))

    def is_taken(pair: Pair, *ports: int) -> None:
        wanted = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
        end = time.monotonic() + PATIENCE
        while {seen(port) for port in ports} != {wanted}:
            assert time.monotonic() < end
            time.sleep(0.2)

    put(first)
    trust = ssl.create_default_context(cafile=first.certificate)
    trust.load_verify_locations(second.certificate)
    with serving(tmp_path / "home", "--grpc-port", "0", *used.arguments, trust=trust) as server:
        assert server.process.stdout is not None
        ports = server.port, int(server.process.stdout.readline().rpartition(":")[2])
        is_taken(first, *ports)
        shutil.copy(second.key, used.key)  # which does not fit, as between the two files of a renewal
        end = time.monotonic() + PATIENCE
        while not any("is not the key of" in event.get("trouble", "") for event in server.events()):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert server.metric("embedcode_certificate_not_taken") == 1
        assert server.embed("a session")[0] == 200
        put(second)
        is_taken(second, *ports)
        assert server.embed("a session")[0] == 200
        put(first)
        is_taken(first, *ports)
        assert server.embed("a session")[0] == 200
        assert server.metric("embedcode_certificate_not_taken") == 0
        assert [event["event"] for event in server.events() if "certificate" in event["event"]] == [
            "certificate",
            "certificate renewed",
            "certificate",
            "certificate renewed",
        ]


# ---- files that are none -----------------------------------------------------------------------------------------


def test_files_that_are_none_are_named_with_the_cure(pair: Pair, tmp_path: Path) -> None:
    other = made(tmp_path, "other")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(pair.key), "-out", str(locked), "-passout", "pass:opensesame"]
    subprocess.run(command, check=True, capture_output=True)
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.write_bytes(b"")
    broken.write_bytes(pair.certificate.read_bytes()[:200])
    for certificate, key, at, said in (
        (tmp_path / "none", pair.key, tmp_path / "none", "no such file"),
        (pair.certificate, tmp_path, tmp_path, "is a directory"),
        (empty, pair.key, empty, "has no certificate"),
        (broken, pair.key, broken, "has no certificate"),
        (pair.key, pair.key, pair.key, "has no certificate"),
        (pair.certificate, empty, empty, "has no private key"),
        (pair.certificate, pair.certificate, pair.certificate, "has no private key"),
        (pair.certificate, other.key, other.key, "is not the key of"),
        (pair.certificate, locked, locked, "is encrypted"),
    ):
        with pytest.raises(UsageError, match=f"{re.escape(str(at))} .*{said}"):
            tls.check(certificate, key)
    tls.check(pair.certificate, pair.key)


def test_a_server_with_a_wrong_key_ends_with_one_sentence(pair: Pair, tmp_path: Path) -> None:
    for arguments, said in (
        (("--tls-cert", str(pair.certificate), "--tls-key", str(pair.certificate)), "has no private key"),
        (("--tls-cert", str(pair.certificate)), "TLS needs both files"),
    ):
        command = [sys.executable, "-m", "embedcode", "serve", "--port", "0", *arguments]
        done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
