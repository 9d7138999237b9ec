"""Readers that reconnect, cancel a reply, or must not see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, ask
from flask.testing import FlaskClient
from flask_fakes import SSE, Chat, Event, ScriptedRunner, read_events, read_until, running_chat
from werkzeug.test import TestResponse

from chatstream_flask.chat.readers import MAX_READERS
from chatstream_flask.chat.reply_registry import MAX_ENDED, Reply, ReplyRegistry
from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.readers import QUEUE_GRACE_SEC
from chatstream_flask.engine.reply_source import LocalReply
from chatstream_flask.errors import NotFound
from chatstream_flask.views import create_chat_blueprint

TEXT = "日本語 and more"


@contextmanager
def api_chat(tmp_path: Path, **config: Any) -> Iterator[Chat]:
    """Its replies are TEXT, a character for each `allow`; the API is below /api."""
    runner = ScriptedRunner(lambda prompt: TEXT, is_held=True)
    with running_chat(tmp_path, runner, {"CHATSTREAM_PROBE_SEC": 0.005} | config) as chat:
        blueprint = create_chat_blueprint(chat.chat_stream, callback=chat.on_end)
        chat.app.register_blueprint(blueprint, url_prefix="/api")
        yield chat


def begin(client: FlaskClient, user_input: str = "hi", **body: Any) -> TestResponse:
    return client.post("/api/chat_stream", json={"user_input": user_input} | body, headers=SSE)


def id_of(response: TestResponse) -> str:
    return response.headers["X-ChatStream-Last-Generated-Message-Id"]


def resume(client: FlaskClient, message_id: str, offset: int) -> TestResponse:
    return client.get(f"/api/chat_stream/{message_id}", headers=SSE | {"Last-Event-ID": str(offset)})


def cancel(client: FlaskClient, message_id: str) -> int:
    return client.post(f"/api/chat_stream/{message_id}/cancel").status_code


def read_text(events: Iterator[Event], num_chars: int) -> str:
    text = ""
    while len(text) < num_chars:
        text += read_until(events, "text").data["text"]
    return text


# -- coming back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_read", [0, 1, 5])
def test_a_reader_that_comes_back_gets_what_it_missed(tmp_path: Path, num_read: int) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        response = begin(client)
        events = read_events(response)
        chat.runner.allow(num_read + 1)
        first = read_text(events, num_read)
        response.close()  # the connection is lost
        chat.runner.allow(3)
        back = resume(client, id_of(response), len(first))
        rest = read_events(back)
        head = read_text(rest, 2)
        chat.runner.release()
        *texts, done = rest
        assert first + head + "".join(event.data["text"] for event in texts if event.name == "text") == TEXT
        assert (done.name, done.id, done.data["finish_reason"]) == ("done", len(TEXT), "stop")
        assert done.data["message_id"] == id_of(back) == id_of(response)
        assert chat.word() == "success"
        assert chat.history(client) == ["hi", TEXT]


def test_one_that_comes_after_the_end_gets_the_rest_too(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        response = begin(client)
        response.close()
        chat.runner.release()
        assert chat.word() == "success"
        start, text, done = read_events(resume(client, id_of(response), 4))
        assert (start.name, text.data["text"], done.name) == ("start", TEXT[4:], "done")
        (done,) = [event for event in read_events(resume(client, id_of(response), len(TEXT))) if event.id]
        assert (done.name, done.id) == ("done", len(TEXT))


def test_several_may_read_and_one_too_many_displaces_the_first(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        first = begin(client)
        readers = [read_events(resume(client, id_of(first), 0)) for _ in range(MAX_READERS)]
        assert not {event.name for event in read_events(first)} - {"queue", "start"}  # ended without an end
        chat.runner.release()
        for reader in readers:
            *texts, done = reader
            assert "".join(event.data["text"] for event in texts if event.name == "text") == TEXT
            assert done.name == "done"


@pytest.mark.parametrize("offset", ["-1", "x", "1.5", "99", "٣", "9" * 13])
def test_a_wrong_offset(tmp_path: Path, offset: str) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        message_id = id_of(begin(client))
        answer = client.get(f"/api/chat_stream/{message_id}?offset={offset}", headers=SSE)
        assert answer.status_code == 400
        assert "a number of characters that this reply has, 0 to 0" in answer.get_json()["detail"]


def test_nobody_else_finds_it(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        client, stranger = chat.client(), chat.client()
        message_id = id_of(begin(client))
        assert resume(stranger, message_id, 0).status_code == 404
        assert cancel(stranger, message_id) == 404
        assert resume(client, "0" * 32, 0).status_code == 404
        chat.runner.release()
        assert chat.word() == "success"
        assert resume(stranger, message_id, 0).get_json()["error"] == "not_found"
        assert cancel(stranger, message_id) == 404


# -- nobody comes back -------------------------------------------------------------------------------


def test_the_grace_time_begins_with_the_last_reader_and_ends_with_a_new_one() -> None:
    class Reader:
        def close(self) -> None: ...

    clock, first, second = FakeClock(), Reader(), Reader()
    request = ask("hi", clock=clock)
    request.start()
    request.attach(first)
    request.attach(second)
    assert not request.detach(first, 30)
    assert not request.detach(first, 30)
    clock.advance(31)
    assert request.stop_reason is None
    assert request.detach(second, 30)
    clock.advance(29)
    assert request.stop_reason is None
    request.attach(first)
    clock.advance(31)
    assert request.stop_reason is None
    assert request.detach(first, 30)
    clock.advance(30)
    assert request.stop_reason is FinishReason.DISCONNECTED


def test_a_place_in_the_queue_is_kept_for_a_moment_only() -> None:
    class Reader:
        def close(self) -> None: ...

    clock, reader = FakeClock(), Reader()
    request = ask("hi", clock=clock)
    request.attach(reader)
    assert request.detach(reader, 30)
    clock.advance(QUEUE_GRACE_SEC - 0.1)
    assert request.stop_reason is None
    clock.advance(0.1)
    assert request.stop_reason is FinishReason.DISCONNECTED


def test_a_reply_left_alone_ends_and_is_kept_in_part(tmp_path: Path) -> None:
    with api_chat(tmp_path, CHATSTREAM_RESUME_SEC=0.05) as chat:
        client = chat.client()
        response = begin(client)
        events = read_events(response)
        chat.runner.allow(4)
        text = read_text(events, 3)
        response.close()
        assert chat.word() == "client_disconnected_while_streaming"
        _, kept = chat.history(client)
        assert kept is not None and kept.startswith(text) and kept.endswith("~")


@pytest.mark.parametrize(("resume_sec", "accept"), [(0, "text/event-stream"), (30, "*/*")])
def test_without_a_way_back_it_ends_at_once(tmp_path: Path, resume_sec: float, accept: str) -> None:
    with api_chat(tmp_path, CHATSTREAM_RESUME_SEC=resume_sec) as chat:
        chat.runner.allow(2)
        body = {"user_input": "hi"}
        response = chat.client().post("/api/chat_stream", json=body, headers={"Accept": accept})
        chunks = response.iter_encoded()
        while "日" not in next(chunks).decode():
            pass
        response.close()
        assert chat.word() == "client_disconnected_while_streaming"


def test_ended_replies_are_forgotten_by_age_and_number() -> None:
    clock = FakeClock()
    replies = ReplyRegistry(keep_sec=30, clock=clock)
    for i in range(MAX_ENDED + 2):
        replies.add(made_up(i))
        assert replies.find(f"c{i}", f"m{i}") is replies.running(f"c{i}")
        replies.end(f"c{i}", f"m{i}")
    for i in (0, 1):
        with pytest.raises(NotFound):
            replies.find(f"c{i}", f"m{i}")
    assert replies.find("c2", "m2").message_id == "m2"
    clock.advance(30)
    with pytest.raises(NotFound):
        replies.find(f"c{MAX_ENDED}", f"m{MAX_ENDED}")
    assert not replies._ended


def made_up(number: int) -> Reply:
    return Reply(
        conversation_id=f"c{number}",
        message_id=f"m{number}",
        user_input="",
        num_kept=0,
        num_dropped_turns=0,
        source=LocalReply(Engine(EngineConfig(), lambda thread: ScriptedRunner()), ask("hi")),
    )


# -- stopping ----------------------------------------------------------------------------------------


def test_a_stopped_reply_is_kept_in_part(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        response = begin(client)
        events = read_events(response)
        chat.runner.allow(4)
        read_text(events, 3)
        assert [cancel(client, id_of(response)) for _ in range(2)] == [204, 204]
        done = read_until(events, "done")
        assert done.data["finish_reason"] == "cancelled"
        assert chat.history(client)[0] == "hi"
        assert (chat.history(client)[1] or "").endswith("~")
        assert cancel(client, id_of(response)) == 204


def test_one_that_ended_long_ago_is_stopped_in_vain(tmp_path: Path) -> None:
    with api_chat(tmp_path, CHATSTREAM_RESUME_SEC=0) as chat:
        client = chat.client()
        chat.runner.release()
        response = begin(client)
        assert list(read_events(response))[-1].name == "done"
        assert cancel(client, id_of(response)) == 204
        assert resume(client, id_of(response), 0).status_code == 404


def test_stopped_while_it_waits(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        others = [begin(chat.client()) for _ in range(2)]
        for other in others:
            read_until(read_events(other), "start")
        client = chat.client()
        response = begin(client)
        events = read_events(response)
        assert next(events).data["position"] == 1
        assert cancel(client, id_of(response)) == 204
        assert read_until(events, "done").data["finish_reason"] == "cancelled"
        assert chat.history(client) == []
        for other in others:
            other.close()


# -- editing -----------------------------------------------------------------------------------------


def test_an_edited_turn_replaces_what_followed_it(tmp_path: Path) -> None:
    with api_chat(tmp_path) as chat:
        client = chat.client()
        chat.runner.release()
        ids = []
        for words in ("one", "two", "three"):
            response = begin(client, words)
            assert list(read_events(response))[-1].name == "done"
            ids.append(id_of(response))
        assert begin(client, "x", edited_message_id="unknown").status_code == 400
        assert chat.history(client) == ["one", TEXT, "two", TEXT, "three", TEXT]
        assert list(read_events(begin(client, "2", edited_message_id=ids[1])))[-1].name == "done"
        assert chat.history(client) == ["one", TEXT, "2", TEXT]


@pytest.mark.parametrize("value", ["", 5, "x" * 65])
def test_a_wrong_edited_message_id(tmp_path: Path, value: Any) -> None:
    with api_chat(tmp_path) as chat:
        answer = begin(chat.client(), edited_message_id=value)
        assert answer.status_code == 400
        assert "edited_message_id must be the message_id of a reply" in answer.get_json()["detail"]
