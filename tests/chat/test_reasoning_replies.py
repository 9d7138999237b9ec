"""A model that reasons: what clients of the chat API and of /v1 get of it, and what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_fakes import Chat, PlainPrompt, ScriptedRunner, read_events, running_chat, say

from chatstream_flask.conversation import Conversation
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.reply_format.family import ReplyFormat
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags
from chatstream_flask.views import create_chat_blueprint

TAGS = ReasoningTags("<think>", "</think>")
CLOSING = TAGS.closing_text(is_begun=True)
THINK = ReplyFormat(reasoning=TAGS, num_opening=len(TAGS.open), closing_ids=tuple(map(ord, CLOSING)))
SCRIPT = "<think>\nHm. 2 + 2?\n</think>\n\nIt is 4."


@contextmanager
def thinking_chat(
    folder: Path, script: str = SCRIPT, *, is_held: bool = False, **kwargs: Any
) -> Iterator[Chat]:
    runner = ScriptedRunner(lambda prompt: script, is_held=is_held)
    with running_chat(folder, runner, **kwargs) as chat:
        chat.chat_stream.source.reply_format = THINK
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/api")
        chat.app.register_blueprint(create_openai_blueprint(chat.chat_stream))
        yield chat


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with thinking_chat(tmp_path) as chat:
        yield chat


def joined(client: FlaskClient, accept: str) -> str:
    response = client.post("/chat_stream", json={"user_input": "2 + 2?"}, headers={"Accept": accept})
    assert response.status_code == 200
    return response.text


def test_events_of_their_own(chat: Chat) -> None:
    events = list(read_events(say(chat.client(), "2 + 2?")))
    parts = {
        name: "".join(event.data["text"] for event in events if event.name == name)
        for name in ("reasoning", "text")
    }
    assert parts == {"reasoning": "Hm. 2 + 2?", "text": "It is 4."}
    done = events[-1].data
    assert done["usage"]["reasoning_tokens"] == len("<think>\nHm. 2 + 2?\n</think>")
    assert done["timings"]["reasoning_ms"] >= 0


def test_lines_of_json(chat: Chat) -> None:
    body = joined(chat.client(), "application/x-ndjson")
    assert '{"event": "reasoning", "text": "' in body
    assert "think>" not in body


def test_plain_text_is_the_answer(chat: Chat) -> None:
    assert joined(chat.client(), "text/plain") == "It is 4."


def test_frames_of_chatstream_are_the_answer(tmp_path: Path) -> None:
    with thinking_chat(tmp_path, wire_format="chatstream") as chat:
        frames = joined(chat.client(), "*/*").split("<::EOS::>")
        assert frames[-2:] == ["It is 4.", ""]
        assert not any("Hm" in frame for frame in frames)


@pytest.mark.parametrize("num_read", [0, 3, len("Hm. 2 + 2?"), len("Hm. 2 + 2?It")])
def test_a_reader_comes_back_within_either_part(chat: Chat, num_read: int) -> None:
    client = chat.client()
    response = say(client, "2 + 2?")
    list(read_events(response))
    message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(num_read)}
    events = list(read_events(client.get(f"/api/chat_stream/{message_id}", headers=headers)))
    texts = "".join(event.data["text"] for event in events if event.name in ("reasoning", "text"))
    assert texts == "Hm. 2 + 2?It is 4."[num_read:]


def test_the_history_keeps_them_apart(chat: Chat) -> None:
    client = chat.client()
    list(read_events(say(client, "2 + 2?")))
    _, reply = client.get("/api/conversation").get_json()["messages"]
    assert (reply["text"], reply["reasoning"]) == ("It is 4.", "Hm. 2 + 2?")
    assert reply["reasoning_s"] >= 0
    list(read_events(say(client, "And 3 + 3?")))
    assert chat.runner.prompts[-1] == "U:2 + 2?|A:It is 4.|U:And 3 + 3?|A:"


def test_a_reply_that_is_stopped_while_it_reasons_is_stored(tmp_path: Path) -> None:
    with thinking_chat(tmp_path, is_held=True) as chat:
        client = chat.client()
        response = say(client, "2 + 2?")
        chat.runner.allow(len("<think>\nHm."))
        events = read_events(response)
        seen = ""
        while seen != "Hm.":
            event = next(events)
            seen += event.data["text"] if event.name == "reasoning" else ""
        message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
        assert client.post(f"/api/chat_stream/{message_id}/cancel").status_code == 204
        chat.runner.release()
        list(events)
        _, reply = client.get("/api/conversation").get_json()["messages"]
        assert (reply["text"], reply["reasoning"], reply["is_interrupted"]) == ("", "Hm.", True)


def test_records_from_before_load() -> None:
    prompt = PlainPrompt()
    prompt.add_requester_msg("a")
    prompt.add_responder_msg("b")
    record = Conversation(prompt).to_record()
    assert "reasoning" not in record["prompt"]["contents"][1]  # what earlier versions wrote
    assert Conversation.from_record(record, PlainPrompt).prompt.get_contents()[1].reasoning is None


def test_v1_whole_and_streamed(chat: Chat) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "2 + 2?"}]}
    whole = chat.client().post("/v1/chat/completions", json=body).get_json()
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("It is 4.", "Hm. 2 + 2?")
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    streamed = chat.client().post("/v1/chat/completions", json=body | {"stream": True}).text
    assert '"reasoning_content": ' in streamed
    assert "think>" not in streamed


def test_v1_limits_of_openai_count_reasoning_too(chat: Chat) -> None:
    messages = [{"role": "user", "content": "2 + 2?"}]
    body = {"model": "scripted", "messages": messages, "max_completion_tokens": len("<think>\nHm.")}
    choice = chat.client().post("/v1/chat/completions", json=body).get_json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("", "Hm.")


def test_reasoning_does_not_eat_the_answer(tmp_path: Path) -> None:
    with thinking_chat(tmp_path, max_new_tokens=8) as chat:
        events = list(read_events(say(chat.client(), "2 + 2?")))
        assert "".join(event.data["text"] for event in events if event.name == "text") == "It is "


def test_reasoning_without_end_is_closed_where_the_context_needs_it(tmp_path: Path) -> None:
    with thinking_chat(tmp_path, "<think>" + "m" * 300, max_new_tokens=20, context_len=100) as chat:
        events = list(read_events(say(chat.client(), "Hi")))
        done = events[-1].data
        assert done["finish_reason"] == "length"
        assert done["usage"]["total_tokens"] <= 100
        assert "".join(event.data["text"] for event in events if event.name == "text") == "m" * 20
