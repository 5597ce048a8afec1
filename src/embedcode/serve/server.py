"""Server: the applications put together, listening, and how they start and end. Knows no command line."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from embedcode import engine
from embedcode.engine.encoder import LocalEncoder
from embedcode.engine.graph import GraphEncoder
from embedcode.engine.torch_encoder import LATE, TorchEncoder
from embedcode.errors import ModelError, UsageError
from embedcode.model.presets import licence
from embedcode.serve import embeddings_api, model_api
from embedcode.serve.asked import Model
from embedcode.serve.embedder import Embedder, Limits
from embedcode.serve.guard import LOCAL, Guard
from embedcode.serve.journal import Journal, Lines
from embedcode.serve.metrics import Metrics
from embedcode.serve.model_api import About
from embedcode.serve.options import Options
from embedcode.serve.patience import Patient
from embedcode.serve.problem import ProblemError, respond
from embedcode.serve.worker import Load
from embedcode.settings import Settings
from embedcode.types import Role

CLEAN, FORCED = 0, 1
"""Exit codes: all that was under way was answered, or it was cut off."""
CLOSE_SECONDS = 2
"""For answers that are still being written when the server ends."""


def serve(options: Options, settings: Settings, announce: Callable[[str], None]) -> int:
    """Answer until SIGTERM or SIGINT; the exit code. `announce` gets the address once connections are taken.

    UsageError for an address that cannot be had or should not be, ModelError for a model that cannot be loaded.
    """
    check_bind(options)
    encoder = local(settings)
    listener = listen(options.host, options.port)
    journal = Journal(settings.log_level if settings.sources["log_level"] != "default" else "info", options.json_logs)
    logging.basicConfig(level=logging.WARNING, handlers=[Lines(journal)], force=True)
    try:
        return asyncio.run(_Serving(options, settings, encoder, journal, listener, announce).run())
    finally:
        listener.close()
        journal.close()


def local(settings: Settings) -> LocalEncoder:
    encoder = engine.configured(settings)
    if not isinstance(encoder, LocalEncoder):
        raise UsageError(f"{settings.model} is a server already: give the model of one that is to run here")
    return encoder


def check_bind(options: Options) -> None:
    if options.host not in LOCAL and options.api_keys is None and not options.insecure_bind:
        raise UsageError(
            f"to listen on {options.host}, where others reach it, the server wants keys: give --api-keys FILE, or "
            "--insecure-bind if all who reach it may use it"
        )


def listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"{host} port {port} cannot be used ({(error.strerror or str(error)).lower()}): give another --port, or 0 "
            "for a free one"
        ) from None


def embedder(options: Options, settings: Settings, encoder: LocalEncoder, metrics: Metrics) -> Embedder:
    """The door to the engine, which is not started yet. HTTP, gRPC and search all take this one."""
    conditions = encoder.conditions
    model = Model(
        name=options.served_name or conditions.name,
        dim=encoder.dim,
        dimensions=conditions.dimensions,
        prompts={role: conditions.prompts[role] for role in Role},
        late=isinstance(encoder, TorchEncoder) and encoder.max_tokens >= LATE,
        default_role=Role(options.default_input_type) if options.default_input_type else None,
        accept_ids=options.accept_token_ids,
        most_inputs=options.max_inputs,
    )
    limits = Limits(
        timeout=options.timeout,
        max_tokens=options.max_tokens or None,
        most_tokens=options.max_queue_tokens,
        most_requests=options.max_requests,
        batch_texts=options.batch_texts,
        cache_bytes=options.cache_mb * 1_000_000,
        double_prompts=options.double_prompts,
        overload=503 if options.strict_nim else 429,
    )
    load = Load(
        settings.model,
        settings.precision,
        settings.device,
        settings.stream,
        settings.threads,
        settings.home,
        max(options.batch_tokens, encoder.streams * options.batch_tokens // 4),
    )
    return Embedder(encoder, load, model, limits, metrics)


def about(encoder: LocalEncoder) -> About:
    if isinstance(encoder, GraphEncoder):
        files = [*encoder.spec.files, encoder.spec.folder / "tokenizer.json"]
        terms = encoder.spec.licence
    else:
        assert isinstance(encoder, TorchEncoder)
        folder = encoder.checkpoint.folder
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
        terms = licence(encoder.conditions.name, folder)
    return About(terms, tuple((path.name, path.stat().st_size) for path in files if path.is_file()))


def application(routes: list[BaseRoute], guard: Guard) -> Starlette:
    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            said = f"{request.method} {request.url.path[:200]}: {error.detail.lower()}."
            error = ProblemError(error.status_code, said, code="not_found" if error.status_code == 404 else None)
        assert isinstance(error, ProblemError)
        if error.reason:
            request.state.note["reason"] = error.reason
        return respond(error, request.state.id)

    return Starlette(
        routes=routes,
        middleware=[Middleware(guard.around)],
        exception_handlers={HTTPException: refused, ProblemError: refused},
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are ours."""
        yield


class _Serving:
    """One life of the server."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        encoder: LocalEncoder,
        journal: Journal,
        listener: socket.socket,
        announce: Callable[[str], None],
    ) -> None:
        self._options = options
        self._journal = journal
        self._listener = listener
        self._announce = announce
        metrics = Metrics()
        self._embedder = embedder(options, settings, encoder, metrics)
        routes: list[BaseRoute] = [
            embeddings_api.route(self._embedder, options.body_bytes),
            *model_api.routes(self._embedder, about(encoder)),
        ]
        paths = frozenset(route.path for route in routes if isinstance(route, Route))
        hosts = frozenset(options.allowed_hosts)
        if options.host in LOCAL:
            hosts |= LOCAL
        self._app = application(routes, Guard(journal, metrics, hosts, paths))
        self._signals = 0
        self._signalled = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal)
        server = _Server(self._config())
        self._embedder.start()
        assert self._embedder.unusable is not None
        serving = asyncio.create_task(server.serve([self._listener]))
        signalled = asyncio.create_task(self._signalled.wait())
        ready = asyncio.create_task(self._tell_ready())
        try:
            ends: set[asyncio.Future[Any]] = {serving, signalled, self._embedder.unusable}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._embedder.unusable.done():
                raise ModelError(self._embedder.unusable.result())
            clean = await self._drain()
            self._journal.write("drained", clean=clean)
            return CLEAN if clean else FORCED
        finally:
            server.should_exit = True
            ready.cancel()
            signalled.cancel()
            await asyncio.wait({serving}, timeout=CLOSE_SECONDS + 1)
            await asyncio.to_thread(self._embedder.stop)

    async def _drain(self) -> bool:
        """True where all was answered; a second signal ends the wait."""
        self._journal.write("draining", queries=self._embedder.queue.requests)
        self._signalled.clear()
        draining = asyncio.create_task(self._embedder.drain(self._options.drain_seconds))
        again = asyncio.create_task(self._signalled.wait())
        either: set[asyncio.Future[Any]] = {draining, again}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if draining.done():
            return draining.result()
        draining.cancel()
        return False

    async def _tell_ready(self) -> None:
        scheme = "https" if self._options.tls_cert else "http"
        host, port = self._listener.getsockname()[:2]
        self._announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        while not self._embedder.ready:
            await asyncio.sleep(0.02)
        facts = self._embedder.facts
        assert facts is not None
        self._journal.write(
            "ready",
            model=self._embedder.model.name,
            space=self._embedder.space,
            build=facts.build,
            tokens_per_second=round(facts.rate),
            load_seconds=round(facts.seconds, 2),
            golden_cosine=round(facts.cosine, 4),
        )

    def _signal(self) -> None:
        self._signalled.set()

    def _config(self) -> uvicorn.Config:
        options = self._options
        return uvicorn.Config(
            self._app,
            http=type("Patient", (Patient,), {"head_seconds": options.header_seconds}),
            access_log=False,
            log_config=None,
            log_level="error",
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
            ssl_certfile=_text(options.tls_cert),
            ssl_keyfile=_text(options.tls_key),
        )


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
