"""Server for measurements, whose replies have exactly the length that is requested.

Run: python -m chatstream_flask.capacity.load_server --model PATH_OR_HUB_ID|mock --slots 8 --port 3100
"""

from __future__ import annotations

import secrets
from typing import Any

import click
from flask import Flask, Response, request

from ..extension import ChatStream
from ..inference.loading.load_model import load_model
from ..prompts import AbstractChatPrompt
from ..serving.waitress_server import serve


class LastMessage(AbstractChatPrompt):
    """Prompt without history: as long as the client's message."""

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        """Return the newest message."""
        return self.get_requester_last_msg() or ""


def make_app(
    model: str, device: str | None, dtype: str, weights: str, mock_sec_per_token: float, **options: Any
) -> Flask:
    """Return an app with the chat route only.

    :param model: path or hub id of a model, or "mock"
    """
    app = Flask(__name__)
    app.config.update(CHATSTREAM_STORE="memory://", SECRET_KEY=secrets.token_hex())
    options |= {"chat_prompt_clazz": LastMessage, "too_many_request_as_http_error": True, "app": app}
    if model == "mock":
        params = {"type": "long", "time_per_token_sec": mock_sec_per_token}
        chat_stream = ChatStream(use_mock_response=True, mock_params=params, **options)
    else:
        loaded, tokenizer, device = load_model(model, device, dtype, weights=weights)
        loaded.generation_config.eos_token_id = tokenizer.eos_token = None  # only max_new_tokens ends a reply
        chat_stream = ChatStream(model=loaded, tokenizer=tokenizer, device=device, **options)
    chat_stream.start_queue_worker()

    @app.post("/chat_stream")
    def chat() -> Response:
        return chat_stream.handle_chat_stream_request(request)

    return app


@click.command()
@click.option("--model", required=True)
@click.option("--device")
@click.option("--dtype", default="auto")
@click.option("--weights", default="auto")
@click.option("--mock-sec-per-token", type=float, default=0.02)
@click.option("--slots", "num_of_concurrent_executions", type=int, required=True)
@click.option("--threads", "num_of_generation_threads", type=int)
@click.option("--queue", "max_queue_size", type=int, required=True)
@click.option("--context-len", type=int, required=True)
@click.option("--max-new-tokens", type=int, required=True)
@click.option("--port", type=int, required=True)
def main(port: int, **options: Any) -> None:
    """Serve a model for measurements."""
    serve(make_app(**options), "127.0.0.1", port)


if __name__ == "__main__":
    main()
