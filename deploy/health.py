"""The image's health check: ends with 0 where the server is ready, by the port and with TLS as its environment says."""

import os
import ssl
import urllib.request

tls = any(map(os.environ.get, ("EMBEDCODE_SERVE_TLS_CERT", "NIM_SERVER_TLS_CERT_PATH")))
# It asks its own container, whose certificate is of another name.
context = ssl._create_unverified_context() if tls else None
port = os.environ.get("EMBEDCODE_SERVE_PORT") or "8000"
urllib.request.urlopen(f"http{'s' * tls}://127.0.0.1:{port}/v1/health/ready", timeout=4, context=context)
