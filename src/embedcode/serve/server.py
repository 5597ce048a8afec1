"""Server: the applications put together, listening, and how they start and end. Knows no command line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from embedcode import engine
from embedcode.engine import memory
from embedcode.engine.encoder import LATE, LocalEncoder
from embedcode.engine.graph import GraphEncoder
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import ModelError, UsageError
from embedcode.files import is_folder
from embedcode.model.presets import licence, preset
from embedcode.serve import (
    embeddings_api,
    model_api,
    openapi,
    pages,
    patience,
    plan,
    search_api,
    status_api,
    telemetry,
    tls,
)
from embedcode.serve.asked import Model
from embedcode.serve.body import Bodies
from embedcode.serve.embedder import Embedder
from embedcode.serve.guard import LOCAL, Guard
from embedcode.serve.indexes import Indexes
from embedcode.serve.inner import InnerEncoder
from embedcode.serve.journal import Journal, Lines, written
from embedcode.serve.kept import Kept
from embedcode.serve.keys import Keys
from embedcode.serve.lately import Lately
from embedcode.serve.limits import Limits
from embedcode.serve.metrics import Metrics
from embedcode.serve.model_api import About
from embedcode.serve.options import Options
from embedcode.serve.port import WAITING, listen, raise_limit
from embedcode.serve.problem import ProblemError, raised, respond
from embedcode.serve.worker import Load
from embedcode.settings import Settings
from embedcode.types import Role

if TYPE_CHECKING:
    from embedcode.serve.grpc_api import GrpcServer

CLEAN, FORCED = 0, 1
"""Exit codes: all that was under way was answered, or it was cut off."""
RENEW_SECONDS = 2
"""Between two looks at whether there is another certificate."""
IDLE_SECONDS = 120
"""For which a connection without a request is kept. Who closes it is not to be us, or a request that is just being sent
on it is lost: nginx and AWS's balancers keep theirs for 60 seconds, Go's clients for 90, and uvicorn would for 5."""
CLOSE_SECONDS = 2
"""For answers that are still being written when the server ends."""
ACCEPTED = 16
"""Connections that are accepted in a turn of the loop, in which each of those before takes a step. By asyncio's one
number for these and for those that wait, 2,048, callers who left, 700 a second, were accepted sooner than they could be
seen to have left: 349 MB, and 41 seconds for a query beside them; now 75 MB, and 3 seconds."""
OWN_FILES = 200
"""Open files of the server beside its connections, at most."""
TAKEN = 1 / 3
"""Of `drain_seconds`, in which queries are still taken while others are under way: callers who keep asking would never
let it end."""


def serve(options: Options, settings: Settings, announce: Callable[[str], None]) -> int:
    """Answer until SIGTERM or SIGINT; the exit code. `announce` gets the address once connections are taken.

    UsageError for an address that cannot be had or should not be, ModelError for a model that cannot be loaded.
    """
    check_bind(options)
    patience.check()
    if options.tls_cert and options.tls_key:
        tls.check(options.tls_cert, options.tls_key)
    memory.one_heap()
    encoder = local(settings)
    plan.check(encoder, options)
    listener = listen(options.host, options.port)
    journal = Journal(settings.log_level if settings.sources["log_level"] != "default" else "info", options.json_logs)
    logging.basicConfig(level=logging.WARNING, handlers=[Lines(journal)], force=True)
    if (files := raise_limit()) < options.max_requests + OWN_FILES:
        cure = f"raise the limit (ulimit -Hn), or lower max_requests to {max(1, files - OWN_FILES)}"
        journal.write("few open files", "warning", limit=files, max_requests=options.max_requests, cure=cure)
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
    hosts = [options.host, *([options.grpc_host] if options.grpc_port is not None else [])]
    host = next((host for host in hosts if host not in LOCAL), None)
    if host is not None and options.api_keys is None and not options.insecure_bind:
        raise UsageError(
            f"to listen on {host}, where others reach it, the server wants keys: give --api-keys FILE, or "
            "--insecure-bind if all who reach it may use it"
        )


def embedder(options: Options, settings: Settings, encoder: LocalEncoder, metrics: Metrics) -> Embedder:
    """The door to the engine, which is not started yet. HTTP, gRPC and search all take this one."""
    conditions = encoder.conditions
    model = Model(
        name=options.served_name or public(conditions.name),
        dim=encoder.dim,
        dimensions=conditions.dimensions,
        prompts={role: conditions.prompts[role] for role in Role},
        late=encoder.max_tokens >= LATE,
        default_role=Role(options.default_input_type) if options.default_input_type else None,
        accept_ids=options.accept_token_ids,
        most_inputs=options.max_inputs,
        max_tokens=min(encoder.max_tokens, options.max_tokens or encoder.max_tokens),
    )
    limits = Limits(
        timeout=options.timeout,
        max_tokens=options.max_tokens or None,
        most_tokens=options.max_queue_tokens,
        most_requests=options.max_requests,
        batch_texts=options.batch_texts,
        cache_bytes=options.cache_mb * 1_000_000,
        double_prompts=options.double_prompts,
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


def public(name: str) -> str:
    """What requests call a model: its name on the hub, and not the folder it lies in."""
    if "/" in name and not is_folder(name):
        return name
    known = preset(name)
    return known.name if known else Path(name).resolve().name


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


def audited(path: Path) -> IO[str]:
    """The audit log, to be added to; for its owner only. A first line shows that it can be."""
    number = None
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(number, f"{written(True, 'opened', 'info')}\n".encode())
        return os.fdopen(number, "a", encoding="utf-8")
    except OSError as error:
        if number is not None:
            os.close(number)
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another audit log") from None


def hosts(options: Options) -> frozenset[str]:
    """The names it answers to; none are all. The local ones always count: what asks by them is on this machine."""
    if options.host in LOCAL or options.allowed_hosts:
        return LOCAL | frozenset(options.allowed_hosts)
    return frozenset()


def application(routes: list[BaseRoute], guard: Guard) -> Starlette:
    async def refused(request: Request, error: Exception) -> Response:
        return respond(guard.refused(raised(request, error), request.state.note), request.state.id)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(guard.around)],
        exception_handlers={HTTPException: refused, ProblemError: refused},
    )
    # To http:// and the Host that was sent: behind a proxy for TLS the texts would come once more, in the clear.
    app.router.redirect_slashes = False
    return app


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are ours."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(WAITING)


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
        self._encoder = encoder
        self._metrics = Metrics()
        self._audit: Journal | None = None
        if options.audit_log:
            self._audit = Journal("info", True, audited(options.audit_log), self._audit_failed)
        self._embedder = embedder(options, settings, encoder, self._metrics)
        self._metrics.watch(lambda: self._embedder.engine.process.pid)
        self._embedder.engine.note = journal.write
        self._embedder.telemetry = self._telemetry = telemetry.configured(journal.write)
        self._signalled = asyncio.Event()
        self._hung_up = False
        self._grpc: GrpcServer | None = None
        self._grpc_address = ""
        self._bodies = Bodies(options.body_bytes, options.body_seconds)

    def _application(self) -> tuple[Starlette, Guard]:
        options, lately = self._options, Lately()
        keys = Keys(options.api_keys) if options.api_keys else None
        bodies = self._bodies
        routes: list[BaseRoute] = [
            embeddings_api.route(self._embedder, bodies),
            *model_api.routes(self._embedder, about(self._encoder)),
            status_api.route(self._embedder, lately, list(options.index)),
            openapi.route(self._embedder.model, list(options.index), keys is not None),
            pages.route("/", "status.html"),
            pages.route("/docs", "docs.html"),
            *pages.assets(),
        ]
        if options.index:
            inner = InnerEncoder(self._embedder, self._encoder, asyncio.get_running_loop())
            kept = {name: Kept(path, inner, self._journal.write) for name, path in options.index.items()}
            routes += [pages.route("/search", "index.html"), *search_api.routes(Indexes(kept), bodies)]
            Thread(target=self._prepare, args=[kept], daemon=True).start()
        paths = frozenset(route.path for route in routes if isinstance(route, Route))
        if options.grpc_port is not None:
            from embedcode.serve.grpc_api import PATHS

            paths |= PATHS
        guard = Guard(
            self._journal,
            self._metrics,
            hosts(options),
            paths,
            keys,
            self._audit,
            lately,
            self._telemetry,
            options.log_texts,
            overload=503 if options.strict_nim else 429,
        )
        return application(routes, guard), guard

    def _prepare(self, kept: Mapping[str, Kept]) -> None:
        """Read each repository, and give it the vectors it lacks, once there is an engine."""
        while not self._embedder.ready:
            time.sleep(0.1)
        for step in (Kept.warm, Kept.finish):
            for name, one in kept.items():
                try:
                    step(one)
                except Exception as error:  # one that fails costs the others nothing
                    self._journal.write("index", "warning", name=name, trouble=type(error).__name__)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        app, guard = self._application()
        server = _Server(self._config(app, guard))
        await self._start_grpc(guard)
        engine = self._embedder.engine
        self._embedder.start()
        assert engine.unusable is not None
        serving = asyncio.create_task(server.serve([self._listener]))
        signalled = asyncio.create_task(self._signalled.wait())
        ready = asyncio.create_task(self._tell_ready())
        renewing = asyncio.create_task(self._renew(server.config))
        try:
            ends: set[asyncio.Future[Any]] = {serving, signalled, engine.unusable}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if engine.unusable.done():
                raise ModelError(engine.unusable.result())
            if serving.done():  # which nothing but a fault of its own ends by now
                serving.result()
                return FORCED
            clean = await self._drain(guard)
            self._journal.write("drained", clean=clean)
            return CLEAN if clean else FORCED
        finally:
            server.should_exit = True
            ready.cancel()
            renewing.cancel()
            signalled.cancel()
            await asyncio.wait({serving}, timeout=CLOSE_SECONDS + 1)
            if self._grpc is not None:
                await self._grpc.stop(CLOSE_SECONDS)
            await asyncio.to_thread(self._embedder.stop)
            await asyncio.to_thread(self._telemetry.stop)
            if self._audit is not None:
                await asyncio.to_thread(self._audit.close)

    async def _start_grpc(self, guard: Guard) -> None:
        if self._options.grpc_port is not None:
            from embedcode.serve.grpc_api import GrpcServer

            self._grpc = GrpcServer(self._embedder, guard, self._options)
            self._grpc_address = await self._grpc.start()

    async def _drain(self, guard: Guard) -> bool:
        """True where all was answered, and the answers read; a second signal ends the wait."""
        self._journal.write("draining", queries=self._embedder.queue.requests)
        self._signalled.clear()
        guard.closing = True
        draining = asyncio.create_task(self._finish())
        again = asyncio.create_task(self._signalled.wait())
        either: set[asyncio.Future[Any]] = {draining, again}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if draining.done():
            return draining.result()
        draining.cancel()
        return False

    async def _finish(self) -> bool:
        """Whether what is under way was done with in time."""
        fronts = [self._bodies, *([self._grpc.bodies] if self._grpc is not None else [])]

        def end() -> None:
            for bodies in fronts:
                bodies.end()
            if self._grpc is not None:  # connections that stay open are sent to another server
                ends.append(asyncio.ensure_future(self._grpc.stop(seconds)))

        seconds = self._options.drain_seconds
        ends: list[asyncio.Future[None]] = []
        ending = asyncio.get_running_loop().call_later(TAKEN * seconds, end)
        try:
            async with asyncio.timeout(seconds):
                await self._embedder.drain()
                end()
                for bodies in fronts:
                    await bodies.wait_empty()
        except TimeoutError:
            return False
        finally:
            ending.cancel()
        return True

    async def _tell_ready(self) -> None:
        scheme = "https" if self._options.tls_cert else "http"
        host, port = self._listener.getsockname()[:2]
        self._announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        if self._grpc is not None:
            self._announce(self._grpc_address)
        while not self._embedder.ready:
            await asyncio.sleep(0.02)
        facts = self._embedder.engine.facts
        assert facts is not None
        self._journal.write(
            "ready",
            model=self._embedder.model.name,
            space=self._embedder.space,
            build=facts.build,
            tokens_per_second=round(facts.rate),
            load_seconds=round(facts.seconds, 2),
            golden_cosine=None if facts.cosine is None else round(facts.cosine, 4),
        )

    def _audit_failed(self, said: str, lines: int) -> None:
        self._metrics.unaudited.inc(lines)
        if said:
            self._journal.write("audit", "error", trouble=said, file=str(self._options.audit_log))

    async def _renew(self, config: uvicorn.Config) -> None:
        """Take a certificate that replaces the one there is; connections that are open keep theirs."""
        options = self._options
        if options.tls_cert is None or options.tls_key is None:
            return
        files, said = tls.Renewed(options.tls_cert, options.tls_key), ""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if (fresh := await asyncio.to_thread(files.made, tls.context)) is not None:
                assert isinstance(config.ssl, tls.Context)
                config.ssl.fresh = fresh
                self._journal.write("certificate renewed")
            if files.trouble != said:
                said = files.trouble
                self._metrics.stale.set(bool(said))
                self._journal.write("certificate", "error" if said else "info", trouble=said)

    def _signal(self) -> None:
        self._signalled.set()

    def _hang_up(self) -> None:
        """A terminal that closes may say so twice, itself and by its shell: no second signal, which cuts off."""
        if not self._hung_up:
            self._hung_up = True
            self._signal()

    def _config(self, app: Starlette, guard: Guard) -> uvicorn.Config:
        options = self._options
        own = {
            "head_seconds": options.header_seconds,
            "read_seconds": options.read_seconds,
            "unreadable": guard.unreadable,
        }
        config = uvicorn.Config(
            app,
            http=type("Patient", (patience.Patient,), own),
            proxy_headers=False,  # any process of this machine could say what client the logs have
            access_log=False,
            log_config=None,
            log_level="error",
            lifespan="off",
            ws="none",
            backlog=ACCEPTED,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        config.load()
        if options.tls_cert and options.tls_key:
            config.ssl = tls.context(options.tls_cert, options.tls_key)
        return config
