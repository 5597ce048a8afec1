"""`serve`: the embedding server. Thin over serve/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.opening import check
from embedcode.cli.options import LocalModel, Threads
from embedcode.errors import UsageError, extra

if TYPE_CHECKING:
    from embedcode.serve.options import Options
    from embedcode.settings import Settings


def serve(
    model: LocalModel = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Listen on this address, for gRPC too.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="Listen on this port; 0 is a free one.  [default: 8000]"),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="Also answer gRPC (KServe V2) on this port, as NIM on 8001."),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]PATH", help="Also search this repository, at /search and /v1/search; repeatable."),
    ] = None,
    api_keys: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answer only who sends one of these keys.")
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Add a key to the file, print it, and end. It can be read nowhere else."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="<embed|search>", help="What a new key is for; repeatable.")
    ] = None,
    key_index: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Which indexes a new key may search; repeatable.")
    ] = None,
    quota: Annotated[int, typer.Option(metavar="N", min=0, help="Tokens a minute of a new key; 0 is no limit.")] = 0,
    insecure_bind: Annotated[
        bool, typer.Option("--insecure-bind", help="Listen where others reach it, though it has no keys.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also answer requests for this host; repeatable.")
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Speak TLS with this certificate, over HTTP and gRPC alike.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="The certificate's private key.")] = None,
    served_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What requests call the model, if not by its own name.")
    ] = None,
    default_input_type: Annotated[
        str | None,
        typer.Option(metavar="<query|passage>", help="For requests that give none, where the model needs one."),
    ] = None,
    accept_token_ids: Annotated[
        bool, typer.Option("--accept-token-ids", help="Take lists of this model's token ids in place of texts.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure memory and speed here, print them, and end: serves nobody.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print one JSON object.")] = False,
    threads: Threads = None,
) -> None:
    """Serve embeddings over HTTP, as NVIDIA's NIM and OpenAI's API do.

    Needs the extra: pip install '.[serve]' in your clone of embedcode. Prints its address, then logs to stderr. SIGTERM
    or Ctrl-C ends it once the queries under way are answered. Every option is a variable too, EMBEDCODE_SERVE_PORT and
    so on, and NIM's names are understood.
    """
    with extra("serve"):
        from embedcode.serve import options as server_options
        from embedcode.serve.server import serve as run
    from embedcode import settings

    flags: dict[str, Any] = {
        "index": index or None,
        "api_keys": api_keys,
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
        "insecure_bind": insecure_bind or None,
        "allowed_hosts": allowed_host or None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "served_name": served_name,
        "default_input_type": default_input_type,
        "accept_token_ids": accept_token_ids or None,
    }
    chosen = server_options.load(flags)
    if new_key is not None:
        _add_key(chosen.api_keys, new_key, scope or [], quota, key_index or [])
        return
    of_a_key = {"--scope": scope, "--key-index": key_index, "--quota": quota}
    if given := [name for name, value in of_a_key.items() if value]:
        raise UsageError(f"{' and '.join(given)} is for a new key: give --new-key NAME with it")
    if as_json and not plan:
        raise UsageError("--json is for --plan: give both, or neither")
    for path in chosen.index.values():
        check(str(path))
    for name, raw in server_options.nim_settings().items():
        os.environ[f"EMBEDCODE_{name.upper()}"] = raw
    configured = settings.load({"model": model, "threads": threads})
    if configured.model:
        os.environ["EMBEDCODE_MODEL"] = configured.model  # an index remembers what it was made with
    if plan:
        _plan(chosen, configured, as_json)
        return
    code = run(chosen, configured, output.put)
    if code:
        raise typer.Exit(code)


def _plan(options: Options, configured: Settings, as_json: bool) -> None:
    from embedcode.serve import plan, server
    from embedcode.serve.metrics import Metrics

    encoder = server.local(configured)
    need = plan.check(encoder, options)
    found = plan.make(server.embedder(options, configured, encoder, Metrics()), configured.threads, need)
    if as_json:
        output.put_json(found.record())
        return
    rows = (
        ("model", f"{found.model}, {found.build}"),
        ("threads", f"{found.threads}"),
        ("loads in", f"{found.load_seconds:.1f} s"),
        (
            "memory",
            f"{output.megabytes(found.engine_peak)} for the engine, {output.megabytes(found.server_peak)} for "
            f"the server at the peak; {output.megabytes(found.memory_free)} were free",
        ),
        ("passages", f"{found.tokens_per_second:,.0f} tokens/s"),
        ("a query", f"{found.query_ms:.0f} ms; {found.query_beside_ms:.0f} ms (p95) beside passages"),
        ("a batch", f"{found.batch_tokens:,} tokens"),
        ("a lane holds", f"{found.queue_tokens:,} tokens, then 429"),
        ("a request", f"{found.request_tokens:,} tokens at most, or it waits for a lane that is half empty"),
    )
    for name, value in rows:
        output.put(f"{name + ':':<14} {value}")


def _add_key(path: Path | None, name: str, scopes: list[str], quota: int, indexes: list[str]) -> None:
    from embedcode.serve import keys

    if path is None:
        raise UsageError("a key is kept in a file: give --api-keys FILE")
    for scope in scopes:
        if scope not in keys.SCOPES:
            raise UsageError(f"scope {scope} is none of {', '.join(keys.SCOPES)}")
    output.put(keys.add(path, name, tuple(scopes) or keys.SCOPES, quota, tuple(indexes)))
    output.note(f"{path} has its hash: this is the only time the key is shown")
