"""Time to the first token of turn 5, with the keys and values of the turns before it and without them.

The 31.8 M-parameter model in float32, greedy, one slot. Each round holds a conversation of four turns and
1,000 tokens, asks a fifth, lets another visitor take the slot, and then asks for the same reply again.

Run: scripts/bench turns [--repeats 5]. A table for people, and one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from typing import Any

from bench_model import VOCAB_SIZE, make_model, make_tokenizer
from flask import Flask
from flask.testing import FlaskClient

from chatstream_flask import AbstractChatPrompt, ChatStream
from chatstream_flask.prompts import ChatContent

TURN_TOKENS = 250  # of the first four turns, message and reply
REPLY_TOKENS = 32
LAST_MESSAGE_TOKENS = 20


class Words(AbstractChatPrompt):
    def render(self, contents: list[ChatContent]) -> str:
        return " ".join(content.message or "" for content in contents).rstrip()


def make_app(folder: str) -> Flask:
    app = Flask(__name__)
    app.config.update(CHATSTREAM_STORE_DIR=folder, CHATSTREAM_COOKIE_SECURE=False)
    chat_stream = ChatStream(
        model=make_model(),
        tokenizer=make_tokenizer(),
        num_of_concurrent_executions=1,
        max_new_tokens=REPLY_TOKENS,
        context_len=2048,
        temperature=0,
        chat_prompt_clazz=Words,
    )
    chat_stream.append_apis(app, {"include": ["chat_stream"]})
    chat_stream.start_queue_worker()
    return app


def ask(client: FlaskClient, **body: Any) -> dict[str, Any]:
    """What `done` says."""
    response = client.post("/chat_stream", json=body, headers={"Accept": "text/event-stream"})
    last = response.text.rstrip().rpartition("\ndata: ")[2]
    done: dict[str, Any] = json.loads(last)
    return done


def message(numbers: random.Random, num_tokens: int) -> str:
    return " ".join(f"t{numbers.randrange(1, VOCAB_SIZE)}" for _ in range(num_tokens))


def one_round(app: Flask, numbers: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    client = app.test_client()
    for _ in range(4):
        ask(client, user_input=message(numbers, TURN_TOKENS - REPLY_TOKENS))
    reused = ask(client, user_input=message(numbers, LAST_MESSAGE_TOKENS))
    ask(app.test_client(), user_input=message(numbers, TURN_TOKENS))
    return reused, ask(client, regenerate=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    numbers = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(folder)
        one_round(app, numbers)  # pays for starting up
        rounds = [one_round(app, numbers) for _ in range(args.repeats)]
        app.extensions["chatstream"].chat_stream.engine.stop()
    names = ("with reuse", "without")
    results = {}
    for name, replies in zip(names, zip(*rounds, strict=True), strict=True):
        first = statistics.median(reply["timings"]["time_to_first_token_ms"] for reply in replies)
        results[name] = {"time_to_first_token_ms": first, **replies[-1]["usage"]}
        cached, prompt = results[name]["cached_tokens"], results[name]["prompt_tokens"]
        print(f"{name:<12} {first:>8.1f} ms to the first token, {cached} of {prompt} tokens were there")
    ratios = [
        without["timings"]["time_to_first_token_ms"] / reused["timings"]["time_to_first_token_ms"]
        for reused, without in rounds
    ]
    ratio = round(statistics.median(ratios), 1)
    print(f"ratio {ratio}, medians of {args.repeats} rounds")
    conditions = {
        "model": "Llama, 31.8 M random parameters, float32",
        "repeats": args.repeats,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    print(json.dumps({"benchmark": "turns", "conditions": conditions, "results": results, "ratio": ratio}))


if __name__ == "__main__":
    main()
