"""Served: what a server tells of the model it serves, and what was learned of it, kept in the user's home folder.

Kept, an index can be looked at and searched by words while the server is down, and a search needs one request less.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcode.engine.endpoint import DENIED, Answer, Call, Endpoint
from embedcode.errors import ModelError, UsageError
from embedcode.files import make_private, replacing
from embedcode.types import Role, digest

NOT_TOLD = 1 << 30
"""Tokens, where a server does not tell its limit: no text reaches it, and the server refuses what is too long."""
LISTED = 8
"""Models that a message names."""


@dataclass(frozen=True, slots=True)
class Served:
    model: str
    identity: str
    """Hash of what the server tells of the weights; another model under the same name has another."""
    engine: str
    """Version and profile of the server."""
    max_tokens: int
    suffixes: bool
    """The roles are models of their own: MODEL-query and MODEL-passage."""
    dim: int = 0
    refused: tuple[str, ...] = ()
    """Fields of a request that the server does not know."""
    weights: bool = False
    """Whether it tells of them, and not only a name that other ones may have tomorrow."""
    instructed: tuple[str, ...] = ()
    """Roles whose texts it reads with an instruction, as servers of ours tell."""

    @property
    def same(self) -> tuple[str, str]:
        """What must not change under an index."""
        return self.model, self.identity


def told(endpoint: Endpoint, call: Call | None = None) -> Served:
    """What /models and /metadata tell, which a server need not have; `dim` is not among it.

    ModelError where the address names no model and the server does not serve exactly one.
    """
    answer = endpoint.ask("/models", call=call)
    entries = _entries(answer)
    suffixes = tuple(f"-{role}" for role in Role)
    models = [
        name for name in entries if not any(name.removesuffix(s) in entries for s in suffixes if name.endswith(s))
    ]
    model = endpoint.address.model or _only(endpoint, answer, models)
    for suffix in suffixes:
        if model.endswith(suffix) and model.removesuffix(suffix) in entries:
            raise ModelError(f"{model} would embed queries and passages alike: name it without {suffix}.")
    entry = entries.get(model, {})
    metadata = endpoint.ask("/metadata", call=call).value
    metadata = metadata if isinstance(metadata, dict) else {}
    limit, roles = entry.get("max_model_len"), entry.get("instruction_roles")
    weights = [entry.get("root"), limit, metadata.get("modelInfo")]
    engine = [metadata.get("version"), metadata.get("selectedModelProfileId")]
    return Served(
        model=model,
        identity=digest(json.dumps(weights, sort_keys=True)).hex(),
        engine=" ".join(part for part in engine if isinstance(part, str)),
        max_tokens=limit if type(limit) is int and limit > 0 else NOT_TOLD,
        suffixes=all(f"{model}{suffix}" in entries for suffix in suffixes),
        weights=bool(metadata.get("modelInfo")),
        instructed=tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else (),
    )


def kept(path: Path) -> Served | None:
    try:
        fields = json.loads(path.read_text("utf-8"))
        return Served(**fields | {name: tuple(fields.get(name, ())) for name in ("refused", "instructed")})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep(path: Path, served: Served) -> None:
    with suppress(OSError, UsageError):  # asked again next time
        make_private(path.parent)
        with replacing(path) as file:
            file.write(json.dumps(asdict(served)).encode())


def _entries(answer: Answer) -> dict[str, dict[str, Any]]:
    """The list of /models by name; empty where there is none."""
    data = answer.value.get("data") if answer.ok else None
    found = data if isinstance(data, list) else []
    return {entry["id"]: entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("id"), str)}


def _only(endpoint: Endpoint, answer: Answer, models: list[str]) -> str:
    if len(models) == 1:
        return models[0]
    url = endpoint.address.url
    if answer.status in DENIED:
        raise endpoint.denied(answer)
    if not models:
        why = "lists none" if answer.ok else f"answered {answer.said}"
        raise ModelError(f"{url} does not tell its model (/models {why}): name it, as in {url}#MODEL.")
    names = ", ".join(sorted(models)[:LISTED]) + (", …" if len(models) > LISTED else "")
    raise ModelError(f"{url} serves {len(models)} models ({names}): name one, as in {url}#{min(models)}.")
