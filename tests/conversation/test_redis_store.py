"""RedisStore: its keys, a Redis that hangs, and a cluster."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fakes import TIMEOUT
from redis.cluster import RedisCluster
from redis_server import NO_REDIS, connect, run_redis

from chatstream_flask.conversation.redis_store import HOLDER_SEC, SOCKET_TIMEOUT_SEC, RedisStore
from chatstream_flask.errors import ConfigError, ConversationBusy, StoreUnavailable


@pytest.fixture
def client(tmp_path: Path) -> Iterator[redis.Redis]:
    server = run_redis(tmp_path)
    client = connect(next(server))
    yield client
    client.close()
    server.close()  # type: ignore[attr-defined]


def test_keys(client: redis.Redis) -> None:
    store = RedisStore(client, ttl_sec=50, lease_sec=20, prefix="my:")
    lease = store.hold("a")
    lease.save({"v": "日本"})
    left: Any = {key: client.pttl(key) for key in ("my:{a}:lease", "my:{a}:holder", "my:{a}:record")}
    for key, seconds in zip(left, (20, HOLDER_SEC, 50), strict=True):
        assert 0 <= 1000 * seconds - left[key] < 1000 * TIMEOUT
    assert client.get("my:{a}:record") == '{"v":"日本"}'.encode()
    lease.close()
    assert client.keys() == [b"my:{a}:record"]
    store.delete("a")
    assert client.keys() == []
    store.close()
    assert client.ping()  # the caller's client stays open


def test_a_client_that_decodes(client: redis.Redis) -> None:
    decoding = redis.Redis(connection_pool=client.connection_pool, decode_responses=True)
    store = RedisStore(decoding, ttl_sec=50)
    lease = store.hold("a")
    lease.save({"v": "日本"})
    assert store.load("a") == {"v": "日本"}
    lease.close()
    store.close()


def test_a_record_of_an_earlier_version_is_read_and_goes_on(client: redis.Redis) -> None:
    store = RedisStore(client, ttl_sec=50)
    client.set("chatstream:{a}:record", '{"said": ["日本"]}')
    for said in (["日本", "one"], ["日本", "one", "two"]):
        lease: Any = store.hold("a")
        lease.load()
        assert lease.save({"said": said})
        lease.close()
        assert store.load("a") == {"said": said}
    store.close()


def limited(client: redis.Redis, **limits: int) -> RedisStore:
    return RedisStore(client, ttl_sec=50, prefix="my[*]:", **limits)


def say(store: RedisStore, conversation_id: str, words: str = "") -> None:
    lease = store.hold(conversation_id)
    lease.save({"words": words})
    lease.close()


def test_the_least_recently_used_go_but_none_with_a_running_reply(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis kept whatever strangers made it keep for a month."""
    store = limited(client, max_conversations=2)
    client.set("my*:{other}:record", "of another app")
    for name in "abcde":
        say(store, name)
        time.sleep(0.002)  # Redis knows when a key expires to a thousandth of a second
    say(store, "b")
    lease = store.hold("a")
    assert store.purge() == 3
    assert [name for name in "abcde" if store.load(name)] == ["a", "b"]
    assert client.exists("my*:{other}:record")
    assert "the 3 least recently used sessions and conversations were removed" in caplog.text
    lease.close()
    assert store.purge() == 0
    store.close()


def test_bytes_are_limited_too(client: redis.Redis) -> None:
    size: Any = client.info("memory")["used_memory"]
    store = limited(client, max_bytes=2 * size)
    for name in "abcd":
        say(store, name, "x" * (2 * size // 3))
        time.sleep(0.002)
    assert store.purge() == 2
    assert [name for name in "abcd" if store.load(name)] == ["c", "d"]
    assert store.purge() == 0
    store.close()


def test_what_is_damaged_is_an_error_and_no_new_start(client: redis.Redis) -> None:
    store = RedisStore(client, ttl_sec=50)
    for damaged in (b"\x80pickle", b"", b"{", b"[1]"):
        client.set("chatstream:{a}:record", damaged)
        with pytest.raises(StoreUnavailable, match="damaged"):
            store.load("a")


def test_scripts_that_redis_forgot(client: redis.Redis) -> None:
    """Check that scripts are loaded again after Redis lost them, as at a restart."""
    store = RedisStore(client, ttl_sec=50)
    lease = store.hold("a")
    lease.save({"v": 1})
    client.script_flush()
    lease.save({"v": 2})
    lease.close()
    assert store.load("a") == {"v": 2}
    store.close()


def test_a_redis_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}?socket_timeout=0.1", ttl_sec=50)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.load("a")
        assert time.monotonic() - began < 2
        store.close()
    store = RedisStore(f"redis://127.0.0.1:{port}", ttl_sec=50)
    options = store._client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == SOCKET_TIMEOUT_SEC


@pytest.mark.parametrize("url", ["redis://a:port", "http://a", "redis://a/?db=x", "redis://a?nonsense=1"])
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="must be redis://"):
        RedisStore(url.replace("//", "//:secret@"), ttl_sec=50)


def test_a_prefix_with_braces_is_refused(client: redis.Redis) -> None:
    with pytest.raises(ConfigError, match="must not contain braces"):
        RedisStore(client, ttl_sec=50, prefix="{a}")


def test_cluster(tmp_path: Path) -> None:
    """Use a cluster of one node: it also refuses commands whose keys are in several slots."""
    if shutil.which("redis-server") is None:
        pytest.skip(NO_REDIS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--dir", str(tmp_path), "--cluster-enabled", "yes", "--cluster-port", "0"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log) as node:
        try:
            one: Any = connect(port)
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            end = time.monotonic() + TIMEOUT
            while b"cluster_state:ok" not in one.execute_command("CLUSTER", "INFO"):
                assert time.monotonic() < end
                threading.Event().wait(0.05)
            one.close()
            cluster = RedisCluster(host="127.0.0.1", port=port)
            store = RedisStore(cluster, ttl_sec=50)
            for name in "abcdef":
                lease = store.hold(name)
                with pytest.raises(ConversationBusy):
                    store.hold(name)
                lease.save({"v": name})
                lease.close()
                assert store.load(name) == {"v": name}
                store.delete(name)
            store.close()
            cluster.close()
        finally:
            node.terminate()
