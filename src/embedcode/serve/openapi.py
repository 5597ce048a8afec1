"""GET /openapi.json: the server's API as OpenAPI 3.1, of the fields and limits that the code itself checks."""

from __future__ import annotations

from typing import Any, get_args

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedcode import __version__
from embedcode.serve import search_api
from embedcode.serve.asked import ENCODINGS, KINDS, Model
from embedcode.types import Content, Mode, Role, Truncate

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
STATUSES = {
    400: "The model cannot answer this.",
    401: "A key is missing.",
    403: "The key, the host or the page is not for this.",
    404: "There is no such model.",
    408: "The body did not come.",
    413: "The body is too large.",
    422: "The body has another shape.",
    429: "All the work there is room for; see Retry-After.",
    500: "A mistake of the server.",
    503: "The model is being loaded, or the server goes down; see Retry-After.",
}
_GETS = {
    "/v1/health/live": ("Whether the server runs", "Health", ()),
    "/v1/health/ready": ("Whether it can embed", "Health", (503,)),
    "/v1/models": ("Names of the model", "Models", ()),
    "/v1/metadata": ("What the model is", "Any", ()),
    "/v1/manifest": ("Its files", "Any", ()),
    "/v1/license": ("Its licence", "Any", ()),
    "/v1/version": ("Versions of server and API", "Any", ()),
    "/v1/status": ("What the page at / shows", "Any", ()),
}


def route(model: Model, index: str, keys: bool) -> Route:
    content = orjson.dumps(document(model, index, keys))

    def endpoint(_: Request) -> Response:
        return Response(content, media_type="application/json")

    return Route("/openapi.json", endpoint, methods=["GET"])


def document(model: Model, index: str, keys: bool) -> Schema:
    paths: Schema = {
        "/v1/embeddings": {"post": _post("Embed texts", "EmbeddingRequest", "EmbeddingResponse", STATUSES)},
    }
    for path, (summary, schema, others) in _GETS.items():
        paths[path] = {
            "get": {
                "summary": summary,
                "operationId": path.rpartition("/")[2],
                "responses": _answers(schema, dict.fromkeys(others, "Not ready."), schema),
            }
        }
    text = {"description": "Prometheus text", "content": {"text/plain": {"schema": TEXT}}}
    paths["/v1/metrics"] = {"get": {"summary": "Counts", "operationId": "metrics", "responses": {"200": text}}}
    if index:
        for path, fields in (("", search_api.SEARCH), ("/related", search_api.RELATED), ("/file", search_api.FILE)):
            paths[f"/v1/search{path}"] = {"post": _search(f"Search {index}{path}", fields)}
        answers = _answers("Any", {}, "SearchError")
        paths["/v1/search/status"] = {
            "get": {"summary": f"The index of {index}", "operationId": "searchStatus", "responses": answers}
        }
    found: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "embedcode",
            "version": __version__,
            "description": f"Embeddings of {model.name} in the shapes of NVIDIA's NIM and of OpenAI's API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _schemas(model)},
    }
    if keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _post(summary: str, body: str, answer: str, statuses: dict[int, str]) -> Schema:
    return {
        "summary": summary,
        "operationId": body,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": _answers(answer, statuses, "Error"),
    }


def _search(summary: str, fields: dict[str, Any]) -> Schema:
    lists = {"type": "array", "items": TEXT}
    kinds: dict[type, Schema] = {str: TEXT, list: lists, int: WHOLE, bool: {"type": "boolean"}}
    properties = {name: kinds[type(usual)] | {"default": usual} for name, usual in fields.items()}
    if "mode" in properties:
        properties["mode"] = {"enum": list(Mode), "default": "hybrid"}
    if "content" in properties:
        properties["content"] = {"type": "array", "items": {"enum": list(get_args(Content))}, "default": []}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    statuses = {400: "A mistake in the request.", 404: "No such file.", 413: "Too large.", 503: "Being read."}
    return {
        "summary": summary,
        "operationId": summary.replace(" ", ""),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _answers("Any", statuses, "SearchError"),
    }


def _answers(schema: str, statuses: dict[int, str], error: str) -> Schema:
    found = {"200": _answer("Done.", schema)}
    return found | {str(status): _answer(text, error) for status, text in statuses.items()}


def _answer(text: str, schema: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(model: Model) -> Schema:
    inputs: list[Schema] = [TEXT | {"minLength": 1}, _list(TEXT | {"minLength": 1}, model.most_inputs)]
    if model.accept_ids:
        ids = _list(WHOLE | {"minimum": 0}, None)
        inputs += [ids, _list(ids, model.most_inputs)]
    request: Schema = {
        "model": {"enum": list(model.names)},
        "input": {"anyOf": inputs},
        "input_type": {"enum": list(Role)},
        "encoding_format": {"enum": list(ENCODINGS), "default": "float"},
        "embedding_type": {"enum": list(KINDS), "default": "float"},
        "dimensions": {"enum": sorted({*model.dimensions, model.dim})},
        "truncate": {"enum": list(Truncate), "default": "NONE"},
        "modality": {"const": "text", "default": "text"},
        "user": TEXT,
        "on_error": {"enum": ["fail", "partial"], "default": "fail"},
    }
    if any("{instruction}" in prompt for prompt in model.prompts.values()):
        request["instruction"] = TEXT
    if model.late:
        request["late_chunking"] = {"type": "boolean", "default": False}
    error = {"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}
    receipt = {"index": WHOLE, "tokens": WHOLE, "used": WHOLE, "truncated": {"type": "boolean"}}
    vector = {"anyOf": [_list({"type": "number"}, None), TEXT | {"description": "base64"}]}
    row = {"object": {"const": "embedding"}, "index": WHOLE, "embedding": vector}
    own = {"request_id": TEXT, "space": TEXT, "inputs": _list(_object(receipt), None)}
    return {
        "EmbeddingRequest": _object(request, "model", "input") | {"additionalProperties": False},
        "EmbeddingResponse": _object(
            {
                "object": {"const": "list"},
                "data": _list(_object(row), None),
                "model": TEXT,
                "usage": _object({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
                "embedcode": _object(own),
            }
        ),
        "Error": _object(
            {
                "object": {"const": "error"},
                "message": TEXT,
                "type": TEXT,
                "detail": {"type": "object"},
                "error": _object(error),
            }
        ),
        "SearchError": _object({"error": TEXT}),
        "Health": _object({"object": {"const": "health.response"}, "message": TEXT}),
        "Models": _object({"object": {"const": "list"}, "data": _list({"type": "object"}, None)}),
        "Any": {"type": "object"},
    }


def _list(items: Schema, most: int | None) -> Schema:
    found = {"type": "array", "items": items}
    return found if most is None else found | {"minItems": 1, "maxItems": most}


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required or properties)}
