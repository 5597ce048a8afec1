"""TLS: whether a certificate and its key are what a server can use, before anything listens. Knows no server.

HTTP and gRPC read the same two files, each through its own library, and neither says which file is at fault.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from embedcode.errors import UsageError


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
        elif error.reason == "KEY_VALUES_MISMATCH":
            said = f"is not the key of {certificate}: give the one that it was made with"
        else:
            said = "has no private key in PEM form that can be used: give the certificate's"
        raise UsageError(f"{key} {said}") from None
