"""Rolling restart of two instances behind nginx, under load, without any failed request."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from redis_server import run_redis

from chatstream_flask.client import free_port, text_of
from chatstream_flask.mock.phrases import ROUND

from .client import Visitor, wait_until
from .nginx import nginx, nginx_command
from .server import Server, start_mock

pytestmark = pytest.mark.server

NUM_VISITORS = 4  # fewer than one instance can serve while the other one restarts
NUM_MORE_TURNS = 3  # per visitor between two restarts
MOCK = {"type": "round", "time_per_token_sec": 0.02}


def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    command = [*nginx_command(tmp_path, free_port(), (free_port(), free_port())), "-t", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


class Load:
    """Visitors who chat continuously, half of them with events; every reply must be the expected one."""

    def __init__(self, port: int, certificate: Path) -> None:
        self._port = port
        self._certificate = certificate
        self.num_turns = [0] * NUM_VISITORS
        self.is_over = threading.Event()

    def talk(self, index: int) -> None:
        with Visitor(self._port, scheme="https") as visitor:
            visitor.session.trust_env = False  # its certificates would take precedence over ours
            visitor.session.verify = str(self._certificate)
            for turn in itertools.count():
                if index % 2:
                    events = visitor.ask_for_events("Hello!")
                    assert events[-1].name == "done", events
                    assert events[-1].data["finish_reason"] == "stop"
                    reply = text_of(events)
                else:
                    reply = visitor.ask("Hello!")
                assert reply == ROUND[turn % len(ROUND)]
                self.num_turns[index] += 1
                if self.is_over.is_set():
                    return


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    for port in run_redis(tmp_path):
        yield f"redis://127.0.0.1:{port}"


def test_no_reply_is_cut_and_nobody_is_refused(kind: str, store: str, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    config = {
        "CHATSTREAM_STORE": store,
        "CHATSTREAM_COOKIE_SECURE": True,
        "SESSION_COOKIE_NAME": "chat_session",  # as in docs/deploy/app.py
    }
    with ExitStack() as stack:

        def instance(port: int) -> Server:
            server = start_mock(kind, tmp_path / "app", MOCK, port=port, config=config)
            stack.enter_context(server)
            wait_until(lambda: is_ready(port))
            return server

        instances = [instance(port) for port in ports]
        front = stack.enter_context(nginx(tmp_path / "nginx", ports))
        wait_until(lambda: "start worker process " in front.output)
        load = Load(front.port, tmp_path / "nginx/chat.pem")
        pool = stack.enter_context(ThreadPoolExecutor(NUM_VISITORS))
        stack.callback(load.is_over.set)
        talks = [pool.submit(load.talk, index) for index in range(NUM_VISITORS)]
        for number in (0, 1):
            talk_on(load, talks)
            assert instances[number].terminate() == 0
            talk_on(load, talks)
            instances[number] = instance(ports[number])
        talk_on(load, talks)
        load.is_over.set()
        for talk in talks:
            talk.result()
        statuses = tmp_path / "nginx/access.log"
        wait_until(lambda: len(statuses.read_text().splitlines()) == sum(load.num_turns))
        assert statuses.read_text().count('HTTP/1.1" 200 ') == sum(load.num_turns)
        for server in instances:
            assert server.terminate() == 0


def talk_on(load: Load, talks: list[Future[None]]) -> None:
    """Wait until each visitor has had some more turns, or one has failed."""
    wanted = [num + NUM_MORE_TURNS for num in load.num_turns]

    def is_enough() -> bool:
        for talk in talks:
            if talk.done():
                talk.result()
        return all(num >= want for num, want in zip(load.num_turns, wanted, strict=True))

    wait_until(is_enough)


def is_ready(port: int) -> bool:
    return requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200
