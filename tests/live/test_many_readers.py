"""Many connections that read the same replies: threads remain for health, refusals and other chats."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from .client import EVENTS, TIMEOUT_SEC, Visitor, wait_until
from .health import check_health
from .server import Server, start_mock

pytestmark = pytest.mark.server

MOCK = {"type": "long", "time_per_token_sec": 0.05}
NUM_TABS = 20  # of each reply


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_mock(kind, tmp_path_factory.mktemp(f"{kind}-readers"), MOCK) as server:
        yield server


def test_two_replies_with_many_readers_each(server: Server) -> None:
    with ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(server.port, path="/api/chat_stream")) for _ in range(2)]
        tabs = []
        for visitor in visitors:
            first = visitor.post("hi", accept=EVENTS, max_new_tokens=200)
            stack.callback(first.close)
            message_id = first.headers["X-ChatStream-Last-Generated-Message-Id"]
            url = f"http://127.0.0.1:{server.port}/api/chat_stream/{message_id}"
            for _ in range(NUM_TABS):
                tab = visitor.session.get(url, headers={"Accept": EVENTS}, stream=True, timeout=TIMEOUT_SEC)
                stack.callback(tab.close)
                tabs.append(tab)
            check_health(server)
        assert {tab.status_code for tab in tabs} <= {200, 429}
        wait_until(lambda: server.has(running=2))
        with Visitor(server.port) as stranger:
            queued = stranger.post("hi", accept=EVENTS, max_new_tokens=3)
            wait_until(lambda: server.has(running=2, waiting=1))
            check_health(server)
            for visitor in visitors:
                conversation = visitor.session.get(
                    f"http://127.0.0.1:{server.port}/api/conversation", timeout=TIMEOUT_SEC
                ).json()
                url = f"http://127.0.0.1:{server.port}/api/chat_stream"
                cancel = visitor.session.post(
                    f"{url}/{conversation['running']['message_id']}/cancel", timeout=TIMEOUT_SEC
                )
                assert cancel.status_code == 204
            assert b"event: done" in queued.content
        metrics = requests.get(f"http://127.0.0.1:{server.port}/metrics", timeout=TIMEOUT_SEC)
        assert metrics.status_code == 200
    server.check_idle()


@pytest.mark.parametrize("on_busy", ["queue", "replace"])
def test_many_turns_of_one_conversation_at_once(kind: str, on_busy: str, tmp_path: Path) -> None:
    """Those that wait for the running reply have places in the queue, so that their number is limited."""
    body = json.dumps({"user_input": "hi", "max_new_tokens": 50}).encode()
    with start_mock(kind, tmp_path, MOCK, on_busy=on_busy) as server, ExitStack() as stack:
        with Visitor(server.port, path="/api/chat_stream") as visitor:
            visitor.ask("hi", max_new_tokens=1)
            cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.session.cookies)
        head = f"POST /api/chat_stream HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\nAccept: {EVENTS}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        for _ in range(40):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SEC))
            sock.sendall(head.encode() + body)
        check_health(server)
        wait_until(lambda: server.state["accepted"] > 0)
        check_health(server)
