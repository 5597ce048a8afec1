"""The image's health check: ends with 0 where the server is ready, by the port and with TLS as its environment says."""

import os
import ssl
import urllib.request

tls = any(map(os.environ.get, ("EMBEDCODE_SERVE_TLS_CERT", "NIM_SERVER_TLS_CERT_PATH")))
# It asks its own container, whose certificate is of another name.
context = ssl._create_unverified_context() if tls else None
bound = os.environ.get("NIM_SERVER_BIND_ADDR", "")
front, _, behind = bound.rpartition(":")
if bound.count(":") != 1 and "]:" not in bound:  # an IPv6 address has colons
    front, behind = bound, ""
host = (os.environ.get("EMBEDCODE_SERVE_HOST") or front).strip("[]")
host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
ports = (os.environ.get("EMBEDCODE_SERVE_PORT"), behind, os.environ.get("NIM_HTTP_API_PORT"), "8000")
port = next(filter(None, ports))
# No proxy, which a container may be given for what is outside.
handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
urllib.request.build_opener(*handlers).open(f"http{'s' * tls}://{host}:{port}/v1/health/ready", timeout=4)
