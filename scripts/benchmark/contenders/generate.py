"""Contender: what Flask apps commonly do, a streamer and `generate` in a thread per request."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

from flask import Flask, Response, request
from transformers import TextIteratorStreamer

from ..model import make_model, make_tokenizer
from ..settings import Settings
from .web_app import WebApp


class GenerateContender:
    """A Flask app that calls `model.generate` for each request."""

    def __init__(self, settings: Settings) -> None:
        self._model = make_model(settings.shape, settings.dtype, settings.device)
        self._tokenizer = make_tokenizer(settings.shape.vocab_size)
        self._web_app: WebApp | None = None

    def prepare(self, streams: int, context_len: int) -> int:
        """Start the server; return its port."""
        self.close()
        self._web_app = WebApp(self._app(), streams)
        return self._web_app.port

    def _app(self) -> Flask:
        app = Flask(__name__)
        model, tokenizer = self._model, self._tokenizer

        @app.post("/chat_stream")
        def chat() -> Response:
            body = request.get_json()
            inputs = tokenizer(body["user_input"], return_tensors="pt").to(model.device)
            streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
            options = {"max_new_tokens": body["max_new_tokens"], "do_sample": False, "streamer": streamer}
            Thread(target=model.generate, kwargs={**inputs, **options}, daemon=True).start()

            def pieces() -> Iterator[str]:
                yield from (piece for piece in streamer if piece)

            return Response(pieces(), content_type="text/plain; charset=utf-8")

        return app

    def close(self) -> None:
        if self._web_app is not None:
            self._web_app.close()
        self._web_app = None
