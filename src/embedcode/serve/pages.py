"""Pages: the files of `page/` as routes, with a policy that runs no script but theirs. Knows no data and no token."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def route(path: str, name: str) -> Route:
    """`path` answers with the file `name`."""
    file = PAGE / name
    content = file.read_bytes()
    headers = {"Content-Security-Policy": POLICY} if file.suffix == ".html" else {}

    def endpoint(_: Request) -> Response:
        return Response(content, media_type=KINDS[file.suffix], headers=headers)

    return Route(path, endpoint, methods=["GET"])


def search(path: str) -> list[Route]:
    """The page of the search API, at `path`."""
    return [route(path, "index.html"), route("/app.js", "app.js"), route("/style.css", "style.css")]
