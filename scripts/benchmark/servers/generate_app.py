"""A Flask app that calls `model.generate`: `generate_app FOLDER DTYPE DEVICE PORT THREADS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

import torch
import waitress
from flask import Flask, Response, request
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


def make_app(folder: str, dtype: str, device: str) -> Flask:
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    model.generation_config.eos_token_id = None  # replies have the length that is asked for
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    app = Flask(__name__)

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/v1/completions")
    def completions() -> Response:
        body = request.get_json()
        inputs = tokenizer(body["prompt"], return_tensors="pt").to(model.device)
        streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {"max_new_tokens": body["max_tokens"], "do_sample": False, "streamer": streamer}
        replies = list[torch.Tensor]()
        thread = Thread(target=lambda: replies.append(model.generate(**inputs, **options)), daemon=True)
        thread.start()

        def events() -> Iterator[str]:
            for piece in streamer:
                if piece:
                    yield _event({"choices": [{"index": 0, "text": piece}]})
            thread.join()
            num_prompt = inputs["input_ids"].shape[1]
            num_new = replies[0].shape[1] - num_prompt
            yield _event(
                {"choices": [], "usage": {"prompt_tokens": num_prompt, "completion_tokens": num_new}}
            )

        return Response(events(), content_type="text/event-stream")

    return app


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    folder, dtype, device, port, threads = sys.argv[1:]
    waitress.serve(  # type: ignore[no-untyped-call]
        make_app(folder, dtype, device), listen=f"127.0.0.1:{port}", threads=int(threads) + 2, _quiet=True
    )
