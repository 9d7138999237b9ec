"""TurnChat: conversations of five turns in one slot, with and without the cached keys and values."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from chatstream_flask import AbstractChatPrompt
from chatstream_flask.client import parse_events
from chatstream_flask.prompts import ChatContent

from .bare_engine import make_chat_stream
from .prompts import Prompts
from .settings import Settings

MESSAGE_TOKENS = 20  # in the first and the last turn
REPLY_TOKENS = 32
HISTORY_TOKENS = 1000  # before the last turn
NUM_LONG = 3  # turns in between
CONTEXT_LEN = 2048


class Words(AbstractChatPrompt):
    """Prompt of all messages, separated by spaces."""

    def render(self, contents: list[ChatContent]) -> str:
        return " ".join((content.message or "").strip() for content in contents).rstrip()


class TurnChat:
    """An app with one slot, used through Flask's test client."""

    def __init__(self, settings: Settings) -> None:
        self._random = Random(0)
        self._prompts = Prompts(Path(settings.model_folder))
        self._app = Flask(__name__)
        self._app.config.update(CHATSTREAM_STORE_DIR=settings.store_folder, CHATSTREAM_COOKIE_SECURE=False)
        self._chat_stream = make_chat_stream(
            settings, 1, CONTEXT_LEN, chat_prompt_clazz=Words, max_new_tokens=REPLY_TOKENS
        )
        self._chat_stream.append_apis(self._app, {"include": ["chat_stream"]})
        self._chat_stream.start_queue_worker()

    def measure(self) -> dict[str, Any]:
        """Measure turn 1, turn 5, and turn 5 again after another visitor has used the slot."""
        client = self._app.test_client()
        first = self._ask(client, MESSAGE_TOKENS)
        rest = HISTORY_TOKENS - MESSAGE_TOKENS - REPLY_TOKENS
        for i in range(NUM_LONG):
            self._ask(client, (rest * (i + 1) // NUM_LONG - rest * i // NUM_LONG) - REPLY_TOKENS)
        fifth = self._ask(client, MESSAGE_TOKENS)
        self._ask(self._app.test_client(), HISTORY_TOKENS // 4)
        again = told(client, regenerate=True)
        return {"turn 1": first, "turn 5": fifth, "turn 5, nothing kept": again}

    def _ask(self, client: FlaskClient, num_tokens: int) -> dict[str, Any]:
        return told(client, user_input=self._prompts.text(self._random, num_tokens))

    def close(self) -> None:
        self._chat_stream.engine.stop()


def told(client: FlaskClient, **body: Any) -> dict[str, Any]:
    response = client.post("/chat_stream", json=body, headers={"Accept": "text/event-stream"})
    done = parse_events(response.data)[-1].data
    return {"first_token_ms": done["timings"]["time_to_first_token_ms"], **done["usage"]}
