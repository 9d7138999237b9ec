"""The chosen forward pass: the fastest one with the model's own logits, without a weight twice in memory."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import psutil
import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from chatstream_flask.inference.decoders.fused_decoder import FusedDecoder
from chatstream_flask.inference.decoders.linear import PrepackedModule
from chatstream_flask.inference.decoders.native_decoder import NativeDecoder
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.decoders.onednn import prepack_linears, restore_linears
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.slot_model import Forward, OwnForward

MAX_LEN = 32
FUSIBLE = ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3", "smollm3"]


def prepared_forward(model: Any, *, use_native: bool = False, prepack: bool | None = True) -> Forward:
    prepared = PreparedModel(model, MAX_LEN, use_native=use_native, prepack=prepack)
    prepared.prepare(1)
    return prepared.forward


def logits_of(model: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.arange(1, 12)[None]).logits
    return logits


@pytest.mark.parametrize("kind", FUSIBLE)
def test_common_architectures_are_fused(kind: str) -> None:
    assert isinstance(prepared_forward(tiny_model(kind)), FusedDecoder)


@pytest.mark.skipif(native_library() is None, reason="no C compiler when this was installed")
@pytest.mark.parametrize("kind", FUSIBLE)
def test_common_architectures_run_in_the_compiled_decoder(kind: str) -> None:
    assert isinstance(prepared_forward(tiny_model(kind), use_native=True), NativeDecoder)


@pytest.mark.parametrize(
    "changes", [{"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}]
)
@pytest.mark.parametrize("prepack", [False, True], ids=["plain", "prepacked"])
def test_biases_and_tied_embeddings_too(changes: dict[str, Any], prepack: bool) -> None:
    model = tiny_model("llama", **changes)
    expected = logits_of(model)
    assert isinstance(prepared_forward(model, prepack=prepack), FusedDecoder)
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)


def test_a_prepacked_model_can_be_prepared_again() -> None:
    model = tiny_model("qwen3")
    expected = logits_of(model)
    first, second = prepared_forward(model), prepared_forward(model, prepack=None)
    assert isinstance(first, FusedDecoder) and isinstance(second, FusedDecoder)
    assert second.layers[0].attention.qkv is first.layers[0].attention.qkv
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2", "mixtral", "phi3"])
def test_others_keep_their_own_forward_on_prepacked_weights(kind: str) -> None:
    model = tiny_model(kind)
    assert isinstance(prepared_forward(model), OwnForward)
    assert any(isinstance(module, PrepackedModule) for module in model.modules())


@pytest.mark.parametrize("use_native", [False, True])
def test_a_context_shorter_than_the_check_can_be_served(use_native: bool) -> None:
    PreparedModel(tiny_model("llama"), 4, use_native=use_native).prepare(1)


class Adapter(nn.Linear):
    """A linear layer that computes something more, as adapters do."""

    def forward(self, input: Tensor) -> Tensor:
        return 1.5 * super().forward(input)


def test_an_adapter_is_not_lost() -> None:
    model = tiny_model("llama")
    plain: nn.Linear = model.model.layers[1].self_attn.v_proj
    adapter = Adapter(plain.in_features, plain.out_features, bias=False)
    adapter.weight = plain.weight
    model.model.layers[1].self_attn.v_proj = adapter
    expected = logits_of(model)
    assert isinstance(prepared_forward(model), OwnForward)
    assert model.model.layers[1].self_attn.v_proj is adapter
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["model.layers.0.mlp", ""], ids=["of a part", "of the whole"])
def test_a_hook_is_not_lost(name: str) -> None:
    model = tiny_model("llama")
    expected = logits_of(model)
    calls: list[nn.Module] = []
    model.get_submodule(name).register_forward_pre_hook(lambda module, args: calls.append(module))
    forward = prepared_forward(model, use_native=True)
    assert isinstance(forward, OwnForward)
    calls.clear()
    torch.testing.assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 1


def test_restored_weights_are_the_same_numbers() -> None:
    model = tiny_model("qwen2")
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    prepared_forward(model)
    assert isinstance(model.model.layers[0].self_attn.k_proj, PrepackedModule)
    restore_linears(model)
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


def test_only_plain_linear_layers_are_prepacked() -> None:
    adapter = Adapter(8, 8)
    model = nn.Sequential(nn.Linear(8, 8), adapter, nn.LayerNorm(8))
    prepack_linears(model)
    assert isinstance(model[0], PrepackedModule) and model[1] is adapter


@pytest.mark.parametrize("use_native", [False, True], ids=["prepacked", "native"])
@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
def test_no_weight_is_in_memory_twice(is_tied: bool, use_native: bool) -> None:
    config = LlamaConfig(
        vocab_size=30_000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=6,
        num_attention_heads=8,
        tie_word_embeddings=is_tied,
    )
    model = LlamaForCausalLM(config)
    num_bytes = sum(weight.nbytes for weight in model.parameters())
    before = resident_bytes()
    forward = prepared_forward(model, use_native=use_native)
    assert isinstance(forward, (FusedDecoder, NativeDecoder))
    grown = resident_bytes() - before
    assert grown < 0.1 * num_bytes, f"{grown / 2**20:.0f} MiB for weights of {num_bytes / 2**20:.0f} MiB"


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory to the system
    return int(psutil.Process().memory_info().rss)  # type: ignore[no-untyped-call]


def test_a_dtype_without_fast_matmul_is_computed_in_float32() -> None:
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has bfloat16 products")
    model = tiny_model("llama").to(torch.bfloat16)
    prepared_forward(model, prepack=None)
    assert model.dtype == torch.float32


@pytest.mark.skipif(native_library() is None, reason="no C compiler when this was installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_checkpoint_of_any_dtype_runs_in_the_compiled_decoder(dtype: torch.dtype) -> None:
    if dtype == torch.float16 and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        pytest.skip("this processor has float16 products")
    model = tiny_model("llama").to(dtype)
    assert isinstance(prepared_forward(model, use_native=True, prepack=None), NativeDecoder)
