"""What the page of `embedcode web` waits for: round trips over HTTP to a repository whose vectors are all in.

    python bench/web/run.py --corpus DIR --out bench/web/results/COMMIT.json

The server is a process of its own, asked as the page asks it: ten hits with coloured lines, over one kept connection.
`typed` is a search while a query is typed, `asked` one that first reads what has changed, `file` the whole file of the
best hit. Each with the same queries, taken from the corpus, each query once before it is measured. `--home` keeps the
index, which takes minutes to make, for another run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import corpus
import record
from embedcode.serve.pages import PAGE

QUERIES = 60


class Client:
    """One connection, as a browser keeps it."""

    def __init__(self, link: str) -> None:
        address, _, self._token = link.removeprefix("http://").partition("/#token=")
        self._connection = http.client.HTTPConnection(address)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[float, Any]:
        """Milliseconds until the answer is there and parsed, and the answer."""
        start = time.perf_counter()
        method, content = ("POST", json.dumps(body)) if body else ("GET", None)
        self._connection.request(method, path, content, {"Authorization": f"Bearer {self._token}"})
        answer = self._connection.getresponse()
        value = json.loads(answer.read())
        if answer.status != 200:
            sys.exit(f"{path}: {value['message']}")
        return 1000 * (time.perf_counter() - start), value


def measured(client: Client, queries: list[str]) -> dict[str, list[float]]:
    rounds: dict[str, list[float]] = {"typed": [], "asked": [], "file": [], "status": []}
    for query in queries:
        body = {"query": query, "highlight": True, "update": False}
        hits = client.ask("/v1/search", body)[1]["hits"]
        file = {"path": hits[0]["path"], "query": query}
        client.ask("/v1/search/file", file)
        rounds["typed"].append(client.ask("/v1/search", body)[0])
        rounds["file"].append(client.ask("/v1/search/file", file)[0])
        rounds["status"].append(client.ask("/v1/search/status")[0])
    for query in queries:
        rounds["asked"].append(client.ask("/v1/search", {"query": query, "highlight": True})[0])
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="an unpacked source archive")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--home", type=Path, help="where the index is kept; a temporary folder if left out")
    args = parser.parse_args()
    context = record.context()
    with tempfile.TemporaryDirectory() as work:
        corpus.own_settings(Path(work), args.home)
        command = [sys.executable, "-m", "embedcode"]
        subprocess.run([*command, "index", str(args.corpus), "--wait"], check=True)
        server = subprocess.Popen([*command, "web", str(args.corpus)], stdout=subprocess.PIPE, encoding="utf-8")
        try:
            assert server.stdout is not None
            client = Client(server.stdout.readline().strip())
            state = client.ask("/v1/search/status")[1]
            rounds = measured(client, corpus.questions(corpus.texts(args.corpus), QUERIES))
        finally:
            server.terminate()
            server.wait()
    figures = [record.Figure(name, "ms", values) for name, values in rounds.items()]
    figures.append(record.Figure("page", "KB", [sum(path.stat().st_size for path in PAGE.iterdir()) / 1000]))
    for figure in figures:
        print(figure)
    sizes = {name: state[name] for name in ("files", "chunks", "embedded")}
    record.write(
        args.out, {**context, "load": os.getloadavg()[0], **sizes, "figures": {f.name: f.record() for f in figures}}
    )


if __name__ == "__main__":
    main()
