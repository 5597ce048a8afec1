"""TLS: whether a certificate and its key are what a server can use, and whether others lie there now. Knows no server.

HTTP and gRPC read the same two files, each through its own library, and neither says which file is at fault.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from embedcode.errors import UsageError
from embedcode.files import stamp

T = TypeVar("T")


def check(certificate: Path, key: Path) -> None:
    """UsageError, with the file and the cure, for two files that no server could start with."""
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read ({(error.strerror or str(error)).lower()}): give another"
            ) from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        raise UsageError(
            f"{certificate} has no certificate in PEM form: give the chain, the server's own first"
        ) from None
    encrypted = False

    def password() -> str:  # or OpenSSL would ask for it on the terminal
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if encrypted:
            said = "is encrypted, and nobody is asked for its password: give it without one"
        elif error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the second: of another kind
            said = f"is not the key of {certificate}: give the one that it was made with"
        else:
            said = "has no private key in PEM form that can be used: give the certificate's"
        raise UsageError(f"{key} {said}") from None


class Context(ssl.SSLContext):
    """A server's, whose certificate can be replaced: connections to come take that of `fresh`, if there is one.

    A pair loaded into a context stands beside one of another kind of key that it has, and does not replace it; and a
    callback by the name of the host is not asked where a client names none.
    """

    fresh: ssl.SSLContext | None = None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return (self.fresh.wrap_bio if self.fresh else super().wrap_bio)(*arguments, **options)


def context(certificate: Path, key: Path) -> Context:
    """OSError for files that it cannot use."""
    made = Context(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


class Renewed:
    """A certificate and its key, which another program renews. Safe to ask from several threads."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._mutex = Lock()
        self._seen = self._stamp()
        self.trouble = ""
        """Why what lies there now is not taken."""

    def made(self, use: Callable[[Path, Path], T]) -> T | None:
        """What `use` makes of another pair than the last one that it could use; None where there is none. The two files
        are written one after the other: between them they do not fit, and are looked at again."""
        with self._mutex:
            there = self._stamp()
            if there == self._seen:
                return None
            try:
                check(self._certificate, self._key)
                found = use(self._certificate, self._key)
            except (UsageError, OSError) as error:
                self.trouble = str(error)
                return None
            self.trouble, self._seen = "", there
            return found

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        return stamp(self._certificate), stamp(self._key)
