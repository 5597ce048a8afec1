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
from embedcode.serve.indexes import searchable
from embedcode.serve.keys import asker
from embedcode.types import Content, Mode, Role, Truncate

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
SAID = {
    400: "The model or the index cannot answer this.",
    401: "No key was sent, or one that is not known.",
    403: "The key, the host or the page is not for this.",
    404: "There is no such model or file.",
    408: "The body did not come.",
    413: "The body is too large.",
    415: "The body is compressed, a form, or not in UTF-8.",
    422: "The body has another shape.",
    429: "All the work there is room for; see Retry-After.",
    500: "A mistake of the server.",
    503: "The model is being loaded, a repository is read for the first time, or the server goes down.",
}
"""What a status means. 401, 403 and 500 can come from every path."""
WORK = (400, 404, 408, 413, 415, 422, 429, 503)
_GETS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "/v1/health/live": ("Whether the server runs", "Health", ()),
    "/v1/health/ready": ("Whether it can embed", "Health", ()),
    "/v1/models": ("Names of the model", "Models", ()),
    "/v1/metadata": ("What the model is", "Any", ()),
    "/v1/manifest": ("Its files", "Any", ()),
    "/v1/license": ("Its licence", "Any", ()),
    "/v1/version": ("Versions of server and API", "Any", ()),
    "/v1/status": ("What the page at / shows", "Any", ()),
}


def route(model: Model, indexes: list[str], keys: bool) -> Route:
    content = orjson.dumps(document(model, indexes, keys))

    def endpoint(request: Request) -> Response:
        known = searchable(indexes, asker(request))
        mine = content if known == indexes else orjson.dumps(document(model, known, keys))
        return Response(mine, media_type="application/json")

    return Route("/openapi.json", endpoint, methods=["GET"])


def document(model: Model, indexes: list[str], keys: bool) -> Schema:
    paths: Schema = {"/v1/embeddings": {"post": _post("Embed texts", "embed", _ref("EmbeddingRequest"), "Embeddings")}}
    for path, (summary, schema, others) in _GETS.items():
        paths[path] = {"get": _get(summary, path.rpartition("/")[2], schema, others)}
    paths["/v1/health/ready"]["get"]["responses"]["503"] = _answer("Not ready.", "Health")
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": list(model.names)}}
    paths["/v1/models/{name}"] = {"get": _get("One of them", "model", "Any", (404,)) | {"parameters": [name]}}
    metrics = _get("Counts, for Prometheus", "metrics", "Any", ())
    metrics["responses"]["200"] = {"description": "Done.", "content": {"text/plain": {"schema": TEXT}}}
    paths["/v1/metrics"] = {"get": metrics}
    if indexes:
        for path, said, fields, answer in (
            ("", f"Search {', '.join(indexes)}", search_api.SEARCH, "Hits"),
            ("/related", "What is like a place in it", search_api.RELATED, "Hits"),
            ("/file", "A file of it", search_api.FILE, "File"),
        ):
            paths[f"/v1/search{path}"] = {
                "post": _post(said, f"search{path[1:].title()}", _searched(fields, indexes), answer)
            }
        named = {"name": "index", "in": "query", "required": len(indexes) > 1, "schema": _index(indexes)}
        status = _get("How far an index is", "searchStatus", "Any", (400, 404, 429, 503)) | {"parameters": [named]}
        paths["/v1/search/status"] = {"get": status}
        paths["/v1/search/indexes"] = {"get": _get("The indexes that this key may search", "searchIndexes", "Any", ())}
    if not keys:
        for path in paths.values():
            for operation in path.values():
                del operation["responses"]["401"]
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


def _get(summary: str, name: str, answer: str, statuses: tuple[int, ...]) -> Schema:
    errors = {str(status): _answer(SAID[status], "Error") for status in sorted({401, 403, 500, *statuses})}
    return {"summary": summary, "operationId": name, "responses": {"200": _answer("Done.", answer)} | errors}


def _post(summary: str, name: str, body: Schema, answer: str) -> Schema:
    content = {"required": True, "content": {"application/json": {"schema": body}}}
    return _get(summary, name, answer, WORK) | {"requestBody": content}


def _searched(fields: dict[str, Any], indexes: list[str]) -> Schema:
    """The body of a search request, by the fields that are read and their defaults."""
    lists = {"type": "array", "items": TEXT}
    kinds: dict[type, Schema] = {str: TEXT, list: lists, int: WHOLE, bool: {"type": "boolean"}}
    closer: dict[str, Schema] = {
        "mode": {"enum": list(Mode)},
        "content": {"type": "array", "items": {"enum": list(get_args(Content))}},
        "top_k": WHOLE | {"minimum": 1, "maximum": search_api.MOST_HITS},
        "line": WHOLE | {"minimum": 1},
    }
    properties = {name: closer.get(name, kinds[type(usual)]) | {"default": usual} for name, usual in fields.items()}
    properties["index"] = _index(indexes)
    required = ["index"] if len(indexes) > 1 else []
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": required}


def _index(indexes: list[str]) -> Schema:
    """It may be left out where there is one."""
    return {"enum": indexes} if len(indexes) > 1 else {"enum": ["", *indexes], "default": ""}


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
        "user": TEXT,
        "on_error": {"enum": ["fail", "partial"], "default": "fail"},
    }
    request["modality"] = {"anyOf": [one := {"const": "text"}, _list(one, None), {"type": "null"}], "default": "text"}
    if any("{instruction}" in prompt for prompt in model.prompts.values()):
        request["instruction"] = TEXT
    if model.late:
        request["late_chunking"] = {"type": "boolean", "default": False}
    for name in request.keys() - {"model", "input", "modality"}:  # null is as if it were left out
        field = request[name]
        request[name] = field | (
            {"enum": [*field["enum"], None]} if "enum" in field else {"type": [field["type"], "null"]}
        )
    error = {"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}
    receipt = {"index": WHOLE, "tokens": WHOLE, "used": WHOLE, "truncated": {"type": "boolean"}}
    always = tuple(receipt)
    receipt["estimated"] = {"const": True, "description": "`tokens` is an estimate: the text was not read to its end."}
    receipt["prompt_twice"] = {"const": True, "description": "It began with the model's prompt."}
    vector = {"anyOf": [_list({"type": "number"}, None), TEXT | {"description": "base64"}]}
    row = {"object": {"const": "embedding"}, "index": WHOLE, "embedding": vector}
    hit = {"path": TEXT, "start_line": WHOLE, "end_line": WHOLE, "symbol": TEXT, "language": TEXT}
    hit |= {"score": {"type": "number"}, "why": _list(TEXT, None)}
    lines = _list(_list(_list(TEXT, None), None), None)  # runs of (text, classes)
    own = {"request_id": TEXT, "space": TEXT, "inputs": _list(_object(receipt, *always), None)}
    refused = _object({"index": WHOLE, "message": TEXT})
    return {
        "EmbeddingRequest": _object(request, "model", "input") | {"additionalProperties": False},
        "Embeddings": _object(
            {
                "object": {"const": "list"},
                "data": _list(_object(row), None),
                "model": TEXT,
                "usage": _object({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
                "embedcode": _object(own | {"errors": _list(refused, None)}, *own),
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
        "Hits": _object(
            {
                "query": TEXT,
                "root": TEXT,
                "hits": _list(_object(hit), None),
                "indexed": {"type": "object"},
                "notes": _list(TEXT, None),
                "by_words": {"type": "boolean", "description": "No vector was used: as asked, or see `notes`."},
            }
        ),
        "File": _object({"path": TEXT, "language": TEXT, "changed": {"type": "boolean"}, "lines": lines}),
        "Health": _object({"object": {"const": "health.response"}, "message": TEXT}),
        "Models": _object({"object": {"const": "list"}, "data": _list({"type": "object"}, None)}),
        "Any": {"type": "object"},
    }


def _list(items: Schema, most: int | None) -> Schema:
    found = {"type": "array", "items": items}
    return found if most is None else found | {"minItems": 1, "maxItems": most}


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required or properties)}
