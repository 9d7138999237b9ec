"""A base model without a chat template: completions of text work, chats are refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path

from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.cli.completions_only import CompletionsOnly
from chatstream_flask.demo_model import PATH as DEMO_MODEL
from chatstream_flask.openai_api import create_openai_blueprint


def test_text_is_completed_and_chats_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(DEMO_MODEL, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"chat_template"', '"not_a_template"'))
    app = Flask(__name__, instance_path=str(tmp_path))
    chat_stream = ChatStream.from_pretrained(
        folder, device="cpu", chat_prompt_clazz=CompletionsOnly, too_many_request_as_http_error=True, app=app
    )
    chat_stream.append_apis(app, {"all": True})
    app.register_blueprint(create_openai_blueprint(chat_stream), url_prefix="/v1")
    client = app.test_client()
    try:
        body = {"model": "base", "prompt": "The capital of France", "max_tokens": 4}
        assert client.post("/v1/completions", json=body).status_code == 200
        chat = client.post("/chat_stream", json={"user_input": "Hello"})
        assert (chat.status_code, chat.get_json()["error"]) == (400, "bad_request")
        assert "no chat template: use /v1/completions" in chat.get_json()["detail"]
        messages = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
        refused = client.post("/v1/chat/completions", json=messages)
        assert refused.status_code == 400
        assert "no chat template: use /v1/completions" in refused.get_json()["error"]["message"]
    finally:
        chat_stream.close()
