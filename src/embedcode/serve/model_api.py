"""What a server tells of itself: health, models, metadata, manifest, licence, version and metrics, in NIM's shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode import __version__
from embedcode.serve import metrics
from embedcode.serve.embedder import Embedder, Stage

API_VERSION = "1.0.0"
WORDS = {
    Stage.STARTING: "The model is being loaded.",
    Stage.READY: "ready",
    Stage.RESTARTING: "The engine has ended and is being started again.",
    Stage.DRAINING: "The server is going down.",
}


@dataclass(frozen=True, slots=True)
class About:
    """What cannot be asked of the engine."""

    licence: str
    files: tuple[tuple[str, int], ...]
    """Name and bytes of the files of the model."""


def routes(embedder: Embedder, about: About) -> list[Route]:
    started = int(time.time())
    name = embedder.model.name
    # Nothing where there are none: the entry is OpenAI's then, and NIM's.
    instructed = [role for role, prompt in embedder.model.prompts.items() if "{instruction}" in prompt]
    more = {"instruction_roles": instructed} if instructed else {}

    def ready() -> tuple[int, Any]:
        record = {"object": "health.response", "message": WORDS[embedder.stage], "ready": embedder.ready}
        return (200 if embedder.ready else 503), record

    def live() -> tuple[int, Any]:
        return 200, {"object": "health.response", "message": "live", "live": True}

    def models() -> tuple[int, Any]:
        data = [
            {
                "id": one,
                "object": "model",
                "created": started,
                "owned_by": "embedcode",
                "root": name,
                "max_model_len": embedder.max_tokens,
                **more,
            }
            for one in embedder.model.names
        ]
        return 200, {"object": "list", "data": data}

    def metadata() -> tuple[int, Any]:
        url = f"https://huggingface.co/{name}" if name.count("/") == 1 else name
        return 200, {
            "assetInfo": [f"{file}:{size}" for file, size in about.files],
            "licenseInfo": {"name": about.licence, "path": "", "sha": "", "size": 0, "url": "", "type": "model"},
            # With the space, by which a client sees that the weights under a name are others.
            "modelInfo": [{"shortName": f"{name}:{embedder.space}", "modelUrl": url}],
            "repository_override": "",
            "version": __version__,
            "selectedModelProfileId": embedder.engine.facts.build if embedder.engine.facts else "",
        }

    def manifest() -> tuple[int, Any]:
        lines = [f"model: {name}", f"space: {embedder.space}", "files:"]
        lines += [f"  - name: {file}\n    bytes: {size}" for file, size in about.files]
        return 200, {"manifest_file": "\n".join(lines) + "\n", "repository_override": ""}

    def licence() -> tuple[int, Any]:
        content = f"Model {name}: {about.licence or 'not stated in its files'}.\nServer embedcode: Apache-2.0.\n"
        return 200, {
            "name": about.licence,
            "path": "",
            "sha": "",
            "size": len(content),
            "url": "",
            "type": "text",
            "content": content,
        }

    def version() -> tuple[int, Any]:
        return 200, {"release": __version__, "api": API_VERSION}

    async def counted(_: Request) -> Response:
        return Response(embedder.metrics.text(), media_type=metrics.CONTENT_TYPE)

    told = {
        "health/ready": ready,
        "health/live": live,
        "models": models,
        "metadata": metadata,
        "manifest": manifest,
        "license": licence,
        "version": version,
    }
    found = [Route(f"/v1/{path}", _telling(tell), methods=["GET"]) for path, tell in told.items()]
    found.append(Route("/v1/models/{name:path}", _one(models), methods=["GET"]))
    return [*found, *(Route(path, counted, methods=["GET"]) for path in ("/v1/metrics", "/metrics"))]


def _telling(tell: Callable[[], tuple[int, Any]]) -> Callable[[Request], Any]:
    async def endpoint(_: Request) -> Response:
        status, record = tell()
        return Response(orjson.dumps(record), status, media_type="application/json")

    return endpoint


def _one(models: Callable[[], tuple[int, Any]]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        from embedcode.serve.problem import ProblemError

        name = request.path_params["name"]
        for entry in models()[1]["data"]:
            if entry["id"].lower() == name.lower():  # as a request may name it
                return Response(orjson.dumps(entry), media_type="application/json")
        raise ProblemError(404, f"The model `{name[:80]}` does not exist.", "model", "model_not_found")

    return endpoint
