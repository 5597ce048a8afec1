"""Options of the server and where each came from: flags > EMBEDCODE_SERVE_* > NIM_* > default.

What a model is computed with (model, precision, device, threads, home) are settings like everywhere (settings.py), with
NVIDIA's spelling below EMBEDCODE_*. Knows no server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from embedcode.errors import UsageError
from embedcode.serve.keys import INDEX_NAME
from embedcode.settings import LOG_LEVELS, PRECISIONS, Settings

OWN = "EMBEDCODE_SERVE_"
NIM_SETTINGS = {
    "NIM_ENGINE_PRECISION": "precision",
    "NIM_CACHE_PATH": "home",
    "NIM_LOG_LEVEL": "log_level",
}
"""NVIDIA's spelling of settings."""
CHOICES = {"precision": PRECISIONS, "log_level": LOG_LEVELS}
NEAREST = {"fp16": "bf16"}
"""Of NVIDIA's values, those that are too different to be taken for one of ours."""
NIM = {
    "NIM_HTTP_API_PORT": "port",
    "NIM_SERVER_BIND_ADDR": "host",
    "NIM_SERVER_GRPC_BIND_ADDR": "grpc_host",
    "NIM_SERVER_MAX_QUEUE_SIZE": "max_requests",
    "NIM_SERVER_REQUEST_TIMEOUT_S": "timeout",
    "NIM_SERVER_HTTP_BODY_LIMIT_BYTES": "body_bytes",
    "NIM_SERVER_TLS_CERT_PATH": "tls_cert",
    "NIM_SERVER_TLS_KEY_PATH": "tls_key",
    "NIM_SERVED_MODEL_NAME": "served_name",
    "NIM_PIPELINE_MAX_BATCH_SIZE": "batch_texts",
    "NIM_PIPELINE_MAX_SEQ_LEN": "max_tokens",
    "NIM_JSONL_LOGGING": "json_logs",
}
"""NVIDIA's spelling of options. NIM_SERVER_MAX_WAIT_MS is not read, as it has nothing to set: a batch is made of what
waits while the engine computes the last one, and no request is held back to fill it."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*|[^][\s:,/*?#@]+)(?::\d+)?")
"""A name or an address, that of IPv6 in brackets or without, and a port that does not count."""

GRPC_PORT = 8001
"""Where NVIDIA's variable gives an address alone."""
_FLAGS = {"allowed_hosts": "--allowed-host"}
"""Where it is not the option's name."""


@dataclass(frozen=True, slots=True)
class Options:
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_host: str = "127.0.0.1"
    grpc_port: int | None = None
    """None: no gRPC."""
    api_keys: Path | None = None
    insecure_bind: bool = False
    allowed_hosts: tuple[str, ...] = ()
    served_name: str = ""
    default_input_type: str = ""
    accept_token_ids: bool = False
    double_prompts: bool = False
    max_inputs: int = 2048
    max_tokens: int = 0
    max_requests: int = 1024
    max_queue_tokens: int = 0
    timeout: float = 120.0
    batch_tokens: int = 2048
    batch_texts: int = 256
    cache_mb: int = 64
    body_bytes: int = 32_000_000
    header_seconds: float = 15.0
    body_seconds: float = 60.0
    read_seconds: float = 60.0
    strict_nim: bool = False
    drain_seconds: float = 30.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    json_logs: bool = True
    log_texts: bool = False
    audit_log: Path | None = None
    index: Mapping[str, Path] = field(default_factory=dict)
    """Repositories to search, by their names."""


def load(flags: Mapping[str, Any]) -> Options:
    """A flag that is None was not given. UsageError with the place, the name and the value of what is no option."""
    values: dict[str, Any] = {}
    for variable, name in NIM.items():
        if raw := os.environ.get(variable):
            values.update(_read(name, raw, variable, nim=True))
    for variable, raw in os.environ.items():
        if variable.startswith(OWN) and raw:
            values.update(_read(_option(variable), raw, variable))
    for name, value in flags.items():
        if value is not None:
            values.update(_read(name, value, _FLAGS.get(name, f"--{name.replace('_', '-')}")))
    if "host" in values:  # or gRPC alone would not be reached, and nothing would say so
        values.setdefault("grpc_host", values["host"])
    options = Options(**values)
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("TLS needs both files: give tls_cert (the certificate) and tls_key (its key).")
    return options


def _option(variable: str) -> str:
    """The option that a variable of ours is for; UsageError for none: a misspelt one would leave a server as it was."""
    known = {f"{OWN}{one.name.upper()}": one.name for one in fields(Options)}
    if variable not in known:
        from difflib import get_close_matches

        names = {one.name: f"EMBEDCODE_{one.name.upper()}" for one in fields(Settings) if one.name != "sources"}
        names |= {name: own for own, name in known.items()}
        near = get_close_matches(variable.removeprefix(OWN).lower(), names, n=1)
        cure = (
            f"did you mean {names[near[0]]}?" if near else "take it out: docs/serve.md has a table of those there are"
        )
        raise UsageError(f"environment {variable} is no option of the server; {cure}")
    return known[variable]


def variable(flag: str) -> str | None:
    """The variable of an option that is asked for by a flag which there is none of; None where it is no option."""
    name = flag.lstrip("-").replace("-", "_")
    return f"{OWN}{name.upper()}" if name in _READERS else None


def nim_settings() -> dict[str, str]:
    """NVIDIA's spellings of settings that are set, where EMBEDCODE_* is not. UsageError for a value that is none."""
    given = {}
    for variable, name in NIM_SETTINGS.items():
        raw = os.environ.get(variable, "")
        if not raw or os.environ.get(f"EMBEDCODE_{name.upper()}"):
            continue
        if name in CHOICES:
            value = "error" if raw.lower() == "critical" else raw.lower()  # Python's fifth level, which is not used
            if value not in CHOICES[name]:
                near = f"; the nearest of them is {NEAREST[value]}" if value in NEAREST else ""
                raise UsageError(f"{variable} = {raw[:100]!r} must be one of {', '.join(CHOICES[name])}{near}")
            raw = value
        given[name] = raw
    return given


def _read(name: str, raw: Any, place: str, nim: bool = False) -> dict[str, Any]:
    if nim and name in ("host", "grpc_host") and (str(raw).count(":") == 1 or "]:" in str(raw)):
        host, _, port = str(raw).rpartition(":")  # as in 0.0.0.0:8000, and not in ::1
        return {name: _host(host) or "0.0.0.0", **_read(name.replace("host", "port"), port, place)}
    if nim and name == "grpc_host":
        return {name: _host(raw), "grpc_port": GRPC_PORT}
    try:
        return {name: _READERS[name](raw)}
    except (ValueError, TypeError) as error:
        raise UsageError(f"{place} = {str(raw)[:100]!r} {error}") from None


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(raw: Any) -> int:
        try:
            value = int(str(raw))
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def _seconds(raw: Any) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ValueError("must be seconds, more than 0 and at most 86400")
    return value


def _switch(raw: Any) -> bool:
    value = {"1": True, "true": True, "0": False, "false": False}.get(str(raw).lower())
    if value is None:
        raise ValueError("must be true or false")
    return value


def _path(raw: Any) -> Path:
    return Path(raw).expanduser().absolute()


def _host(raw: Any) -> str:
    """An address of IPv6 may stand in brackets."""
    return str(raw).strip("[]")


def _hosts(raw: Any) -> tuple[str, ...]:
    """Without a port, as requests are judged: of what could never match one would notice only that all are refused."""
    found = []
    for part in raw.split(",") if isinstance(raw, str) else raw:
        match = _HOST.fullmatch(part.strip().lower())
        if match is None:
            raise ValueError(f"has {part[:100]!r}, which is no host: give names alone, as in embed.example or 10.1.2.3")
        found.append(match[1].strip("[]"))
    return tuple(found)


def _indexes(raw: Any) -> dict[str, Path]:
    """PATH or NAME=PATH, several with commas between; the name of a folder is its index's if it is given no other."""
    found: dict[str, Path] = {}
    for part in (part.strip() for part in (raw.split(",") if isinstance(raw, str) else raw)):
        given, named, place = part.partition("=")
        if not named or "/" in given:  # which is of the path
            given, place = "", part
        name = given or _path(place).resolve().name
        if not place or not INDEX_NAME.fullmatch(name):
            raise ValueError("names no repository that can be asked by its name: give NAME=PATH")
        if name in found:
            raise ValueError(f"has two indexes of the name {name}: give one of them another, as in NAME={part[:60]}")
        found[name] = _path(place)
    return found


def _role(raw: Any) -> str:
    if str(raw) not in ("", "query", "passage"):
        raise ValueError("must be query or passage")
    return str(raw)


_READERS: dict[str, Callable[[Any], Any]] = {
    "host": _host,
    "port": _whole(0, 65535),
    "grpc_host": _host,
    "grpc_port": _whole(0, 65535),
    "api_keys": _path,
    "insecure_bind": _switch,
    "allowed_hosts": _hosts,
    "served_name": str,
    "default_input_type": _role,
    "accept_token_ids": _switch,
    "double_prompts": _switch,
    "max_inputs": _whole(1, 100_000),
    "max_tokens": _whole(0, 1_000_000),
    "max_requests": _whole(1, 1_000_000),
    "max_queue_tokens": _whole(0, 1_000_000_000),
    "timeout": _seconds,
    "batch_tokens": _whole(16, 1_000_000),
    "batch_texts": _whole(1, 10_000),
    "cache_mb": _whole(0, 1_000_000),
    "body_bytes": _whole(1_000, 2_000_000_000),
    "header_seconds": _seconds,
    "body_seconds": _seconds,
    "read_seconds": _seconds,
    "strict_nim": _switch,
    "drain_seconds": _seconds,
    "tls_cert": _path,
    "tls_key": _path,
    "json_logs": _switch,
    "log_texts": _switch,
    "audit_log": _path,
    "index": _indexes,
}
