"""Do published clients work unchanged, and do they get the vectors of the role that they mean?

    python bench/serve/clients.py --clients E/bin/python --out FILE

E is made from bench/env/serve_clients.txt. The server has the packaged model with prompts for both roles, so that a
role that is missing or wrong gives other vectors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import started

import corpus
import record
from embedcode.model.spec import DEFAULT

NAME = "tiny/prompted"
GIVEN = {
    "query": "where a session ends",
    "passages": [
        "def logout(request):\n    request.session.flush()",
        "def price(net, rate):\n    return net * (1 + rate)",
    ],
}
SAME = 1e-6


def prompted(folder: Path) -> Path:
    shutil.copytree(DEFAULT, folder)
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    meta["prompts"] = {"query": "Question: ", "passage": "Code: "}
    meta["name"] = NAME
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
    return folder


def embed(server: started.Server, texts: list[str], role: str) -> Any:
    body = json.dumps({"model": NAME, "input": texts, "input_type": role}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/embeddings", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return np.array([one["embedding"] for one in json.load(answer)["data"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=Path, required=True, help="Python of that environment")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    result = record.context()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus.own_settings(work)
        model = prompted(work / "model")
        with started.embedcode(work, EMBEDCODE_MODEL=str(model)) as server:
            query, passages = embed(server, [GIVEN["query"]], "query")[0], embed(server, GIVEN["passages"], "passage")
            script, url = Path(__file__).with_name("peer_clients.py"), f"http://127.0.0.1:{server.port}/v1"
            command = [args.clients, script, url, NAME]
            done = subprocess.run(command, input=json.dumps(GIVEN), capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise SystemExit(done.stderr)
        rows: dict[str, Any] = {}
        for name, found in json.loads(done.stdout).items():
            row = {
                key: found[key]
                for key in ("version", "warnings", "failed", "too long", "models", "cut")
                if key in found
            }
            if "failed" not in found:
                row["query_is_the_query_vector"] = bool(np.abs(np.array(found["query"]) - query).max() < SAME)
                row["passages_are_the_passage_vectors"] = bool(
                    np.abs(np.array(found["passages"]) - passages).max() < SAME
                )
            rows[name] = row
            print(name, json.dumps(row)[:400], file=sys.stderr)
        result["clients"] = rows
    record.write(args.out, result)


if __name__ == "__main__":
    main()
