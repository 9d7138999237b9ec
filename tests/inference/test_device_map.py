"""A model loaded with `device_map` is served by its own forward pass, on the devices of its parts.

Without a GPU the parts are on CPU and on disk, with the same hooks of accelerate.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from slot_loop import serve_in_two_threads
from test_model_runner import MAX_LEN, NUM_SLOTS, generate_alone, generated
from tiny_models import TinyTokenizer, make_jobs, tiny_model

from chatstream_flask import ChatStream, demo_model
from chatstream_flask.errors import ConfigError, UnsupportedModel
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel
from chatstream_flask.inference.slot_model import OwnForward

accelerate = pytest.importorskip("accelerate", reason="scripts/install test has it")


def spread(model: Any, first: str, second: str, folder: Path | None = None) -> Any:
    """Place everything behind the first layer on the second device."""
    parts = ["model.embed_tokens", "model.rotary_emb", "model.layers.0"]
    device_map = dict.fromkeys(parts, first)
    device_map |= dict.fromkeys(["model.layers.1", "model.norm", "lm_head"], second)
    skipped = model._skip_keys_device_placement
    return accelerate.dispatch_model(model, device_map, offload_dir=folder, skip_keys=skipped)


def open_runner(prepared: PreparedModel) -> ModelRunner:
    runner = ModelRunner(prepared, TinyTokenizer(), num_slots=NUM_SLOTS)
    runner.open()
    return runner


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_two_threads_reply_like_generate(kind: str, tmp_path: Path) -> None:
    jobs, expected = make_jobs(3), generated(kind)[:3]
    model = spread(tiny_model(kind), "cpu", "disk", tmp_path)
    prepared = PreparedModel(model, MAX_LEN)
    assert serve_in_two_threads(lambda: open_runner(prepared), jobs, num_slots=NUM_SLOTS) == {
        0: expected,
        1: expected,
    }
    assert isinstance(prepared.forward, OwnForward)
    assert model.lm_head.weight.is_meta, "the weights are loaded for each forward only"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_two_cuda_devices_reply_like_generate(kind: str) -> None:
    model, jobs = tiny_model(kind).to("cuda:0"), make_jobs()
    expected = [generate_alone(model, job) for job in jobs]
    prepared = PreparedModel(spread(model.cpu(), "cuda:0", "cuda:1"), MAX_LEN)
    assert serve_in_two_threads(lambda: open_runner(prepared), jobs, num_slots=NUM_SLOTS) == {
        0: expected,
        1: expected,
    }
    assert [str(shape.device) for shape in prepared.shapes] == ["cuda:0", "cuda:1"]


def test_a_model_loaded_by_transformers_with_device_map(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto_model: Any = AutoModelForCausalLM
    parts = ["model.embed_tokens", "model.rotary_emb", "model.layers", "model.norm", "lm_head"]
    device_map = dict.fromkeys(parts, "cpu") | {"model.layers": "disk"}
    model = auto_model.from_pretrained(demo_model.PATH, device_map=device_map, offload_folder=tmp_path)
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    tokenizer = AutoTokenizer.from_pretrained(demo_model.PATH)
    ChatStream(model=model, tokenizer=tokenizer).source.make_runner(2, 1, 0).open()
    with pytest.raises(ConfigError, match=r"loaded with device_map, .* leave device out"):
        ChatStream(model=model, tokenizer=tokenizer, device="cpu")


def test_parts_on_two_devices_without_hooks_are_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.to("meta")
    with pytest.raises(UnsupportedModel, match=r"on several devices \(cpu, meta\), .* device_map"):
        PreparedModel(model, 32).prepare(1)


def test_everything_is_on_the_device_of_its_layer() -> None:
    program = Path(__file__).parents[1] / "pretended_devices.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
