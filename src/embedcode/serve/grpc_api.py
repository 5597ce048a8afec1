"""gRPC: KServe's protocol, version 2, as Triton and NIM speak it, beside HTTP in the same event loop.

A ModelInfer becomes an Asked as a body of /v1/embeddings does, goes through the same door to the engine, and its caller
through the same guard. What it cannot say, it refuses: token ids. The adapter to grpcio.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcode import __version__
from embedcode.errors import UsageError
from embedcode.serve import kserve
from embedcode.serve.answer import Answer
from embedcode.serve.answering import Call, answered
from embedcode.serve.asked import LARGE_BODY, SHOWN, Asked, Model, check, check_count, named
from embedcode.serve.body import GONE, HELD, Bodies
from embedcode.serve.embedder import Embedder
from embedcode.serve.guard import PROBES, Guard
from embedcode.serve.kserve import MalformedError
from embedcode.serve.options import Options
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import FullError, Lane
from embedcode.serve.reading import Reading
from embedcode.serve.tls import Renewed

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr past our log; read when it is imported
import grpc  # type: ignore[import-untyped]

VERSION = "1"
"""Of a model here; a request may name it or none."""
INPUTS = ("text", "modality")
TIMEOUT = "timeout"
"""Microseconds that the answer may take: what Triton's clients make of their argument of that name."""
PARAMETERS = (
    "input_type",
    "truncate",
    "dimensions",
    "embedding_type",
    "on_error",
    "instruction",
    "late_chunking",
    TIMEOUT,
)
OUTPUTS = ("token_count", "embeddings")
RECEIPTS = ("original_token_count", "truncated", "estimated")
"""Outputs beside them for who asks for them by name: tokens of each whole text, whether it was cut, and whether the
first is an estimate, since a long text is not read to its end."""
PARTIAL = ("index", "error_index", "error_message")
"""Outputs beside them with on_error=partial: which input each row is of, and which are bad, and why."""
FIELDS = 200
"""Of a message, beside its texts: twice those of one with all parameters and outputs."""
METHODS = {
    "ServerLive": "/v1/health/live",
    "ServerReady": "/v1/health/ready",
    "ModelReady": "/v1/health/ready",
    "ServerMetadata": "/v1/metadata",
    "ModelMetadata": "/v1/models",
    "ModelInfer": "/v1/embeddings",
}
"""And the path over HTTP that asks the same, by which the guard knows what a key is for."""
PATHS = frozenset(f"/{kserve.SERVICE}/{name}" for name in METHODS)
DATATYPES = {"float": "FP32", "int8": "INT8", "uint8": "UINT8", "binary": "INT8", "ubinary": "UINT8"}
HEADER_BYTES = 16_384
"""Of the metadata of a call."""
SPARE_CALLS = 64
"""That may be under way beside max_requests: what asks for health and metadata while all that is taken is computed."""
OTHERS_UNDER_WAY = SPARE_CALLS // 2
"""Of those that ask for a model's health or metadata: who sends nothing, which needs no key, would take all that is
spare."""
READING = HELD // 2
"""Messages that are read at a time, each of which may be body_bytes. Those that are being answered may take as much
again."""
PROBED = 8
"""And of those that ask for a model's health, whose messages hold a name."""
INFER = f"/{kserve.SERVICE}/ModelInfer"
EMPTY = PROBES[:2]
"""Whose message says nothing, and is not waited for: who is to say whether the server lives waits behind nobody."""
READ_BYTES = 1_000_000
"""Of an answer that a caller has to read in `read_seconds`: how far it has come is not to be seen."""
HURRY_SECONDS = 5.0
"""In which all of them must have come when no further one can be read."""
STREAMS = 128
"""Calls that one connection may have under way; a client's library lets more of them wait."""
IDLE_SECONDS = 600
"""After which a connection without calls is closed; a client opens another one without telling its caller."""
AGE_SECONDS = 3600
"""After which a connection takes no new calls: so a renewed certificate and a new server behind a balancer are seen."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_PEER = re.compile(r"ipv[46]:(?:\[|%5B)?([0-9a-f:.]+?)(?:\]|%5D)?:\d+")

Answering = Callable[[Any, dict[str, Any]], Awaitable[Any]]
"""A message and the state of the call to a message."""


def mangled(name: str) -> str:
    """What a model is called here: nvidia/nv-embedcode-7b-v1 is nvidia_nv_embedcode_7b_v1."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


class GrpcServer:
    def __init__(self, embedder: Embedder, guard: Guard, options: Options) -> None:
        self._embedder = embedder
        self._guard = guard
        self._options = options
        self._names = {form: name for name in embedder.model.names for form in (mangled(name), name)}
        self._server: Any = None
        self.bodies = Bodies(options.body_bytes * READING // HELD)
        self._reading = Reading(READING, options.body_seconds, HURRY_SECONDS)
        self._probes = Reading(PROBED, HURRY_SECONDS, HURRY_SECONDS)
        self._calls = {True: 0, False: 0}
        """Under way: those with something to compute, and others."""

    async def start(self) -> str:
        """Listens; the address. UsageError where it cannot be had."""
        options = self._options
        host, port = options.grpc_host, options.grpc_port
        assert port is not None
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=options.max_requests + SPARE_CALLS,
            options=[
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
                ("grpc.max_connection_age_ms", AGE_SECONDS * 1000),
                ("grpc.max_connection_age_grace_ms", int((options.body_seconds + options.timeout) * 1000)),
                (
                    "grpc.keepalive_time_ms",
                    int(options.read_seconds * 1000),
                ),  # who does not even answer a ping has gone
                ("grpc.max_receive_message_length", options.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", HEADER_BYTES),
                ("grpc.so_reuseport", 0),  # else a second server takes half of the calls
                ("grpc.server_handshake_timeout_ms", int(options.header_seconds * 1000)),  # else two minutes
            ],
        )
        answering: dict[str, Answering] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        # Without a deserializer a handler gets the bytes, and says itself what is wrong with them. As streams, though
        # of one message each, or grpcio would read it before there is a look at the key, and keep an answer uncounted.
        handlers = {
            name: grpc.stream_stream_rpc_method_handler(self._method(name, call)) for name, call in answering.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(kserve.SERVICE, handlers),))
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if options.tls_cert and options.tls_key:
                bound = self._server.add_secure_port(place, _credentials(options.tls_cert, options.tls_key))
            else:
                bound = self._server.add_insecure_port(place)
        except (RuntimeError, OSError) as error:
            raise UsageError(
                f"{host} port {port} cannot be used for gRPC ({error}): give another --grpc-port, or 0 for a free one"
            ) from None
        await self._server.start()
        return f"grpc{'s' if options.tls_cert else ''}://{place.rpartition(':')[0]}:{bound}"

    async def stop(self, seconds: float) -> None:
        """Takes no more calls, and ends those under way after `seconds`."""
        if self._server is not None:
            await self._server.stop(seconds)

    def _method(self, name: str, answering: Answering) -> Callable[[AsyncIterator[bytes], Any], Awaitable[None]]:
        path = f"/{kserve.SERVICE}/{name}"

        async def call(messages: AsyncIterator[bytes], context: Any) -> None:
            headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            state: dict[str, Any] = {"id": self._guard.request_id(headers), "note": {}, "left": context.time_remaining}
            peer = _PEER.fullmatch(context.peer())  # which a call that ends forgets
            state["client"] = peer[1] if peer else ""
            with self._guard.traced("gRPC", path, headers, state["note"]):
                await taken(messages, context, headers, state)

        async def taken(
            messages: AsyncIterator[bytes], context: Any, headers: dict[str, str], state: dict[str, Any]
        ) -> None:
            request_id, since = state["id"], time.monotonic()
            try:
                self._guard.admit(METHODS[name], headers, state)
                with self._room(path), self.bodies.open() as holding:
                    state["holding"] = holding
                    content = await self._message(path, messages, state["client"])
                    holding(len(content))
                    response = await answering(await self._parsed(f"{name}Request", content), state)
                    content = bytes(response.SerializeToString())
                    holding(len(content))
                    context.set_trailing_metadata((("x-request-id", request_id), *state.get("trailing", ())))
                    await self._send(context, content)
            except asyncio.CancelledError:  # the caller has gone, or its deadline has come
                self._count(path, GONE, since, state)
                raise
            except Exception as error:
                problem = self._guard.refused(self._problem(error, path, request_id), state["note"])
            else:
                self._count(path, 200, since, state)
                return
            self._count(path, problem.status, since, state)
            await context.abort(_code(problem), problem.message, _trailing(problem, request_id))

        return call

    async def _message(self, path: str, messages: AsyncIterator[bytes], address: str) -> bytes:
        """The one that a call has."""
        if path in EMPTY:
            return b""
        try:
            return await (self._probes if path in PROBES else self._reading).message(messages, address)
        except StopAsyncIteration:
            await asyncio.sleep(0.05)  # in which a call that was ended, by its caller or for its size, is cancelled
            raise MalformedError("it has no message") from None

    @contextmanager
    def _room(self, path: str) -> Iterator[None]:
        """ProblemError where as many calls are under way as may be: grpcio would refuse the next ones uncounted, and
        health among them."""
        if path in EMPTY:
            yield
            return
        large = path == INFER
        if self._calls[large] >= (self._options.max_requests if large else OTHERS_UNDER_WAY):
            raise self._embedder.full(FullError(1, "requests"))
        self._calls[large] += 1
        try:
            yield
        finally:
            self._calls[large] -= 1

    async def _parsed(self, name: str, content: bytes) -> Any:
        """A large one beside the event loop, after a look at how many fields it has."""
        if len(content) > LARGE_BODY:
            return await asyncio.to_thread(parse, name, content, self._embedder.model)
        return kserve.parse(name, content)

    async def _send(self, context: Any, content: bytes) -> None:
        """Until the caller has read it, or its deadline has come, or its connection ends, or it takes too long: grpcio
        keeps it so long."""
        try:
            async with asyncio.timeout(self._options.read_seconds * (1 + len(content) // READ_BYTES)):
                await context.write(content)
        except (grpc.aio.InternalError, TimeoutError):  # the first is how it says that the connection has ended
            raise asyncio.CancelledError from None

    def _problem(self, error: Exception, path: str, request_id: str) -> ProblemError:
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, MalformedError):
            return ProblemError(400, f"The request cannot be read: {error}.")
        return self._guard.mistake(error, request_id, path)

    def _count(self, path: str, status: int, since: float, state: dict[str, Any]) -> None:
        scope = {"path": path, "method": "gRPC", "client": (state["client"],)}
        self._guard.count(scope, status, time.monotonic() - since, state["id"], state["note"])

    # ---- what is asked -----------------------------------------------------------------------------------------

    async def _live(self, _: Any, state: Any) -> Any:
        return kserve.message("ServerLiveResponse", live=True)

    async def _ready(self, _: Any, state: Any) -> Any:
        return kserve.message("ServerReadyResponse", ready=self._embedder.ready)

    async def _model_ready(self, request: Any, state: Any) -> Any:
        self._name(request.name, request.version)
        return kserve.message("ModelReadyResponse", ready=self._embedder.ready)

    async def _server_metadata(self, _: Any, state: Any) -> Any:
        return kserve.message("ServerMetadataResponse", name="embedcode", version=__version__)

    async def _model_metadata(self, request: Any, state: Any) -> Any:
        self._name(request.name, request.version)
        text = {"datatype": "BYTES", "shape": [-1, 1]}
        return kserve.message(
            "ModelMetadataResponse",
            name=request.name,
            versions=[VERSION],
            platform="embedcode",
            inputs=[{"name": "text", **text}, {"name": "modality", **text}],
            outputs=[
                {"name": "token_count", "datatype": "INT32", "shape": [-1]},
                {"name": "embeddings", "datatype": "FP32", "shape": [-1, self._embedder.model.dim]},
                {"name": "original_token_count", "datatype": "INT32", "shape": [-1]},
                {"name": "truncated", "datatype": "BOOL", "shape": [-1]},
                {"name": "estimated", "datatype": "BOOL", "shape": [-1]},
                {"name": "index", "datatype": "INT32", "shape": [-1]},
                {"name": "error_index", "datatype": "INT32", "shape": [-1]},
                {"name": "error_message", "datatype": "BYTES", "shape": [-1]},
            ],
        )

    async def _infer(self, request: Any, state: dict[str, Any]) -> Any:
        embedder, since = self._embedder, asyncio.get_running_loop().time()
        self.bodies.check()
        name = self._name(request.model_name, request.model_version)
        if request.ByteSize() > LARGE_BODY:
            asked = await asyncio.to_thread(read, request, name, embedder.model)
        else:
            asked = read(request, name, embedder.model)
        wanted = _outputs(request, asked.partial)
        call = Call(since, state.get("key"), state["holding"], state["note"], _patience(request, state["left"]()))
        response, remarks = await answered(embedder, asked, call, lambda one: render(one, asked, request, wanted))
        state["trailing"] = list(remarks.items())
        return response

    def _name(self, given: str, version: str) -> str:
        """The served name; ProblemError 404 for another."""
        found = self._names.get(given)
        if found is None or version not in ("", VERSION):
            known = ", ".join(mangled(name) for name in self._embedder.model.names)
            said = f"{given[:SHOWN]!r}" + (f" version {version[:SHOWN]!r}" if found else "")
            raise ProblemError(404, f"The model {said} does not exist: this server has {known}, version {VERSION}.")
        return found


def parse(name: str, content: bytes, model: Model) -> Any:
    """ProblemError for far more fields than a request has, before a parser makes them all."""
    most = FIELDS + len(INPUTS) * model.most_inputs
    if kserve.count(name, content, most) > most:
        said = f"The message has more fields than {model.most_inputs:,} inputs need: split the request."
        raise ProblemError(400, said)
    return kserve.parse(name, content)


def read(request: Any, name: str, model: Model) -> Asked:
    """MalformedError for tensors that are none, ProblemError for what cannot be answered."""
    given: dict[str, Any] = {"model": name}
    for key, value in kserve.parameters(request.parameters).items():
        if key not in PARAMETERS:
            raise ProblemError(400, f"Unknown parameter {key[:SHOWN]!r}: those are {', '.join(PARAMETERS)}.")
        if key != TIMEOUT:
            given[key] = value
    defaulted = "input_type" not in given and name == model.name and model.needs_role and model.default_role is None
    if defaulted:
        given["input_type"] = "query"  # NVIDIA's default; over HTTP there is none
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in INPUTS:
            raise ProblemError(400, f"Unknown input {tensor.name[:SHOWN]!r}: those are {' and '.join(INPUTS)}.")
        field = "input" if tensor.name == "text" else "modality"
        if field in given:
            raise ProblemError(400, f"The input {tensor.name} is there twice: send it once.")
        check_count(next(iter(tensor.shape), 0), model)  # before there is an object for each
        keep = field == "input" and given.get("on_error") == "partial"
        given[field] = [_text(tensor.name, place, one, keep) for place, one in enumerate(_elements(request, index))]
    asked = check(given, model)
    # Several texts are bulk most likely, whatever they are taken for.
    return replace(asked, lane=Lane.PASSAGE) if defaulted and len(asked.inputs) > 1 else asked


def _patience(request: Any, left: float | None) -> float:
    """Seconds that a caller waits, by its call's deadline and its parameter. ProblemError for what is no time."""
    given = kserve.parameters(request.parameters).get(TIMEOUT, 0)
    if type(given) is not int or given < 0:
        raise ProblemError(400, f"timeout is {named(given)}: send microseconds, or 0 for none.", TIMEOUT)
    return min(left if left is not None else math.inf, given / 1_000_000 or math.inf)


def _elements(request: Any, index: int) -> list[bytes]:
    try:
        return kserve.elements(request, index)
    except MalformedError as error:
        raise MalformedError(f"input tensor {request.inputs[index].name}: {error}") from None


def _text(name: str, index: int, content: bytes, keep: bool) -> str | bytes:
    """With `keep`, bytes that are no text stay as they are."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        if keep:
            return content
        said = f"{name} {index} is no UTF-8 (byte {error.start}): decode it first."
        raise ProblemError(400, said, name, index=index) from None


def _outputs(request: Any, partial: bool) -> list[str]:
    """In the order in which they are answered."""
    usual = OUTPUTS + PARTIAL if partial else OUTPUTS
    known = usual + RECEIPTS
    wanted: list[str] = []
    for output in request.outputs:
        if output.name in wanted:  # 14 bytes would buy all the vectors once more
            raise ProblemError(400, f"The output {output.name} is asked for twice: name it once.", "outputs")
        if output.name not in known:
            cure = "" if partial else f"; with on_error=partial also {', '.join(PARTIAL)}"
            said = f"Unknown output {output.name[:SHOWN]!r}: those are {', '.join(known)}{cure}."
            raise ProblemError(400, said, "outputs")
        wanted.append(output.name)
    return wanted or list(usual)


def render(answer: Answer, asked: Asked, request: Any, wanted: list[str]) -> Any:
    counts = np.array([entry.used for entry in answer.tokens], np.int32)
    numbers = {
        "token_count": ("INT32", counts),
        "embeddings": (DATATYPES[asked.kind], answer.packed(asked)),
        "original_token_count": ("INT32", np.array([entry.original for entry in answer.tokens], np.int32)),
        "truncated": ("BOOL", np.array([entry.truncated for entry in answer.tokens], np.bool_)),
        "estimated": ("BOOL", np.array([entry.estimated for entry in answer.tokens], np.bool_)),
        "index": ("INT32", np.array(answer.places, np.int32)),
        "error_index": ("INT32", np.array([error.index for error in answer.errors], np.int32)),
    }
    outputs, raw = [], []
    for name in wanted:
        if name == "error_message":
            outputs.append({"name": name, "datatype": "BYTES", "shape": [len(answer.errors)]})
            raw.append(kserve.strings([error.message for error in answer.errors]))
            continue
        datatype, values = numbers[name]
        outputs.append({"name": name, "datatype": datatype, "shape": values.shape})
        raw.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return kserve.message(
        "ModelInferResponse",
        model_name=request.model_name,
        model_version=VERSION,
        id=request.id,
        outputs=outputs,
        raw_output_contents=raw,
    )


def _credentials(certificate: Path, key: Path) -> Any:
    """Asks at each handshake whether there is another certificate."""
    files = Renewed(certificate, key)
    first = _configuration(certificate, key)
    return grpc.dynamic_ssl_server_credentials(first, lambda: files.made(_configuration), False)


def _configuration(certificate: Path, key: Path) -> Any:
    return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())])


def _code(problem: ProblemError) -> Any:
    if problem.code == "overloaded":  # whatever HTTP calls it
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if problem.code == "deadline":
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return _CODES.get(problem.status, grpc.StatusCode.INTERNAL)


def _trailing(problem: ProblemError, request_id: str) -> tuple[tuple[str, str], ...]:
    found: Mapping[str, object] = {
        "x-request-id": request_id,
        "retry-after": problem.retry_after,
        "x-embedcode-index": problem.index,
    }
    return tuple((name, str(value)) for name, value in found.items() if value is not None)
