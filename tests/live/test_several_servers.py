"""Three servers of one app that share a Redis: any of them continues what another one began."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from redis_server import run_redis

from chatstream_flask.client import Event, free_port, read_events, text_of
from chatstream_flask.mock.phrases import LONG
from chatstream_flask.nodes.remote_reply import DIED

from .client import EVENTS, TIMEOUT_SEC, Visitor, wait_until
from .nginx import nginx
from .server import Server, start_mock

pytestmark = pytest.mark.server

MOCK = {"type": "long", "time_per_token_sec": 0.02}
NUM_SERVERS = 3


class Servers:
    """Three servers, and a Redis that may be stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.redis_port = free_port()
        self._redis: Iterator[int] = iter(())
        self.ports = [free_port() for _ in range(NUM_SERVERS)]
        self.all: list[Server] = []

    def start_redis(self) -> None:
        self._redis = run_redis(self._folder, self.redis_port, is_durable=True)
        next(self._redis)

    def stop_redis(self) -> None:
        assert next(self._redis, None) is None

    def start(self, number: int) -> Server:
        url = f"redis://127.0.0.1:{self.redis_port}/0"
        config = {
            "SECRET_KEY": "the same in all servers",
            "CHATSTREAM_STORE": url,
            "CHATSTREAM_SHARED_REDIS": url,
            "CHATSTREAM_MAX_RUNNING_PER_VISITOR": 2,
            "CHATSTREAM_MAX_WAITING_PER_VISITOR": 1,
        }
        return start_mock(
            "waitress",
            self._folder / str(number),
            MOCK,
            port=self.ports[number],
            config=config,
            too_many_request_as_http_error=True,
            num_of_concurrent_executions=1,
            max_new_tokens=1000,
            context_len=4096,
        )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    servers.start_redis()
    try:
        with ThreadPoolExecutor() as pool:
            servers.all = list(pool.map(servers.start, range(NUM_SERVERS)))
        yield servers
    finally:
        for server in servers.all:
            server.kill()
        servers.stop_redis()


class Reply:
    """A reply that a visitor reads, through any server."""

    def __init__(self, visitor: Visitor, port: int) -> None:
        self._visitor = visitor
        visitor._url = f"http://127.0.0.1:{port}/api/chat_stream"
        response = visitor.post("Hello!", accept=EVENTS)
        assert response.status_code == 200, response.text
        self.message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
        self.events = read_events(response.iter_content(1))

    def through(self, port: int, num_chars: int = 0) -> Iterator[Event]:
        url = f"http://127.0.0.1:{port}/api/chat_stream/{self.message_id}"
        headers = {"Accept": EVENTS, "Last-Event-ID": str(num_chars)}
        response = self._visitor.session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SEC)
        assert response.status_code == 200, response.text
        return read_events(response.iter_content(1))

    def cancel(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}/api/chat_stream/{self.message_id}/cancel"
        assert self._visitor.session.post(url, timeout=TIMEOUT_SEC).status_code == 204


def conversation(visitor: Visitor, port: int) -> dict[str, Any]:
    answer = visitor.session.get(f"http://127.0.0.1:{port}/api/conversation", timeout=TIMEOUT_SEC)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def first_text(events: Iterator[Event]) -> str:
    return str(next(event for event in events if event.name == "text").data["text"])


def test_a_reply_is_read_and_ended_through_any_server(servers: Servers) -> None:
    one, other, third = servers.ports
    with Visitor(one) as visitor:
        reply = Reply(visitor, one)
        begun = first_text(reply.events)
        assert conversation(visitor, other)["running"]["message_id"] == reply.message_id
        there = reply.through(other, len(begun))
        text = begun + first_text(there)
        reply.cancel(third)
        rest = list(there)
        text += text_of(rest)
        assert rest[-1].data["finish_reason"] == "cancelled"
        assert LONG.startswith(text)
        messages = conversation(visitor, third)["messages"]
        assert [(m["text"], m["is_interrupted"]) for m in messages] == [("Hello!", False), (text, True)]


def test_nginx_may_send_each_request_to_any_server(servers: Servers, tmp_path: Path) -> None:
    ports = servers.ports[0], servers.ports[1]
    with nginx(tmp_path, ports, is_sticky=False) as front, Visitor(front.port, scheme="https") as visitor:
        wait_until(lambda: "start worker process " in front.output)
        visitor.session.trust_env = False  # its certificates would take precedence over ours
        visitor.session.verify = str(tmp_path / "chat.pem")
        for _ in range(3):
            response = visitor.post("Hello!", accept=EVENTS)
            assert response.status_code == 200, response.text
            message_id = response.headers["X-ChatStream-Last-Generated-Message-Id"]
            first_text(read_events(response.iter_content(1)))
            url = f"https://127.0.0.1:{front.port}/api/chat_stream/{message_id}/cancel"
            for _ in range(2):  # idempotent, whichever server it is
                assert visitor.session.post(url, timeout=TIMEOUT_SEC).status_code == 204
            response.close()
            wait_until(lambda: all(server.has(accepted=0) for server in servers.all))


def test_a_burst_on_all_servers_gets_exactly_what_one_visitor_may_have(servers: Servers) -> None:
    """Clients without cookies from one address are one visitor: two of its replies run, and one waits."""
    barrier = threading.Barrier(24)

    def ask(number: int) -> requests.Response:
        barrier.wait()
        url = f"http://127.0.0.1:{servers.ports[number % NUM_SERVERS]}/chat_stream"
        return requests.post(
            url, json={"user_input": "hi"}, headers={"Accept": EVENTS}, stream=True, timeout=TIMEOUT_SEC
        )

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    accepted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(accepted), len(refused)) == (3, 21)
    assert {answer.json()["reason"] for answer in refused} <= {"visitor_waiting", "queue_full"}
    for _ in range(20):
        assert sum(server.state["running"] for server in servers.all) <= 2
    for answer in answers:
        answer.close()
    wait_until(lambda: all(server.has(accepted=0) for server in servers.all))


def test_the_reply_of_a_killed_server_ends_in_words_and_the_conversation_goes_on(servers: Servers) -> None:
    one, other, third = servers.ports
    with Visitor(one) as visitor:
        first = Reply(visitor, other)
        first_text(first.events)
        first.cancel(other)
        list(first.events)
        kept = conversation(visitor, third)["messages"]
        assert len(kept) == 2
        reply = Reply(visitor, one)
        begun = first_text(reply.events)
        there = reply.through(other)
        assert first_text(there)
        servers.all[0].kill()
        killed_at = time.monotonic()
        (*_, last) = there
        assert (last.name, last.data["message"]) == ("error", DIED)
        (*_, last) = reply.through(third, len(begun))
        assert (last.name, last.data["message"]) == ("error", DIED)
        now = conversation(visitor, third)
        assert (now["messages"], now["running"]) == (kept, None)
        wait_until(lambda: is_free(visitor, third))
        assert time.monotonic() - killed_at < 10
    servers.all[0] = servers.start(0)


def is_free(visitor: Visitor, port: int) -> bool:
    """Return whether a turn is accepted; then end it."""
    visitor._url = f"http://127.0.0.1:{port}/api/chat_stream"
    with visitor.post("Hello!", accept=EVENTS) as response:
        assert response.status_code in (200, 409), response.text
        return response.ok


def test_replies_go_on_while_redis_is_stopped(servers: Servers) -> None:
    one, other, _ = servers.ports
    with Visitor(one) as visitor:
        reply = Reply(visitor, one)
        text = first_text(reply.events)
        there = reply.through(other)
        servers.stop_redis()
        with Visitor(other) as new, new.post("Hello!") as refused:
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        text += first_text(reply.events)
        servers.start_redis()
        *texts, last = reply.events
        assert (text + text_of(texts), last.data["finish_reason"]) == (LONG, "stop")
        assert text_of(list(there)) == LONG
        assert conversation(visitor, other)["messages"][-1]["text"] == LONG
