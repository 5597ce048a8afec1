"""An Encoder as a model of mteb (PyPI), so that its tasks and leaderboard can be run with it. The only file that
imports mteb, which is no dependency: `pip install mteb` beside embedcode.

    import mteb, embedcode
    from embedcode.evaluate.mteb import Model
    mteb.evaluate(Model(embedcode.load("Qwen/Qwen3-Embedding-0.6B")), mteb.get_tasks(tasks=["CosQA"]))

mteb gives title and text of a document joined by a blank: what `eval coir --convention mteb` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedcode.errors import UsageError
from embedcode.evaluate.systems import conditions_of
from embedcode.types import Encoder, Role, Truncate, digest

if TYPE_CHECKING:
    from embedcode.types import Floats


class Model:
    """What mteb 2 calls an EncoderProtocol. Texts that are too long are cut at their end.

    `instruction` stands for all queries, for a model that takes one; mteb's own prompts are not used, since the
    encoder puts those of its checkpoint.
    """

    def __init__(self, encoder: Encoder, name: str = "", instruction: str | None = None) -> None:
        """`name` is what results are filed under, as owner/model; else the model's own."""
        self._encoder = encoder
        self._instruction = instruction
        conditions = getattr(encoder, "conditions", None)
        self._name = name or (conditions.name if conditions else "model")

    def encode(self, inputs: Iterable[Mapping[str, Sequence[str]]], *, prompt_type: Any = None, **_: Any) -> Floats:
        """float32 [n, dim] of batches {"text": [...]}, in order; `prompt_type` is query, or document (the rest)."""
        texts = [text for batch in inputs for text in batch["text"]]
        if str(getattr(prompt_type, "value", prompt_type)) == "query":
            return self._encoder.encode(texts, Role.QUERY, self._instruction, Truncate.END)
        return self._encoder.encode(texts, Role.PASSAGE, None, Truncate.END)

    def similarity(self, a: Any, b: Any) -> Any:
        """Cosines [n, m] of unit vectors, as the torch tensor that mteb sorts."""
        return _tensor(a) @ _tensor(b).T

    def similarity_pairwise(self, a: Any, b: Any) -> Any:
        return (_tensor(a) * _tensor(b)).sum(-1)

    @property
    def mteb_model_meta(self) -> Any:
        try:
            meta = import_module("mteb.models.model_meta").ModelMeta
        except ImportError:
            raise UsageError("mteb is not installed beside embedcode: run `pip install mteb`") from None
        name = self._name if "/" in self._name else f"embedcode/{self._name}"
        nothing = dict.fromkeys(
            ("release_date", "languages", "n_parameters", "memory_usage_mb", "license", "open_weights",
             "public_training_code", "public_training_data", "training_datasets")
        )  # fmt: skip
        # mteb files figures by the revision, and gives those it has in place of new ones.
        conditions = conditions_of(self._name, self._encoder, self._instruction)
        return meta(
            loader=None,
            name=name,
            revision=digest(json.dumps(conditions, sort_keys=True)).hex()[:12],
            max_tokens=self._encoder.max_tokens,
            embed_dim=self._encoder.dim,
            framework=[],
            similarity_fn_name="cosine",
            use_instructions=self._instruction is not None,
            **nothing,
        )


def _tensor(value: Any) -> Any:
    return import_module("torch").as_tensor(value)
