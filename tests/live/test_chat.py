"""Conversations with the demo model through a real server, as seen by a visitor and on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.cookiejar import Cookie
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from chatstream_flask.client import text_of

from .client import EVENTS, TEXT, SocketChat, Visitor, wait_until
from .server import Server, start_mock

pytestmark = pytest.mark.server


@pytest.mark.parametrize("accept", [EVENTS, TEXT])
def test_a_reply_comes_piece_by_piece(demo_server: Server, accept: str) -> None:
    with (
        Visitor(demo_server.port) as visitor,
        visitor.post("Tell me a story.", accept=accept, max_new_tokens=60) as response,
    ):
        pieces = [piece for piece in response.iter_content(chunk_size=None) if piece]
    assert len(pieces) > 2  # text produced within a few hundredths of a second is sent together
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Content-Type"] == f"{accept}; charset=utf-8"


def test_the_second_turn_knows_the_first(demo_server: Server) -> None:
    with Visitor(demo_server.port) as lucy, Visitor(demo_server.port) as tom:
        lucy.ask("My name is Lucy.")
        tom.ask_for_events("My name is Tom.")
        assert "Lucy" in text_of(lucy.ask_for_events("What is my name?"))
        assert "Tom" in tom.ask("What is my name?")
        (cookie,) = (cookie for cookie in lucy.session.cookies if isinstance(cookie, Cookie))
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "Lax"
    assert cookie.expires is None  # a session cookie


def test_events_tell_the_life_of_a_reply(demo_server: Server) -> None:
    with Visitor(demo_server.port) as visitor:
        events = visitor.ask_for_events("What is the capital of France?")
    names = [name for name, _ in groupby(event.name for event in events)]
    assert names[-3:] == ["start", "text", "done"]
    assert names[:-3] in ([], ["queue"])
    assert "Paris" in text_of(events)
    done = events[-1].data
    assert done["finish_reason"] == "stop"
    assert done["usage"]["completion_tokens"] > 1


def test_a_queued_visitor_gets_cookie_and_place_before_any_generation(demo_server: Server) -> None:
    demo_server.check_idle()
    with held(demo_server), SocketChat(demo_server.port) as first:
        wait_until(lambda: demo_server.has(running=1, stopped=1))
        with SocketChat(demo_server.port) as second:
            second.read_until(lambda chat: bool(chat.events))
            assert demo_server.has(running=1, waiting=1)
            assert [event.name for event in second.events] == ["queue"]
            assert second.events[0].data["position"] == 1
            assert "set-cookie: session_" in second.head.lower()
            demo_server.release()
            for chat in (first, second):
                assert chat.read_to_end().is_complete
                assert chat.events[-1].name == "done"
    demo_server.check_idle()


def test_a_seeded_reply_is_the_same_beside_others(demo_server: Server) -> None:
    def ask(fields: dict[str, Any]) -> str:
        with Visitor(demo_server.port) as visitor:
            return visitor.ask("Tell me a story.", max_new_tokens=40, **fields)

    rows = [(0, 0, 50), (1, 0.8, 50), (2, 1.3, 0), (3, 1.9, 0), (4, 1.9, 0), (5, 1.6, 20)]
    settings = [{"seed": seed, "temperature": temperature, "top_k": k} for seed, temperature, k in rows]
    alone = [ask(fields) for fields in settings]
    assert len(set(alone)) >= 4  # the settings have different replies
    with ThreadPoolExecutor(len(settings)) as threads, held(demo_server):
        beside = [threads.submit(ask, fields) for fields in settings]
        wait_until(lambda: demo_server.has(accepted=len(settings)))
        demo_server.release()
        assert [reply.result() for reply in beside] == alone


@contextmanager
def held(server: Server) -> Iterator[None]:
    """Stop generation until the end of the block."""
    server.hold()
    try:
        yield
    finally:
        server.release()


def test_an_error_in_the_middle_is_told_to_each_format(kind: str, tmp_path: Path) -> None:
    """The error is that the conversations' disk disappears while a reply streams."""
    mock = {"type": "round", "time_per_token_sec": 0.1}
    with start_mock(kind, tmp_path, mock) as server, ExitStack() as stack:
        chats = {
            accept: stack.enter_context(SocketChat(server.port, accept=accept, name=accept))
            for accept in (EVENTS, TEXT)
        }
        for chat in chats.values():
            chat.read_until(lambda chat: chat.num_words > 0)
        store = tmp_path / "first"
        store.rename(tmp_path / "gone")
        for accept, chat in chats.items():
            chat.read_to_end()
            assert chat.status == 200
            assert server.outcome(accept)["message"] == "unknown_error_occurred"
        assert chats[EVENTS].is_complete
        assert chats[EVENTS].events[-1].name == "error"
        assert chats[EVENTS].events[-1].data["code"] == "store_unavailable"
        assert b"mock reply" in chats[TEXT].body
        assert not chats[TEXT].is_complete
        (tmp_path / "gone").rename(store)
        server.check_idle()
        with Visitor(server.port) as visitor:
            assert visitor.ask("Hello!").startswith("1.")


def test_two_apps_share_one_engine(long_server: Server) -> None:
    with (
        Visitor(long_server.port, "two-first") as first,
        Visitor(long_server.port, "two-second", "/second/chat_stream") as second,
    ):
        replies = [visitor.post("Hello!", accept=EVENTS) for visitor in (first, second)]
        wait_until(lambda: long_server.has(running=2))
        for reply in replies:
            reply.close()
        assert long_server.outcome("two-first")["app"] == "first"
        assert long_server.outcome("two-second")["app"] == "second"
    long_server.check_idle()
