"""The image's health check: ends with 0 where the server is ready, by the port and with TLS as its environment says."""

import os
import ssl
import urllib.request

tls = any(map(os.environ.get, ("EMBEDCODE_SERVE_TLS_CERT", "NIM_SERVER_TLS_CERT_PATH")))
# It asks its own container, whose certificate is of another name.
context = ssl._create_unverified_context() if tls else None
bound = os.environ.get("NIM_SERVER_BIND_ADDR", "").rpartition("]")[2]
behind = bound.partition(":")[2] if bound.count(":") == 1 else ""  # an IPv6 address has colons
ports = (os.environ.get("EMBEDCODE_SERVE_PORT"), behind, os.environ.get("NIM_HTTP_API_PORT"), "8000")
port = next(filter(None, ports))
# No proxy, which a container may be given for what is outside.
handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
urllib.request.build_opener(*handlers).open(f"http{'s' * tls}://127.0.0.1:{port}/v1/health/ready", timeout=4)
