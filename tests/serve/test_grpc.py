"""gRPC, asked by Triton's client and with raw bytes; the server is a process of its own."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from embedcode.serve import keys, kserve
from embedcode.serve.grpc_api import mangled, read
from embedcode.serve.problem import ProblemError

from .doors import model
from .serving import MODEL, PATIENCE, Server, environment, prompted, serving

NAME = "embedcode_small"
TEXTS = ["def logout(request):\n    request.session.flush()", "close a session", "größe = 'ß'"]


def address(server: Server) -> str:
    assert server.process.stdout is not None
    line = server.process.stdout.readline().strip()
    assert line.startswith("grpc://127.0.0.1:"), line
    return line.removeprefix("grpc://")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    short = {"EMBEDCODE_SERVE_HEADER_SECONDS": "3"}
    with serving(tmp_path_factory.mktemp("grpc"), "--grpc-port", "0", **short) as server:
        yield server, address(server)


@pytest.fixture(scope="module")
def server(both: tuple[Server, str]) -> Server:
    return both[0]


@pytest.fixture(scope="module")
def client(both: tuple[Server, str]) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(both[1]) as client:
        yield client


@pytest.fixture(scope="module")
def channel(both: tuple[Server, str]) -> Iterator[Any]:
    with grpc.insecure_channel(both[1]) as channel:
        yield channel


def tensor(name: str, values: list[bytes], shape: tuple[int, ...] | None = None) -> triton.InferInput:
    array = np.array(values, object).reshape(shape or (len(values), 1))
    made = triton.InferInput(name, array.shape, "BYTES")
    made.set_data_from_numpy(array)
    return made


def ask(
    client: triton.InferenceServerClient, texts: list[str], name: str = NAME, modality: bool = False, **more: Any
) -> triton.InferResult:
    inputs = [tensor("text", [text.encode() for text in texts])]
    if modality:
        inputs.append(tensor("modality", [b"text"] * len(texts)))
    return client.infer(name, inputs, client_timeout=PATIENCE, **more)


def raw(channel: Any, method: str, content: bytes) -> tuple[grpc.StatusCode, str]:
    """Code and message of what is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{kserve.SERVICE}/{method}")(content, timeout=PATIENCE)
    return caught.value.code(), caught.value.details()


def test_the_messages_are_those_of_the_protocol() -> None:
    def fields(descriptor: Any) -> set[Any]:
        return {
            (one.number, one.name, one.type, one.is_repeated, one.message_type and one.message_type.full_name)
            for one in descriptor.fields
        }

    def same(ours: Any, theirs: Any) -> None:
        assert ours.full_name == theirs.full_name
        assert fields(ours) == fields(theirs)
        for inner in ours.nested_types:
            same(inner, theirs.nested_types_by_name[inner.name])

    for name in kserve._CLASSES:
        same(kserve.message(name).DESCRIPTOR, service_pb2.DESCRIPTOR.message_types_by_name[name])


def test_the_name_of_a_model() -> None:
    assert mangled("nvidia/nv-embedcode-7b-v1") == "nvidia_nv_embedcode_7b_v1"
    assert mangled(MODEL) == NAME


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert client.get_server_metadata().name == "embedcode"
    found = client.get_model_metadata(NAME, as_json=True)
    assert found["name"] == NAME
    assert [(one["name"], one["datatype"]) for one in found["inputs"]] == [("text", "BYTES"), ("modality", "BYTES")]
    assert [(one["name"], one["datatype"], one["shape"]) for one in found["outputs"]] == [
        ("token_count", "INT32", ["-1"]),
        ("embeddings", "FP32", ["-1", "384"]),
        ("original_token_count", "INT32", ["-1"]),
        ("truncated", "BOOL", ["-1"]),
        ("estimated", "BOOL", ["-1"]),
        ("index", "INT32", ["-1"]),
        ("error_index", "INT32", ["-1"]),
        ("error_message", "BYTES", ["-1"]),
    ]


@pytest.mark.parametrize("role", ["query", "passage"])
def test_the_vectors_are_those_of_http(server: Server, client: triton.InferenceServerClient, role: str) -> None:
    result = ask(client, TEXTS, parameters={"input_type": role}, modality=True, request_id="mine")
    status, answer = server.embed(TEXTS, input_type=role)
    assert status == 200
    vectors = result.as_numpy("embeddings")
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.array([row["embedding"] for row in answer["data"]], np.float32))
    counts = result.as_numpy("token_count")
    assert counts.dtype == np.int32
    assert counts.tolist() == [receipt["used"] for receipt in answer["embedcode"]["inputs"]]
    assert result.get_response(as_json=True)["id"] == "mine"
    assert result.get_response().model_name == NAME


@pytest.mark.parametrize(("kind", "dtype", "width"), [("int8", np.int8, 384), ("ubinary", np.uint8, 48)])
def test_kinds(server: Server, client: triton.InferenceServerClient, kind: str, dtype: Any, width: int) -> None:
    found = ask(client, TEXTS, parameters={"embedding_type": kind}).as_numpy("embeddings")
    assert (found.dtype, found.shape) == (dtype, (3, width))
    _, answer = server.embed(TEXTS, input_type="query", embedding_type=kind)
    assert np.array_equal(found, np.array([row["embedding"] for row in answer["data"]], dtype))


def test_one_output_and_strings_in_the_message(channel: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name=NAME)
    text = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    text.contents.bytes_contents.extend([b"a session", b"a price"])
    request.outputs.add(name="token_count")
    content = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(request.SerializeToString(), timeout=PATIENCE)
    answer = service_pb2.ModelInferResponse.FromString(content)
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [("token_count", [2])]
    assert np.frombuffer(answer.raw_output_contents[0], "<i4").tolist() == [4, 4]


def test_truncation(server: Server, client: triton.InferenceServerClient) -> None:
    long = ["token " * 1000]
    with pytest.raises(InferenceServerException, match="Input length 1002 exceeds maximum allowed token size"):
        ask(client, long)
    cut = ask(client, long, parameters={"truncate": "END"})
    assert cut.as_numpy("token_count").tolist() == [server.embed(long, truncate="END")[1]["usage"]["prompt_tokens"]]


def test_partial_success_says_which_input_is_bad(server: Server, client: triton.InferenceServerClient) -> None:
    texts = ["good", "", "word " * 600, "fine"]
    found = ask(client, texts, parameters={"on_error": "partial"})
    _, answer = server.embed(texts, input_type="query", on_error="partial")
    assert found.as_numpy("index").tolist() == [row["index"] for row in answer["data"]] == [0, 3]
    assert found.as_numpy("error_index").tolist() == [1, 2]
    told = [message.decode() for message in found.as_numpy("error_message")]
    assert told == [error["message"] for error in answer["embedcode"]["errors"]]
    vectors = found.as_numpy("embeddings")
    assert np.array_equal(vectors, np.array([row["embedding"] for row in answer["data"]], np.float32))
    assert found.as_numpy("token_count").shape == (2,)
    whole = ask(client, ["good", "fine"], parameters={"on_error": "partial"})
    assert whole.as_numpy("index").tolist() == [0, 1]
    assert whole.as_numpy("error_index").tolist() == []
    with pytest.raises(InferenceServerException, match=r"Unknown output 'index'.*with on_error=partial also index"):
        ask(client, ["a"], outputs=[triton.InferRequestedOutput("index")])


def test_receipts_of_each_input_for_who_asks_for_them(server: Server, client: triton.InferenceServerClient) -> None:
    texts = ["word " * 600, "a session", "word " * 20_000]
    names = ("original_token_count", "token_count", "truncated", "estimated")
    asked = [triton.InferRequestedOutput(name) for name in names]
    found = ask(client, texts, parameters={"truncate": "END"}, outputs=asked)
    receipts = server.embed(texts, truncate="END")[1]["embedcode"]["inputs"]
    for output, name in (("original_token_count", "tokens"), ("token_count", "used"), ("truncated", "truncated")):
        assert found.as_numpy(output).tolist() == [receipt[name] for receipt in receipts]
    assert found.as_numpy("truncated").tolist() == [True, False, True]
    guessed = [receipt.get("estimated", False) for receipt in receipts]
    assert found.as_numpy("estimated").tolist() == guessed == [False, False, True]
    assert found.as_numpy("embeddings") is None


def test_an_input_that_is_no_text_costs_the_others_nothing(client: triton.InferenceServerClient) -> None:
    inputs = [tensor("text", [b"a session", b"\xff\xfe"])]
    found = client.infer(NAME, inputs, parameters={"on_error": "partial"}, client_timeout=PATIENCE)
    assert found.as_numpy("index").tolist() == [0]
    assert found.as_numpy("error_index").tolist() == [1]
    assert found.as_numpy("error_message").tolist() == [b"input 1 is no UTF-8: send a text."]


def test_what_was_cut_or_left_out_is_counted_in_the_trailer(channel: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name=NAME)
    text = request.inputs.add(name="text", datatype="BYTES", shape=[3])
    text.contents.bytes_contents.extend([b"token " * 1000, b"", b"a session"])
    request.parameters["truncate"].string_param = "END"
    request.parameters["on_error"].string_param = "partial"
    call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
    _, done = call.with_call(request.SerializeToString(), timeout=PATIENCE)
    trailing = dict(done.trailing_metadata())
    assert (trailing["x-embedcode-truncated"], trailing["x-embedcode-errors"]) == ("1", "1")


@pytest.mark.parametrize(
    ("parameters", "texts", "said"),
    [
        ({"truncate": "MIDDLE"}, ["a"], "truncate"),
        ({"dimensions": 7}, ["a"], "dimensions 7 is not supported"),
        ({"dimensions": "many"}, ["a"], "dimensions is a text"),
        ({"input_type": True}, ["a"], "input_type is true or false"),
        ({"on_error": "skip"}, ["a"], "on_error is 'skip': send one of fail, partial"),
        ({"on_error": "partial"}, ["", ""], "No input can be embedded; the first: input 0 is empty"),
        ({"dimension": 7}, ["a"], "Unknown parameter 'dimension'"),
        ({"encoding_format": "base64"}, ["a"], "Unknown parameter 'encoding_format'"),
        ({"embedding_type": "float64"}, ["a"], "embedding_type"),
        ({}, ["a", ""], "input 1 is empty"),
        ({}, ["a"] * 3000, "at most 2,048"),
    ],
)
def test_what_cannot_be_answered(
    client: triton.InferenceServerClient, parameters: dict[str, Any], texts: list[str], said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said) as caught:
        ask(client, texts, parameters=parameters)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_other_models_inputs_and_outputs(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=f"does not exist: this server has {NAME}") as caught:
        ask(client, ["a"], name="other")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="version '7'"):
        ask(client, ["a"], model_version="7")
    with pytest.raises(InferenceServerException, match="Unknown input 'texts'"):
        client.infer(NAME, [tensor("texts", [b"a"])])
    with pytest.raises(InferenceServerException, match="Unknown output 'vectors'"):
        ask(client, ["a"], outputs=[triton.InferRequestedOutput("vectors")])
    with pytest.raises(InferenceServerException, match="modality 'image' is not supported"):
        client.infer(NAME, [tensor("text", [b"a"]), tensor("modality", [b"image"])])
    with pytest.raises(InferenceServerException, match="text 1 is no UTF-8"):
        client.infer(NAME, [tensor("text", [b"a", b"\xff\xfe"])])
    with pytest.raises(InferenceServerException, match="send \\[batch, 1\\]"):
        client.infer(NAME, [tensor("text", [b"a", b"b"], (1, 2))])
    with pytest.raises(InferenceServerException, match="input is missing"):
        client.infer(NAME, [])


def infer(**more: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=NAME, **more)
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    return request


def test_who_connects_and_says_nothing_is_not_waited_for(server: Server, both: tuple[Server, str]) -> None:
    host, _, port = both[1].partition(":")
    start = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line, suppress(ConnectionError):
        while line.recv(4096):
            pass
    assert time.monotonic() - start < PATIENCE / 2
    assert server.ready()


def test_malformed_messages_are_refused_and_the_server_is_unharmed(server: Server, channel: Any) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    before = server.engine()
    for content in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05abc", b"{}" * 50):
        assert raw(channel, "ModelInfer", content) == (
            invalid,
            "The request cannot be read: the message is no ModelInferRequest.",
        )
    for contents, said in (
        (b"", "of 1 elements, and it has 0"),
        (b"\x01", "ends within the length"),
        (struct.pack("<I", 2**32 - 1) + b"a", "is to have 4294967295 bytes, and 1 are left"),
        (struct.pack("<I", 0) * 9, "of 1 elements, and it has 2"),
    ):
        request = infer(raw_input_contents=[contents])
        if contents:
            assert raw(channel, "ModelInfer", request.SerializeToString())[0] is invalid
            assert said in raw(channel, "ModelInfer", request.SerializeToString())[1]
        else:
            request.ClearField("raw_input_contents")
            assert said in raw(channel, "ModelInfer", request.SerializeToString())[1]
    huge = infer(raw_input_contents=[b"\0\0\0\0"])
    huge.inputs[0].shape[:] = [2**62, 1]
    assert "entries and at most" in raw(channel, "ModelInfer", huge.SerializeToString())[1]
    huge.inputs[0].shape[:] = [-1, 1]
    assert "send [batch, 1]" in raw(channel, "ModelInfer", huge.SerializeToString())[1]
    huge.inputs[0].datatype = "FP32"
    assert "send BYTES" in raw(channel, "ModelInfer", huge.SerializeToString())[1]
    assert raw(channel, "ModelStreamInfer", b"")[0] is grpc.StatusCode.UNIMPLEMENTED
    assert raw(channel, "Nothing", b"")[0] is grpc.StatusCode.UNIMPLEMENTED
    assert server.engine() == before
    assert server.ready()


def test_random_bytes_and_changed_messages(server: Server, channel: Any) -> None:
    draw = random.Random(0)
    good = infer(raw_input_contents=[struct.pack("<I", 9) + b"a session"])
    good.parameters["input_type"].string_param = "passage"
    whole = good.SerializeToString()
    refused = answered = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(bytes(content), timeout=PATIENCE)
            answered += 1
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), error
            refused += 1
    assert refused > 100
    assert not [event for event in server.events() if event["event"] == "mistake"]
    assert server.ready()


def test_every_cut_of_a_message_is_refused_and_a_replay_is_answered_the_same(server: Server, channel: Any) -> None:
    call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
    good = infer(raw_input_contents=[struct.pack("<I", 9) + b"a session"])
    whole = good.SerializeToString()
    for size in range(len(whole)):
        with pytest.raises(grpc.RpcError) as caught:
            call(whole[:size], timeout=PATIENCE)
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    computed = server.metric("embedcode_texts_total")
    first = call(whole, timeout=PATIENCE)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: call(whole, timeout=PATIENCE), range(50))) == {first}
    assert server.metric("embedcode_texts_total") <= computed + 1
    with pytest.raises(grpc.RpcError) as caught:  # two messages after one another are one that says things twice
        call(whole + whole, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [event for event in server.events() if event["event"] == "mistake"]


def test_frames_that_are_cut_or_sent_twice_leave_the_server_unharmed(both: tuple[Server, str]) -> None:
    """A whole conversation of another client, recorded: sent again as it is, cut anywhere, and twice."""
    server, place = both
    host, _, port = place.rpartition(":")
    recorded = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def between() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((host, int(port))) as upstream:
                client.settimeout(PATIENCE)
                upstream.settimeout(PATIENCE)

                def back() -> None:
                    with suppress(OSError):
                        while block := upstream.recv(4096):
                            client.sendall(block)

                thread = Thread(target=back, daemon=True)
                thread.start()
                with suppress(OSError):
                    while block := client.recv(4096):
                        recorded.extend(block)
                        upstream.sendall(block)

        proxy = Thread(target=between, daemon=True)
        proxy.start()
        with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
            content = infer(raw_input_contents=[struct.pack("<I", 9) + b"a session"]).SerializeToString()
            channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(content, timeout=PATIENCE)
        proxy.join(PATIENCE)
    talk = bytes(recorded)
    assert talk.startswith(b"PRI * HTTP/2.0")
    step = max(1, len(talk) // 40)
    for sent in (talk, talk + talk, *(talk[:size] for size in range(0, len(talk), step))):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as line, suppress(ConnectionError):
            line.sendall(sent)
            line.shutdown(socket.SHUT_WR)
            while line.recv(4096):
                pass
    assert server.ready()
    with grpc.insecure_channel(place) as channel:
        channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")(content, timeout=PATIENCE)
    assert not [event for event in server.events() if event["event"] == "mistake"]


def test_bytes_that_are_no_http2(both: tuple[Server, str]) -> None:
    server, place = both
    host, _, port = place.rpartition(":")
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, b"\0" * 10_000):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection, suppress(ConnectionError):
            connection.sendall(content)
            while connection.recv(4096):  # it closes
                pass
    assert server.ready()


def test_a_call_is_counted_and_logged_with_its_id_and_without_its_text(server: Server, channel: Any) -> None:
    path = f"/{kserve.SERVICE}/ModelInfer"
    before = server.metric(f'embedcode_requests_total{{path="{path}",status="200"}}')
    content = infer(raw_input_contents=[struct.pack("<I", 14) + b"a secret price"]).SerializeToString()
    call = channel.unary_unary(path)
    _, done = call.with_call(content, metadata=(("x-request-id", "call-7"),), timeout=PATIENCE)
    assert dict(done.trailing_metadata())["x-request-id"] == "call-7"
    assert server.metric(f'embedcode_requests_total{{path="{path}",status="200"}}') == before + 1
    end = time.monotonic() + PATIENCE
    while not (found := [event for event in server.events() if event.get("id") == "call-7"]):
        assert time.monotonic() < end
        time.sleep(0.05)
    (event,) = found
    assert (event["method"], event["path"], event["status"], event["client"]) == ("gRPC", path, 200, "127.0.0.1")
    assert "secret" not in server.log.read_text()


def test_prompts_and_dimensions(tmp_path: Path) -> None:
    folder = prompted(tmp_path / "model")
    with serving(tmp_path / "home", "--model", str(folder), "--grpc-port", "0") as server:
        with triton.InferenceServerClient(address(server)) as client:
            plain = ask(client, ["a session"], name="tiny_prompted", parameters={"dimensions": 64})
            as_query = ask(client, ["a session"], name="tiny_prompted_query", parameters={"dimensions": 64})
            as_passage = ask(client, ["a session"], name="tiny_prompted_passage")
            with pytest.raises(InferenceServerException, match="is for a passage, and input_type is query"):
                ask(client, ["a"], name="tiny_prompted_passage", parameters={"input_type": "query"})
            with pytest.raises(InferenceServerException, match="begins with this model's prompt") as caught:
                ask(client, ["Instruct: Find the code.\nQuery: a session"], name="tiny_prompted")
            assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        rows = plain.as_numpy("embeddings")
        assert rows.shape == (1, 64)
        assert abs(float(np.linalg.norm(rows[0])) - 1) < 1e-5
        assert np.array_equal(rows, as_query.as_numpy("embeddings"))
        assert as_passage.as_numpy("embeddings").shape == (1, 384)
        assert as_passage.as_numpy("token_count")[0] < as_query.as_numpy("token_count")[0]
        _, answer = server.ask(
            "/v1/embeddings",
            {"model": "tiny/prompted", "input": "a session", "input_type": "query", "dimensions": 64},
        )
        assert np.array_equal(rows[0], np.array(answer["data"][0]["embedding"], np.float32))


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    embed, search = keys.add(path, "embedding", ("embed",)), keys.add(path, "searching", ("search",))
    small = keys.add(path, "small", ("embed",), 10)
    with serving(tmp_path / "home", "--grpc-port", "0", "--api-keys", str(path)) as server:
        with triton.InferenceServerClient(address(server)) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            for headers, code in (
                (None, "UNAUTHENTICATED"),
                ({"authorization": "Bearer no"}, "UNAUTHENTICATED"),
                ({"authorization": f"Bearer {search}"}, "PERMISSION_DENIED"),
            ):
                with pytest.raises(InferenceServerException) as caught:
                    ask(client, ["a session"], headers=headers)
                assert caught.value.status() == f"StatusCode.{code}"
            with pytest.raises(InferenceServerException):
                client.get_model_metadata(NAME)
            given = {"authorization": f"Bearer {embed}"}
            assert ask(client, ["a session"], headers=given).as_numpy("embeddings").shape == (1, 384)
            assert client.get_model_metadata(NAME, headers=given).name == NAME
            ask(client, ["a session"] * 2, headers={"authorization": f"Bearer {small}"})
            with pytest.raises(InferenceServerException) as caught:
                ask(client, ["a session"] * 2, headers={"authorization": f"Bearer {small}"})
            assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        used = [event["key"] for event in server.events() if event.get("method") == "gRPC" and event.get("key")]
        assert {"embedding", "searching", "small"} <= set(used)


def test_overload_is_refused_and_work_of_callers_who_left_is_not_computed(tmp_path: Path) -> None:
    texts = [[f"price {i} {j} " * 100 for j in range(16)] for i in range(24)]
    with serving(tmp_path, "--grpc-port", "0", EMBEDCODE_SERVE_MAX_QUEUE_TOKENS="6000") as server:
        place = address(server)

        def one(group: list[str]) -> tuple[str, Any]:
            with grpc.insecure_channel(place) as channel:
                request = infer(raw_input_contents=[b"".join(struct.pack("<I", len(t)) + t.encode() for t in group)])
                request.inputs[0].shape[:] = [len(group), 1]
                request.parameters["truncate"].string_param = "END"
                request.parameters["input_type"].string_param = "passage"
                call = channel.unary_unary(f"/{kserve.SERVICE}/ModelInfer")
                try:
                    call(request.SerializeToString(), timeout=PATIENCE)
                    return "ok", None
                except grpc.RpcError as error:
                    return error.code().name, dict(error.trailing_metadata() or ())

        with ThreadPoolExecutor(len(texts)) as pool:
            found = list(pool.map(one, texts))
        assert {code for code, _ in found} == {"ok", "RESOURCE_EXHAUSTED"}
        assert all(int(trailing["retry-after"]) >= 1 for code, trailing in found if code != "ok")

        computed = server.metric("embedcode_texts_total")
        count = 1 + int(0.3 * 3 * server.metric("embedcode_drain_tokens_per_second") / 200)  # of three times that
        with triton.InferenceServerClient(place) as client, pytest.raises(InferenceServerException) as caught:
            client.infer(
                NAME,
                [tensor("text", [f"left {j} {'word ' * 200}".encode() for j in range(count)])],
                parameters={"input_type": "passage"},
                client_timeout=0.3,
            )
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        end = time.monotonic() + PATIENCE
        while server.metric("embedcode_open_requests") or server.metric("embedcode_engine_tokens"):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert server.metric("embedcode_texts_total") < computed + count
        assert server.end() == 0


def test_tritons_timeout_is_heeded(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"0\.001 seconds"):
        client.infer(NAME, [tensor("text", [b"in time " * 100])], timeout=1000)
    with pytest.raises(InferenceServerException, match="timeout is the number -1: send microseconds, or 0 for none"):
        client.infer(NAME, [tensor("text", [b"a"])], timeout=-1)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = subprocess.run(
            [sys.executable, "-m", "embedcode", "serve", "--port", "0", "--grpc-port", str(port)],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert found.returncode != 0
    assert f"port {port} cannot be used for gRPC" in found.stderr
    assert "Traceback" not in found.stderr


def test_nims_variable_turns_it_on(tmp_path: Path) -> None:
    with serving(tmp_path, NIM_SERVER_GRPC_BIND_ADDR="127.0.0.1:0") as server:
        with triton.InferenceServerClient(address(server)) as client:
            assert client.is_server_live()
        assert json.loads(server.send("/v1/health/live")[2])["live"]


def test_a_tensor_of_too_many_texts_is_refused_before_they_are_made() -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [5_000_000, 1]}
    request = kserve.message("ModelInferRequest", inputs=[tensor], raw_input_contents=[bytes(8)])
    with pytest.raises(ProblemError, match="5,000,000 entries and at most 2,048"):
        read(request, "m", model())
