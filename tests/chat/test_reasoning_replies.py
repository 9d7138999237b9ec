"""A model that reasons: what clients of the chat API and of /v1 get of it, and what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_fakes import Chat, Event, PlainPrompt, ScriptedRunner, read_events, running_chat, say

from chatstream_flask.conversation import Conversation
from chatstream_flask.openai_api import create_openai_blueprint
from chatstream_flask.prompts import ChatContent
from chatstream_flask.reply_format.family import ReplyFormat
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags
from chatstream_flask.views import create_chat_blueprint

TAGS = ReasoningTags("<think>", "</think>")
CLOSING = TAGS.closing_text(is_begun=True)
CLOSING_IDS = tuple(map(ord, CLOSING))
THINK = ReplyFormat(
    reasoning=TAGS,
    opening_ids=tuple(map(ord, TAGS.open)),
    closing_ids=CLOSING_IDS,
    first_closing_ids=CLOSING_IDS,
)
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


def read_reasoning(events: Iterator[Event], text: str) -> None:
    """Read events until this is the reasoning."""
    seen = ""
    while seen != text:
        event = next(events)
        seen += event.data["text"] if event.name == "reasoning" else ""


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
        read_reasoning(events, "Hm.")
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


def test_who_wants_the_answer_now_gets_it(tmp_path: Path) -> None:
    script = "<think>\nHm." + "!" * (len(CLOSING) + 1) + "It is 4."
    with thinking_chat(tmp_path, script, is_held=True) as chat:
        client = chat.client()
        response = say(client, "2 + 2?")
        chat.runner.allow(len("<think>\nHm."))
        events = read_events(response)
        read_reasoning(events, "Hm.")
        message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
        path = f"/api/chat_stream/{message_id}/answer_now"
        assert chat.client().post(path).status_code == 404  # somebody else's
        assert client.post(path).status_code == 204
        chat.runner.release()
        parts = list(events)
        assert "".join(event.data["text"] for event in parts if event.name == "text") == "It is 4."
        assert client.post(path).status_code == 204


class ThinkingPrompt(PlainPrompt):
    """Begins the reasoning, unless it is told not to, as chat templates do."""

    def render(self, contents: list[ChatContent]) -> str:
        kwargs = self.template_kwargs
        effort = str(kwargs.get("reasoning_effort", ""))
        return (
            super().render(contents) + effort + ("" if kwargs.get("enable_thinking") is False else "<think>")
        )


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ({}, "A:<think>"),
        ({"enable_thinking": False}, "A:"),
        ({"reasoning_effort": "none"}, "A:none"),
        ({"reasoning_effort": "high"}, "A:high<think>"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "A:"),
    ],
)
def test_whether_it_reasons_is_said_by_request_conversation_and_constructor(
    tmp_path: Path, given: dict[str, Any], end: str
) -> None:
    with thinking_chat(tmp_path, "It is 4.", chat_prompt_clazz=ThinkingPrompt) as chat:
        client = chat.client()
        list(read_events(say(client, "2 + 2?", **given)))
        assert chat.runner.prompts[-1].endswith(end)
        list(read_events(say(client, "2 + 2?")))
        assert chat.runner.prompts[-1].endswith("<think>")
        kept = client.post("/api/set_generation_params", json=given).get_json()["generation_params"]
        assert kept.items() >= given.items()
        list(read_events(say(client, "2 + 2?")))
        assert chat.runner.prompts[-1].endswith(end)
    with thinking_chat(tmp_path, "It is 4.", chat_prompt_clazz=ThinkingPrompt, **given) as chat:
        list(read_events(say(chat.client(), "2 + 2?")))
        assert chat.runner.prompts[-1].endswith(end)


def test_a_model_that_reasons_though_it_must_not_is_made_to_answer(chat: Chat) -> None:
    events = list(read_events(say(chat.client(), "2 + 2?", enable_thinking=False)))
    assert not [event for event in events if event.name == "reasoning" and event.data["text"].strip()]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"enable_thinking": "no"}, "enable_thinking must be true, false or null"),
        ({"reasoning_effort": "much"}, "reasoning_effort must be one of 'none', 'minimal'"),
        ({"max_reasoning_tokens": 51}, "max_reasoning_tokens must be between 0 and 50"),
        ({"max_reasoning_tokens": -1}, "max_reasoning_tokens must be"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "cannot set 'chat_template'"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "cannot set 'bos_token'"),
        ({"chat_template_kwargs": {"a": "<|im_end|>"}}, "may hold letters, digits"),
        ({"chat_template_kwargs": {"a": [1]}}, "must be a string, number, boolean or null"),
        ({"chat_template_kwargs": [1]}, "must be an object"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, given: dict[str, Any], sentence: str) -> None:
    with thinking_chat(tmp_path, max_reasoning_tokens=50) as chat:
        response = chat.client().post("/chat_stream", json={"user_input": "Hi"} | given)
        assert response.status_code == 400
        assert sentence in response.get_json()["detail"]


def test_v1_passes_its_fields_to_the_chat_template(chat: Chat) -> None:
    source = chat.chat_stream.source
    seen: list[dict[str, Any]] = []

    def encode(messages: Any, tools: Any, kwargs: dict[str, Any]) -> list[int]:
        if messages == body["messages"]:  # the beginning that all requests share is encoded too
            seen.append(kwargs)
        return source.encode_text("Hi")

    source.encode_messages = encode  # type: ignore[assignment, method-assign]
    body = {"model": "scripted", "messages": [{"role": "user", "content": "2 + 2?"}]}
    given = {"reasoning_effort": "low", "chat_template_kwargs": {"custom": True}}
    assert chat.client().post("/v1/chat/completions", json=body | given).status_code == 200
    assert seen[-1] == {"reasoning_effort": "low", "custom": True, "enable_thinking": True, "thinking": True}
    wrong = {"chat_template_kwargs": {"tools": 1}}
    refused = chat.client().post("/v1/chat/completions", json=body | wrong)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "chat_template_kwargs")


def test_v1_has_a_budget_of_reasoning(chat: Chat) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "2 + 2?"}]}
    reply = chat.client().post("/v1/chat/completions", json=body | {"thinking_token_budget": 12}).get_json()
    assert reply["choices"][0]["message"]["reasoning_content"] == "Hm."


def test_a_prompt_that_is_too_long_is_told_the_room_for_reasoning_too(tmp_path: Path) -> None:
    with thinking_chat(tmp_path, context_len=100, max_new_tokens=20, max_reasoning_tokens=10) as chat:
        detail = say(chat.client(), "x" * 60).get_json()["detail"]
    num_reserved = 10 + len(TAGS.open) + len(CLOSING)
    assert f"tokens, but {80 - num_reserved} are allowed: " in detail
    assert detail.endswith(
        "of the context's 100 tokens the reply keeps 20 tokens for the answer (max_new_tokens) and "
        f"{num_reserved} for the reasoning before it (max_reasoning_tokens)"
    )


def test_clients_are_told_which_settings_change_the_reasoning(chat: Chat) -> None:
    def names() -> list[str]:
        answer = chat.client().get("/api/get_generation_params").get_json()
        assert set(answer["reasoning_settings"]) <= set(answer["generation_params"])
        return list(answer["reasoning_settings"])

    assert names() == ["enable_thinking", "max_reasoning_tokens"]
    chat.chat_stream.source.reply_format = replace(THINK, knows_effort=True)
    assert names() == ["enable_thinking", "reasoning_effort", "max_reasoning_tokens"]
    chat.chat_stream.source.reply_format = ReplyFormat()
    assert names() == []
