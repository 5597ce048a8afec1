"""A checkpoint that is damaged, or not one, is refused with one sentence that names the file or the weight."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vocabularies
from checkpoints import write_adapter, write_json, write_weights
from layouts import LAYOUTS

import embedcode
from embedcode import Role
from embedcode.engine import network
from embedcode.errors import ModelError

Damage = Callable[[Path], object]


def fault(folder: Path, precision: str = "fp32") -> str:
    """What the user reads, at the first use at the latest."""
    with pytest.raises(ModelError) as error:
        embedcode.load(str(folder), threads=1, precision=precision).encode(["x"], Role.PASSAGE)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 600, message
    assert "Traceback" not in message
    return message


def weights(layout: str, **changed: Any) -> Damage:
    """The layout's weights with some of them replaced, or left out where they are None; `__` stands for a dot."""

    def write(folder: Path) -> None:
        tensors = LAYOUTS[layout].weights() | {key.replace("__", "."): value for key, value in changed.items()}
        write_weights(folder, {key: value for key, value in tensors.items() if value is not None})

    return write


def edited(path: str, **changed: Any) -> Damage:
    return lambda folder: write_json(folder / path, json.loads((folder / path).read_text()) | changed)


def replaced(path: str, content: bytes) -> Damage:
    return lambda folder: (folder / path).write_bytes(content)


def headed(kind: str) -> Damage:
    """With one more module than sentence-transformers pools by."""
    module = {"idx": 2, "name": "2", "path": "2_Head", "type": kind}
    path = "modules.json"
    return lambda folder: write_json(folder / path, [*json.loads((folder / path).read_text()), module])


def removed(path: str) -> Damage:
    return lambda folder: (folder / path).unlink()


def cut(path: str, size: int) -> Damage:
    return lambda folder: replaced(path, (folder / path).read_bytes()[:size])(folder)


def misnumbered(folder: Path) -> None:
    """A token with an id far beyond the embeddings, though there are no more tokens than before."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["x"] = 99_999
    write_json(folder / "tokenizer.json", tokenizer)


def grown(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<extra_{number}>" for number in range(400)])
    tokenizer.save(str(folder / "tokenizer.json"))


def foreign(folder: Path) -> None:
    """BERT's tokenizer, all of whose tokens the network's table has rows for."""
    vocabularies.word_piece().save(str(folder / "tokenizer.json"))


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("layout", "damage", "named"),
    [
        ("nv-embedcode", removed("config.json"), "config.json is missing"),
        ("nv-embedcode", replaced("config.json", b"{'no': json}"), "config.json cannot be read"),
        ("nv-embedcode", replaced("config.json", b"[]"), "config.json"),
        ("nv-embedcode", replaced("config.json", b"\xff\xfe"), "config.json"),
        ("nv-embedcode", edited("config.json", architectures=["GPTBigCodeModel"]), "GPTBigCodeModel"),
        ("nv-embedcode", edited("config.json", architectures=None), "config.json"),
        ("nv-embedcode", edited("config.json", hidden_size="many"), "config.json"),
        ("nv-embedcode", edited("config.json", hidden_size=None), "config.json"),
        ("nv-embedcode", edited("config.json", num_attention_heads=5), r"q_proj|config\.json"),
        ("nv-embedcode", edited("config.json", num_hidden_layers=4), r"layers\.3\."),
        ("nv-embedcode", edited("config.json", num_hidden_layers=2), r"layers\.2\."),
        ("nv-embedcode", removed(SHARD), SHARD),
        ("nv-embedcode", cut(SHARD, 3), SHARD),
        ("nv-embedcode", cut(SHARD, 100), SHARD),
        ("nv-embedcode", cut(SHARD, 5_000), SHARD),
        ("nv-embedcode", replaced(SHARD, b""), SHARD),
        ("nv-embedcode", replaced(SHARD, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), SHARD),
        ("nv-embedcode", edited(INDEX, weight_map={"layers.7.norm": SHARD}), r"layers\.7\.norm"),
        ("nv-embedcode", edited(INDEX, weight_map={}), INDEX),
        ("nv-embedcode", replaced(INDEX, b"{"), INDEX),
        ("nv-embedcode", removed("tokenizer.json"), "tokenizer.json"),
        ("nv-embedcode", replaced("tokenizer.json", b"{}"), "tokenizer.json"),
        ("nv-embedcode", grown, "tokenizer.json"),
        ("minilm", misnumbered, "tokenizer.json"),
        ("nv-embedcode", foreign, r"tokenizer\.json has None for '<s>' and the network 1: they are of two models"),
        ("llama-embedqa", edited("config.json", bos_token_id=3), r"for '<\|begin_of_text\|>' and the network 3: "),
        ("nv-embedcode", replaced("tokenizer_config.json", b"no"), "tokenizer_config.json"),
        ("sfr-mistral-2", edited("tokenizer_config.json", eos_token="<end>"), "<end>"),
        ("nv-embedcode", replaced("1_Pooling/config.json", b"no"), "1_Pooling/config.json"),
        ("minilm", edited("1_Pooling/config.json", pooling_mode_cls_token=True), "1_Pooling/config.json"),
        ("minilm", edited("1_Pooling/config.json", pooling_mode_mean_tokens=False), "1_Pooling/config.json"),
        ("minilm", edited("1_Pooling/config.json", pooling_mode_max_tokens=True), "1_Pooling/config.json"),
        ("minilm", edited("1_Pooling/config.json", pooling_mode="mean_sqrt_len_tokens"), "1_Pooling/config.json"),
        ("minilm", edited("1_Pooling/config.json", pooling_mode=["mean", "max"]), "1_Pooling/config.json"),
        ("nv-embedcode", edited("sentence_bert_config.json", do_lower_case=True), "by a normalizer of the type Lower"),
        ("llama-embedqa", edited("config.json", pooling="weighted"), "weighted"),
        ("minilm", weights("minilm", encoder__layer__1__output__dense__bias=None), r"encoder\.layer\.1\.output\.dense"),
        ("minilm", weights("minilm", encoder__layer__0__output__dense__bias=torch.zeros(31)), "output.dense.bias"),
        ("minilm", weights("minilm", encoder__layer__0__gate=torch.zeros(3)), r"encoder\.layer\.0\.gate"),
        ("minilm", weights("minilm", embeddings__LayerNorm__bias=torch.zeros(32).to(torch.float8_e4m3fn)), "F8_E4M3"),
        ("coderankembed", weights("coderankembed", encoder__layers__0__attn__Wqkv__weight=torch.zeros(90, 32)), "proj"),
        ("coderankembed", weights("coderankembed", encoder__layers__0__attn__Wqkv__bias=torch.zeros(96)), "Wqkv.bias"),
        ("coderankembed", edited("config.json", rotary_emb_fraction=0.5), "rotary_emb_fraction 0.5"),
        ("coderankembed", edited("config.json", activation_function="geglu"), "activation_function 'geglu'"),
        ("nv-embed", removed("model-00001-of-00002.safetensors"), "model-00001-of-00002.safetensors"),
        ("embeddinggemma", removed("2_Dense/model.safetensors"), "2_Dense"),
        ("embeddinggemma", removed("3_Dense/config.json"), "3_Dense"),
        ("embeddinggemma", edited("2_Dense/config.json", activation_function="torch.nn.ReLU"), "ReLU"),
        ("embeddinggemma", replaced("modules.json", b'{"a": 1}'), "modules.json"),
        ("embeddinggemma", replaced("modules.json", b'[{"path": "", "type": 3}]'), "modules.json"),
        ("minilm", headed("sentence_transformers.models.LayerNorm"), "2_Head is a .*LayerNorm, which embedcode does"),
        ("minilm", headed("pylate.models.Dense.Dense"), "2_Head is a pylate.models.Dense.Dense, which embedcode does"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(
    layout: str, damage: Damage, named: str, tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    copy = shutil.copytree(folder(layout), tmp_path / folder(layout).name)
    damage(copy)
    message = fault(copy)
    assert re.search(named, message), message


def test_a_first_token_that_is_never_put_may_be_another(tmp_path: Path, folder: Callable[[str], Path]) -> None:
    """Tuned Qwens name the one of their chats, and put none before a text."""
    copy = shutil.copytree(folder("qwen3-embedding"), tmp_path / "tuned")
    edited("tokenizer_config.json", bos_token="<|im_start|>")(copy)
    vectors = [
        embedcode.load(str(one), precision="fp32").encode(["a"], Role.PASSAGE)
        for one in (copy, folder("qwen3-embedding"))
    ]
    np.testing.assert_array_equal(*vectors)


def test_dense_heads_that_do_not_fit(tmp_path: Path, folder: Callable[[str], Path]) -> None:
    copy = shutil.copytree(folder("embeddinggemma"), tmp_path / "embeddinggemma-300m")
    shutil.copy(copy / "3_Dense" / "model.safetensors", copy / "2_Dense" / "model.safetensors")
    assert "2_Dense" in fault(copy)


@pytest.mark.parametrize("part", ["latents", "cross_attend_blocks.0.norm_context.weight"])
def test_a_latent_head_that_lacks_a_weight(part: str, tmp_path: Path, folder: Callable[[str], Path]) -> None:
    copy = shutil.copytree(folder("nv-embed"), tmp_path / "NV-Embed-v2")
    (copy / INDEX).unlink()
    weights("nv-embed", **{f"latent_attention_model.{part}": None})(copy)
    assert part in fault(copy)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    assert str(tmp_path) in fault(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "file" in fault(tmp_path / "file")
    assert "nowhere" in fault(tmp_path / "nowhere")


def test_a_pickle_is_not_loaded(tmp_path: Path, folder: Callable[[str], Path]) -> None:
    copy = shutil.copytree(folder("minilm"), tmp_path / "pickled")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = fault(copy)
    assert "pytorch_model.bin" in message and "safetensors" in message


def test_weights_that_cannot_be_mapped(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a limit of the address space: a traceback, and of `embed` that its output cannot be written."""

    def full(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(network.mmap, "mmap", full)
    assert "model.safetensors cannot be mapped (Cannot allocate memory): " in fault(folder("minilm"))


def test_weights_of_another_shape_are_told_in_int8_too(tmp_path: Path, folder: Callable[[str], Path]) -> None:
    copy = shutil.copytree(folder("nv-embedcode"), tmp_path / "copy")
    edited("config.json", intermediate_size=60)(copy)
    assert "_proj.weight" in fault(copy, "int8")


class TestAdapter:
    @pytest.fixture
    def adapter(self, tmp_path: Path, folder: Callable[[str], Path]) -> Path:
        write_adapter(folder("nv-embedcode"), tmp_path / "adapter", LAYOUTS["nv-embedcode"].shapes)
        return tmp_path / "adapter"

    def test_without_its_base(self, adapter: Path) -> None:
        edited("adapter_config.json", base_model_name_or_path="/gone/base")(adapter)
        assert "/gone/base" in fault(adapter)
        edited("adapter_config.json", base_model_name_or_path=None)(adapter)
        assert "adapter_config.json" in fault(adapter)

    @pytest.mark.parametrize(
        "changed",
        [
            {"r": None},
            {"lora_alpha": "x"},
            {"r": 0},
            {"peft_type": "IA3"},
            {"use_dora": True},
            {"init_lora_weights": "pissa_niter_16"},
            {"bias": "all"},
            {"rank_pattern": {"q_proj": 8}},
            {"alpha_pattern": {"q_proj": 16}},
        ],
    )
    def test_of_another_kind(self, adapter: Path, changed: dict[str, Any]) -> None:
        edited("adapter_config.json", **changed)(adapter)
        assert "adapter_config.json" in fault(adapter)

    def test_without_weights(self, adapter: Path) -> None:
        (adapter / "adapter_model.safetensors").unlink()
        assert "adapter_model.safetensors" in fault(adapter)

    def test_for_a_layer_or_a_size_that_the_base_has_not(self, tmp_path: Path, folder: Callable[[str], Path]) -> None:
        wrong = {"layers.9.self_attn.q_proj.weight": (48, 48), "layers.0.self_attn.q_proj.weight": (9, 9)}
        for key, shape in wrong.items():
            write_adapter(folder("nv-embedcode"), tmp_path / "adapter", {key: shape})
            assert key.removesuffix(".weight") in fault(tmp_path / "adapter")
