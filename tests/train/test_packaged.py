"""The packaged model as a checkpoint: the vectors it has in the package, on torch and in sentence-transformers."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from gguf import GGUFWriter, TokenType
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from embedcode import Role, Truncate, load
from embedcode.engine import memory
from embedcode.errors import UsageError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.spec import DEFAULT, Spec
from embedcode.train import base, packaged
from embedcode.train.recipe import Recipe, read
from embedcode.train.run import Run

TEXTS = [
    part for path in sorted(Path(load.__code__.co_filename).parent.glob("*.py"))
    for part in path.read_text("utf-8").split("\n\n")
][::8][:32]  # fmt: skip
"""Real code: the engine's own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged.unpack(tmp_path_factory.mktemp("packaged") / "base")


def test_its_vectors_are_those_of_the_package(folder: Path) -> None:
    exact = load(str(folder), precision="fp32").encode(TEXTS, Role.PASSAGE, truncate=Truncate.END)
    cosines = (exact * load().encode(TEXTS, Role.PASSAGE, truncate=Truncate.END)).sum(1)
    assert cosines.mean() > 0.995 and cosines.min() > 0.98
    read, spec = Checkpoint.read(folder), Spec.read(DEFAULT)
    assert (read.max_tokens, read.dim, read.pooling) == (spec.max_tokens, spec.dim, spec.pooling)


@pytest.mark.slow
def test_sentence_transformers_reads_it(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    found = load(str(folder), precision="fp32").encode(TEXTS, Role.PASSAGE, truncate=Truncate.END)
    np.testing.assert_allclose(found, reference, atol=1e-5)


def test_a_gguf_file_that_does_not_fit_or_is_none_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "small.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((1000, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    recipe = Recipe(folder=tmp_path, name="mine", base=file.name, passage_tokens=192, max_tokens=512)
    monkeypatch.setattr(memory, "available", lambda: 500_000_000)
    with pytest.raises(UsageError, match=r"has 0 M weights, which take 0\.7 GB to unpack where 0\.5 GB are free: take"):
        base.open_base(recipe, tmp_path / "work")
    file.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(UsageError, match=r"small\.gguf is no GGUF file that can be read .*: download it again"):
        base.open_base(recipe, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_recipe_starts_from_it_whatever_base_was_unpacked_before(world: Path, tmp_path: Path) -> None:
    recipe = Recipe(folder=tmp_path, name="mine", base="packaged", passage_tokens=192, max_tokens=512)
    # As of a start with another base that was refused.
    shutil.copytree(world / "base", tmp_path / "base")
    (tmp_path / "base" / base.OF).write_text('{"of": "other.gguf"}')
    opened = base.open_base(recipe, tmp_path)
    assert (opened.max_tokens, opened.dim, opened.folder) == (512, Spec.read(DEFAULT).dim, tmp_path / "base")
    before = (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns
    base.open_base(recipe, tmp_path)
    assert (tmp_path / "base" / "model.safetensors").stat().st_mtime_ns == before, "it is made once for a run"


def test_a_gguf_file_is_unpacked_once_until_it_is_another(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, tokenizer = (one.from_pretrained(world / "base") for one in (AutoModel, AutoTokenizer))
    read: list[str] = []
    monkeypatch.setattr(base, "_check_room", lambda file: read.append(file.name))
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: network)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    recipe = Recipe(tmp_path, "mine", file.name, query_tokens=32, passage_tokens=32)
    for raw, expected in ((b"", 1), (b"", 1), (b"GGUF, another", 2)):
        if raw:
            file.write_bytes(raw)
        assert base.open_base(recipe, tmp_path / "work").dim == 64
        assert len(read) == expected

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    file.write_bytes(b"GGUF, a third")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UsageError, match=r"cannot be written .*no space left on device.*: free some space"):
        base.open_base(recipe, tmp_path / "work")
    assert [one.name for one in (tmp_path / "work").iterdir()] == ["base"], "no half of it"


def test_a_gguf_file_of_a_sentencepiece_vocabulary_has_its_ids_of_indented_code(tmp_path: Path) -> None:
    """A text that begins with blanks had one fewer."""
    trained = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=trained, model_type="bpe", vocab_size=420, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99, minloglevel=2,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    count, kinds = library.vocab_size(), {0: TokenType.UNKNOWN, 1: TokenType.CONTROL, 2: TokenType.CONTROL}
    writer = GGUFWriter(tmp_path / "small.gguf", "llama")
    for name, number in (("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("head_count", 2)):
        getattr(writer, f"add_{name}")(number)
    writer.add_feed_forward_length(8)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(count)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([library.id_to_piece(place) for place in range(count)])
    writer.add_token_scores([library.get_score(place) for place in range(count)])
    normal, byte = TokenType.NORMAL, TokenType.BYTE
    writer.add_token_types([kinds.get(at, byte if library.is_byte(at) else normal) for at in range(count)])
    for name, place in (("unk", 0), ("bos", 1), ("eos", 2)):
        getattr(writer, f"add_{name}_token_id")(place)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes = {f"blk.0.{name}": (8, 8) for name in names} | {"token_embd": (count, 8), "output": (count, 8)}
    shapes |= dict.fromkeys(("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"), (8,))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    base._unpack(tmp_path / "small.gguf", tmp_path / "base")
    tokenizer = Tokenizer.from_file(str(tmp_path / "base" / "tokenizer.json"))
    for text in ("    def f(self):\n        return  1", " x", "x", "\tif x:\n\t\tpass", "größe", *TEXTS[:12]):
        assert tokenizer.encode(text, add_special_tokens=False).ids == library.encode(text), text


def test_a_disk_that_fills_as_a_base_is_unpacked_leaves_nothing_of_it(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packaged.publish, "modules", full)
    with pytest.raises(UsageError, match=r"cannot be written \(no space left on device\): free some space"):
        Run(read(recipe("packed", base="packaged", evaluate=[])), tmp_path / "out", tell=lambda line: None)
    assert not list((tmp_path / "out").iterdir())
