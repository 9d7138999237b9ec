"""Loading of models: what is read, in which data type, and what is refused before the weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from chatstream_flask.config import Dtype
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.errors import ChatStreamError, ConfigError, UnsupportedModel
from chatstream_flask.inference.decoders.native_library import native_library
from chatstream_flask.inference.loading.dtype import torch_dtype
from chatstream_flask.inference.loading.load_model import find_model_files, load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the demo model's folder."""
    shutil.copytree(DEMO_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path / "model"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(ChatStreamError) as caught:
        load_model(str(folder), "cpu")
    assert isinstance(caught.value, ConfigError | UnsupportedModel)
    sentence = str(caught.value)
    assert sentence.startswith(f"the model {folder} could not be loaded: ")
    return sentence.partition(" could not be loaded: ")[2]


# -- what is refused ----------------------------------------------------------------------------------


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == "the folder has no weights: no file *.safetensors or *.bin"


def test_weights_that_git_lfs_has_not_fetched(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert refusal(folder) == "model.safetensors is a pointer of Git LFS, not the weights: run git lfs pull"


def test_a_folder_of_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "a-Q4_K_M.gguf").touch()
    assert refusal(tmp_path) == "the folder has no config.json; for a-Q4_K_M.gguf, give its path"


def test_a_file_that_is_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("no")
    assert refusal(tmp_path / "a.gguf") == "this is not a GGUF file"


def test_weights_that_are_cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "safetensor" in refusal(folder).lower() or "header" in refusal(folder).lower()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "t5"}, "t5 is an encoder-decoder; only decoder-only models are supported"),
        ({"model_type": "clip"}, "clip is no language model that transformers can generate text with"),
        ({"model_type": "mamba"}, "is not supported"),
        ({"model_type": "brand_new"}, "brand_new"),
    ],
)
def test_a_model_of_another_kind(folder: Path, config: dict[str, Any], sentence: str) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_text("is not read")
    assert sentence in refusal(folder)


def test_a_quantiser_that_is_not_installed(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 3})
    (folder / "model.safetensors").write_text("is not read")
    assert "requires optimum" in refusal(folder)


def test_a_hub_id_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="nobody/nothing could not be loaded: We couldn't connect"):
        load_model("nobody/nothing", "cpu")


# -- what is loaded -----------------------------------------------------------------------------------


def test_auto_keeps_the_saved_dtype() -> None:
    for saved in (torch.float32, torch.bfloat16, torch.float16, None):
        assert torch_dtype(Dtype.AUTO, saved) is saved
    assert torch_dtype(Dtype.BFLOAT16, torch.float32) is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_checkpoints_are_served_in_16_bits_unless_float32_is_asked_for(
    folder: Path, dtype: torch.dtype
) -> None:
    weights = {name: weight.to(dtype) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, dtype=str(dtype).removeprefix("torch."))
    fast = torch.bfloat16 if native_library() is not None and dtype is torch.float32 else dtype
    assert load_model(str(folder), "cpu").model.dtype is fast
    assert find_model_files(str(folder)).skeleton_of(Dtype.AUTO, "cpu").dtype is fast
    assert find_model_files(str(folder)).skeleton_of(Dtype.AUTO, "cuda").dtype is dtype
    assert load_model(str(folder), "cpu", "float32").model.dtype is torch.float32


def test_a_dtype_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="dtype must be one of 'auto', 'float32', 'bfloat16', 'float16'"):
        load_model(str(DEMO_MODEL), "cpu", "int8")


def test_a_hub_id_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    cached = tmp_path / "models--somebody--small"
    shutil.copytree(DEMO_MODEL, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_model("somebody/small", "cpu")
    assert loaded.model.config.name_or_path == "somebody/small"
    with pytest.raises(ConfigError, match="somebody/small could not be loaded"):
        load_model("somebody/small", "cpu", revision="v2")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft uses it
def test_an_adapter_is_merged_into_its_base_model(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM"))
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        expected = tuned(ids).logits
        loaded = load_model(str(tmp_path / "adapter"), "cpu", "float32")
        torch.testing.assert_close(loaded.model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert type(loaded.model) is LlamaForCausalLM
    assert loaded.model.config.name_or_path == str(tmp_path / "adapter")
    assert loaded.tokenizer.chat_template


def test_an_adapter_without_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("chatstream_flask.inference.loading.adapter_files.find_spec", lambda name: None)
    assert "pip install 'chatstream-flask[adapters]'" in refusal(tmp_path)
