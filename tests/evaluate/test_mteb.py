"""The adapter to mteb, by mteb's contract; bench/evaluate/same_as_mteb.py compares figures with mteb itself."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import embedcode
from embedcode.errors import UsageError
from embedcode.evaluate.mteb import Model
from embedcode.types import Role


def test_batches_are_embedded_in_order_and_by_their_role(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = embedcode.load()
    monkeypatch.setattr(encoder, "conditions", encoder.conditions.__class__(
        "m", encoder.dim, encoder.max_tokens, {Role.QUERY: "find: {instruction} ", Role.PASSAGE: ""}, "code"
    ))  # fmt: skip
    model = Model(encoder, instruction="functions")
    batches = [{"text": ["def a(): ...", "def b(): ..."]}, {"text": ["class C: ..."]}]
    texts = [text for batch in batches for text in batch["text"]]
    documents = model.encode(batches, task_metadata=None, hf_split="test", hf_subset="default", prompt_type="document")
    assert np.array_equal(documents, encoder.encode(texts, Role.PASSAGE))
    queries = model.encode(batches, prompt_type="query")
    assert np.array_equal(queries, encoder.encode(texts, Role.QUERY, "functions"))
    assert not np.allclose(queries, documents)
    similar = model.similarity(queries, documents)
    assert similar.shape == (3, 3)
    assert np.allclose(similar.diagonal(), model.similarity_pairwise(queries, documents), atol=1e-6)


def test_figures_are_filed_under_all_they_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """mteb gives a figure that it has of a model's revision, and computes nothing."""

    class Meta(SimpleNamespace):
        def __init__(self, **fields: object) -> None:
            super().__init__(**fields)

    monkeypatch.setitem(sys.modules, "mteb", ModuleType("mteb"))
    monkeypatch.setitem(sys.modules, "mteb.models", ModuleType("mteb.models"))
    module = ModuleType("mteb.models.model_meta")
    module.ModelMeta = Meta  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", module)
    encoder = embedcode.load()
    told = {Role.QUERY: "find: {instruction} ", Role.PASSAGE: ""}
    kinds = [
        encoder.conditions.__class__("m", encoder.dim, encoder.max_tokens, prompts, instruction)
        for prompts, instruction in (
            (told, "code"),
            (told, "bugs"),
            (told | {Role.QUERY: "for: {instruction} "}, "code"),
        )
    ]
    found = set()
    for conditions in kinds:
        monkeypatch.setattr(encoder, "conditions", conditions)
        found |= {Model(encoder, instruction=given).mteb_model_meta.revision for given in (None, "functions")}
    assert len(found) == 5, "the instruction that is given stands for the model's own"
    for seen in ("1a", "2b"):  # of a server, whose new weights are known by their vectors
        monkeypatch.setattr(encoder, "seen", seen, raising=False)
        found.add(Model(encoder).mteb_model_meta.revision)
    assert len(found) == 7
    monkeypatch.setattr(encoder, "build", "another")
    assert Model(encoder).mteb_model_meta.revision not in found


def test_a_text_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Model(embedcode.load()).encode([{"text": ["word " * 2000]}]).shape == (1, 384)


def test_without_mteb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    with pytest.raises(UsageError, match="pip install mteb"):
        _ = Model(embedcode.load()).mteb_model_meta
