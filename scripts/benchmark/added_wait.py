"""Time that HTTP adds to this project's time to the first token, on an idle server."""

from __future__ import annotations

import statistics
from random import Random

from chatstream_flask.client import parse_events

from .contender import Contender
from .dialect import CHAT
from .http_client import ask_all
from .words import random_tokens

EVENTS = "text/event-stream"
NUM_REQUESTS = 10
NUM_WARM_UPS = 2
NEW_TOKENS = 4
CONTEXT_LEN = 256


def added_wait(contender: Contender, prompt_tokens: int, vocab_size: int) -> dict[str, float]:
    """Return medians over sequential requests, in milliseconds."""
    random = Random(0)
    contender.prepare(1, CONTEXT_LEN)
    waits = []
    with contender.actor.awake():
        for _ in range(NUM_WARM_UPS + NUM_REQUESTS):
            waits.append(_one(contender.port, random_tokens(random, prompt_tokens, vocab_size)))
    del waits[:NUM_WARM_UPS]
    return {
        "added_ms": round(statistics.median(http - engine for http, engine in waits), 2),
        "http_ms": round(statistics.median(http for http, _ in waits), 2),
        "engine_ms": round(statistics.median(engine for _, engine in waits), 2),
    }


def _one(port: int | None, prompt: list[int]) -> tuple[float, float]:
    """Return the milliseconds to the first text, as the client measures them and as `done` reports them."""
    assert port is not None
    (reply,) = ask_all(port, [CHAT.request(prompt, NEW_TOKENS, accept=EVENTS)])
    first_text_at = reply.time_when(lambda body: b"event: text" in body)
    done = parse_events(reply.body)[-1]
    return 1000 * (first_text_at - reply.asked_at), done.data["timings"]["time_to_first_token_ms"]
