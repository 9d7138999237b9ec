"""A Profile of a model on this machine: its steps alone, then what serving them costs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..config import EngineConfig
from ..errors import ConfigError
from ..inference.load_model import load_model, load_tokenizer
from ..inference.model_size import kv_bytes_per_token, memory_bytes, weights_bytes
from ..model_source import MockSource, TransformersSource
from .calibration import measure_steps
from .load_client import LoadClient, running_server
from .profile import Profile
from .serving_costs import MAX_REPLY_TOKENS, PROMPT_TOKENS, with_serving_costs

MOCK = "mock"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured, and with which sizes."""

    model: str  # PATH_OR_HUB_ID, or "mock"
    device: str | None
    context_len: int
    max_slots: int
    thread_counts: tuple[int, ...] = ()  # none: what a server takes by itself
    mock_sec_per_token: float = 0.02

    def config(self, num_threads: int, num_slots: int | None = None) -> EngineConfig:
        is_mock = self.model == MOCK
        num_slots = self.max_slots if num_slots is None else num_slots
        return EngineConfig(
            max_running=num_slots,
            max_queue_size=num_slots,
            num_of_generation_threads=num_threads,
            context_len=self.context_len,
            prefill_chunk_len=(MockSource if is_mock else TransformersSource).prefill_chunk_len,
        )


def measure_profile(subject: Subject, say: Say) -> Profile:
    """:raises ConfigError: the model cannot be loaded or served"""
    profile = _mock_profile(subject) if subject.model == MOCK else _measured_steps(subject, say)
    for num_threads in profile.thread_counts:
        say(f"Serving {subject.max_slots} clients with {num_threads} generation threads ...")
        config = subject.config(num_threads)
        with running_client(subject, config, MAX_REPLY_TOKENS) as client:
            profile = with_serving_costs(profile, client, config)
    return profile


@contextmanager
def running_client(subject: Subject, config: EngineConfig, max_new_tokens: int) -> Iterator[LoadClient]:
    """A client of a server that runs as long as the block."""
    text_of = _text_maker(subject)
    with running_server(
        subject.model, subject.device, subject.mock_sec_per_token, config, max_new_tokens
    ) as port:
        yield LoadClient(port, text_of)


def _measured_steps(subject: Subject, say: Say) -> Profile:
    say(f"Loading {subject.model} ...")
    try:
        model, tokenizer, device = load_model(subject.model, subject.device)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{subject.model} could not be loaded: {error}") from error
    source = TransformersSource(model, tokenizer, [device], subject.context_len, None)
    num_bytes = weights_bytes(model)  # before they are laid out
    costs = []
    for num_threads in subject.thread_counts or [source.best_num_threads(subject.max_slots)]:
        say(f"Measuring steps of up to {subject.max_slots} slots with {num_threads} generation threads ...")
        costs.append(measure_steps(source, num_threads, subject.max_slots))
    profile = Profile(
        model=subject.model,
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
    gc.collect()  # the server loads it again
    return profile


def _mock_profile(subject: Subject) -> Profile:
    return Profile(
        model=MOCK,
        device="cpu",
        weights_bytes=0,
        kv_bytes_per_token=0,
        memory_bytes=memory_bytes("cpu"),
        context_len=subject.context_len,
        prefill_chunk_len=MockSource.prefill_chunk_len,
        request_sec=0.0,
        mock_sec_per_token=subject.mock_sec_per_token,
    )


def _text_maker(subject: Subject) -> Callable[[int], str]:
    """Messages of about so many prompt tokens."""
    if subject.model == MOCK:
        return lambda num_tokens: "a" * num_tokens
    tokenizer = load_tokenizer(subject.model)
    per_word = len(tokenizer(" ".join(["word"] * PROMPT_TOKENS))["input_ids"]) / PROMPT_TOKENS
    return lambda num_tokens: " ".join(["word"] * max(round(num_tokens / per_word), 1))
