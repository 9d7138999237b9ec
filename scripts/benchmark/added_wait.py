"""Time that HTTP adds to this project's time to the first token, on an idle server."""

from __future__ import annotations

import statistics
from random import Random

from .http_client import ask_all, request_bytes
from .prompts import Prompts
from .servers.chatstream import Chatstream

EVENTS = "text/event-stream"
NUM_REQUESTS = 10
NUM_WARM_UPS = 2
NEW_TOKENS = 4
PROMPT_TOKENS = 32


def added_wait(server: Chatstream, prompts: Prompts) -> dict[str, float]:
    """Return medians over sequential requests, in milliseconds."""
    random = Random(0)
    waits = []
    with server.awake() as port:
        for _ in range(NUM_WARM_UPS + NUM_REQUESTS):
            waits.append(_one(port, prompts.text(random, PROMPT_TOKENS)))
    del waits[:NUM_WARM_UPS]
    return {
        "added_ms": round(statistics.median(http - engine for http, engine in waits), 2),
        "http_ms": round(statistics.median(http for http, _ in waits), 2),
        "engine_ms": round(statistics.median(engine for _, engine in waits), 2),
    }


def _one(port: int, text: str) -> tuple[float, float]:
    """Return the milliseconds to the first text, as the client measures them and as `done` reports them."""
    body = {"user_input": text, "max_new_tokens": NEW_TOKENS}
    ((reply,),) = ask_all(port, [[request_bytes("/chat_stream", body, EVENTS)]])
    first_text_at = next(at for at, data in reply.events if data.get("text"))
    _, done = reply.events[-1]
    return 1000 * (first_text_at - reply.asked_at), done["timings"]["time_to_first_token_ms"]
