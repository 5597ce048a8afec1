"""Pages: the files of `page/` as routes, with a policy that runs no script but theirs. Knows no data and no token."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
ASSETS = tuple(sorted(f"/{file.name}" for file in PAGE.iterdir() if file.suffix in (".js", ".css")))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer, pages or not."""


def route(path: str, name: str) -> Route:
    """`path` answers with the file `name`."""
    file = PAGE / name
    content = file.read_bytes()
    headers = {"Content-Security-Policy": POLICY} if file.suffix == ".html" else {}

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=KINDS[file.suffix], headers=headers)

    return Route(path, endpoint, methods=["GET"])


def assets() -> list[Route]:
    """What the pages are made of, the same for every server."""
    return [route(path, path[1:]) for path in ASSETS]
