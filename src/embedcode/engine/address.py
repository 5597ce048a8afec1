"""Address: where a server is, as the URL in a user's settings says it, and through which proxy it is reached.

Knows no request.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from embedcode.errors import UsageError
from embedcode.types import Role

_VERSION = re.compile(r"/v\d\w*(?=/|$)")


@dataclass(frozen=True, slots=True)
class Address:
    scheme: str
    host: str
    port: int
    base: str
    """Path of the API, such as /v1."""
    url: str
    """The whole of it, without a model."""
    model: str
    """The part behind #; "" where the server is to say what it serves."""

    @classmethod
    def read(cls, url: str) -> Address:
        """Of http://host:8000, https://host/v1 or https://host/v1#MODEL; /v1 is added to a path without a version.

        UsageError for what is no such address. Its message never shows a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")  # which the connection would fail at
        except ValueError as error:
            raise UsageError(f"the server's address is no URL ({error}): write it like http://host:8000.") from None
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                f"the address of {host} holds a user or a password, which would be shown and kept: leave it out, "
                "and set EMBEDCODE_API_KEY."
            )
        if parts.query:
            raise UsageError(f"the address of {host} has a query (?...): leave it out; a model is named behind #.")
        if not host or not url.isprintable() or any(map(str.isspace, url)) or not parts.path.isascii():
            raise UsageError(f"{url!r} names no server: write it like http://host:8000.")
        path = parts.path.rstrip("/").removesuffix("/embeddings").rstrip("/")
        base = path if _VERSION.search(path) else f"{path}/v1"
        scheme = parts.scheme.lower()
        place = f"{scheme}://{parts.netloc}{base}"
        return cls(scheme, host, port or (443 if scheme == "https" else 80), base, place, unquote(parts.fragment))

    @property
    def loopback(self) -> bool:
        try:
            return ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    def proxy(self) -> SplitResult | None:
        """The proxy that the environment names for it (HTTPS_PROXY, NO_PROXY and so on); never one for loopback."""
        from urllib.request import getproxies, proxy_bypass

        if self.loopback or proxy_bypass(f"{self.host}:{self.port}"):
            return None
        proxies = getproxies()
        given = proxies.get(self.scheme) or proxies.get("all")
        if not given:
            return None
        parts = urlsplit(given if "://" in given else f"http://{given}")
        with suppress(ValueError):
            if parts.scheme == "http" and parts.hostname and parts.port != 0:
                return parts
        raise UsageError(
            f"the environment's proxy for {self.url} is no http one: "
            f"set {self.scheme.upper()}_PROXY like http://host:3128, or add {self.host} to NO_PROXY."
        )


def prompted(url: str) -> tuple[Address, dict[Role, str]]:
    """An address, and the prompts that stand in it for a server that puts none: http://host?query=...&passage=...#MODEL.

    There, since an index remembers the address that made it: a search without its prompt would find next to nothing.
    UsageError as of Address.read, and for another query.
    """
    whole, mark, model = url.partition("#")
    place, _, query = whole.partition("?")
    address = Address.read(place + mark + model)
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        return address, {Role(name): prompt for name, prompt in given.items()}
    except ValueError:
        raise UsageError(
            f"the address of {address.host} has a query (?...) other than ?query=PROMPT&passage=PROMPT: leave it out; "
            "a model is named behind #."
        ) from None
