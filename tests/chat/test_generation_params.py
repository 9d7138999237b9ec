"""Generation settings of a conversation: they override the constructor's, and the request's override them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import request
from flask_fakes import Chat, ScriptedRunner, cookie_name, read_events, running_chat, say, talk


def add_params_routes(chat: Chat) -> None:
    @chat.app.get("/params")
    def read() -> dict[str, Any]:
        return chat.chat_stream.get_generation_params(request)

    @chat.app.post("/params")
    def write() -> dict[str, Any]:
        return chat.chat_stream.set_generation_params(request, request.get_json())


def test_what_is_set_holds_for_this_conversation_only_and_survives(tmp_path: Path) -> None:
    with running_chat(tmp_path, temperature=0.5, max_new_tokens=9) as chat:
        add_params_routes(chat)
        client, other = chat.client(), chat.client()
        talk(client, "one")
        talk(other, "one")
        default = client.get("/params").get_json()
        assert (default["temperature"], default["top_k"], default["max_new_tokens"]) == (0.5, 50, 9)
        changed = client.post("/params", json={"temperature": 1.5, "max_new_tokens": 1}).get_json()
        assert changed == default | {"temperature": 1.5, "max_new_tokens": 1}
        assert client.post("/params", json={"top_k": None}).get_json() == changed | {"top_k": None}
        assert talk(client, "two") == "o"  # one token
        assert talk(client, "three", max_new_tokens=5) == "ok"  # the request's own counts most
        assert talk(other, "two") == "ok"
        assert other.get("/params").get_json() == default
        assert (
            client.post("/params", json=None, content_type="application/json", data="null").get_json()
            == default
        )


@pytest.mark.parametrize(
    "given",
    [{"temperature": 3}, {"max_new_tokens": 10}, {"top_p": 0}, {"temprature": 1}, {"stop": ["a"]}, [1]],
)
def test_wrong_settings_are_refused_and_change_nothing(tmp_path: Path, given: Any) -> None:
    with running_chat(tmp_path, max_new_tokens=9) as chat:
        add_params_routes(chat)
        client = chat.client()
        talk(client, "one")
        client.post("/params", json={"top_k": 7})
        response = client.post("/params", json=given)
        assert (response.status_code, response.get_json()["error"]) == (400, "bad_request")
        assert client.get("/params").get_json()["top_k"] == 7
        assert chat.history(client) == ["one", "ok"]


def test_settings_are_not_lost_between_a_reply_and_its_end(tmp_path: Path) -> None:
    with running_chat(tmp_path, ScriptedRunner(is_held=True)) as chat:
        add_params_routes(chat)
        client = chat.client()
        first = say(client, "one")
        busy = client.post("/params", json={"top_k": 7})
        assert (busy.status_code, busy.get_json()["error"]) == (409, "conversation_busy")
        chat.runner.release()
        assert list(read_events(first))[-1].name == "done"
        assert client.post("/params", json={"top_k": 7}).get_json()["top_k"] == 7


def test_a_lower_limit_of_the_constructor_counts_for_older_settings(tmp_path: Path) -> None:
    with running_chat(tmp_path, max_new_tokens=9) as chat:
        add_params_routes(chat)
        client = chat.client()
        client.post("/params", json={"max_new_tokens": 9})
        cookie = client.get_cookie(cookie_name(client))
        assert cookie is not None
    with running_chat(tmp_path, max_new_tokens=1) as chat:
        add_params_routes(chat)
        client = chat.client()
        client.set_cookie(cookie_name(client), cookie.value)
        assert client.get("/params").get_json()["max_new_tokens"] == 1
        assert talk(client, "one") == "o"
