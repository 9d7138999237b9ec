"""The queue of /v1 apart from the chat's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask_fakes import SSE, Chat, ScriptedRunner
from openai_fakes import ask, refusal, running_api
from werkzeug.test import TestResponse

from chatstream_flask.config import EngineConfig
from chatstream_flask.errors import ConfigError
from chatstream_flask.http.server_check import num_reply_threads


@contextmanager
def full(chat: Chat) -> Iterator[Chat]:
    """Take the 1 + 3 places that /v1 has."""
    with ExitStack() as stack:
        for _ in range(4):
            stack.callback(ask(chat, stream=True).close)
        yield chat


def ask_chat(chat: Chat) -> TestResponse:
    return chat.client().post("/chat_stream", json={"user_input": "Hi"}, headers=SSE)


def test_requests_of_the_api_take_no_place_of_the_chat(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    sizes: dict[str, Any] = {"num_of_concurrent_executions": 1, "max_queue_size": 0, "max_api_queue_size": 3}
    with running_api(tmp_path, runner, **sizes) as chat, full(chat):
        error = refusal(ask(chat), 429)
        assert (error["code"], error["message"]) == ("queue_full", "all 4 places are taken; try again later")
        assert chat.chat_stream.engine.num_free == 1
        with ask_chat(chat) as accepted:
            assert accepted.status_code == 200
            assert chat.chat_stream.engine.num_free == 0
            assert ask_chat(chat).get_json() == {"error": "too_many_requests"}
        runner.release()


def test_without_a_size_of_its_own_it_shares_the_places_of_the_chat(tmp_path: Path) -> None:
    runner = ScriptedRunner(is_held=True)
    sizes: dict[str, Any] = {"num_of_concurrent_executions": 1, "max_queue_size": 3}
    with running_api(tmp_path, runner, **sizes) as chat, full(chat):
        assert ask_chat(chat).get_json() == {"error": "too_many_requests"}
        runner.release()


def test_servers_get_threads_for_both() -> None:
    shared = EngineConfig(max_running=2, max_queue_size=5)
    apart = EngineConfig(max_running=2, max_queue_size=5, max_api_queue_size=128)
    assert num_reply_threads(apart) - num_reply_threads(shared) == 130
    with pytest.raises(ConfigError, match="max_api_queue_size"):
        EngineConfig(max_api_queue_size=-1)
