"""Models that cannot be served correctly are refused at start, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import tiny_model
from transformers import T5Config, T5ForConditionalGeneration

from chatstream_flask.errors import ConfigError, UnsupportedModel
from chatstream_flask.inference.prepared_model import PreparedModel

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 32,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("bloom", {}, "alibi"),
        ("falcon", {"alibi": True}, "alibi"),
        ("mpt", {}, "attention implementation of its own"),
        ("gpt_neo", {"attention_types": [[["global", "local"], 1]]}, "attention implementation of its own"),
        ("mamba", {}, "attention implementation of its own"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "caches more than keys and values"),
        ("bert", {}, "both directions"),
        ("llama4_text", {"head_dim": 16, "num_local_experts": 2}, "chunked_attention"),
        (
            "phi3",
            {"rope_parameters": LONGROPE, "original_max_position_embeddings": 32},
            "longrope.* at most 32",
        ),
    ],
)
def test_refused(kind: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnsupportedModel, match=sentence):
        PreparedModel(tiny_model(kind, **changes), 64).prepare(1)


def test_an_encoder_decoder_is_refused() -> None:
    config = T5Config(vocab_size=50, d_model=16, d_ff=16, d_kv=4, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        PreparedModel(T5ForConditionalGeneration(config), 16).prepare(1)


def test_dynamic_rope_is_served_up_to_its_original_length() -> None:
    model = tiny_model("llama", rope_parameters=DYNAMIC)
    PreparedModel(model, 256).prepare(1)


def test_a_context_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"context_len=300 .* at most 256"):
        PreparedModel(tiny_model("llama"), 300).prepare(1)


def test_a_forward_with_different_logits_is_refused() -> None:
    model = tiny_model("gpt_neox")
    plain = model.forward
    model.forward = lambda position_ids=None, **kwargs: plain(**kwargs)
    with pytest.raises(UnsupportedModel, match="gives different logits with a KV cache of slots"):
        PreparedModel(model, 32).prepare(1)


def test_a_forward_that_takes_no_4d_mask_is_refused() -> None:
    model = tiny_model("gpt_neox")
    plain = model.forward

    def forward(attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 4:
            raise ValueError("wrong shape for attention_mask")
        return plain(attention_mask=attention_mask, **kwargs)

    model.forward = forward
    with pytest.raises(UnsupportedModel, match="ValueError: wrong shape for attention_mask"):
        PreparedModel(model, 32).prepare(1)
