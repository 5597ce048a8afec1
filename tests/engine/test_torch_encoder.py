"""TorchEncoder on a small random network: what it promises beside the layouts (tests/model/test_layouts.py)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write
from layouts import LAYOUTS
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import MistralConfig, MistralModel

from embedcode import Role, Truncate, cut, load
from embedcode.engine import memory, network, packed, pooling, processor
from embedcode.engine.tokens import TextTokenizer
from embedcode.engine.torch_encoder import STREAMED, TorchEncoder
from embedcode.errors import EncodeError, ModelError, UsageError
from embedcode.model.checkpoint import Checkpoint
from embedcode.model.presets import INSTRUCTIONS
from embedcode.model.spec import DEFAULT
from embedcode.types import Tokens

TEXTS = ["import os", "import numpy as np\n" * 40, "", "x", "def f(x):\n    return x  # größer", "日本語 " * 30]
SIZES = (16, 32, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NV-EmbedCode's layout in small: Mistral without its causal mask, mean pooling."""
    folder = tmp_path_factory.mktemp("checkpoint") / "NV-EmbedCode-7b-v1"
    folder.mkdir()
    config = MistralConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
        vocab_size=30522, max_position_embeddings=4096, sliding_window=None,
    )  # fmt: skip
    torch.manual_seed(0)
    save_file(dict(MistralModel(config).state_dict()), folder / "model.safetensors")
    published = config.to_dict() | {
        "architectures": ["MistralBiDirectionalModel"],
        "model_type": "mistralbidirectional",
    }
    (folder / "config.json").write_text(json.dumps(published | {"matryoshka_dimensions": list(SIZES)}))
    shutil.copy(DEFAULT / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def exact(folder: Path) -> TorchEncoder:
    return encoder(folder, "fp32")


def encoder(folder: Path, precision: str, **options: object) -> TorchEncoder:
    found = load(str(folder), precision=precision, threads=1, **options)  # type: ignore[arg-type]
    assert isinstance(found, TorchEncoder)
    return found


def passages(encoder: TorchEncoder, texts: list[str]) -> np.ndarray:
    return encoder.encode(texts, Role.PASSAGE)


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.9995), ("int8", 0.999)])
def test_lower_precisions_are_near_the_exact_vectors(
    folder: Path, exact: TorchEncoder, precision: str, cosine: float
) -> None:
    found = encoder(folder, precision)
    assert (passages(found, TEXTS) * passages(exact, TEXTS)).sum(1).min() > cosine
    assert found.space == exact.space and found.build != exact.build
    assert found.repaired == 0


def test_int8_is_near_without_vnni_too(folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx2"}))
    assert (passages(encoder(folder, "int8"), TEXTS) * passages(exact, TEXTS)).sum(1).min() > 0.998


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_vector_is_the_same_alone_and_in_any_batch(folder: Path, precision: str) -> None:
    """Bitwise here; with other kernels rows of a matrix product may differ in their last bits."""
    found = encoder(folder, precision)
    together = passages(found, TEXTS * 3)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(passages(found, [text])[0], together[number], atol=1e-6)
    np.testing.assert_allclose(together[: len(TEXTS)], together[-len(TEXTS) :], atol=1e-6)


def test_no_texts_give_no_rows(exact: TorchEncoder) -> None:
    assert passages(exact, []).shape == (0, 64)


def test_forward_of_a_text_that_cannot_be_encoded_says_why(exact: TorchEncoder) -> None:
    entries: Any = exact.tokenize(["x", 3], Role.PASSAGE)  # type: ignore[list-item]
    with pytest.raises(EncodeError, match="Input 1 is a int: give a string"):
        exact.forward(entries)


def test_many_texts_keep_their_order(exact: TorchEncoder) -> None:
    texts = [f"value {n % 7}" for n in range(600)]
    found = passages(exact, texts)
    np.testing.assert_allclose(found, passages(exact, texts[:7])[[n % 7 for n in range(600)]], atol=1e-6)


@pytest.mark.parametrize(("layout", "norms"), [("nv-embedcode", True), ("qwen3-embedding", True), ("sfr-code", False)])
def test_norms_that_are_one_kernel_give_the_same_states(layout: str, norms: bool, tmp_path: Path) -> None:
    """As on a card. Gemma adds 1 to its weights, so that its norms stay as they are written."""
    checkpoint = Checkpoint.read(write(LAYOUTS[layout], tmp_path))
    built = network.build(checkpoint, "fp32", torch.device("cpu"))
    names = [name for name, _ in built.named_modules() if name.endswith("norm")]
    with torch.no_grad():
        for name in names:  # published ones are not ones
            weight = built.get_submodule(name).weight
            weight.copy_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(len(name))) + 0.5)
        batch = {"input_ids": torch.arange(3, 15)[None], "position_ids": torch.tensor([[*range(7), *range(5)]])}
        before = built(**batch, borders=[0, 7, 12]).last_hidden_state
        network.fuse(built)
        after = built(**batch, borders=[0, 7, 12]).last_hidden_state
    assert len(names) > 4
    assert all(("forward" in vars(built.get_submodule(name))) == norms for name in names)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 6])
def test_bounded_scores_are_those_of_the_whole_text_some_rows_at_a_time(
    causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of Gemma 2 as written in its publication: 8,192 tokens took 2 GB for each tensor of a layer."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, heads, 17, 8), generator=draw) for heads in (4, 2, 2))
    scores = torch.tanh(q @ k.repeat_interleave(2, 1).transpose(2, 3) * 0.3 / 5.0) * 5.0
    ahead = torch.arange(17)[None] - torch.arange(17)[:, None]
    hidden = (ahead > 0 if causal else ahead > 16) | (ahead.abs() >= (window or 17))
    expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    monkeypatch.setattr(packed, "ROWS", 5)
    module = torch.nn.Module()
    module.is_causal = causal  # type: ignore[assignment]
    found, _ = packed.attention(module, q, k, v, None, borders=[0, 17], scaling=0.3, sliding_window=window, softcap=5.0)
    torch.testing.assert_close(found[0].transpose(0, 1)[None], expected)


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_takes_memory_by_its_width_and_not_by_the_pairs_of_a_text(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layer of ModernBERT and of EmbeddingGemma but a few, beside what was planned for."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, heads, 64, 8), generator=draw) for heads in (4, 2, 2))
    ahead = torch.arange(64)[None] - torch.arange(64)[:, None]
    seen = (ahead <= 0 if causal else ahead < 6) & (ahead > -6)
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = attend(q, k, v, seen, scale=0.3, enable_gqa=True)
    monkeypatch.setattr(packed, "ROWS", 16)
    masks: list[int] = []

    def noted(*given: Any, **more: Any) -> torch.Tensor:
        masks.append(given[3].numel())
        return attend(*given, **more)

    monkeypatch.setattr(packed.functional, "scaled_dot_product_attention", noted)
    module = torch.nn.Module()
    module.is_causal = causal  # type: ignore[assignment]
    found, _ = packed.attention(module, q, k, v, None, borders=[0, 64], scaling=0.3, sliding_window=6)
    torch.testing.assert_close(found[0].transpose(0, 1)[None], expected)
    assert max(masks) <= 16 * (16 + 2 * 5)


@pytest.mark.parametrize("named", [True, False])
def test_a_card_is_given_the_keys_of_a_group_once(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's kernel takes them so, from 2.12 on by a name for it."""
    given: list[tuple[int, dict[str, object]]] = []

    def plain(
        q: Any, k: Any, v: Any, starts: Any, _: Any, most: int, __: int, *, scale: float, window_size: Any, **more: Any
    ) -> Any:
        given.append((k.shape[1], more))
        assert (most, window_size) == (7, (-1, 0))
        rows = [slice(*pair) for pair in pairwise(starts.tolist())]
        parts = ([part[row].transpose(0, 1)[None] for part in (q, k, v)] for row in rows)
        attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True, scale=scale, enable_gqa=True)
        out = [attend(*one) for one in parts]
        return torch.cat([one[0].transpose(0, 1) for one in out])

    def with_name(*arguments: Any, enable_gqa: bool = False, **more: Any) -> Any:
        return plain(*arguments, enable_gqa=enable_gqa, **more)

    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, heads, 12, 8), generator=draw) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    expected, _ = packed.attention(module, q, k, v, None, borders=[0, 7, 12], scaling=0.3)
    kernel = with_name if named else plain
    found = packed._together(kernel, q, k, v, [0, 7, 12], True, 0.3, None)
    torch.testing.assert_close(found, expected)
    assert given == [(2, {"enable_gqa": True} if named else {})]


def test_the_latent_head_works_for_its_tokens_alone_and_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does with its latents is the same for every text: 275 GFLOP at NV-Embed-v2's sizes."""
    head = network.latent(Checkpoint.read(write(LAYOUTS["nv-embed"], tmp_path)))
    states = torch.randn((17, 48), generator=torch.Generator().manual_seed(0))
    work = []
    for count in (1, 2, 17):
        with FlopCounterMode(display=False) as counter:
            whole = head(states[:count])
        work.append(counter.get_total_flops())
    assert work == [work[0], 2 * work[0], 17 * work[0]]
    monkeypatch.setattr(pooling, "ROWS", 5)
    torch.testing.assert_close(head.some_at_a_time(states), whole)


def test_several_readers_share_a_short_list_and_keep_its_order(
    folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before a card, where 400 texts were two blocks, read by two threads of sixteen."""
    many = [f"def f{number}(x): return x * {number}" for number in range(300)]
    shared = encoder(folder, "fp32")
    shared._readers = 4
    expected, call, parts = exact.encode(many, Role.PASSAGE), TextTokenizer.__call__, []

    def read(self: TextTokenizer, texts: list[str], *rest: object) -> object:
        parts.append(len(texts))
        return call(self, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TextTokenizer, "__call__", read)
    np.testing.assert_array_equal(shared.encode(many, Role.PASSAGE), expected)
    assert sorted(parts) == [44, 64, 64, 64, 64]
    with pytest.raises(EncodeError, match="Input 219 "):
        shared.encode([*many[:219], 3, *many[220:]], Role.PASSAGE)  # type: ignore[list-item]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_streamed_network_gives_the_same_vectors_and_keeps_no_layer(folder: Path, precision: str) -> None:
    streamed, whole = (encoder(folder, precision, stream=stream) for stream in (True, False))
    for _ in range(2):
        np.testing.assert_array_equal(passages(streamed, TEXTS), passages(whole, TEXTS))
        layers = streamed._network.layers
        assert {type(part).__name__ for part in layers.modules()} >= {"Linear"}
        assert sum(1 for part in layers.modules() if type(part).__name__ == "Int8Linear") == 0
        assert len(list(layers.parameters())) == len(list(exact_layers(folder)))
        assert all(p.is_meta for p in layers.parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and the heap is glibc's")
@pytest.mark.slow
def test_a_streamed_network_that_is_converted_does_not_grow_by_its_layers(tmp_path: Path) -> None:
    """In one heap what a layer leaves does not fit the next: a 7B in fp32 held 23 GB in the end, these 16 180 MB."""
    config = MistralConfig(
        hidden_size=512, num_hidden_layers=16, num_attention_heads=8, num_key_value_heads=2, intermediate_size=1792,
        vocab_size=30522, max_position_embeddings=4096, sliding_window=None,
    )  # fmt: skip
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in MistralModel(config).state_dict().items()}
    weights = {key: (0.02 * torch.randn(shape)).bfloat16() for key, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors")
    published = config.to_dict() | {"architectures": ["MistralBiDirectionalModel"]}
    (tmp_path / "config.json").write_text(json.dumps(published))
    shutil.copy(DEFAULT / "tokenizer.json", tmp_path)
    script = f"""
import embedcode
from pathlib import Path
encoder = embedcode.load({str(tmp_path)!r}, precision="fp32", stream=True, threads=1)
held = lambda: int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1000
encoder._network
before = held()
encoder.encode(["x"], "passage")
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100  # MB; a layer has 13


def exact_layers(folder: Path) -> Iterator[torch.nn.Parameter]:
    layers: Iterator[torch.nn.Parameter] = encoder(folder, "fp32")._network.layers.parameters()
    return layers


@pytest.mark.parametrize(("precision", "stays"), [("fp32", True), ("bf16", False)])
def test_what_is_converted_keeps_no_pages_of_its_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, stays: bool
) -> None:
    """They count as this process's own: of a model of 7 B weights in fp32, 28 GB beside 14."""
    own = shutil.copytree(folder, tmp_path / "own")  # which no other test has mapped
    kept = []

    class Kept(network.Tensors):
        def __init__(self) -> None:
            super().__init__()
            kept.append(self)

    monkeypatch.setattr(network, "Tensors", Kept)
    built = network.build(Checkpoint.read(own), precision, torch.device("cpu"))
    built.get_input_embeddings().weight.sum()  # reads the table
    path = own / "model.safetensors"
    resident, inside = 0, False
    for row in Path("/proc/self/smaps").read_text().splitlines():
        first = row.split(maxsplit=1)[0]
        if not first.endswith(":"):
            inside = row.endswith(str(path))
        elif inside and first == "Rss:":
            resident += int(row.split()[1]) * 1024
    assert (resident > path.stat().st_size / 2) == stays
    assert stays or resident < path.stat().st_size / 10


def test_threads_share_one_network_and_wait_for_each_other_where_it_is_streamed(
    folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = passages(exact, TEXTS)
    loaded: list[bool] = []
    load_network = TorchEncoder._load

    def counted(self: TorchEncoder, precision: str, stream: bool) -> object:
        loaded.append(stream)
        return load_network(self, precision, stream)

    monkeypatch.setattr(TorchEncoder, "_load", counted)
    for stream in (False, True):
        shared = encoder(folder, "fp32", stream=stream)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _, shared=shared: passages(shared, TEXTS), range(8)):  # type: ignore[misc]
                np.testing.assert_allclose(found, expected, atol=1e-6)
    assert loaded == [False, True]


def test_a_row_that_is_not_finite_is_computed_again_alone_in_full_precision(
    folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fp16 overflows on texts that begin with `import` in Qwen3: here two texts of a batch come out as no number."""
    found = encoder(folder, "bf16")
    whole = found._network
    spoilt = found.tokenize(TEXTS[:2], Role.PASSAGE)

    def overflowing(input_ids: torch.Tensor, borders: list[int], **rest: object) -> object:
        out = whole(input_ids=input_ids, borders=borders, **rest)
        for start, stop in pairwise(borders):
            if any(isinstance(e, Tokens) and input_ids[0, start:stop].tolist() == list(e.ids) for e in spoilt):
                out.last_hidden_state[0, start] = torch.inf
        return out

    monkeypatch.setitem(found.__dict__, "_network", overflowing)
    vectors = passages(found, TEXTS)
    assert found.repaired == 2
    assert found.remarks() == ["2 vectors were not finite and were computed again alone, in fp32"]
    np.testing.assert_allclose(vectors[:2], passages(exact, TEXTS[:2]), atol=1e-6)
    assert np.isfinite(vectors).all()


def test_a_row_that_is_finite_in_no_precision_is_an_error_with_its_place(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embed_tokens.weight"][1000:1010] = torch.nan
    save_file(weights, broken / "model.safetensors")
    found = encoder(broken, "bf16")
    with pytest.raises(EncodeError, match="Input 1 has no finite vector") as caught:
        found.encode([[101, 2000], [101, 1005]], Role.PASSAGE)
    assert caught.value.index == 1
    with pytest.raises(EncodeError, match="Input 300 has no finite vector") as caught:
        found.encode([[101, 2000]] * 300 + [[101, 1005]], Role.PASSAGE)
    assert caught.value.index == 300
    spoilt = found.tokenize(["ab"], Role.PASSAGE)[0]
    assert isinstance(spoilt, Tokens)
    weights["embed_tokens.weight"][list(spoilt.ids)] = torch.nan
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(EncodeError, match="Input 0 has no finite vector"):
        encoder(broken, "bf16").late("ab", [(0, 2)])


def test_a_row_of_no_length_is_an_error_too(exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_forward", lambda tokens, network: np.zeros((len(tokens), exact.dim), np.float32))
    with pytest.raises(EncodeError, match="Input 0 has no finite vector"):
        passages(exact, ["x"])


def test_int8_on_a_card_is_refused_with_the_cure(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"int8 is for processors, not cuda: set precision to bf16"):
        encoder(folder, "int8", device="cuda").encode(["x"], Role.PASSAGE)


@pytest.mark.parametrize(("device", "cards"), [("cuda", 0), ("cuda:1", 1)])
def test_a_card_that_is_not_there_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, cards: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(ModelError, match=rf"cannot use {device} here \(it finds {cards} cards\): set device to cpu"):
        encoder(folder, "", device=device).encode(["x"], Role.PASSAGE)


class TestRoomOnACard:
    @pytest.fixture
    def free(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        """One card, with so many bytes free."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        return lambda size: monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (size, 2 * size))

    def test_a_model_that_does_not_fit_is_refused_with_the_cure(
        self, folder: Path, exact: TorchEncoder, free: Callable[[int], None]
    ) -> None:
        free(memory.needed(exact.checkpoint, "bf16") - 1)
        cure = r"bf16 needs .* GB of memory on cuda:0 and .* GB are free: set device to cpu.* or EMBEDCODE_STREAM=1"
        with pytest.raises(ModelError, match=cure):
            passages(encoder(folder, "", device="cuda:0"), ["x"])

    def test_a_pass_is_what_has_room_beside_the_weights(self, exact: TorchEncoder, free: Callable[[int], None]) -> None:
        beside = memory.needed(exact.checkpoint, "bf16") - memory.states(exact.checkpoint, "bf16", memory.PACK)
        free(beside + memory.states(exact.checkpoint, "bf16", 5000))
        assert memory.card_pack(exact.checkpoint, "bf16", "cuda") == 5000
        free(beside + memory.states(exact.checkpoint, "bf16", 1_000_000))
        assert memory.card_pack(exact.checkpoint, "bf16", "cuda") == memory.CARD_PACK

    def test_auto_takes_the_processor_where_the_card_has_no_room_and_for_int8(
        self, folder: Path, exact: TorchEncoder, free: Callable[[int], None]
    ) -> None:
        free(memory.needed(exact.checkpoint, "bf16"))
        assert encoder(folder, "", device="auto").build.startswith("bf16 cuda ")
        assert encoder(folder, "int8", device="auto").build.startswith("int8 cpu ")
        found = encoder(folder, "fp32", device="auto")
        np.testing.assert_allclose(passages(found, TEXTS), passages(exact, TEXTS), atol=1e-6)
        assert found.build.startswith("fp32 cpu ")


def test_a_text_that_is_too_long_for_the_memory_is_named_and_costs_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is planned before a model is loaded is a pass of 2,048 tokens; a longer text is a pass of its own."""
    found = encoder(folder, "fp32")
    passages(found, ["x"])
    short, long, longer = "a b", "x " * 3000, "x " * 3500
    kept = passages(found, [long])
    monkeypatch.setattr(memory, "available", lambda: 1000)
    np.testing.assert_allclose(passages(found, [long, short])[:1], kept, atol=1e-6)  # it was there before
    with pytest.raises(
        EncodeError, match=r"Input 301 has 3,502 tokens, which need .* GB of memory .* cut it"
    ) as caught:
        passages(found, [short] * 301 + [longer])
    assert caught.value.index == 301
    with pytest.raises(EncodeError, match="Input 0 has 3,502 tokens"):
        found.late(longer, [(0, 3)])
    assert found.encode([longer], Role.PASSAGE, truncate=Truncate.END, max_tokens=2048).shape == (1, 64)


@pytest.mark.parametrize("truncate", list(Truncate))
def test_which_end_is_cut_may_be_a_plain_string(exact: TorchEncoder, truncate: Truncate) -> None:
    texts = ["a b c d e f g h"]
    asked = exact.tokenize(texts, Role.PASSAGE, truncate=str(truncate.value), max_tokens=6)  # type: ignore[arg-type]
    assert asked == exact.tokenize(texts, Role.PASSAGE, truncate=truncate, max_tokens=6)
    with pytest.raises(UsageError, match="truncate 'MIDDLE' is none of NONE, START, END"):
        exact.tokenize(texts, Role.PASSAGE, truncate="MIDDLE")  # type: ignore[arg-type]


def test_a_query_is_asked_with_its_instruction_and_a_passage_goes_bare(exact: TorchEncoder) -> None:
    default, other = (exact.encode(["x"], Role.QUERY, instruction=i) for i in (None, "Find the bug"))
    assert not np.allclose(default, other)
    bare = exact.encode(["Instruct: Find the bug\nQuery: x"], Role.PASSAGE)
    np.testing.assert_allclose(other, bare, atol=1e-6)
    with pytest.raises(ModelError, match="no instruction for a passage"):
        exact.encode(["x"], Role.PASSAGE, instruction="Find the bug")


def test_an_instruction_may_be_given_by_its_name(exact: TorchEncoder) -> None:
    named, spelt = (
        exact.encode(["close a session"], Role.QUERY, instruction=one) for one in ("bug", INSTRUCTIONS["bug"])
    )
    np.testing.assert_array_equal(named, spelt)
    with pytest.raises(UsageError, match="instruction 3 is a int"):
        exact.encode(["close a session"], Role.QUERY, instruction=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the prompt has [\d,]+ tokens and the model reads 4,096: shorten"):
        exact.encode(["close a session"], Role.QUERY, instruction="a b " * 5000)


def test_a_prompt_survives_truncation_at_the_start(exact: TorchEncoder) -> None:
    (whole,) = exact.tokenize(["a b c d e f g h"], Role.QUERY)
    (entry,) = exact.tokenize(["a b c d e f g h"], Role.QUERY, truncate=Truncate.START, max_tokens=whole.used - 3)  # type: ignore[union-attr]
    assert isinstance(whole, Tokens) and isinstance(entry, Tokens)
    assert entry.ids == whole.ids[: whole.prompt] + whole.ids[whole.prompt + 3 :]
    assert (entry.original, entry.used, entry.prompt) == (whole.used, whole.used - 3, whole.prompt)


def test_a_declared_size_is_cut_to_and_another_refused_with_the_cure(exact: TorchEncoder) -> None:
    small = exact.encode(TEXTS, Role.PASSAGE, dimensions=32)
    np.testing.assert_allclose(np.linalg.norm(small, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(small, cut(passages(exact, TEXTS), 32))
    with pytest.raises(UsageError, match=r"does not declare dimensions 20 \(it declares 16, 32, 64\).*embedcode.cut"):
        exact.encode(TEXTS, Role.PASSAGE, dimensions=20)


class TestLateChunking:
    TEXT = "def first(a):\n    return a\n\ndef second(b):\n    return first(b) + 1\n"

    def test_a_span_has_the_mean_of_its_tokens_in_the_whole_file(self, folder: Path, exact: TorchEncoder) -> None:
        middle = self.TEXT.index("def second")
        vectors = exact.late(self.TEXT, [(0, middle), (middle, len(self.TEXT)), (0, len(self.TEXT))])
        (entry,) = exact.tokenize([self.TEXT], Role.PASSAGE)
        assert isinstance(entry, Tokens)
        network = MistralModel.from_pretrained(folder, attn_implementation="eager", model_type="mistral")
        mask = torch.zeros(1, 1, entry.used, entry.used)
        states = network(input_ids=torch.tensor([entry.ids]), attention_mask=mask).last_hidden_state[0].detach()
        inner = len(load(str(DEFAULT))._tokenizer._ids_of(self.TEXT[:middle]))
        for vector, rows in zip(vectors, (states[1 : 1 + inner], states[1 + inner : -1], states[1:-1]), strict=True):
            expected = torch.nn.functional.normalize(rows.mean(0), dim=0)
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)

    def test_no_spans(self, exact: TorchEncoder) -> None:
        assert exact.late(self.TEXT, []).shape == (0, 64)

    def test_surrogates_move_no_span(self, exact: TorchEncoder) -> None:
        """Two halves of a character, as JavaScript counts them, are two characters here and one in UTF-8."""
        spans = [(8 + start, 8 + end) for start, end in ((0, 14), (14, 27))]
        halves, signs = (exact.late(odd + self.TEXT, spans) for odd in ("\ud83d\ude42" * 4, "\ufffd" * 8))
        np.testing.assert_array_equal(halves, signs)

    def test_a_span_without_a_token(self, exact: TorchEncoder) -> None:
        for start, end in ((900, 901), (6, 6), (9, 6)):  # the second lies within a token, whose vector it had
            with pytest.raises(EncodeError, match=f"Input 1 is the span {start}:{end}, which has no token") as caught:
                exact.late(self.TEXT, [(0, 3), (start, end)])
            assert caught.value.index == 1

    def test_a_model_of_short_texts(self, exact: TorchEncoder) -> None:
        short = TorchEncoder(replace(exact.checkpoint, max_tokens=512), "fp32", 1)
        with pytest.raises(ModelError, match="reads 512 tokens, and late chunking needs 2,048"):
            short.late(self.TEXT, [(0, 3)])

    def test_a_text_that_is_too_long(self, exact: TorchEncoder) -> None:
        with pytest.raises(
            EncodeError, match=r"Input length .* exceeds maximum allowed token size 4096: .* fewer parts"
        ):
            exact.late("a b " * 4000, [(0, 3)])

    @pytest.mark.parametrize(
        ("text", "spans", "told"),
        [
            (b"abc", [(0, 1)], "is a bytes: give a string"),
            (TEXT, None, "spans are pairs"),
            (TEXT, [(0,)], "spans are pairs"),
            (TEXT, [(0, 1.5)], "no whole number"),
            (TEXT, [(-3, 5)], "from the beginning"),
        ],
    )
    def test_what_is_no_part_of_a_text(self, exact: TorchEncoder, text: Any, spans: Any, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            exact.late(text, spans)


@pytest.mark.parametrize("text", ["a" * 1_000_000, "\ud800 lone", "nul \0 byte", "", " ", "\n\n", "𝒳" * 500])
def test_odd_texts_have_sane_vectors(exact: TorchEncoder, text: str) -> None:
    vector = exact.encode([text], Role.PASSAGE, truncate=Truncate.END)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)


def test_a_trial_chooses_a_precision_says_why_and_is_remembered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    chosen = encoder(folder, "").choice
    assert chosen.precision in ("fp32", "bf16", "int8")
    for precision in ("fp32", "bf16", "int8"):
        assert precision in chosen.reason
    assert "cosine" in chosen.reason and "tokens/s" in chosen.reason
    monkeypatch.setattr("embedcode.engine.precision._measured", lambda *_: pytest.fail("measured again"))
    assert encoder(folder, "").choice == chosen


def test_int8_is_not_chosen_where_layers_behind_the_first_lose_by_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder's few large activations set the scale of all others; no later layer was looked at."""
    copy = shutil.copytree(folder, tmp_path / "loud")
    weights = load_file(copy / "model.safetensors")
    weights["layers.0.mlp.down_proj.weight"][5] *= 1e5  # which the layers behind read past, as trained ones do
    for part in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
        for layer in (1, 2):
            weights[f"layers.{layer}.{part}_proj.weight"][:, 5] = 0
            weights[f"layers.{layer}.{part}_proj.weight"] *= 1e4
    weights["norm.weight"][5] = 0
    save_file(weights, copy / "model.safetensors")
    times = iter((9, 8, 1) * 2)
    monkeypatch.setattr("embedcode.engine.precision._seconds", lambda _: next(times))
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    assert encoder(folder, "").choice.precision == "int8"
    chosen = encoder(copy, "").choice
    assert chosen.precision != "int8", chosen


def test_a_trial_is_remembered_where_not_every_precision_fits(
    folder: Path, exact: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a run of hours could not be gone on with: the precision is a condition of the vectors."""
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx512f", "avx512_vnni"}))
    monkeypatch.setattr(memory, "available", lambda: memory.needed(exact.checkpoint, "bf16"))
    chosen = encoder(folder, "").choice
    assert chosen.precision != "fp32" and "does not fit" in chosen.reason
    monkeypatch.setattr("embedcode.engine.precision._measured", lambda *_: pytest.fail("measured again"))
    assert encoder(folder, "").choice == chosen


def test_a_model_that_does_not_fit_says_what_would(
    folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx512f", "avx512_vnni"}))
    need = {p: memory.needed(exact.checkpoint, p) for p in ("fp32", "bf16", "int8")}
    assert need["fp32"] > need["bf16"] > need["int8"]
    monkeypatch.setattr(memory, "available", lambda: need["bf16"])
    with pytest.raises(ModelError, match=r"fp32 needs .* GB are free: bf16 would need .*, set precision to bf16"):
        passages(encoder(folder, "fp32"), ["x"])
    least = memory.streamed(exact.checkpoint, "int8", memory.PACK)
    monkeypatch.setattr(memory, "available", lambda: least)
    with pytest.raises(ModelError, match=r"stream its layers from disk, load\(..., stream=True\)"):
        passages(encoder(folder, "int8"), ["x"])
    monkeypatch.setattr(memory, "available", lambda: least - 1)
    with pytest.raises(ModelError, match="choose a smaller model, since not even one layer of it fits"):
        passages(encoder(folder, "int8"), ["x"])


def test_what_is_held_beside_the_layers_counts_where_they_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of tokens was counted in int8 though it is in bf16, and the latent head, in fp32, as a layer."""
    monkeypatch.setattr(processor, "features", lambda: frozenset({"avx512f", "avx512_vnni"}))
    checkpoint = Checkpoint.read(write(LAYOUTS["nv-embed"], tmp_path))
    sizes = {name: entry.count for name, entry in checkpoint.weights.items()}
    head = sum(size for name, size in sizes.items() if name.startswith("latent_attention_model."))
    layer = sum(size for name, size in sizes.items() if ".layers.1." in name)
    bare = memory.BASE + memory.states(checkpoint, "int8", memory.PACK)
    held = 2 * sizes["embedding_model.embed_tokens.weight"] + 4 * head + layer
    assert memory.streamed(checkpoint, "int8", memory.PACK) - bare == pytest.approx(held, rel=0.02)


def test_a_pass_of_what_is_streamed_is_as_large_as_fits(
    folder: Path, exact: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokens, planned in ((memory.PACK, memory.PACK), (3 * memory.PACK, 2 * memory.PACK), (1 << 20, STREAMED)):
        room = memory.streamed(exact.checkpoint, "fp32", tokens)
        monkeypatch.setattr(memory, "available", lambda room=room: room)
        found = encoder(folder, "fp32", stream=True)
        np.testing.assert_allclose(passages(found, ["x"]), passages(exact, ["x"]), atol=1e-6)
        assert found._pack == planned
    monkeypatch.setattr(memory, "available", lambda: memory.streamed(exact.checkpoint, "fp32", memory.PACK - 1))
    with pytest.raises(ModelError, match=r"needs .* with its layers streamed and .* are free: choose a smaller model"):
        passages(encoder(folder, "fp32", stream=True), ["x"])


def test_a_model_that_fits_in_no_precision_is_refused_before_the_trial(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which builds its first layer and its whole table of tokens in fp32."""
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("embedcode.engine.precision._measured", lambda *_: pytest.fail("built a layer"))
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ModelError, match=r"needs .* GB of memory and .* GB are free: choose a smaller model"):
        passages(encoder(folder, ""), ["x"])


def test_a_trial_holds_one_layer_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_HOME", str(tmp_path / "home"))
    build, alive = network.build, []

    def counted(*arguments: Any, **more: Any) -> Any:
        assert not [one for one in alive if one() is not None], "the layer before is still there"
        built = build(*arguments, **more)
        alive.append(weakref.ref(built))
        return built

    monkeypatch.setattr(network, "build", counted)
    assert encoder(folder, "").choice.precision
    assert len(alive) == 5  # and then the whole in fp32 and in int8


@pytest.mark.parametrize(
    ("features", "precision"), [({"avx2"}, "fp32"), ({"avx512f"}, "fp32"), ({"avx512_bf16"}, "bf16"), (set(), "bf16")]
)
def test_what_is_streamed_is_computed_in_bf16_where_the_processor_computes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, features: set[str], precision: str
) -> None:
    """Without its instructions MiniLM read a seventh of the tokens in bf16."""
    monkeypatch.setattr(processor, "features", lambda: frozenset(features))
    assert encoder(folder, "", stream=True).choice.precision == precision
    monkeypatch.setattr(memory, "available", lambda: 10**8)
    assert encoder(folder, "", stream=True).choice.precision == "bf16", "memory is what is streamed for"


def test_constructing_it_imports_no_torch(folder: Path) -> None:
    script = f"import embedcode, sys; e = embedcode.load({str(folder)!r}); e.space; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"
