"""GGUF files: the weights, the tokenizer and the end tokens are those that llama.cpp finds in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import FAMILIES, TOKENS, gguf_model, write_family_gguf, write_tiny_gguf
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from chatstream_flask.errors import ConfigError, UnsupportedModel
from chatstream_flask.inference.loading.load_model import LoadedModel, load_model
from chatstream_flask.inference.model_runner import eos_ids

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def load(path: Path, **written: Any) -> LoadedModel:
    write_tiny_gguf(path, **written)
    return load_model(str(path), "cpu", "float32")


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(200)[None]).logits
    return logits


def llama3_factors() -> list[float]:
    """Return what llama.cpp divides the rotary frequencies of a head of 16 dimensions by."""
    config = LlamaConfig(head_dim=16, max_position_embeddings=131072, rope_parameters=LLAMA3)
    scaled = LlamaRotaryEmbedding(config).inv_freq
    plain = LLAMA3["rope_theta"] ** -(torch.arange(0, 16, 2) / 16)  # type: ignore[operator]
    factors: list[float] = (plain / scaled).tolist()
    return factors


def test_weights_are_those_of_the_file_and_a_plain_model_holds_them(tmp_path: Path) -> None:
    model = gguf_model()
    loaded = load(tmp_path / "a.gguf", model=model).model
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=1e-4, atol=1e-4)
    loaded.bfloat16().save_pretrained(tmp_path / "folder")  # quantised models can do neither


@pytest.mark.parametrize("kind", FAMILIES)
def test_models_of_other_families_are_those_of_their_files(tmp_path: Path, kind: str) -> None:
    model = write_family_gguf(tmp_path / "a.gguf", kind)
    loaded = load_model(str(tmp_path / "a.gguf"), "cpu", "float32").model
    ids = torch.arange(60)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_text_is_split_as_the_file_says(tmp_path: Path) -> None:
    """Digits stand alone in SmolLM's vocabulary, and not in GPT-2's."""
    smollm = load(tmp_path / "a.gguf").tokenizer
    assert smollm.convert_ids_to_tokens(smollm.encode("a12")) == ["a", "1", "2"]
    gpt2 = load(tmp_path / "b.gguf", tokenizer__ggml__pre="gpt-2").tokenizer
    assert gpt2.convert_ids_to_tokens(gpt2.encode("a12")) == ["a", "12"]


def test_an_unknown_way_of_splitting_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.ggml\.pre='brand-new'"):
        load(tmp_path / "a.gguf", tokenizer__ggml__pre="brand-new")


def test_each_end_token_of_the_file_ends_a_reply(tmp_path: Path) -> None:
    loaded = load(tmp_path / "a.gguf")
    assert eos_ids(loaded.model, loaded.tokenizer) == {TOKENS.index("<|end|>"), TOKENS.index("<|eot|>")}


def test_sampling_settings_of_the_file_are_the_generation_config(tmp_path: Path) -> None:
    loaded = load(tmp_path / "a.gguf", general__sampling__temp=0.5, general__sampling__top_p=0.75)
    config = loaded.model.generation_config
    assert (config.temperature, config.top_p) == (0.5, 0.75)
    assert (config.top_k, config.min_p) == (40, 0.05)  # llama.cpp's, as the file says nothing


def test_the_rotary_scaling_of_llama_3_is_kept(tmp_path: Path) -> None:
    model = gguf_model(rope_parameters=LLAMA3)
    loaded = load(tmp_path / "a.gguf", model=model, rope_factors=llama3_factors()).model
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "written", [{"rope_factors": [1, 2, 3, 4, 5, 6, 7, 8]}, {"llama__rope__scaling__type": "yarn"}]
)
def test_a_rotary_scaling_that_would_be_lost_is_refused(tmp_path: Path, written: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match="scales its rotary embedding"):
        load(tmp_path / "a.gguf", **written)


def test_without_the_gguf_package_the_refusal_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstream_flask.inference.loading.gguf_files.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"GGUF files need gguf and accelerate: pip install"):
        load(tmp_path / "a.gguf")


def test_the_page_of_models_lists_the_families_whose_files_are_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| yes \| (?:yes|no) \| yes \|$", page, re.MULTILINE)
    assert set(rows) == {"llama"} | {kind.removesuffix("_text") for kind in FAMILIES}
