"""Measurement of a Profile: first the steps of the model alone, then the costs of serving."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..config import Dtype, EngineConfig, Weights
from ..inference.loading.load_model import load_model, load_tokenizer
from ..inference.model_size import kv_bytes_per_token, memory_bytes, weights_bytes
from ..model_source import MockSource, TransformersSource
from .calibration import measure_steps
from .load_client import LoadClient, running_server
from .profile import Profile
from .serving_costs import MAX_REPLY_TOKENS, PROMPT_TOKENS, with_serving_costs

MOCK = "mock"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Model to be measured, and the sizes to measure it with."""

    model: str  # path or hub id, or "mock"
    device: str | None
    context_len: int
    max_slots: int
    thread_counts: tuple[int, ...] = ()  # numbers of worker threads; empty: what a server uses by default
    mock_sec_per_token: float = 0.02
    dtype: str = Dtype.AUTO.value
    weights: str = Weights.AUTO.value

    def config(self, num_threads: int, num_slots: int | None = None) -> EngineConfig:
        """Return the config of a server for measurements; by default with `max_slots` slots."""
        is_mock = self.model == MOCK
        num_slots = self.max_slots if num_slots is None else num_slots
        return EngineConfig(
            max_running=num_slots,
            max_queue_size=num_slots,
            num_of_generation_threads=num_threads,
            context_len=self.context_len,
            prefill_chunk_len=(MockSource if is_mock else TransformersSource).prefill_chunk_len,
        )


def measure_profile(target: Target, say: Say) -> Profile:
    """Measure a model on this machine; loads it twice, here and in a server.

    :param say: called with lines that tell the progress
    :raises ConfigError: the model cannot be loaded or served
    """
    profile = _mock_profile(target) if target.model == MOCK else _measured_steps(target, say)
    for num_threads in profile.thread_counts:
        say(f"Serving {target.max_slots} clients with {num_threads} worker threads ...")
        config = target.config(num_threads)
        with running_client(target, config, MAX_REPLY_TOKENS) as client:
            profile = with_serving_costs(profile, client, config)
    return profile


@contextmanager
def running_client(target: Target, config: EngineConfig, max_new_tokens: int) -> Iterator[LoadClient]:
    """Yield a client of a server that runs until the end of the block."""
    text_of = _text_maker(target)
    with running_server(
        target.model,
        target.device,
        target.dtype,
        target.weights,
        target.mock_sec_per_token,
        config,
        max_new_tokens,
    ) as port:
        yield LoadClient(port, text_of)


def _measured_steps(target: Target, say: Say) -> Profile:
    say(f"Loading {target.model} ...")
    model, tokenizer, device = load_model(target.model, target.device, target.dtype, weights=target.weights)
    source = TransformersSource(model, tokenizer, [device], target.context_len, None)
    num_bytes = weights_bytes(model)  # before their layout is changed
    costs = []
    for num_threads in target.thread_counts or [source.best_num_threads(target.max_slots)]:
        say(f"Measuring steps of up to {target.max_slots} slots with {num_threads} worker threads ...")
        costs.append(measure_steps(source, num_threads, target.max_slots))
    profile = Profile(
        model=target.model,
        device=device,
        weights_bytes=num_bytes,
        kv_bytes_per_token=kv_bytes_per_token(model),
        memory_bytes=memory_bytes(device),
        context_len=source.context_len,
        prefill_chunk_len=source.prefill_chunk_len,
        request_sec=0.0,
        costs=tuple(costs),
    )
    del model, source
    gc.collect()  # free its memory, as the server loads the model again
    return profile


def _mock_profile(target: Target) -> Profile:
    return Profile(
        model=MOCK,
        device="cpu",
        weights_bytes=0,
        kv_bytes_per_token=0,
        memory_bytes=memory_bytes("cpu"),
        context_len=target.context_len,
        prefill_chunk_len=MockSource.prefill_chunk_len,
        request_sec=0.0,
        mock_sec_per_token=target.mock_sec_per_token,
    )


def _text_maker(target: Target) -> Callable[[int], str]:
    """Return a function that returns messages of about the given number of prompt tokens."""
    if target.model == MOCK:
        return lambda num_tokens: "a" * num_tokens
    tokenizer = load_tokenizer(target.model)
    per_word = len(tokenizer(" ".join(["word"] * PROMPT_TOKENS))["input_ids"]) / PROMPT_TOKENS
    return lambda num_tokens: " ".join(["word"] * max(round(num_tokens / per_word), 1))
