"""`models`: which models are known, what one is and will need here, and exports of it. Thin over model/ and engine/."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcode.cli import output
from embedcode.cli.alone import alone
from embedcode.cli.options import EMPTY_MODEL, Json, Threads, threads_of
from embedcode.errors import ModelError, UsageError, extra
from embedcode.files import is_folder

if TYPE_CHECKING:
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.presets import Preset
    from embedcode.model.spec import Spec


class Format(StrEnum):
    ONNX = "onnx"
    OPENVINO = "openvino"


Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet, or empty.")]

ENDS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that end a process which does not mind them; of Ctrl-C Python makes an exception."""

models = typer.Typer(rich_markup_mode=None, add_completion=False)


@models.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List known models, say what one is and needs here, export it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@models.command("list")
def known(as_json: Json = False) -> None:
    """List known models: licence, size, where on this machine."""
    from embedcode.model.hub import local
    from embedcode.model.presets import PRESETS
    from embedcode.model.spec import Spec

    packaged = Spec.read().name
    rows = []
    for preset in PRESETS:
        folder = local(preset.name)
        rows.append(_preset(preset) | {"folder": "packaged" if preset.name == packaged else folder and str(folder)})
    if as_json:
        output.put_json({"models": rows})
        return
    table = [("name", "parameters", "dimensions", "licence", "where")]
    table += [
        (row["name"], _millions(row["parameters"]), f"{row['dim']:,}", row["licence"], row["folder"] or "")
        for row in rows
    ]
    name, size, dim, terms, _ = (max(map(len, column)) for column in zip(*table, strict=True))
    for a, b, c, d, e in table:
        output.put(f"{a:<{name}}  {b:>{size}}  {c:>{dim}}  {d:<{terms}}  {e}".rstrip())


@models.command()
def inspect(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder, or a name on the hub; the packaged model if none."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model is and what memory it needs here.

    Reads its small files, loads no weights, and downloads nothing.
    """
    from embedcode.engine import memory

    found = _found(model)
    record, needs, more = _record(found), _needs(found), _more(found)
    free = memory.available()
    record["memory"] = {"free": free, "needed": needs, "longest_text": more}
    if as_json:
        output.put_json(record)
        return
    del record["memory"]
    for name, value in record.items():
        output.put(f"{name.replace('_', ' ') + ':':<16} {_shown(name, value)}")
    output.put(f"{'free memory:':<16} {output.megabytes(free)}")

    def told(need: int) -> str:
        return f"{output.megabytes(need)}, {'fits' if need <= free else 'does not fit'}"

    for precision, need in needs.items():
        line = f"{'  ' + precision + ':':<16} {told(need)}"
        if precision in more:
            line += f"; with a text of {record['max_tokens']:,} tokens {told(need + more[precision])}"
        output.put(line)


@models.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint's folder, or its name on the hub.")],
    out: Out,
    form: Annotated[Format, typer.Option("--format", help="ONNX Runtime's, or OpenVINO's.")] = Format.ONNX,
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations in 8 bits, for processors.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="A graph that takes batches with a mask, for TensorRT and CUDA.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Make a graph of a checkpoint, which runs without torch.

    embedcode models export Qwen/Qwen3-Embedding-0.6B qwen3 --format openvino

    Its vectors are compared with those of torch; a graph that gives others is an error.
    """
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.hub import find, own_name
    from embedcode.model.spec import is_export

    if batch and form is Format.OPENVINO:
        raise UsageError("--batch is for TensorRT and CUDA, which run ONNX: leave out --format openvino")
    if batch and int8:
        raise UsageError("--int8 is for processors and --batch for cards: leave one out")
    with _making(out) as folder, extra("torch"):
        source = find(_asked(model))
        if is_export(source):
            raise UsageError(f"{model} is an export already: give its checkpoint")
        checkpoint = Checkpoint.read(source, own_name(model))
        from embedcode.engine import export  # after what needs no torch: a typo is no reason to install it

        exact = exact_of(folder) if int8 else folder
        exact.mkdir(exist_ok=True)
        output.note(f"exporting {checkpoint.name}")
        spec, cosine = export.export(checkpoint, exact, form, batch, threads_of(threads))
        if int8:
            spec, told = _quantised(spec, folder, threads)
        else:
            told = f"cosine {cosine:.6f} to torch"
        line = f"{out}: {_graph(spec)}, {told}"
    output.put(line)


@models.command()
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An export in fp32, a checkpoint's folder, or its name on the hub.")
    ],
    out: Out,
    threads: Threads = None,
) -> None:
    """Make int8 of an export or a checkpoint, for processors.

    embedcode models quantize nvidia/NV-EmbedCode-7b-v1 nv-embedcode-int8

    A checkpoint stays one, half as large as in bf16, and is ready sooner. Vectors of real code are compared with those
    in fp32; what is too far from them is an error.
    """
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.hub import find, own_name
    from embedcode.model.spec import Spec, is_export

    with _making(out) as folder, extra("torch"):
        source = find(_asked(model))
        if is_export(source):
            spec, told = _quantised(Spec.read(source), folder, threads)
            line = f"{out}: {_graph(spec)}, {told}"
        else:
            line = f"{out}: {_compressed(Checkpoint.read(source, own_name(model)), source, folder, threads)}"
    output.put(line)


def _asked(model: str) -> str:
    """UsageError for what is nothing on a disk."""
    if model == "":
        raise UsageError(EMPTY_MODEL)
    if model.lower().startswith(("http://", "https://")):
        raise UsageError(f"{model} is a server, which has no files here: give its checkpoint")
    return model


def _compressed(checkpoint: Checkpoint, source: Path, folder: Path, threads: str | None) -> str:
    from embedcode.cli.progress import ProgressLine
    from embedcode.engine.compressed import compress, nearness

    output.note(f"quantising {checkpoint.name}")
    with ProgressLine() as line:

        def progress(done: int, whole: int) -> None:
            line.draw(f"{output.megabytes(done)} of {output.megabytes(whole)} read")

        smaller = compress(checkpoint, source, folder, progress)
    output.note("comparing with fp32")
    near = nearness(checkpoint, smaller, threads_of(threads))
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"checkpoint, int8, {output.megabytes(size)}, {near}"


def _quantised(spec: Spec, folder: Path, threads: str | None) -> tuple[Spec, str]:
    from embedcode.engine.quantise import quantise

    output.note("quantising")
    smaller, near = quantise(spec, folder, threads_of(threads))
    return smaller, str(near)


def _found(model: str | None) -> Spec | Checkpoint | Preset:
    """What a name stands for on this machine; nothing is downloaded."""
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.hub import expanded, local, own_name
    from embedcode.model.presets import PRESETS
    from embedcode.model.spec import DEFAULT, Spec, is_export

    folder = DEFAULT if model is None else expanded(_asked(model))
    if is_export(folder):
        return Spec.read(folder)
    assert model is not None
    if not is_folder(folder):
        preset = next((one for one in PRESETS if one.name == model), None)
        copy = local(model)
        if copy is None and preset is not None:
            return preset
        if copy is None:
            raise ModelError(
                f"{model} is no folder, no name of `embedcode models list` and not on this machine: "
                "give a folder, or download it with `hf download`."
            )
        folder = copy
    return Checkpoint.read(folder, own_name(model))


def _record(found: Spec | Checkpoint | Preset) -> dict[str, Any]:
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.presets import licence
    from embedcode.model.spec import Spec

    if isinstance(found, Spec):
        return {
            "name": found.name,
            "folder": str(found.folder),
            "format": found.format,
            "precision": found.precision,
            "batched": found.batched,
            **_conditions(found),
            "bytes": sum(path.stat().st_size for path in found.files),
            "licence": found.licence,
        }
    if isinstance(found, Checkpoint):
        return {
            "name": found.name,
            "folder": str(found.folder),
            "architecture": found.architecture,
            "attention": "causal" if found.causal else "bidirectional",
            **_conditions(found),
            "parameters": found.weights.count,
            "dtypes": list(found.weights.dtypes),
            "bytes": found.weights.size,
            "files": len(found.weights.files),
            "adapter": str(found.adapter.weights.files[0]) if found.adapter else None,
            "licence": licence(found.name, found.folder) or None,
        }
    return _preset(found) | {"folder": None}


def _conditions(found: Spec | Checkpoint) -> dict[str, Any]:
    from embedcode.types import Role

    return {
        "pooling": found.pooling.value,
        "query_prompt": found.prompts[Role.QUERY],
        "passage_prompt": found.prompts[Role.PASSAGE],
        "instruction": found.instruction if "{instruction}" in found.prompts[Role.QUERY] else None,
        "dim": found.dim,
        "dimensions": list(found.dimensions),
        "max_tokens": found.max_tokens,
    }


def _preset(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "licence": preset.licence,
        "parameters": preset.parameters * 1_000_000,
        "dim": preset.dim,
        "dimensions": list(preset.dimensions),
    }


def _needs(found: Spec | Checkpoint | Preset) -> Mapping[str, int]:
    """Bytes by precision, and where layers are streamed from the disk in bf16."""
    from embedcode.engine import memory
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.spec import Spec

    if isinstance(found, Spec):
        return {found.precision: memory.needed_by_graph(found)}
    if isinstance(found, Checkpoint):
        whole = {precision: memory.needed(found, precision) for precision in memory.NUMBER}
        return whole | {"streamed": memory.streamed(found, "bf16", memory.PACK)}
    return {name: found.parameters * 1_000_000 * size + memory.BASE for name, size in memory.NUMBER.items()}


def _more(found: Spec | Checkpoint | Preset) -> Mapping[str, int]:
    """Bytes that a text of as many tokens as the model reads takes beside _needs(), where it takes more."""
    from embedcode.engine import memory
    from embedcode.engine.graph import LONG
    from embedcode.model.checkpoint import Checkpoint
    from embedcode.model.spec import Spec

    if isinstance(found, Spec) and found.max_tokens > LONG:
        return {found.precision: memory.attended(found, found.max_tokens)}
    if isinstance(found, Checkpoint) and (beyond := found.max_tokens - memory.PACK) > 0:
        whole = {precision: memory.states(found, precision, beyond) for precision in memory.NUMBER}
        return whole | {"streamed": whole["bf16"]}
    return {}


def _shown(name: str, value: Any) -> str:
    """A value of `inspect` for a person."""
    if name == "folder" and value is None:
        return "not on this machine"
    if value is None or value == []:
        return "none"
    if name == "parameters":
        return _millions(value)
    if name == "bytes":
        return output.megabytes(value)
    if name.endswith("prompt"):
        return repr(value) if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _graph(spec: Spec) -> str:
    size = sum(path.stat().st_size for path in spec.files)
    return f"{spec.format}, {spec.precision}, {output.megabytes(size)}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f} M"


@contextmanager
def _making(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all has gone well, and leaves nothing when not; exact_of() it is
    gone in either case."""
    said, named = out, bool(out.name)
    out = Path(os.path.realpath(out))  # a link to an empty folder stays one
    try:
        mounted = out.is_mount()  # nothing can take its place: what is in the folder is moved up
        folder = (out if mounted else out.parent) / f".{out.name}.part"
        with alone(out), _ended_in_order():
            _clear(folder)  # of one that was killed
            # The current folder has no name, and whoever stands in it would stay in the old one.
            if not named or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
                raise UsageError(f"{said} is there already: give a folder that is new or empty")
            try:
                folder.mkdir(parents=True)
                yield folder
                if mounted:
                    for path in folder.iterdir():
                        path.rename(out / path.name)
                else:
                    folder.rename(out)
            finally:
                _clear(folder)
    except OSError as error:
        raise UsageError(f"{said} cannot be written: {error.strerror or error}") from None


def exact_of(folder: Path) -> Path:
    """Where the graph in fp32 lies while int8 is made of it."""
    return folder.with_name(f"{folder.name}.fp32")


def _clear(folder: Path) -> None:
    for left in (folder, exact_of(folder)):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """What is told to end cleans up: a 7B would leave its gigabytes in a hidden folder."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    heard = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
