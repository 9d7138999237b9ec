"""Packed weights: products by the compiled library, and models of GGUF files that keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from packed_blocks import HALVES, random_rows, unpacked, write_packed
from tiny_gguf import gguf_model, write_tiny_gguf
from tiny_models import tiny_model
from torch import Tensor

from chatstream_flask.config import Dtype, Weights
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.decoders.fuse import fuse
from chatstream_flask.inference.decoders.native_decoder import NativeDecoder
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.decoders.packed import (
    PACKED_FORMATS,
    PackedEmbedding,
    PackedLinear,
    PackedMatrix,
)
from chatstream_flask.inference.decoders.quantise import quantise_model, quantised
from chatstream_flask.inference.kv_cache import layer_shapes
from chatstream_flask.inference.loading.gguf_reader import open_gguf
from chatstream_flask.inference.loading.load_model import find_model_files, load_model
from chatstream_flask.inference.loading.packed_gguf import PackedGguf
from chatstream_flask.inference.logits_check import relative_error
from chatstream_flask.inference.model_size import model_size, weights_bytes
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.slot_model import SlotModel

if native_library() is None:
    pytest.skip("no C compiler when this was installed", allow_module_level=True)

MAX_LEN = 200
MAX_ERROR = 0.03  # of logits, because inputs are rounded to 8 bits
SIZES = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 203}  # a super-block; no whole panel


def rounded(x: Tensor) -> Tensor:
    """Return inputs as products see them: multiples of a 127th of the largest of 32."""
    blocks = x.view(len(x), -1, 32)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    return ((blocks / scale).round() * scale).view(x.shape)


def packed_model(path: Path, kind: str, architecture: str, default: str) -> tuple[Any, Any]:
    """Return a model whose matrices are packed, and the model of the same unpacked weights."""
    model = tiny_model(kind, **SIZES, tie_word_embeddings=kind == "gemma2")  # which has no other in GGUF
    formats = {"attn_v": "Q6_K", "ffn_down": "Q5_K"} if default == "Q4_K" else {}
    write_packed(path, model, architecture, formats, default)
    file = PackedGguf(str(path), open_gguf(str(path)), architecture)
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    assert file.obstacle(skeleton) is None
    packed = file.load(model.config)
    return torch.nn.Module.float(packed).train(False), model


def slots_of(model: Any) -> SlotModel:
    forward = NativeDecoder(fuse(model, MAX_LEN, prepack=False))
    return SlotModel(model, forward, layer_shapes(model), num_slots=40, max_len=MAX_LEN)


@torch.inference_mode()
def logits(slots: SlotModel, ids: Tensor, step: int) -> Tensor:
    """Return the logits of all tokens of rows, computed `step` tokens of each row at a time."""
    parts = []
    for start in range(0, ids.shape[1], step):
        part = ids[:, start : start + step]
        positions = torch.arange(start, start + part.shape[1]).expand(part.shape)
        key_len = slots.key_len(start + part.shape[1])
        parts.append(slots.logits(0, part, positions, positions, key_len, part.shape[1]))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", HALVES)
def test_products_are_those_of_the_unpacked_weights_and_alike_in_any_batch(name: str) -> None:
    num_outputs, num_inputs = 203, 1280
    rows = random_rows(name, num_outputs, num_inputs)
    matrix = PackedMatrix(torch.from_numpy(rows), num_inputs, PACKED_FORMATS[name])
    plain = unpacked(name, rows)
    assert torch.equal(matrix.rows(torch.arange(num_outputs)), plain)
    x = torch.randn(150, num_inputs, generator=torch.Generator().manual_seed(1))
    y = matrix.product(x)
    expected = rounded(x).double() @ plain.double().T
    assert relative_error(expected, y.double()) < 1e-3
    for num in (1, 2, 3, 5, 8, 131):
        assert torch.equal(matrix.product(x[-num:]), y[-num:]), f"{num} rows"


@pytest.mark.parametrize(
    ("kind", "architecture", "default"),
    [
        ("llama", "llama", "Q4_K"),
        ("llama", "llama", "Q8_0"),
        ("qwen2", "qwen2", "Q5_1"),
        ("qwen3", "qwen3", "Q4_1"),
        ("gemma2", "gemma2", "Q5_0"),
        ("gemma3_text", "gemma3", "Q4_0"),
    ],
)
def test_a_packed_model_gives_the_logits_of_the_unpacked_one(
    tmp_path: Path, kind: str, architecture: str, default: str
) -> None:
    packed, plain = packed_model(tmp_path / "a.gguf", kind, architecture, default)
    ids = torch.randint(SIZES["vocab_size"], (3, 60), generator=torch.Generator().manual_seed(2))
    expected = logits(slots_of(plain), ids, 60)
    assert relative_error(expected, logits(slots_of(packed), ids, 60)) < MAX_ERROR


def test_a_token_has_the_same_logits_alone_in_a_batch_and_in_a_prompt(tmp_path: Path) -> None:
    packed, _ = packed_model(tmp_path / "a.gguf", "llama", "llama", "Q4_0")
    slots = slots_of(packed)
    ids = torch.randint(SIZES["vocab_size"], (33, 20), generator=torch.Generator().manual_seed(3))
    expected = logits(slots, ids, 1)
    for num in (1, 5, 16):
        assert torch.equal(logits(slots, ids[:num], 1), expected[:num]), f"{num} rows"
    # Attention of a prompt sums up in another order; what differs in the last bit may be rounded differently.
    assert relative_error(expected, logits(slots, ids, 20)) < 0.01


def test_matrices_are_the_mapped_file_except_queries_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    packed, _ = packed_model(path, "llama", "llama", "Q8_0")
    addresses = {
        name: module.weight.data_ptr()
        for name, module in packed.named_modules()
        if isinstance(module, (PackedEmbedding, PackedLinear))
    }
    mapped = packed.lm_head.weight.data_ptr()
    outside = {name for name, address in addresses.items() if abs(address - mapped) >= path.stat().st_size}
    assert outside == {f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qk"}


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    model = tiny_model("llama", **SIZES, tie_word_embeddings=True)
    write_packed(tmp_path / "a.gguf", model, "llama", {}, "Q6_K")
    packed = PackedGguf(str(tmp_path / "a.gguf"), open_gguf(str(tmp_path / "a.gguf")), "llama").load(
        model.config
    )
    assert packed.lm_head.weight.data_ptr() == packed.model.embed_tokens.weight.data_ptr()


def test_it_is_served_by_the_compiled_decoder_with_keys_in_bfloat16(tmp_path: Path) -> None:
    model = tiny_model("llama", **SIZES).bfloat16().float()
    write_packed(tmp_path / "a.gguf", model, "llama", {}, "Q4_K")
    file = PackedGguf(str(tmp_path / "a.gguf"), open_gguf(str(tmp_path / "a.gguf")), "llama")
    prepared = PreparedModel(file.load(model.config), MAX_LEN)
    prepared.prepare(2)
    assert isinstance(prepared.forward, NativeDecoder)
    assert {shape.dtype for shape in prepared.shapes} == {torch.bfloat16}


def test_norms_that_bfloat16_would_round_stay_float32(tmp_path: Path) -> None:
    model = tiny_model("llama", **SIZES)
    torch.nn.init.normal_(model.model.norm.weight)
    write_packed(tmp_path / "a.gguf", model, "llama", {}, "Q8_0")
    loaded = PackedGguf(str(tmp_path / "a.gguf"), open_gguf(str(tmp_path / "a.gguf")), "llama").load(
        model.config
    )
    assert torch.equal(loaded.model.norm.weight, model.model.norm.weight)


def test_a_file_of_packed_weights_is_loaded_packed_after_its_size_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    weights = {"hidden_size": 64, "intermediate_size": 96}
    write_tiny_gguf(path, model=gguf_model(**weights), packed="Q8_0")
    size = model_size(str(path))
    loaded = load_model(str(path), "cpu")
    assert isinstance(loaded.model.lm_head, PackedLinear)
    assert size.weights_bytes == pytest.approx(weights_bytes(loaded.model), rel=0.001)
    assert size.weights_bytes < path.stat().st_size
    assert not isinstance(load_model(str(path), "cpu", "float32").model.lm_head, PackedLinear)


@pytest.mark.parametrize(("name", "max_error"), [("Q8_0", 0.01), ("Q4_0", 0.1)])
def test_weights_are_rounded_with_the_least_error(name: str, max_error: float) -> None:
    weight = torch.randn(70, 96, generator=torch.Generator().manual_seed(4))
    weight[3] = 0
    matrix = quantised(weight, PACKED_FORMATS[name])
    rounded_weight = matrix.rows(torch.arange(70))
    assert torch.equal(rounded_weight, unpacked(name, matrix.data.numpy()))
    assert relative_error(weight, rounded_weight) < max_error


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])  # fused, and by its own forward pass
@pytest.mark.parametrize(("weights", "max_error"), [(Weights.INT8, 0.03), (Weights.INT4, 0.5)])
def test_any_loaded_model_is_served_with_rounded_weights(
    kind: str, weights: Weights, max_error: float
) -> None:
    model = tiny_model(kind)
    for parameter in model.parameters():
        parameter.data *= 0.4  # less chaotic
    ids = torch.arange(100)[None]
    expected = model(ids).logits[0].detach()
    before = weights_bytes(model)
    quantise_model(model, weights)
    assert weights_bytes(model) < before / 3
    prepared = PreparedModel(model, MAX_LEN)
    prepared.prepare(2)
    assert relative_error(expected, model(ids).logits[0].detach()) < max_error


def test_a_head_that_is_the_embedding_stays_one_matrix() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    quantise_model(model, Weights.INT4)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_weights_that_cannot_be_rounded_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    files = find_model_files(str(tmp_path))
    with pytest.raises(ConfigError, match='are for device="cpu", not for cuda'):
        files.skeleton_of(Dtype.AUTO, "cuda", Weights.INT8)
    monkeypatch.setattr("chatstream_flask.inference.loading.model_files.native_library", lambda: None)
    with pytest.raises(ConfigError, match="need the compiled decoder"):
        files.load_weights(Dtype.AUTO, "cpu", Weights.INT4)


def test_plan_knows_the_size_of_rounded_weights(tmp_path: Path) -> None:
    model = tiny_model("llama", **SIZES)
    model.save_pretrained(tmp_path)
    planned = model_size(str(tmp_path), weights="int4").weights_bytes
    quantise_model(model, Weights.INT4)
    assert planned == pytest.approx(weights_bytes(model), rel=0.001)
