"""Asked: one request for embeddings, read from a body and checked, in the fields of NIM and of OpenAI's API.

A body of the wrong shape is 422, one that this model cannot answer is 400, and either names the field or the input.
Knows no HTTP and computes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import orjson

from embedcode.engine.tokens import printable
from embedcode.model.presets import task
from embedcode.serve.halves import mended
from embedcode.serve.problem import ProblemError
from embedcode.serve.queue import Lane, Late
from embedcode.types import InputError, Role, Truncate

ENCODINGS = ("float", "base64")
KINDS = ("float", "int8", "uint8", "binary", "ubinary")
FIELDS = (
    "model",
    "input",
    "input_type",
    "encoding_format",
    "embedding_type",
    "dimensions",
    "truncate",
    "modality",
    "user",
    "on_error",
    "instruction",
    "late_chunking",
)
"""The last three are ours."""
NO_ROLE = "The model expects an input_type from one of `passage` or `query` but none was provided."
"""NVIDIA's words, which clients match."""
LARGE_BODY = 200_000
"""Bytes, from which on a body is parsed beside the event loop, after a look at how many values it has."""
SEND_TEXT = (
    "send text (in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)), or start the server with "
    "--accept-token-ids."
)
SHOWN = 80
"""Characters of a value that a message shows."""
MOST_INSTRUCTION = 2000
"""Characters of an instruction, which is read before each text; the longest published has 120."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Of JSON; also one without an end, or each quote in it would be tried as the beginning of another."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted. Either `texts` or, where they are allowed, `ids`."""

    model: str
    texts: tuple[str, ...]
    role: Role
    lane: Lane
    ids: tuple[tuple[int, ...], ...] = ()
    truncate: Truncate = Truncate.NONE
    encoding: str = "float"
    kind: str = "float"
    dimensions: int | None = None
    partial: bool = False
    """A bad input is reported, and the others are answered."""
    instruction: str | None = None
    late: bool = False
    """The texts are the parts of one file, in order."""
    wrong: Mapping[int, str] = field(default_factory=dict)
    """With `partial`, the places of inputs that are no text, and what is to be said of each."""

    @property
    def inputs(self) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
        return self.ids or self.texts

    @property
    def file(self) -> Late:
        """The texts as the parts of one file."""
        ends = tuple(accumulate(map(len, self.texts), initial=0))
        return "".join(self.texts), tuple(pairwise(ends))

    @property
    def note(self) -> dict[str, Any]:
        """For the line of the request in the journal."""
        return {
            "role": self.role.value, "lane": self.lane.value, "inputs": len(self.inputs), "texts": self.texts
        }  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What a request may say of the served model."""

    name: str
    dim: int
    dimensions: tuple[int, ...]
    prompts: Mapping[Role, str]
    late: bool = False
    """It can do late chunking."""
    default_role: Role | None = None
    """What an input_type that is not given stands for, where the model needs one."""
    accept_ids: bool = False
    most_inputs: int = 2048
    max_tokens: int = 512
    """Of a text."""

    @property
    def most_ids(self) -> int:
        """Of a request, where they are taken."""
        return self.most_inputs * self.max_tokens if self.accept_ids else 0

    @property
    def needs_role(self) -> bool:
        return self.prompts[Role.QUERY] != self.prompts[Role.PASSAGE]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}-{role}" for role in Role))


def read(body: bytes, model: Model) -> Asked:
    """ProblemError with 400, 404 or 422."""
    if len(body) > LARGE_BODY:
        _check_values(body, model)
    try:
        given = orjson.loads(body)
    except ValueError as error:
        if (given := _with_halves(body)) is None:
            raise ProblemError(422, f"The body is not JSON ({error}): send one object.", code="json_invalid") from None
    if not isinstance(given, dict):
        raise ProblemError(422, f"The body is {named(given)}: send an object with the fields model and input.")
    return check(given, model)


def _check_values(body: bytes, model: Model) -> None:
    """ProblemError for far more values than a request has, before a parser makes them all: ten million empty lists, in
    30 MB, take it seven seconds, in which nothing else is done, and 700 MB."""
    most = 4 * (model.most_inputs + len(FIELDS))  # strings and commas, of inputs and of their modalities
    values = commas = at = 0
    for start, end in chain((one.span() for one in _STRING.finditer(body)), [(len(body), len(body))]):
        values += (start < end) + body.count(b"[", at, start) + body.count(b"{", at, start)
        commas += body.count(b",", at, start)
        at = end
        if values <= most and values + commas <= most + model.most_ids:
            continue
        raise ProblemError(
            400,
            f"The body has more values than {model.most_inputs:,} inputs need: split the request"
            + (f"; if these are token ids, {SEND_TEXT}" if not model.accept_ids else "."),
            "input",
        )


def _with_halves(body: bytes) -> Any:
    """JSON in which a text holds half a surrogate pair, as Python writes a file name that is no UTF-8; else None."""
    if b"\\ud" not in body.lower():
        return None
    try:
        return orjson.loads(mended(body))
    except ValueError:
        return None


def check(given: Mapping[str, Any], model: Model) -> Asked:
    """The same for fields that are read already, as those of gRPC."""
    for key in given:
        if key not in FIELDS:
            shown = key[:SHOWN]
            near = get_close_matches(shown, FIELDS, n=1)
            cure = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(FIELDS)}."
            raise _schema(shown, f"Unknown field {shown!r}: {cure}")
    name = _optional_text(given, "model")
    if name is None:
        raise _schema("model", f"model is missing: give the name of a served model, such as {model.name!r}.")
    known = next((one for one in model.names if one.lower() == name.lower()), None)
    if known is None:
        raise ProblemError(
            404,
            f"The model `{name[:SHOWN]}` does not exist: this server has {', '.join(model.names)}.",
            "model",
            "model_not_found",
        )
    partial = _choice(given, "on_error", ("fail", "partial"), "fail") == "partial"
    texts, ids, wrong = _inputs(given, model, partial)
    role = _role(given, known, model)
    late = given.get("late_chunking")
    late = False if late is None else late
    if not isinstance(late, bool):
        raise _schema("late_chunking", f"late_chunking is {named(late)}: send true or false.")
    truncate = _choice(given, "truncate", tuple(Truncate), Truncate.NONE)
    _modality(given)
    _optional_text(given, "user")
    asked = Asked(
        model=known,
        texts=texts,
        ids=ids,
        role=role or Role.PASSAGE,
        # Without a role a single text is most likely a query, and several are not.
        lane=role or (Lane.QUERY if len(texts or ids) == 1 else Lane.PASSAGE),
        truncate=Truncate(truncate),
        encoding=_choice(given, "encoding_format", ENCODINGS, "float"),
        kind=_choice(given, "embedding_type", KINDS, "float"),
        dimensions=_dimensions(given, model),
        partial=partial,
        wrong=wrong,
        instruction=_instruction(given),
        late=late,
    )
    _sense(asked, model)
    return asked


def _sense(asked: Asked, model: Model) -> None:
    """What is of the right shape, and still cannot be answered."""
    size = asked.dimensions or model.dim
    if asked.kind in ("binary", "ubinary") and size % 8:
        raise ProblemError(
            400,
            f"embedding_type {asked.kind} packs 8 dimensions to a byte, and {size} are no multiple of 8.",
            "embedding_type",
        )
    if asked.instruction is not None and "{instruction}" not in model.prompts[asked.role]:
        takes = any("{instruction}" in prompt for prompt in model.prompts.values())
        where = f" for a {asked.role}" if takes else ""
        raise ProblemError(400, f"{model.name} takes no instruction{where}: leave it out.", "instruction")
    if asked.ids and model.prompts[asked.role]:
        raise ProblemError(
            400,
            f"{model.name} reads a prompt before each {asked.role}, which cannot be put before token ids: send text.",
            "input",
        )
    if not asked.late:
        return
    if not model.late:
        raise ProblemError(
            400,
            f"{model.name} has no late chunking here: it needs a model that reads 2,048 tokens or more.",
            "late_chunking",
        )
    if asked.role is Role.QUERY:
        raise ProblemError(400, "late_chunking is for passages, and not for a query: leave one out.", "late_chunking")
    if asked.ids or asked.truncate is not Truncate.NONE or asked.partial:
        raise ProblemError(
            400,
            "late_chunking takes the parts of one file as texts: send those, with neither truncate nor on_error.",
            "late_chunking",
        )


def _inputs(
    given: Mapping[str, Any], model: Model, partial: bool
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], Mapping[int, str]]:
    """Texts, or ids, and what is wrong with those that are neither."""
    if "input" not in given:
        raise _schema("input", "input is missing: send a text or a list of texts.")
    value = given["input"]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise _schema("input", f"input is {named(value)}: send a text or a list of texts.")
    if not value:
        raise ProblemError(400, "input is an empty list: send at least one text.", "input")
    if all(type(one) is int for one in value):
        value = [value]
    check_count(len(value), model)
    if all(map(_is_ids, value)):
        if not model.accept_ids:
            raise ProblemError(
                400,
                "input holds token ids, which are of another model's tokenizer unless you made them with this one's: "
                + SEND_TEXT,
                "input",
            )
        if (count := sum(map(len, value))) > model.most_ids:
            raise ProblemError(
                400,
                f"input has {count:,} token ids, and at most {model.most_ids:,} are taken: split the request.",
                "input",
            )
        return (), tuple(tuple(one) for one in value), {}
    if model.accept_ids and isinstance(value[0], list):
        index = next(i for i, one in enumerate(value) if not _is_ids(one))
        said = f"input {index} is no list of token ids: send whole numbers from 0, or texts alone."
        raise ProblemError(422, said, "input", index=index)
    wrong = {
        index: f"input {index} is {named(one)}: send a text."
        for index, one in enumerate(value)
        if not isinstance(one, str)
    }
    if wrong and not partial:
        index, said = next(iter(wrong.items()))
        raise ProblemError(422, said, "input", index=index)
    return tuple(one if isinstance(one, str) else "" for one in value), (), wrong


def check_count(count: int, model: Model) -> None:
    """ProblemError for more inputs than there may be."""
    if count > model.most_inputs:
        raise ProblemError(
            400,
            f"input has {count:,} entries and at most {model.most_inputs:,} are taken: split the request.",
            "input",
        )


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)


def _role(given: Mapping[str, Any], name: str, model: Model) -> Role | None:
    """None where it is not given and makes no difference."""
    chosen = _choice(given, "input_type", tuple(Role), None)
    suffix = name.removeprefix(model.name).removeprefix("-")
    if suffix and chosen and chosen != suffix:
        raise ProblemError(
            400, f"The model {name} is for a {suffix}, and input_type is {chosen}: leave one of them out.", "input_type"
        )
    if chosen or suffix:
        return Role(chosen or suffix)
    if model.default_role:
        return model.default_role
    if model.needs_role:
        cure = f" Send input_type, or name the model {model.name}-query or {model.name}-passage."
        raise ProblemError(400, NO_ROLE + cure, "input_type", reason="role")
    return None


def whole(value: Any) -> Any:
    """64.0 as 64, since it is a whole number of JSON's; anything else as it is."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 1e15 else value


def _dimensions(given: Mapping[str, Any], model: Model) -> int | None:
    value = whole(given.get("dimensions"))
    if value is None:
        return None
    if type(value) is not int:
        raise _schema("dimensions", f"dimensions is {named(value)}: send a whole number.")
    if value != model.dim and value not in model.dimensions:
        sizes = ", ".join(map(str, sorted({*model.dimensions, model.dim})))
        raise ProblemError(400, f"dimensions {value} is not supported by {model.name}: it has {sizes}.", "dimensions")
    return value


def _instruction(given: Mapping[str, Any]) -> str | None:
    value = _optional_text(given, "instruction")
    if value is None:
        return None
    if len(value) > MOST_INSTRUCTION:
        raise ProblemError(
            400,
            f"instruction has {len(value):,} characters and at most {MOST_INSTRUCTION:,} are taken: shorten it.",
            "instruction",
        )
    return printable(task(value))


def _modality(given: Mapping[str, Any]) -> None:
    value = given.get("modality")
    value = "text" if value is None else value
    each = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in each):
        raise _schema("modality", f"modality is {named(value)}: send text.")
    for index, one in enumerate(each):
        if one != "text":
            raise ProblemError(
                400,
                f"modality {one[:SHOWN]!r} is not supported (input {index}): this model reads text.",
                "modality",
                index=index,
            )
    if isinstance(value, list) and isinstance(given["input"], list) and len(value) != len(given["input"]):
        raise ProblemError(400, f"modality has {len(value)} entries for {len(given['input'])} inputs.", "modality")


def _choice(given: Mapping[str, Any], name: str, choices: tuple[str, ...], usual: Any) -> Any:
    value = given.get(name)
    if value is None:
        return usual
    if not isinstance(value, str) or value not in choices:
        shown = repr(value[:SHOWN]) if isinstance(value, str) else named(value)
        raise _schema(name, f"{name} is {shown}: send one of {', '.join(choices)}.")
    return value


def _optional_text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise _schema(name, f"{name} is {named(value)}: send a text.")
    return value


def _schema(param: str, message: str) -> ProblemError:
    return ProblemError(422, message, param)


def named(value: object) -> str:
    """What a JSON value is, in a word; not what it holds."""
    if isinstance(value, bytes):  # of gRPC, which sends texts as bytes
        return "no UTF-8"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing or null"}
    return names.get(type(value), f"the number {value}"[:SHOWN])


_WORD = re.compile(r"[\w-]+:")
"""A prompt of a word and a colon."""


class PromptGuard:
    """Finds texts that bring the model's prompt with them, which the server puts before them once more."""

    def __init__(self, prompts: Mapping[Role, str]) -> None:
        made = {prompt: re.compile(self._pattern(prompt), re.DOTALL) for prompt in prompts.values() if prompt.strip()}
        self._patterns = list(made.values())
        self._sure = [pattern for prompt, pattern in made.items() if not _WORD.fullmatch(prompt.strip())]

    def __call__(self, text: str) -> bool:
        return any(pattern.match(text) for pattern in self._patterns)

    def sure(self, text: str) -> bool:
        """Whether no text begins so by itself, as YAML does with `query: `: who sent that could do nothing about it."""
        return any(pattern.match(text) for pattern in self._sure)

    @staticmethod
    def error(index: int) -> InputError:
        return InputError(
            index,
            f"input {index} begins with this model's prompt, which the server puts before it once more: send the bare "
            "text with input_type.",
        )

    @staticmethod
    def _pattern(prompt: str) -> str:
        head, _, tail = prompt.strip().partition("{instruction}")
        return r"\s*" + re.escape(head) + (rf".{{0,{MOST_INSTRUCTION}}}?" + re.escape(tail.rstrip()) if tail else "")
