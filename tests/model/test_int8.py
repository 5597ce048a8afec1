"""Checkpoints whose linear maps are stored in int8: as `models quantize` writes them, and as vLLM's tools do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_adapter, write_json, write_weights
from layouts import LAYOUTS
from safetensors import SafetensorError
from safetensors.torch import load_file
from test_layouts import CLOSE, apart, asked, each_layout, reference, texts

import embedcode
from embedcode import Role
from embedcode.engine import compressed, processor
from embedcode.engine.torch_encoder import TorchEncoder
from embedcode.errors import ModelError, UsageError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.weights import read_json

GROUP = {
    "input_activations": {
        "actorder": None, "block_structure": None, "dynamic": True, "group_size": None, "num_bits": 8,
        "observer": None, "observer_kwargs": {}, "strategy": "token", "symmetric": True, "type": "int",
    },
    "output_activations": None,
    "targets": ["Linear"],
    "weights": {
        "actorder": None, "block_structure": None, "dynamic": False, "group_size": None, "num_bits": 8,
        "observer": "minmax", "observer_kwargs": {}, "strategy": "channel", "symmetric": True, "type": "int",
    },
}  # fmt: skip
"""As llm-compressor writes it for its scheme W8A8."""
PUBLISHED = {
    "config_groups": {"group_0": GROUP}, "format": "int-quantized", "global_compression_ratio": 1.4,
    "ignore": ["lm_head"], "kv_cache_scheme": None, "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
}  # fmt: skip
RANGES = pytest.mark.parametrize("features", [{"avx2"}, None], ids=["without VNNI", "as here"])


def loaded(folder: Path, precision: str = "", **options: Any) -> TorchEncoder:
    found = embedcode.load(str(folder), threads=1, precision=precision, **options)
    assert isinstance(found, TorchEncoder)
    return found


def compress(source: Path, out: Path) -> Checkpoint:
    out.mkdir()
    return compressed.compress(Checkpoint.read(source), source, out, lambda done, whole: None)


@each_layout
def test_a_layout_keeps_its_vectors_space_and_prompts(name: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    smaller = compress(folder(name), tmp_path / "small")
    assert compressed.nearness(Checkpoint.read(folder(name)), smaller, 1).worst > 0.995
    small, whole = loaded(tmp_path / "small"), loaded(folder(name), "int8")
    assert small.space == whole.space
    assert small.conditions == whole.conditions
    for role in Role:
        prompt, instruction = asked(name, role)
        given = texts(name, prompt)
        found = small.encode(given, role, instruction)
        np.testing.assert_array_equal(found, whole.encode(given, role, instruction))
        assert (found * reference(name).encode(given, prompt)).sum(1).mean() > 0.98
    assert small.choice.precision == "int8"
    assert small.remarks() == ["computed in int8: as its weights are stored"]


def test_what_is_written(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by what reads safetensors, and not by us: codes times scales are the weights to half a step."""
    monkeypatch.setattr(compressed, "SHARD", 20_000)
    compress(folder("nv-embedcode"), tmp_path / "small")
    files = sorted((tmp_path / "small").glob("*.safetensors"))
    index = read_json(tmp_path / "small" / "model.safetensors.index.json")["weight_map"]
    assert len(files) > 2
    small = {key: tensor for file in files for key, tensor in load_file(file).items()}
    assert {key: index[key] for key in small} == {key: file.name for file in files for key in load_file(file)}
    whole = {
        key: tensor for file in folder("nv-embedcode").glob("*.safetensors") for key, tensor in load_file(file).items()
    }
    assert {key.removesuffix("_scale") for key in small} == set(whole)
    most = processor.int8_range()
    for key, weight in whole.items():
        if not key.endswith("_proj.weight"):
            assert torch.equal(small[key], weight)
            continue
        codes, scales = small[key], small[f"{key}_scale"]
        assert codes.dtype is torch.int8 and scales.shape == (len(weight), 1)
        assert codes.abs().amax(1).eq(most).all()
        assert ((codes.float() * scales - weight.float()).abs() <= scales * 0.5001).all()


def test_a_streamed_one_and_one_in_fp32_and_bf16(folder: Callable[[str], Path], tmp_path: Path) -> None:
    compress(folder("nv-embedcode"), tmp_path / "small")
    given = texts("nv-embedcode", "")
    whole = loaded(tmp_path / "small").encode(given, Role.PASSAGE)
    streamed = loaded(tmp_path / "small", stream=True)
    np.testing.assert_array_equal(streamed.encode(given, Role.PASSAGE), whole)
    assert streamed.choice.precision == "int8"
    for precision in ("fp32", "bf16"):
        found = loaded(tmp_path / "small", precision).encode(given, Role.PASSAGE)
        assert (found * whole).sum(1).min() > 0.99


@RANGES
def test_a_build_says_of_which_codes_it_is(
    folder: Callable[[str], Path], tmp_path: Path, features: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or vectors that are kept of the original, by space and build, would be taken for those of its codes."""
    if features is not None:
        monkeypatch.setattr(processor, "features", lambda: features)
    most = processor.int8_range()
    compress(folder("nv-embedcode"), tmp_path / "small")
    for precision, more in (("fp32", ""), ("bf16", ""), ("int8", f", codes to {most}")):
        whole, small = loaded(folder("nv-embedcode"), precision), loaded(tmp_path / "small", precision)
        assert whole.build.partition(",")[1:] == more.partition(",")[1:]
        assert (small.space, small.build) == (whole.space, f"{whole.build}, of int8 codes to {most}")
        assert small.build.startswith(f"{precision} cpu ")


def test_an_adapter_is_merged(folder: Callable[[str], Path], tmp_path: Path) -> None:
    write_adapter(folder("nv-embedcode"), tmp_path / "adapter", LAYOUTS["nv-embedcode"].shapes)
    compress(tmp_path / "adapter", tmp_path / "small")
    small, whole = loaded(tmp_path / "small"), loaded(tmp_path / "adapter", "int8")
    assert not list((tmp_path / "small").glob("adapter*"))
    assert small.space == whole.space
    given = texts("nv-embedcode", "")
    np.testing.assert_array_equal(small.encode(given, Role.PASSAGE), whole.encode(given, Role.PASSAGE))
    assert apart(small.encode(given, Role.PASSAGE), loaded(folder("nv-embedcode")).encode(given, Role.PASSAGE)) > 1e-3


def published(source: Path, parent: Path, left: str = "-") -> tuple[Path, Path]:
    """A checkpoint in int8 up to 127 with scales in bf16, as vLLM's tools write it, and the same weights in fp32.

    Weights with `left` in their name stay as they are.
    """
    whole = {key: tensor for file in source.glob("*.safetensors") for key, tensor in load_file(file).items()}
    small, plain = {}, {}
    for key, weight in whole.items():
        if not key.endswith("_proj.weight") or left in key:
            small[key] = plain[key] = weight
            continue
        scales = (weight.float().abs().amax(1, keepdim=True) / 127).bfloat16()
        codes = (weight.float() / scales.float()).round().clamp(-127, 127)
        small |= {key: codes.to(torch.int8), f"{key}_scale": scales}
        plain[key] = codes * scales.float()
    for name, tensors in (("small", small), ("plain", plain)):
        shutil.copytree(source, parent / name, ignore=shutil.ignore_patterns("*safetensors*"))
        write_weights(parent / name, tensors)
    config = read_json(source / "config.json")
    write_json(parent / "small" / "config.json", config | {"quantization_config": PUBLISHED})
    return parent / "small", parent / "plain"


@RANGES
def test_one_that_others_have_made(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: set[str] | None
) -> None:
    """By its published key names: as those of the codes in fp32, and near them in int8 where half of a code is left."""
    if features is not None:
        monkeypatch.setattr(processor, "features", lambda: features)
    small, plain = published(folder("nv-embedcode"), tmp_path)
    given = texts("nv-embedcode", "")
    expected = loaded(plain, "fp32").encode(given, Role.PASSAGE)
    assert apart(loaded(small, "fp32").encode(given, Role.PASSAGE), expected) < CLOSE
    found = loaded(small)
    assert (found.encode(given, Role.PASSAGE) * expected).sum(1).min() > 0.995
    assert found.choice.precision == "int8"


def test_what_others_left_in_full_precision_stays_so(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Its makers leave out what loses most: large activations go into some layers' last maps."""
    small, _ = published(folder("nv-embedcode"), tmp_path, "down_proj")
    said = PUBLISHED | {"ignore": ["lm_head", "re:.*down_proj"]}
    write_json(small / "config.json", read_json(small / "config.json") | {"quantization_config": said})
    network = loaded(small)._network
    kinds = {name: type(module).__name__ for name, module in network.named_modules() if name.endswith("_proj")}
    assert {kind for name, kind in kinds.items() if "down" in name} == {"Linear"}
    assert {kind for name, kind in kinds.items() if "down" not in name} == {"Int8Linear"}
    assert np.isfinite(loaded(small).encode(["x = 1"], Role.PASSAGE)).all()


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        PUBLISHED | {"format": "pack-quantized", "config_groups": {"g": GROUP | {"weights": {"num_bits": 4}}}},
        PUBLISHED | {"config_groups": {"g": GROUP | {"input_activations": {"dynamic": False, "num_bits": 8}}}},
        PUBLISHED | {"format": "pack-quantized", "config_groups": {"g": GROUP | {"input_activations": None}}},
        PUBLISHED | {"config_groups": {}},
        "int8",
    ],
)
def test_other_ways_to_quantise_are_told(folder: Callable[[str], Path], tmp_path: Path, said: Any) -> None:
    small, _ = published(folder("nv-embedcode"), tmp_path)
    write_json(small / "config.json", read_json(small / "config.json") | {"quantization_config": said})
    with pytest.raises(ModelError, match=r"config\.json: weights quantised as .* are not read here: take the model in"):
        loaded(small)


def test_scales_that_are_lost_are_told(folder: Callable[[str], Path], tmp_path: Path) -> None:
    small, _ = published(folder("nv-embedcode"), tmp_path)
    tensors = load_file(small / "model.safetensors")
    lost = next(key for key in tensors if key.endswith("_scale"))
    write_weights(small, {key: tensor for key, tensor in tensors.items() if key != lost})
    with pytest.raises(ModelError, match=rf"is int8 of shape .* and wants a scale .* in {lost}, which is not there"):
        loaded(small).encode(["x"], Role.PASSAGE)
    write_weights(small, tensors | {lost: torch.ones(3, 1)})
    with pytest.raises(ModelError, match=r"which has shape \[3, 1\]"):
        loaded(small).encode(["x"], Role.PASSAGE)


def test_what_is_int8_is_not_made_so_again(folder: Callable[[str], Path], tmp_path: Path) -> None:
    small, _ = published(folder("nv-embedcode"), tmp_path)
    with pytest.raises(UsageError, match="is in int8 already: give the checkpoint that it was made of"):
        compress(small, tmp_path / "again")


def test_what_loses_too_much_is_refused(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "LEAST_COSINE", 1.1)
    with pytest.raises(ModelError, match=r"loses too much in int8 \(cosine to fp32 [01]\.\d{4} on code, least"):
        compressed.nearness(Checkpoint.read(folder("nv-embedcode")), Checkpoint.read(folder("nv-embedcode")), 1)


def test_fields_that_were_edited_are_told(folder: Callable[[str], Path], tmp_path: Path) -> None:
    compress(folder("nv-embedcode"), tmp_path / "small")
    config = read_json(tmp_path / "small" / "config.json")
    for own in ({"most": 300}, {"most": True}, {"made_of": "x"}, {"made_of": [1]}, {"name": {}}, {"preset": 1}):
        write_json(tmp_path / "small" / "config.json", config | {"embedcode": own})
        with pytest.raises(ModelError, match="is none that was written here: quantize the model again"):
            loaded(tmp_path / "small")


def test_an_adapter_over_one_in_int8_is_another_model(folder: Callable[[str], Path], tmp_path: Path) -> None:
    compress(folder("nv-embedcode"), tmp_path / "small")
    write_adapter(tmp_path / "small", tmp_path / "adapter", LAYOUTS["nv-embedcode"].shapes)
    adapted, bare = loaded(tmp_path / "adapter"), loaded(tmp_path / "small")
    assert adapted.space != bare.space
    assert adapted.conditions.name == "adapter"
    given = texts("nv-embedcode", "")
    write_adapter(folder("nv-embedcode"), tmp_path / "whole", LAYOUTS["nv-embedcode"].shapes)
    expected = loaded(tmp_path / "whole", "fp32").encode(given, Role.PASSAGE)
    assert (adapted.encode(given, Role.PASSAGE) * expected).sum(1).mean() > 0.98


def test_what_only_the_name_says_is_kept_under_another(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """As after an upload of the folder: F2LLM-v2's texts end with a token, and its queries have an instruction."""
    compress(folder("f2llm"), tmp_path / "small")
    whole, small = Checkpoint.read(folder("f2llm")), Checkpoint.read(tmp_path / "small", "me/f2llm-int8")
    assert whole.adds_eos and small.adds_eos
    assert (small.prompts, small.space, small.name) == (whole.prompts, whole.space, "me/f2llm-int8")


def test_a_latent_head_in_int8_is_restored(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Tools that quantise all linear maps do it to the head of NV-Embed-v2 too."""
    source = shutil.copytree(folder("nv-embed"), tmp_path / "source")
    whole = {key: tensor for file in source.glob("*.safetensors") for key, tensor in load_file(file).items()}
    head = [key for key in whole if key.startswith("latent_attention_model.") and key.endswith("to_q.weight")]
    scales = {f"{key}_scale": whole[key].float().abs().amax(1, keepdim=True) / 127 for key in head}
    codes = {key: (whole[key].float() / scales[f"{key}_scale"]).round().to(torch.int8) for key in head}
    for file in [*source.glob("*.safetensors"), *source.glob("*.index.json")]:
        file.unlink()
    write_weights(source, whole | codes | scales)
    write_json(source / "config.json", read_json(source / "config.json") | {"quantization_config": PUBLISHED})
    given = texts("nv-embed", "")
    expected = reference("nv-embed").encode(given, "")
    assert head and (loaded(source, "fp32").encode(given, Role.PASSAGE) * expected).sum(1).min() > 0.999


def test_files_that_are_no_part_of_a_model_stay(folder: Callable[[str], Path], tmp_path: Path) -> None:
    source = shutil.copytree(folder("minilm"), tmp_path / "source")
    for name in ("checkpoint-500", "onnx"):
        write_json(source / name / "config.json", {})
        (source / name / "optimizer.pt").write_bytes(b"pickle")
    for file in source.rglob("*.json"):
        file.chmod(0o444)
    compress(source, tmp_path / "small")
    found = {str(path.relative_to(tmp_path / "small")) for path in (tmp_path / "small").rglob("*") if path.is_file()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"} <= found
    assert not any(name.endswith(".pt") or name.startswith(("onnx", "checkpoint-")) for name in found)


def test_a_full_disk_is_an_error_of_the_system(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(compressed, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        compress(folder("nv-embedcode"), tmp_path / "small")
