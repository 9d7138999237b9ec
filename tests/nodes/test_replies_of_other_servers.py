"""A reply that one server generates is read, cancelled and continued through another one."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from fakes import ask, text_of, wait_until
from families import FamilySource
from flask import Request
from flask.testing import FlaskClient
from flask_fakes import SSE, ScriptedRunner, read_events, read_until, set_source
from tcp_proxy import TCPProxy
from tool_chat import ScriptRunner, call, tool_tokenizer
from werkzeug.test import TestResponse

from chatstream_flask import ChatPrompt
from chatstream_flask.chat.request_handler import SimpleSessionRequestHandler
from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.engine import Engine
from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reply_source import LocalReply
from chatstream_flask.nodes.remote_reply import DIED, RemoteReply, fields_of
from chatstream_flask.nodes.reply_relay import ReplyRelay
from chatstream_flask.nodes.shared_redis import SharedRedis

from .conftest import MakeServer, same_visitor

TEXT = "日本語 and more"


def held_runner() -> ScriptedRunner:
    return ScriptedRunner(lambda prompt: TEXT, is_held=True)


def begin(client: FlaskClient, user_input: str = "hi", **body: Any) -> TestResponse:
    return client.post("/api/chat_stream", json={"user_input": user_input} | body, headers=SSE)


def id_of(response: TestResponse) -> str:
    return response.headers["X-ChatStream-Last-Generated-Message-Id"]


def resume(client: FlaskClient, message_id: str, offset: int = 0) -> TestResponse:
    return client.get(f"/api/chat_stream/{message_id}", headers=SSE | {"Last-Event-ID": str(offset)})


def text_in(events: Any) -> str:
    return "".join(event.data["text"] for event in events if event.name == "text")


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_the_rest_of_a_reply_comes_through_another_server(server: MakeServer, offset: int) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        one.runner.allow(6)
        assert TEXT.startswith(read_until(read_events(response), "text").data["text"])
        response.close()
        there = same_visitor(client, other)
        running = there.get("/api/conversation").get_json()["running"]
        assert running == {"message_id": id_of(response), "user_input": "hi", "num_kept": 0}
        events = read_events(resume(there, id_of(response), offset))
        first = read_until(events, "text")
        one.runner.release()
        rest = list(events)
        assert first.data["text"] + text_in(rest) == TEXT[offset:]
        assert (rest[-1].name, rest[-1].data["finish_reason"]) == ("done", "stop")
        assert rest[-1].data["usage"]["completion_tokens"] == len(TEXT) + 1
        assert one.word() == "success"
        assert other.history(there) == ["hi", TEXT]
        assert there.get("/api/conversation").get_json()["running"] is None


def test_a_reply_that_has_ended_can_be_read_again_through_another_server(server: MakeServer) -> None:
    with server(ScriptedRunner(lambda prompt: TEXT)) as one, server() as other:
        client = one.client()
        response = begin(client)
        assert list(read_events(response))[-1].name == "done"
        there = same_visitor(client, other)
        events = list(read_events(resume(there, id_of(response), 3)))
        assert (text_in(events), events[-1].name) == (TEXT[3:], "done")
        assert [e.name for e in read_events(resume(there, id_of(response), len(TEXT)))][-1] == "done"


class NamedHandler(SimpleSessionRequestHandler):
    """The visitor and the conversation have one name."""

    def get_conversation_id(self, request: Request) -> str:
        return "alice"

    def get_visitor(self, request: Request) -> str:
        return "alice"


def test_a_visitor_may_have_the_name_of_a_conversation(server: MakeServer) -> None:
    with server(request_handler=NamedHandler()) as one, server(request_handler=NamedHandler()) as other:
        for chat in (one, other):
            assert text_in(read_events(begin(chat.client()))) == "ok"
            assert chat.word() == "success"
        assert other.client().get("/api/conversation").get_json()["running"] is None


def test_text_that_comes_while_a_reader_looks_for_the_end_is_not_lost(proxy: TCPProxy) -> None:
    shared = SharedRedis(f"redis://127.0.0.1:{proxy.port}/0", "test")
    generation = ask("hi")
    generation.start()
    relay = ReplyRelay(shared)
    source = LocalReply(Engine(EngineConfig(), lambda thread: ScriptedRunner()), generation)
    relay.add({"message_id": "m", "conversation_id": "c"}, source, 30.0)
    num_calls = 0

    def clock() -> float:
        """Let the reply end when the reader has found no new text, and asks whether to look for the end."""
        nonlocal num_calls
        num_calls += 1
        if num_calls == 5:
            generation.add_text("the last words")
            generation.publish(generation.finish(FinishReason.STOP))
            relay.flush()
        return 10.0 * num_calls

    reader = RemoteReply(shared, "m", fields_of(shared, "m"), clock)
    pieces, outcome = reader.read(0, 0.001)
    shared.close()
    assert num_calls > 5
    assert text_of(pieces) == "the last words"
    assert outcome is not None and outcome.is_success


def test_nobody_else_finds_it_there(server: MakeServer) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        message_id = id_of(begin(client))
        stranger = other.client()
        assert resume(stranger, message_id).status_code == 404
        assert stranger.post(f"/api/chat_stream/{message_id}/cancel").status_code == 404
        one.runner.release()
        assert one.word() == "success"


def test_a_reply_is_cancelled_through_another_server(server: MakeServer) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        one.runner.allow(2)
        there = same_visitor(client, other)
        assert there.post(f"/api/chat_stream/{id_of(response)}/cancel").status_code == 204
        *_, last = read_events(response)
        assert last.data["finish_reason"] == "cancelled"
        wait_until(lambda: len(other.history(there)) == 2)


def test_a_message_to_another_server_may_replace_the_running_reply(server: MakeServer) -> None:
    with server(held_runner()) as one, server(ScriptedRunner(), on_busy="replace") as other:
        client = one.client()
        first = begin(client)
        one.runner.allow(2)
        assert read_until(read_events(first), "text")
        events = list(read_events(begin(same_visitor(client, other), "and now?")))
        assert (text_in(events), events[-1].name) == ("ok", "done")
        assert list(read_events(first))[-1].data["finish_reason"] == "cancelled"


def test_clearing_the_context_through_another_server_ends_the_reply(server: MakeServer) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        there = same_visitor(client, other)
        assert there.post("/api/clear_context").get_json()["success"]
        assert list(read_events(response))[-1].data["finish_reason"] == "cancelled"
        assert other.history(there) == []


def test_the_place_in_the_queue_is_told_through_another_server(server: MakeServer) -> None:
    with server(held_runner(), num_of_concurrent_executions=1) as one, server() as other:
        begin(one.client())
        client = one.client()
        waiting = begin(client)
        events = read_events(resume(same_visitor(client, other), id_of(waiting)))
        assert read_until(events, "queue").data["position"] == 1
        one.runner.release()
        assert next(event.name for event in events if event.name) == "start"


def test_a_reader_elsewhere_keeps_a_reply_alive(server: MakeServer) -> None:
    """Its first reader has gone; without the other one the reply would end after a tenth of a second."""
    config = {"CHATSTREAM_RESUME_SEC": 1.0}
    with server(held_runner(), config=config) as one, server(config=config) as other:
        client = one.client()
        response = begin(client)
        there = resume(same_visitor(client, other), id_of(response))
        events = read_events(there)
        one.runner.allow(1)
        assert read_until(events, "text").data["text"] == TEXT[0]
        generation = one.chat_stream.engine._queue.requests()[0]
        wait_until(lambda: len(generation._readers._attached) == 2)
        response.close()
        assert generation.stop_reason is None
        assert generation._readers.orphaned_at is None
        one.runner.release()
        assert list(events)[-1].name == "done"


def test_a_reply_whose_server_died_ends_in_words(server: MakeServer, empty_redis: redis.Redis) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        one.runner.allow(2)
        there = same_visitor(client, other)
        events = read_events(resume(there, id_of(response)))
        assert read_until(events, "text")
        node = one.chat_stream.node
        assert node is not None
        node._is_stopping = True  # its thread ends, as that of a process that was killed
        node._wake.set()
        empty_redis.zadd(node._shared.key("nodes"), {node._shared.node: 0})
        last = list(events)[-1]
        assert (last.name, last.data) == ("error", {"code": "generation_failed", "message": DIED})
        assert there.get("/api/conversation").get_json()["running"] is None


def test_a_reply_goes_on_while_redis_is_away_and_is_copied_when_it_is_back(
    server: MakeServer, proxy: TCPProxy
) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        here = read_events(response)
        there = read_events(resume(same_visitor(client, other), id_of(response)))
        with proxy.cut():
            one.runner.allow(3)
            text = ""
            while len(text) < 3:
                text += read_until(here, "text").data["text"]
            refused = begin(one.client(), "new")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        one.runner.release()
        assert text_in(there) == TEXT
        assert text + text_in(here) == TEXT


def test_redis_that_comes_back_empty_gets_the_running_replies_again(
    server: MakeServer, proxy: TCPProxy, empty_redis: redis.Redis
) -> None:
    with server(held_runner()) as one, server() as other:
        client = one.client()
        response = begin(client)
        one.runner.allow(4)
        here = read_events(response)
        text = ""
        while len(text) < 4:
            text += read_until(here, "text").data["text"]
        with proxy.cut():
            empty_redis.flushall()
        there = same_visitor(client, other)
        wait_until(lambda: resume(there, id_of(response)).status_code == 200)
        events = read_events(resume(there, id_of(response)))
        one.runner.release()
        assert text_in(events) == TEXT


def test_text_passes_the_hooks_for_a_reader_that_has_moved_to_another_server(server: MakeServer) -> None:
    with server(held_runner()) as one, server() as other:
        one.chat_stream.on_text(unit="word")(lambda reply, text: text.upper())
        client = one.client()
        response = begin(client)
        one.runner.allow(1)
        read_until(read_events(response), "start")
        response.close()
        events = read_events(resume(same_visitor(client, other), id_of(response)))
        one.runner.allow(len("日本語 and "))
        assert read_until(events, "text").data["text"].startswith("日本語 ")
        one.runner.release()
        assert list(events)[-1].name == "done"
        assert other.history(same_visitor(client, other))[-1] == TEXT.upper()


def test_steps_are_read_and_confirmed_through_another_server(server: MakeServer) -> None:
    tokenizer = tool_tokenizer()
    runner = ScriptRunner(
        tokenizer, lambda prompt: "done" if "<tool_response>" in prompt else call("pay", euros=7)
    )
    with server(runner, chat_prompt_clazz=ChatPrompt, context_len=4096) as one, server() as other:
        set_source(one.chat_stream, FamilySource(tokenizer, runner))

        @one.chat_stream.tool(confirm=True)
        def pay(euros: int) -> str:
            """Pay."""
            return f"paid {euros}"

        client = one.client()
        response = begin(client)
        steps = (event for event in read_events(response) if event.name == "step")
        assert next(steps).data["status"] == "confirm"
        there = same_visitor(client, other)
        events = read_events(resume(there, id_of(response)))
        step = read_until(events, "step").data
        path = f"/api/chat_stream/{id_of(response)}/steps/{step['id']}"
        assert there.post(path, json={"confirm": True}).status_code == 204
        assert [event.data["result"] for event in steps if event.data["status"] == "done"] == ["paid 7"]
        rest = list(events)
        assert [event.data["status"] for event in rest if event.name == "step"] == ["running", "done"]
        assert text_in(rest) == "done"
