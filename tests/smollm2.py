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
    "Who wrote Romeo and Juliet?",
    "What is 12 times 9?",
    "Translate 'good morning' into French.",
    "Give me a recipe for pancakes.",
    "Write a Python function that reverses a list.",
    "Tell me a short story about a lighthouse.",
    "What is the difference between a crocodile and an alligator?",
    "Summarise the plot of Cinderella in two sentences.",
    "Why do leaves fall in autumn?",
    "Write a polite email that asks for a day off.",
    "Name five planets.",
    "How does a bicycle stay upright?",
    "What should I pack for a week in Norway?",
    "日本の首都はどこですか？",
    "Explain recursion.",
    "Say nothing but the word yes.",
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
