"""KServe: the messages of the Open Inference Protocol, version 2, and the tensors in them. The adapter to protobuf.

The message classes are made from the table below when this module is imported, in a pool of their own: no generated
file to keep in step with a compiler, and no clash with a client's classes in the same process. Fields and numbers are
those of the protocol's `inference` package, which Triton and NIM speak. Knows no server.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

SERVICE = "inference.GRPCInferenceService"

_MAP = "map<string, InferParameter>"
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; string* extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": (
        "string name = 1; string* versions = 2; string platform = 3; "
        "ModelMetadataResponse.TensorMetadata* inputs = 4; ModelMetadataResponse.TensorMetadata* outputs = 5"
    ),
    "ModelMetadataResponse.TensorMetadata": "string name = 1; string datatype = 2; int64* shape = 3",
    "InferParameter": (
        "bool? bool_param = 1; int64? int64_param = 2; string? string_param = 3; double? double_param = 4; "
        "uint64? uint64_param = 5"
    ),
    "InferTensorContents": (
        "bool* bool_contents = 1; int32* int_contents = 2; int64* int64_contents = 3; uint32* uint_contents = 4; "
        "uint64* uint64_contents = 5; float* fp32_contents = 6; double* fp64_contents = 7; bytes* bytes_contents = 8"
    ),
    "ModelInferRequest": (
        f"string model_name = 1; string model_version = 2; string id = 3; {_MAP} parameters = 4; "
        "ModelInferRequest.InferInputTensor* inputs = 5; ModelInferRequest.InferRequestedOutputTensor* outputs = 6; "
        "bytes* raw_input_contents = 7"
    ),
    "ModelInferRequest.InferInputTensor": (
        f"string name = 1; string datatype = 2; int64* shape = 3; {_MAP} parameters = 4; "
        "InferTensorContents contents = 5"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": f"string name = 1; {_MAP} parameters = 2",
    "ModelInferResponse": (
        f"string model_name = 1; string model_version = 2; string id = 3; {_MAP} parameters = 4; "
        "ModelInferResponse.InferOutputTensor* outputs = 5; bytes* raw_output_contents = 6"
    ),
    "ModelInferResponse.InferOutputTensor": (
        f"string name = 1; string datatype = 2; int64* shape = 3; {_MAP} parameters = 4; "
        "InferTensorContents contents = 5"
    ),
}
"""As the protocol's file has them; `*` is repeated, `?` is one of the choices of a parameter."""
_FIXED = {1: 8, 5: 4}
"""Bytes of a field, by its wire type, where they are always as many."""


class MalformedError(Exception):
    """Bytes that are no such message, or no such tensor."""


def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="embedcode/kserve.proto", package="inference", syntax="proto3")
    made: dict[str, Any] = {}

    def field(message: Any, kind: str, name: str, number: int) -> None:
        label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
        added = message.field.add(name=name, number=number, label=label)
        plain = kind.rstrip("*?")
        if plain in _MESSAGES or plain.endswith(".ParametersEntry"):
            added.type, added.type_name = kinds.TYPE_MESSAGE, f".inference.{plain}"
        else:
            added.type = getattr(kinds, f"TYPE_{plain.upper()}")
        if kind.endswith("?"):
            added.oneof_index = 0

    for full, text in _MESSAGES.items():
        outer, _, own = full.rpartition(".")
        message = made[full] = (made[outer].nested_type if outer else file.message_type).add(name=own)
        if "?" in text:
            message.oneof_decl.add(name="parameter_choice")
        for line in filter(None, text.split("; ")):
            before, number = line.rsplit(" = ", 1)
            kind, name = before.rsplit(" ", 1)
            if kind == _MAP:
                entry = message.nested_type.add(name="ParametersEntry")
                entry.options.map_entry = True
                field(entry, "string", "key", 1)
                field(entry, "InferParameter", "value", 2)
                kind = f"{full}.ParametersEntry*"
            field(message, kind, name, int(number))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name in _MESSAGES
        if "." not in name
    }


_CLASSES = _classes()


def message(name: str, /, **fields: Any) -> Any:
    return _CLASSES[name](**fields)


def parse(name: str, content: bytes) -> Any:
    """MalformedError where the bytes are not such a message."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return _CLASSES[name].FromString(content)
    except DecodeError:
        raise MalformedError(f"the message is no {name}") from None


def count(name: str, content: bytes, most: int) -> int:
    """Fields of a message that is not parsed yet, and of the messages in it, up to one above `most`; a run of numbers
    counts by its bytes. A parser makes something of each: of 15 million empty inputs, in 30 MB, 1.3 GB.

    MalformedError where the bytes end within one.
    """
    found, parts = 0, [(_CLASSES[name].DESCRIPTOR, 0, len(content))]
    try:
        while parts:
            kind, at, end = parts.pop()
            while at < end and found <= most:
                found += 1
                tag, at = _varint(content, at)
                if tag & 7 != 2:
                    at = _varint(content, at)[1] if tag & 7 == 0 else at + _FIXED.get(tag & 7, 0)
                    continue
                size, at = _varint(content, at)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    parts.append((field.message_type, at, min(at + size, end)))
                elif field is not None and field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
                    found += size
                at += size
    except IndexError:
        raise MalformedError(f"the message is no {name}") from None
    return min(found, most + 1)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where it ends."""
    value = 0
    for place in range(10):
        byte = content[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise IndexError


def parameters(given: Any) -> dict[str, bool | int | str | float | None]:
    """Of a request, by their names; None for one without a value."""
    found: dict[str, bool | int | str | float | None] = {}
    for name, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, choice) if choice else None
    return found


def elements(request: Any, index: int) -> list[bytes]:
    """The byte strings of input `index`, from either place where they may stand.

    MalformedError where they are not as many as the shape says.
    """
    tensor = request.inputs[index]
    if tensor.datatype != "BYTES":
        raise MalformedError(f"its datatype is {tensor.datatype[:40]!r}: send BYTES")
    wanted = _count(tensor.shape)
    if request.raw_input_contents:
        if len(request.raw_input_contents) != len(request.inputs):
            raise MalformedError("raw_input_contents has not one entry for each input")
        if tensor.HasField("contents"):
            raise MalformedError("it has contents and raw_input_contents: send one of them")
        found = _strings(request.raw_input_contents[index], wanted)
    else:
        found = list(tensor.contents.bytes_contents)
    if len(found) != wanted:
        raise MalformedError(f"its shape {list(tensor.shape)[:4]} is of {wanted} elements, and it has {len(found)}")
    return found


def strings(texts: Sequence[str]) -> bytes:
    """A BYTES tensor as it is sent: each text after its length in four bytes."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)


def _count(shape: Sequence[int]) -> int:
    """Elements of a column: [n] or [n, 1]."""
    if len(shape) not in (1, 2) or shape[0] < 0 or (len(shape) == 2 and shape[1] != 1):
        raise MalformedError(f"its shape is {list(shape)[:4]}: send [batch, 1]")
    return shape[0]


def _strings(raw: bytes, most: int) -> list[bytes]:
    """Strings after one another, each after its length in four bytes; not more than one above `most`."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= most:
        if at + 4 > len(raw):
            raise MalformedError("it ends within the length of an element")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise MalformedError(f"element {len(found)} is to have {size} bytes, and {len(raw) - at} are left")
        found.append(raw[at : at + size])
        at += size
    return found
