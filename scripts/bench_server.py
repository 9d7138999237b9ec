"""One of the servers that scripts/bench.py compares; both run under waitress with the same settings.

Run: python scripts/bench_server.py {chatstream,generate} --streams 32 --new-tokens 64 --port 3100
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from threading import Thread
from typing import Any

from bench_model import make_model, make_tokenizer
from flask import Flask, Response, request
from transformers import TextIteratorStreamer
from waitress.server import create_server

from chatstream_flask import AbstractChatPrompt, ChatStream


class LastMessage(AbstractChatPrompt):
    """No history: the prompt is what the client sent, as for the other server."""

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        return self.get_requester_last_msg() or ""


def chatstream_app(streams: int, new_tokens: int, threads: int | None) -> Flask:
    app = Flask(__name__)
    chat_stream = ChatStream(
        model=make_model(),
        tokenizer=make_tokenizer(),
        num_of_concurrent_executions=streams,
        num_of_generation_threads=threads,
        max_new_tokens=new_tokens,
        temperature=0,
        chat_prompt_clazz=LastMessage,
        app=app,
    )
    chat_stream.start_queue_worker()

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    return app


def generate_app(new_tokens: int) -> Flask:
    """What Flask users write today: a streamer, and `generate` in a thread for each request."""
    app = Flask(__name__)
    model, tokenizer = make_model(), make_tokenizer()

    @app.post("/chat_stream")
    def chat() -> Response:
        inputs = tokenizer(request.get_json()["user_input"], return_tensors="pt")
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "streamer": streamer}
        Thread(target=model.generate, kwargs={**inputs, **options}, daemon=True).start()

        def body() -> Iterator[str]:
            yield from (piece for piece in streamer if piece)

        return Response(body(), content_type="text/plain; charset=utf-8")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["chatstream", "generate"])
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, help="generation threads of chatstream")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    if args.kind == "chatstream":
        app = chatstream_app(args.streams, args.new_tokens, args.threads)
    else:
        app = generate_app(args.new_tokens)
    server = create_server(  # type: ignore[no-untyped-call]
        app, host="127.0.0.1", port=args.port, threads=args.streams + 8, channel_request_lookahead=1
    )
    server.run()


if __name__ == "__main__":
    main()
