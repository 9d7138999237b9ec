"""Limits on those who read replies: second tabs and reconnections hold threads of the server, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import ask
from flask import Request
from flask.testing import FlaskClient
from flask_fakes import SSE, Chat, ScriptedRunner, read_events, running_chat
from werkzeug.test import TestResponse

from chatstream_flask.chat.readers import MAX_EXTRA_PER_VISITOR, MAX_READERS, Readers
from chatstream_flask.chat.request_handler import SimpleSessionRequestHandler
from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.reply_source import LocalReply
from chatstream_flask.errors import TooManyRequests
from chatstream_flask.views import create_chat_blueprint

ENGINE = Engine(EngineConfig(), lambda thread: ScriptedRunner())


class Stream:
    """A reader without a server: what `Readers` knows of a ReplyStream."""

    def __init__(self) -> None:
        self.is_over = False

    def close(self) -> None:
        self.is_over = True


def reply() -> LocalReply:
    return LocalReply(ENGINE, ask("hi"))


def open_one(readers: Readers, source: LocalReply, visitor: str | None) -> Stream:
    stream: Any = readers.open(source, visitor, Stream)
    assert isinstance(stream, Stream)
    return stream


def test_the_first_reader_of_a_reply_is_always_let_in() -> None:
    readers = Readers(max_extra=0)
    streams = [open_one(readers, reply(), "a") for _ in range(30)]
    assert not any(stream.is_over for stream in streams)


def test_all_together_have_a_limit_and_nobody_displaces_another() -> None:
    readers = Readers(max_extra=2)
    one, other = reply(), reply()
    streams = [open_one(readers, one, "a") for _ in range(3)]
    first = open_one(readers, other, "b")
    with pytest.raises(TooManyRequests) as refused:
        readers.open(other, "c", Stream)
    assert (refused.value.reason, refused.value.retry_after) == ("readers", 5)
    assert not any(stream.is_over for stream in [*streams, first])
    second = open_one(readers, other, "b")  # in the place of the visitor's own
    assert first.is_over and not second.is_over
    streams[0].close()
    assert not open_one(readers, other, "c").is_over


def test_a_reply_has_a_limit() -> None:
    readers = Readers(max_extra=100)
    one = reply()
    streams = [open_one(readers, one, "a") for _ in range(MAX_READERS)]
    with pytest.raises(TooManyRequests):
        readers.open(one, "b", Stream)
    open_one(readers, one, "a")
    assert [stream.is_over for stream in streams] == [True] + [False] * (MAX_READERS - 1)


def test_a_visitor_has_a_limit_over_all_replies_that_it_reads() -> None:
    readers = Readers(max_extra=100)
    replies = [reply() for _ in range(MAX_EXTRA_PER_VISITOR + 2)]
    streams = [open_one(readers, one, "a") for one in replies]
    streams += [open_one(readers, one, "a") for one in replies[:MAX_EXTRA_PER_VISITOR]]
    assert not any(stream.is_over for stream in streams)
    open_one(readers, replies[-1], "a")
    assert [stream for stream in streams if stream.is_over] == [streams[len(replies) - 1]]
    assert not open_one(readers, replies[-1], "b").is_over
    nobody = [open_one(readers, one, None) for one in replies for _ in range(2)]  # has no such limit
    assert not any(stream.is_over for stream in nobody)


# -- through the API ---------------------------------------------------------------------------------


class TeamHandler(SimpleSessionRequestHandler):
    """One conversation for everybody; the visitor says who it is."""

    def get_conversation_id(self, request: Request) -> str:
        return "team"

    def get_visitor(self, request: Request) -> str | None:
        return request.headers["X-Visitor"]


@contextmanager
def team_chat(tmp_path: Path) -> Iterator[Chat]:
    runner = ScriptedRunner(is_held=True)
    options = {"request_handler": TeamHandler()}
    with running_chat(tmp_path, runner, {"CHATSTREAM_PROBE_SEC": 0.005}, **options) as chat:
        chat.app.register_blueprint(create_chat_blueprint(chat.chat_stream), url_prefix="/api")
        yield chat


def resume(client: FlaskClient, visitor: str, message_id: str) -> TestResponse:
    return client.get(f"/api/chat_stream/{message_id}", headers=SSE | {"X-Visitor": visitor})


def test_one_reader_too_many_gets_429_and_a_word(tmp_path: Path) -> None:
    """Also where a full queue is told ChatStream's way, with status 200."""
    with team_chat(tmp_path) as chat:
        client = chat.client()
        first = client.post(
            "/api/chat_stream", json={"user_input": "hi"}, headers=SSE | {"X-Visitor": "alice"}
        )
        message_id = first.headers["X-ChatStream-Last-Generated-Message-Id"]
        others = [resume(client, "bob", message_id) for _ in range(MAX_READERS - 1)]
        refused = resume(client, "carol", message_id)
        assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
        assert refused.headers["Retry-After"] == "5"
        assert (refused.get_json()["error"], refused.get_json()["reason"]) == ("too_many_requests", "readers")
        another = resume(client, "bob", message_id)
        chat.runner.release()
        names = [[event.name for event in read_events(response)] for response in (*others, another, first)]
        assert ["done" in events for events in names] == [False] + [True] * MAX_READERS
