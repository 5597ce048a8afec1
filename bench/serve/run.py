"""The embedding server under load: against peers, beside its own engine, and at its limits.

    python bench/serve/run.py peers --corpus DIR --fastapi E/bin/python [--infinity I/bin/python \\
        --weights MINILM --onnx INT8] --out FILE
    python bench/serve/run.py share|lanes|overload|kills|soak|null --corpus DIR --out FILE [--seconds N]

E and I are made from bench/env/serve_fastapi.txt and serve_infinity.txt. Every server is started as a user starts it,
has the same two cores as the client, and gets the same requests: 1 to 8 chunks of the corpus each, drawn with a fixed
seed, none twice to the same server, so that no cache helps. Our engine is killed once before. Tokens are those of
MiniLM's tokenizer, at most 256 a text, counted before. The client is a second process (load.py); `null` says what it
costs itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import disturb
import started
from started import MAX_TOKENS, MODEL, Server

import corpus
import record
from embedcode.types import Role, Tokens, Truncate

HERE = Path(__file__).parent
TEXTS = 12_000
MOST = 8
"""Texts of a request."""
CLIENTS = (1, 8, 64)
SHARES = (0.5, 0.8, 1.2)
REFUSALS = {"429", "503"}
EDGE = 5
"""Seconds at either end of a load that are not looked at."""
NO_CACHE = {"EMBEDCODE_SERVE_CACHE_MB": "0"}
"""Where a run is so long that requests come again."""


class Bodies:
    """Requests that are not given out twice until all were."""

    def __init__(self, root: Path, kept: Path) -> None:
        """`kept` holds them between runs: reading and tokenising a corpus takes a minute."""
        if not kept.exists():
            kept.write_text(json.dumps({"corpus": root.name, "model": MODEL, **_made(root)}), "utf-8")
        found = json.loads(kept.read_text("utf-8"))
        if (found["corpus"], found.get("model")) != (root.name, MODEL):  # another model's are refused, each with 404
            raise SystemExit(f"{kept} is of {found['corpus']} and {found.get('model')}: give another --kept")
        self.all: list[tuple[str, int]] = found["bodies"]
        self.questions: list[str] = found["questions"]
        self.tokens = sum(tokens for _, tokens in self.all)
        self._at: dict[str, int] = {}

    @property
    def mean(self) -> float:
        """Tokens of a request."""
        return self.tokens / len(self.all)

    def load(self, server: Server, seconds: float, **plan: Any) -> dict[str, Any]:
        """The next requests that this server has not had yet; again, where the plan says so, once all were used."""
        at = self._at.get(server.name, 0) % len(self.all)
        found = load(server, self.all[at:] + self.all[:at], seconds, **plan)
        self._at[server.name] = at + found["bodies_used"]
        return found

    def texts(self, count: int) -> tuple[list[str], int]:
        """Of `count` requests for the engine alone, with their tokens."""
        at = self._at.get("alone", 0)
        self._at["alone"] = at + count
        taken = [self.all[(at + i) % len(self.all)] for i in range(count)]
        return [text for body, _ in taken for text in json.loads(body)["input"]], sum(tokens for _, tokens in taken)


def _made(root: Path) -> dict[str, Any]:
    import embedcode

    encoder = embedcode.load()
    texts = corpus.passages(root, TEXTS)
    entries = encoder.tokenize(texts, Role.PASSAGE, truncate=Truncate.END)
    sizes = [min(entry.used, MAX_TOKENS) if isinstance(entry, Tokens) else 0 for entry in entries]
    draw = random.Random(1)
    bodies = []
    at = 0
    while at < len(texts):
        count = draw.randint(1, MOST)
        asked = {"model": MODEL, "input": texts[at : at + count], "truncate": "END", "input_type": "passage"}
        bodies.append((json.dumps(asked), sum(sizes[at : at + count])))
        at += count
    return {"bodies": bodies, "questions": corpus.questions(corpus.texts(root), 3000)}


def load(server: Server, bodies: list[tuple[str, int]], seconds: float, **plan: Any) -> dict[str, Any]:
    with subprocess.Popen(
        [sys.executable, str(HERE / "load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        whole = {"port": server.port, "path": server.path, "bodies": bodies, "seconds": seconds, **plan}
        before = server.cpu_seconds()
        out, _ = process.communicate(json.dumps(whole))
    found: dict[str, Any] = json.loads(out)
    return found | {"server_cpu_seconds": round(server.cpu_seconds() - before, 2)}


def say(name: str, found: dict[str, Any]) -> None:
    line = f"{name:<36} {found['tokens_per_second']:>9,.0f} tokens/s  {found['ms']}  {found['statuses']}"
    print(line, file=sys.stderr, flush=True)


def peers(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """Closed loops, in turns, then open loops at shares of our own capacity."""
    with ExitStack() as stack:
        servers: list[Server] = [stack.enter_context(started.embedcode(work))]
        if args.fastapi:
            servers.append(stack.enter_context(started.fastapi(args.fastapi, work)))
        if args.bf16:
            servers.append(stack.enter_context(started.fastapi(args.fastapi, work, "bfloat16")))
        failed: dict[str, str] = {}
        for engine, folder in (("torch", args.weights), ("optimum", args.onnx)):
            if not (args.infinity and folder):
                continue
            try:
                peer = started.infinity(args.infinity.absolute(), work, folder, engine)
                servers.append(stack.enter_context(peer))
            except SystemExit as error:
                failed[engine] = str(error)[-500:]
        out: dict[str, Any] = {server.name: {} for server in servers}
        for clients in CLIENTS:
            for number in range(args.rounds):
                for server in servers if number % 2 == 0 else servers[::-1]:
                    found = bodies.load(server, args.seconds, clients=clients, warm=1)
                    out[server.name].setdefault(f"closed {clients}", []).append(found)
                    say(f"{server.name} closed {clients}", found)
        capacity = statistics.median(one["tokens_per_second"] for one in out["embedcode"]["closed 64"])
        for share in SHARES:
            for server in servers:
                rate = share * capacity / bodies.mean
                found = bodies.load(server, args.seconds, rate=rate, warm=1)
                out[server.name][f"open {share:.0%}"] = found
                say(f"{server.name} open {share:.0%}", found)
        return {"capacity_tokens_per_second": capacity, "servers": out, "not_started": failed,
                "build": build(servers[0])}  # fmt: skip


def build(server: Server) -> str:
    return str(json.loads(server.get("/v1/metadata")[1])["selectedModelProfileId"])


def share(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """The server beside the engine alone, in turns; both from texts to vectors, so tokenising counts for both."""
    rounds = []
    script = (
        "import sys, time, json, embedcode\nfrom embedcode.types import Role, Truncate\ne = embedcode.load()\n"
        "e.encode(['warm'], Role.PASSAGE)\n"
        "for line in sys.stdin:\n t = json.loads(line)\n s = time.perf_counter()\n"
        f" e.encode(t, Role.PASSAGE, truncate=Truncate.END, max_tokens={MAX_TOKENS})\n"
        " print(time.perf_counter() - s, flush=True)\n"
    )
    chosen = dict(one.split("=", 1) for one in args.set)
    environment = (
        os.environ | {"EMBEDCODE_HOME": str(work / "offline"), "XDG_CONFIG_HOME": str(work / "config")} | chosen
    )
    with (
        started.embedcode(work, **chosen) as server,
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as offline,
    ):
        assert offline.stdin is not None and offline.stdout is not None
        for number in range(args.rounds + 1):
            texts, tokens = bodies.texts(100)
            offline.stdin.write(json.dumps(texts) + "\n")
            offline.stdin.flush()
            alone = tokens / float(offline.stdout.readline())
            found = bodies.load(server, args.seconds, clients=64, warm=1)
            say(f"offline {alone:,.0f}; server", found)
            if number:
                rounds.append({"offline_tokens_per_second": round(alone), "server": found})
        offline.stdin.close()
        shares = [one["server"]["tokens_per_second"] / one["offline_tokens_per_second"] for one in rounds]
        return {"share": round(statistics.median(shares), 3), "shares": [round(x, 3) for x in shares], "rounds": rounds,
                "set": chosen, "build": build(server)}  # fmt: skip


def lanes(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """One query at a time, idle, and while bulk indexing has all the queue it may. Bulk goes on all the time; in every
    other window queries are asked, and the server's own counter says what it computed of bulk in each: its rate drifts
    within a minute by more than queries cost."""
    draw = random.Random(3)
    queries = [(json.dumps({"model": MODEL, "input": f"{line} {draw.random()}", "input_type": "query"}), 10)
               for line in bodies.questions]  # fmt: skip
    out: dict[str, Any] = {}
    with started.embedcode(work) as server:
        out["build"], out["batch_tokens"] = build(server), 2048
        out["idle"] = load(server, queries[:600], args.seconds / 2, clients=1, warm=1)
        say("queries, idle", out["idle"])
        queries = queries[600:]
        whole = (
            2 * args.rounds * (args.seconds + 2) + 10
        )  # a window ends up to two seconds late, and the last had no bulk
        bulk: dict[str, Any] = {}

        def work_bulk() -> None:
            bulk.update(bodies.load(server, whole, clients=32, warm=4))

        beside = threading.Thread(target=work_bulk)
        beside.start()
        time.sleep(4)
        rounds = out["rounds"] = []
        for number in range(args.rounds):
            found: dict[str, Any] = {}
            for asked in (False, True) if number % 2 == 0 else (True, False):
                name = "bulk beside queries" if asked else "bulk alone"
                found[name] = _window(server, queries if asked else [], args.seconds, found)
            queries = queries[found["queries"]["bodies_used"] :]
            found["kept"] = round(found["bulk beside queries"] / found["bulk alone"], 3)
            print({name: one for name, one in found.items() if name != "queries"}, file=sys.stderr, flush=True)
            rounds.append(found)
        beside.join()
        out["bulk"] = bulk
    rate = statistics.median(one["bulk alone"] for one in rounds)
    batch_ms = 1000 * out["batch_tokens"] / rate
    out["bulk_batch_ms"] = round(batch_ms, 1)
    out["allowed_p95_ms"] = round(max(3 * out["idle"]["ms"]["p95"], batch_ms + 10), 1)
    out["p95_ms"] = statistics.median(one["queries"]["ms"]["p95"] for one in rounds)
    kept = sorted(one["kept"] for one in rounds)
    out["bulk_kept"] = round(statistics.median(kept), 3)
    out["bulk_kept_quartiles"] = [round(one, 3) for one in statistics.quantiles(kept, n=4)[::2]]
    return out


def _window(server: Server, queries: list[tuple[str, int]], seconds: float, found: dict[str, Any]) -> float:
    """Tokens a second of passages, computed beside one caller of `queries`, whose figures go into `found`."""

    def ask() -> None:
        found["queries"] = load(server, queries, seconds + 1, clients=1, warm=1)

    asking = threading.Thread(target=ask if queries else lambda: None)
    asking.start()
    time.sleep(1)
    before, since = server.metric("embedcode_tokens_total", lane="passage"), time.monotonic()
    time.sleep(seconds - 0.2)
    tokens, passed = server.metric("embedcode_tokens_total", lane="passage") - before, time.monotonic() - since
    asking.join()
    return round(tokens / passed, 1)


def _engine_cores(server: Server, seconds: float) -> float:
    """Processors that the engine has, while a load of so long is under way: how fast they are moves by a tenth in
    minutes, and what refusals take from it does not."""
    engine = server.engine()
    assert engine is not None
    time.sleep(EDGE)
    before, since = server.cpu_seconds(engine), time.monotonic()
    time.sleep(max(1.0, seconds - 2 * EDGE))
    return (server.cpu_seconds(engine) - before) / (time.monotonic() - since)


def overload(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """120 % of capacity, then ten times it, `rounds` times. Refusals have to be 429 with Retry-After, and goodput has
    to stay: its share is of the mean of the capacity just before and just after, which moves by a tenth in minutes."""
    out: dict[str, Any] = {}
    with started.embedcode(work, **NO_CACHE) as server, ThreadPoolExecutor(1) as beside:

        def measured(name: str, seconds: float, **plan: Any) -> dict[str, Any]:
            cores = beside.submit(_engine_cores, server, seconds)
            found = bodies.load(server, seconds, again=True, **plan)
            found["engine_cores"] = round(cores.result(), 3)
            say(name, found)
            out.setdefault(name, []).append(found)
            return found

        def capacity() -> float:
            # 64 clients ask for about as much as a lane holds: who is refused there asks again at once, at any rate.
            return float(measured("capacity", 30, clients=32, warm=5)["tokens_per_second"])

        before = capacity()
        plan = [("120 %", 1.2, args.seconds), *[("10 times", 10, min(60, args.seconds))] * args.rounds]
        for name, factor, seconds in plan:
            found = measured(name, seconds, rate=factor * before / bodies.mean)
            found["resident_mb"] = round(server.resident_mb())
            after = capacity()
            found["goodput_share"] = round(2 * found["tokens_per_second"] / (before + after), 3)
            before = after
        out["goodput_share"] = {
            name: round(statistics.median(one["goodput_share"] for one in out[name]), 3)
            for name in ("120 %", "10 times")
        }
        whole = statistics.median(one["engine_cores"] for one in out["capacity"])
        out["engine_share"] = {
            name: round(statistics.median(one["engine_cores"] for one in out[name]) / whole, 3)
            for name in ("120 %", "10 times")
        }
        out["ready_after"] = server.get("/v1/health/ready")[0] == 200
        out["restarts"] = server.metric("embedcode_engine_restarts_total")
        out["build"] = build(server)
    return out


def kills(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """kill -9 of the engine under load: every request answered or refused, and how long until it is ready."""
    seconds: list[float] = []
    with started.embedcode(work, **NO_CACHE) as server:
        found: dict[str, Any] = {}
        # One plan for all kills, and ended by hand: its end is the last kill's.
        loading = threading.Thread(
            target=lambda: found.update(bodies.load(server, args.seconds, clients=16, again=True, pause=0.2))
        )
        loading.start()
        end = time.monotonic() + args.seconds - 8
        draw = random.Random(5)
        while len(seconds) < args.kills and time.monotonic() < end:
            time.sleep(draw.uniform(0.5, 3))
            if (pid := server.engine()) is None:
                continue
            os.kill(pid, signal.SIGKILL)
            since = time.monotonic()
            time.sleep(0.05)
            while server.get("/v1/health/ready")[0] != 200:
                time.sleep(0.02)
            seconds.append(time.monotonic() - since)
        loading.join()
        say("under kills", found)
        ok = set(found["statuses"]) <= {"200", *REFUSALS}
        return {"kills": len(seconds), "seconds_until_ready": [round(one, 2) for one in seconds], "load": found,
                "answered_or_refused": ok, "restarts": server.metric("embedcode_engine_restarts_total"),
                "build": build(server)}  # fmt: skip


def soak(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """80 % of capacity, and beside it callers who leave, oversize bodies, bad JSON and slow readers; and memory."""
    with started.embedcode(work, **NO_CACHE) as server:
        found = bodies.load(server, 40, clients=64, warm=5)
        rate = 0.8 * found["tokens_per_second"] / bodies.mean
        samples: list[tuple[float, float]] = []
        result: dict[str, Any] = {}
        loading = threading.Thread(
            target=lambda: result.update(bodies.load(server, args.seconds, rate=rate, again=True))
        )
        loading.start()
        with disturb.disturbing(server.port, [body for body, _ in bodies.all[:300]]) as counts:
            since = time.monotonic()
            killed = False
            while loading.is_alive():
                time.sleep(2)
                samples.append((time.monotonic() - since, server.resident_mb()))
                if (
                    args.kill
                    and not killed
                    and time.monotonic() - since > args.seconds / 4
                    and (pid := server.engine())
                ):
                    os.kill(pid, signal.SIGKILL)
                    killed = True
        say("soak", result)
        half = [(at, mb) for at, mb in samples if at > samples[-1][0] / 2]
        slope = statistics.linear_regression([at for at, _ in half], [mb for _, mb in half]).slope
        mean = statistics.fmean(mb for _, mb in half)
        return {
            "rate_requests_per_second": round(rate, 2), "load": result, "disturbances": dict(counts), "killed": killed,
            "memory_mb": {"first": round(samples[0][1]), "last": round(samples[-1][1]), "second_half": round(mean)},
            "slope_percent_per_hour": round(100 * slope * 3600 / mean, 2), "samples": [round(mb) for _, mb in samples],
            "ready_after": server.get("/v1/health/ready")[0] == 200, "build": build(server),
            "restarts": server.metric("embedcode_engine_restarts_total"),
        }  # fmt: skip


def null(args: argparse.Namespace, bodies: Bodies, work: Path) -> dict[str, Any]:
    """What the client can do, and what a request costs it."""
    out: dict[str, Any] = {}
    with started.null(work, 4) as server:
        for clients in CLIENTS:
            found = bodies.load(server, args.seconds, clients=clients, again=True)
            found["client_ms_a_request"] = round(1000 * found["client_cpu_seconds"] / found["answered"], 3)
            out[f"closed {clients}"] = found
            say(f"null closed {clients}", found)
    return out


SCENARIOS: dict[str, Callable[[argparse.Namespace, Bodies, Path], dict[str, Any]]] = {
    "peers": peers, "share": share, "lanes": lanes, "overload": overload, "kills": kills, "soak": soak, "null": null,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--corpus", type=Path, required=True, help="unpacked source archive")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--kept", type=Path, help="file that keeps the requests between runs")
    parser.add_argument("--seconds", type=float, default=20, help="of a part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, for share: EMBEDCODE_DEVICE=cuda"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill", action="store_true", help="kill the engine once during the soak")
    parser.add_argument("--fastapi", type=Path, help="Python of that environment")
    parser.add_argument("--bf16", action="store_true", help="also the FastAPI server in bf16")
    parser.add_argument("--infinity", type=Path, help="Python of that environment")
    parser.add_argument("--weights", type=Path, help="MiniLM's folder, for infinity's engine torch")
    parser.add_argument("--onnx", type=Path, help="MiniLM's graphs, for its engine optimum; see env/serve_infinity.txt")
    args = parser.parse_args()
    result = record.context()
    result["note"] = "Two cores, shared by client and server; see machine.flags for what the processor computes fast."
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus.own_settings(work)
        bodies = Bodies(args.corpus, args.kept or work / "bodies.json")
        result |= {"scenario": args.scenario, "corpus": args.corpus.name, "requests": len(bodies.all),
                   "tokens_a_request": round(bodies.mean, 1)}  # fmt: skip
        result["load_average_before"] = os.getloadavg()[0]
        result |= SCENARIOS[args.scenario](args, bodies, work)
        result["load_average_after"] = os.getloadavg()[0]
    record.write(args.out, result)


if __name__ == "__main__":
    main()
