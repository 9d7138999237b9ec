"""SmolLM2-135M-Instruct, a real model; tests that need it are skipped where it was not fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatstream_flask.config import SamplingParams
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.inference.loading.packaged_model import SMOLLM2

PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain why the sky is blue to a child.",
    "List three uses of a paper clip.",
]


def smollm2_folder() -> Path:
    """Return the prepared folder; skip the test if it is not there."""
    if not SMOLLM2.path.is_dir():
        pytest.skip("SmolLM2 is not in the cache: scripts/test fetches it")
    return SMOLLM2.path


def greedy_replies(engine: Engine, prompts: list[list[int]], num_tokens: int) -> list[str]:
    """Generate one reply to each prompt, all at once."""
    params = SamplingParams(max_new_tokens=num_tokens, temperature=0)
    requests = [GenerationRequest(prompt, params) for prompt in prompts]
    for request in requests:
        engine.submit(request, engine.reserve())
    for request in requests:
        request.wait_for_outcome(timeout=300)
        assert request.outcome is not None and request.outcome.error is None
    return [request.text for request in requests]
