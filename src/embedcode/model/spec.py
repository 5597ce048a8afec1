"""Spec: what a packaged model is, read from `meta.json` beside its weights. Loads no weights and knows no engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedcode.errors import ModelError
from embedcode.model.passage import FORMAT
from embedcode.types import Role, digest

DEFAULT = Path(__file__).parent / "default"


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
    pooling: str
    dim: int
    max_tokens: int
    prompts: Mapping[Role, str]
    precision: str
    graph: str
    """sha256 of model.onnx."""
    golden: Golden

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
                pooling=meta["pooling"],
                dim=meta["dim"],
                max_tokens=meta["max_tokens"],
                prompts={role: meta["prompts"][role] for role in Role},
                precision=meta["precision"],
                graph=meta["graph_sha256"],
                golden=Golden(meta["golden"]["text"], tuple(meta["golden"]["vector"])),
            )
        except (FileNotFoundError, NotADirectoryError):
            message = f"{folder} is no packaged model (no meta.json): give a folder made by scripts/export_default.py."
            raise ModelError(message) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} cannot be read ({error!r}): install embedcode again.") from None

    @property
    def space(self) -> str:
        """32 hex digits; two encoders of one space give comparable vectors."""
        passage = self.prompts[Role.PASSAGE]
        parts = (self.weights, self.tokenizer, passage, self.pooling, str(self.dim), str(self.max_tokens), FORMAT)
        return digest(*parts).hex()
