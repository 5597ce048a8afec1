"""Spec: what an exported model is, as `meta.json` beside its graph says. Loads no weights and knows no engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from embedcode.errors import ModelError, UsageError
from embedcode.files import is_file
from embedcode.model.family import Pooling
from embedcode.model.passage import FORMAT
from embedcode.types import Role, digest

DEFAULT = Path(__file__).parent / "default"
GRAPHS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx", "model.onnx.data"),
    "openvino": ("openvino_model.xml", "openvino_model.bin"),
}
"""Files of a graph by its format; an ONNX graph has its weights in a file of their own only where it is large."""
LARGE = 1_900_000_000
"""Bytes of weights from which on it is: a file of ONNX ends at 2 GB."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A text with the vector the full-precision model gives for it: the check that an engine computes this model."""

    text: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """Identity and conditions of a model: everything that decides its vectors, and nothing that only speeds them up."""

    folder: Path
    name: str
    licence: str
    weights: str
    """sha256 of the published full-precision weights."""
    tokenizer: str
    """sha256 of tokenizer.json."""
    pooling: Pooling
    """What is left to do behind the graph; latent attention is in it."""
    dim: int
    max_tokens: int
    prompts: Mapping[Role, str]
    precision: str
    graph: str
    """sha256 of the graph's files, one after the other."""
    golden: Golden
    format: str = "onnx"
    """A key of GRAPHS."""
    batched: bool = False
    """Whether the graph takes batches, with a mask; else it takes one text."""
    masks_prompt: bool = False
    instruction: str = ""
    """Stands for `{instruction}` in the prompts where a call gives none."""
    dimensions: tuple[int, ...] = ()
    """Matryoshka sizes that are declared."""
    eos: str = ""
    """Put behind every text, where the tokenizer does not do so itself."""
    origin: str = ""
    """Space of the checkpoint it was exported from."""
    heads: int = 0
    """Of attention, by which the memory that a long text takes is known; 0 in exports that do not say."""
    capped: bool = False
    """Whether scores of attention are capped, as in Gemma 2, for which a graph holds more of a long text."""

    @classmethod
    def read(cls, folder: Path = DEFAULT) -> Spec:
        path = folder / "meta.json"
        try:
            meta = json.loads(path.read_text("utf-8"))
            return cls(
                folder=folder,
                name=meta["name"],
                licence=meta["licence"],
                weights=meta["weights_sha256"],
                tokenizer=meta["tokenizer_sha256"],
                pooling=Pooling(meta["pooling"]),
                dim=meta["dim"],
                max_tokens=meta["max_tokens"],
                prompts={role: meta["prompts"][role] for role in Role},
                precision=meta["precision"],
                graph=meta["graph_sha256"],
                golden=Golden(meta["golden"]["text"], tuple(meta["golden"]["vector"])),
                format=_known(meta.get("format", "onnx")),
                batched=meta.get("batched", False),
                masks_prompt=meta.get("masks_prompt", False),
                instruction=meta.get("instruction", ""),
                dimensions=tuple(meta.get("dimensions", ())),
                eos=meta.get("eos", ""),
                origin=meta.get("space", ""),
                heads=meta.get("heads", 0),
                capped=meta.get("capped", False),
            )
        except (FileNotFoundError, NotADirectoryError):
            message = f"{folder} is no exported model (no meta.json): give a folder made by `embedcode models export`."
            raise ModelError(message) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read ({error!r}): {_cure(folder)}.") from None

    def prompted(self, prompts: Mapping[Role, str]) -> Spec:
        """With another prompt for queries; UsageError for passages, of whose prompt space and golden vector are."""
        if prompts.get(Role.PASSAGE, self.prompts[Role.PASSAGE]) != self.prompts[Role.PASSAGE]:
            raise UsageError(f"{self.folder} was exported with its prompt for passages: load its checkpoint instead.")
        return replace(self, prompts={**self.prompts, **prompts})

    def write(self) -> None:
        """The opposite of `read`."""
        meta = {
            "name": self.name,
            "licence": self.licence,
            "weights_sha256": self.weights,
            "tokenizer_sha256": self.tokenizer,
            "graph_sha256": self.graph,
            "space": self.origin,
            "format": self.format,
            "batched": self.batched,
            "precision": self.precision,
            "pooling": self.pooling,
            "masks_prompt": self.masks_prompt,
            "dim": self.dim,
            "dimensions": self.dimensions,
            "max_tokens": self.max_tokens,
            "heads": self.heads,
            "capped": self.capped,
            "prompts": dict(self.prompts),
            "instruction": self.instruction,
            "eos": self.eos,
            "golden": {"text": self.golden.text, "vector": self.golden.vector},
        }
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @property
    def space(self) -> str:
        """32 hex digits; two encoders of one space give comparable vectors."""
        passage = self.prompts[Role.PASSAGE]
        parts = (self.weights, self.tokenizer, passage, self.pooling, str(self.dim), str(self.max_tokens), FORMAT)
        return self.origin or digest(*parts).hex()

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of the graph; the first is what an engine opens. ModelError where it is not there."""
        first, rest = (self.folder / name for name in GRAPHS[self.format])
        if not is_file(first):
            raise ModelError(f"{first} is not there: {self.cure}.")
        return (first, rest) if is_file(rest) else (first,)

    @property
    def cure(self) -> str:
        """For a file of the model that is lost or damaged."""
        return _cure(self.folder)

    def found(self) -> str:
        """What `graph` should be, of the files as they are."""
        return sha256(self.files)


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported graph; what training writes has a meta.json too, beside a config.json."""
    return is_file(folder / "meta.json") and not is_file(folder / "config.json")


def sha256(paths: Iterable[Path]) -> str:
    """Of files, one after the other."""
    hasher = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()


def _known(name: str) -> str:
    if name not in GRAPHS:
        raise ValueError(f"format {name!r} is none of {', '.join(GRAPHS)}")
    return name


def _cure(folder: Path) -> str:
    return "install embedcode again" if folder == DEFAULT else "export it again"
