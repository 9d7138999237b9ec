"""A real Redis, empty for each test, and apps that share it as several servers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from flask_fakes import Chat, ScriptedRunner, running_chat
from redis_server import connect, run_redis
from tcp_proxy import TCPProxy

from chatstream_flask.conversation.redis_store import RedisStore
from chatstream_flask.views import create_chat_blueprint

MakeServer = Callable[..., AbstractContextManager[Chat]]


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from run_redis(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def empty_redis(redis_port: int) -> Iterator[redis.Redis]:
    client = connect(redis_port)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def proxy(redis_port: int, empty_redis: redis.Redis) -> Iterator[TCPProxy]:
    """Stand between the servers and Redis."""
    proxy = TCPProxy(redis_port)
    yield proxy
    proxy.close()


@pytest.fixture
def server(proxy: TCPProxy, tmp_path: Path) -> MakeServer:
    """Return a function that makes a server of an app; each has its own runner."""
    url = f"redis://127.0.0.1:{proxy.port}/0"

    def make(runner: ScriptedRunner | None = None, **options: Any) -> AbstractContextManager[Chat]:
        return _server(tmp_path, url, runner, **options)

    return make


class _server(AbstractContextManager[Chat]):
    def __init__(self, folder: Path, url: str, runner: ScriptedRunner | None, **options: Any) -> None:
        config = {
            "SECRET_KEY": "the same in all servers of the app",
            "CHATSTREAM_STORE": url,
            "CHATSTREAM_SHARED_REDIS": url,
            "CHATSTREAM_PROBE_SEC": 0.01,
        }
        config |= options.pop("config", {})
        self._running = running_chat(folder, runner, config, **options)

    def __enter__(self) -> Chat:
        chat = self._chat = self._running.__enter__()
        blueprint = create_chat_blueprint(chat.chat_stream, callback=chat.on_end)
        chat.app.register_blueprint(blueprint, url_prefix="/api")
        return chat

    def __exit__(self, *exception: Any) -> None:
        self._running.__exit__(*exception)
        store = self._chat.state.store
        assert isinstance(store, RedisStore)
        store.close()


def same_visitor(client: FlaskClient, other: Chat) -> FlaskClient:
    """Return a client of another server with the session cookie of this one."""
    cookie = client.get_cookie("session")
    assert cookie is not None
    twin = other.client()
    twin.set_cookie("session", cookie.value)
    return twin
