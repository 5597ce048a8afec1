"""The other side of `clients.py`: published clients, used as their documentation says, in an environment of their own.

    E/bin/python bench/serve/peer_clients.py URL MODEL

Reads {"query": ..., "passages": [...]} on stdin, and prints for each client its version, the vectors it got, and what
it says of a text that is too long. Knows nothing of embedcode.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

LONG = "token " * 1000


def langchain(url: str, model: str, given: dict[str, Any]) -> dict[str, Any]:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    client = NVIDIAEmbeddings(base_url=url, model=model)
    cutting = NVIDIAEmbeddings(base_url=url, model=model, truncate="END")
    return {
        "query": client.embed_query(given["query"]),
        "passages": client.embed_documents(given["passages"]),
        "cut": len(cutting.embed_query(LONG)),
        "too long": refusal(lambda: client.embed_query(LONG)),
        "models": sorted(one.id for one in client.available_models),
    }


def llama_index(url: str, model: str, given: dict[str, Any]) -> dict[str, Any]:
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    client = NVIDIAEmbedding(base_url=url, model=model, api_key="none")
    cutting = NVIDIAEmbedding(base_url=url, model=model, api_key="none", truncate="END")
    return {
        "query": client.get_query_embedding(given["query"]),
        "query, awaited": asyncio.run(client.aget_query_embedding(given["query"])),
        "passages": client.get_text_embedding_batch(given["passages"]),
        "cut": len(cutting.get_query_embedding(LONG)),
        "too long": refusal(lambda: client.get_query_embedding(LONG)),
        "models": sorted(one.id for one in client.available_models),
    }


def openai(url: str, model: str, given: dict[str, Any]) -> dict[str, Any]:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none", max_retries=0)

    def embed(role: str, texts: list[str], **more: Any) -> list[list[float]]:
        found = client.embeddings.create(model=f"{model}-{role}", input=texts, **more)
        return [one.embedding for one in found.data]

    return {
        "query": embed("query", [given["query"]])[0],
        "passages": embed("passage", given["passages"]),
        "cut": len(embed("query", [LONG], extra_body={"truncate": "END"})[0]),
        "too long": refusal(lambda: embed("query", [LONG])),
        "models": sorted(one.id for one in client.models.list()),
    }


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:  # each client has its own
        return f"{type(error).__name__}: {error}"
    return ""


CLIENTS = {
    "langchain-nvidia-ai-endpoints": langchain,
    "llama-index-embeddings-nvidia": llama_index,
    "openai": openai,
}


def main() -> None:
    url, model = sys.argv[1:]
    given = json.load(sys.stdin)
    out: dict[str, Any] = {}
    for name, use in CLIENTS.items():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                found = use(url, model, given)
            except Exception as error:
                found = {"failed": f"{type(error).__name__}: {error}"}
        said = sorted({str(one.message)[:200] for one in warned if issubclass(one.category, UserWarning)})
        out[name] = {"version": importlib.metadata.version(name), "warnings": said, **found}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
