"""One model on several devices: each has a copy and threads of its own, and all share one queue.

"cpu" twice counts as two devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from fakes import TIMEOUT
from tiny_models import tiny_model

from chatstream_flask import ChatStream
from chatstream_flask.config import EngineConfig, SamplingParams
from chatstream_flask.demo_model import PATH
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.devices import checked_devices
from chatstream_flask.inference.loading.load_model import load_model
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.placement import place

PROMPTS = [f"Count from {i} to {i + 5}" for i in range(1, 9)]


@contextmanager
def demo_engine(device: Any, **options: Any) -> Iterator[Engine]:
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    options = {"num_of_concurrent_executions": 4, "max_queue_size": 9, **options}
    engine = ChatStream(model=model, tokenizer=tokenizer, device=device, **options).engine
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        engine.check_idle()


@cache
def prompt_ids(text: str) -> list[int]:
    _, tokenizer, _ = load_model(str(PATH), "cpu")
    chat = [{"role": "user", "content": text}]
    ids: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    return ids


def greedy_replies(engine: Engine) -> list[str]:
    params = SamplingParams(temperature=0, max_new_tokens=30)
    requests = [GenerationRequest(prompt_ids(text), params) for text in PROMPTS]
    for request in requests:
        engine.submit(request, engine.reserve())
    for request in requests:
        outcome = None
        while outcome is None:
            new, outcome = request.read(len(request.text), TIMEOUT)
            assert new or outcome
    return [request.text for request in requests]


def models_of(engine: Engine) -> list[Any]:
    runners = [worker.runner for worker in engine.workers]
    return [runner._prepared.model for runner in runners if isinstance(runner, ModelRunner)]


def test_replies_equal_those_of_one_device_and_each_device_gets_a_share() -> None:
    with demo_engine("cpu") as engine:
        expected = greedy_replies(engine)
    assert len(set(expected)) == len(PROMPTS)
    with demo_engine(["cpu", torch.device("cpu")]) as engine:
        assert greedy_replies(engine) == expected
        assert [worker.scheduler.num_slots for worker in engine.workers] == [2, 2]
        assert all(worker.stats.num_generated for worker in engine.workers)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("devices", [["cuda:0", "cpu"], ["cuda:0", "cuda:1"]])
def test_replies_of_several_cuda_devices_equal_those_of_one(devices: list[str]) -> None:
    if "cuda:1" in devices and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    with demo_engine("cuda:0") as engine:
        expected = greedy_replies(engine)
    with demo_engine(devices) as engine:
        assert greedy_replies(engine) == expected
        assert [str(model.device) for model in models_of(engine)] == devices
        assert all(worker.stats.num_generated for worker in engine.workers)


def test_threads_of_a_device_share_its_copy_even_after_a_restart() -> None:
    with demo_engine(["cpu", "cpu"], num_of_generation_threads=4) as engine:
        models = models_of(engine)
        assert models[0] is models[2] and models[1] is models[3] and models[0] is not models[1]
        engine.stop()
        engine.start()
        assert all(one is other for one, other in zip(models, models_of(engine), strict=True))


def test_a_copy_has_all_weights_and_shares_none() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    itself, copied = place(model, ["cpu", "cpu"])
    assert itself is model
    assert copied.lm_head.weight is copied.model.embed_tokens.weight, "still tied"
    tensors = [dict([*it.named_parameters(), *it.named_buffers()]) for it in (model, copied)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        other = tensors[1][name]
        assert torch.equal(tensor, other) and tensor.data_ptr() != other.data_ptr()
        assert tensor.requires_grad == other.requires_grad


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices")
@pytest.mark.parametrize(
    ("devices", "sentence"),
    [(["cuda:7"], "the model cannot be moved to cuda:7: "), (["cpu", "cuda:7"], "be copied to cuda:7: ")],
)
def test_a_missing_device_is_refused(
    devices: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    with pytest.raises(ConfigError, match=sentence), demo_engine(devices):
        pass


@pytest.mark.parametrize(
    ("devices", "num_sequences", "num_threads"),
    [
        ("cpu", 32, 1),
        ("cpu", 33, 2),
        ("cuda", 64, 1),
        (["cpu", "cpu"], 64, 2),
        (["cpu", "cpu"], 65, 4),
        (["cuda:0", "cuda:1"], 64, 2),
        (["cuda:0", "cpu"], 64, 2),
    ],
)
def test_default_number_of_threads_per_device(
    devices: Any, num_sequences: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    chat_stream = ChatStream(
        model=model, tokenizer=tokenizer, device=devices, num_of_concurrent_executions=num_sequences
    )
    assert chat_stream.engine.config.num_of_generation_threads == num_threads


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "num_of_concurrent_executions=2 is less than the 3 devices"),
        (
            {"num_of_concurrent_executions": 6, "num_of_generation_threads": 2},
            "num_of_generation_threads=2 is not a multiple of the 3 devices",
        ),
        (
            {"num_of_concurrent_executions": 6, "num_of_generation_threads": 4},
            "num_of_generation_threads=4 is not a multiple of the 3 devices",
        ),
    ],
)
def test_numbers_that_do_not_match_the_devices_are_refused(
    options: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    with pytest.raises(ConfigError, match=sentence):
        ChatStream(model=model, tokenizer=tokenizer, device=["cuda:0", "cuda:1", "cuda:2"], **options)


@pytest.mark.parametrize(
    ("device", "kind"), [("cuda", "CUDA"), ("cuda:1", "CUDA"), (["cpu", "cuda:0"], "CUDA"), ("mps", "MPS")]
)
def test_device_that_torch_was_not_built_for_is_refused_by_the_constructor(
    device: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cuda", "mps"):
        monkeypatch.setattr(f"torch.backends.{name}.is_built", lambda: False)
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    with pytest.raises(ConfigError, match=f'this torch was built without {kind}; it allows "cpu"'):
        ChatStream(model=model, tokenizer=tokenizer, device=device)


def test_device_may_be_written_as_torch_writes_it() -> None:
    assert checked_devices("cpu:0") == checked_devices(torch.device("cpu", 0)) == ["cpu"]
    assert checked_devices("mps:0") == checked_devices(torch.device("mps", 0)) == ["mps"]
    assert checked_devices(["cpu:0", "cuda:1"]) == ["cpu", "cuda:1"]
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    ChatStream(model=model, tokenizer=tokenizer, device=model.device)
    with pytest.raises(ConfigError, match="device must be"):
        checked_devices("mps:1")


def test_number_of_executions_as_text_is_refused_by_the_constructor() -> None:
    model, tokenizer, _ = load_model(str(PATH), "cpu")
    with pytest.raises(ConfigError, match="num_of_concurrent_executions must be a whole number, not '2'"):
        ChatStream(model=model, tokenizer=tokenizer, num_of_concurrent_executions="2")  # type: ignore[arg-type]


def test_devices_get_equal_numbers_of_slots_up_to_one() -> None:
    for num_slots in range(4, 12):
        config = EngineConfig(max_running=num_slots, num_of_generation_threads=4, num_devices=2)
        shares = [sum(config.num_slots(i) for i in range(4) if config.device(i) == j) for j in range(2)]
        assert sum(shares) == num_slots and abs(shares[0] - shares[1]) <= 1
