"""Stores by URL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatstream_flask.conversation.urls import make_store
from chatstream_flask.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "<MemoryStore [0 kept] [0 bytes] <LocalLeases [0 held]>>"),
        ("redis://:secret@host:1/2", "<RedisStore 'chatstream:' <LeaseKeeper [0 held]>>"),
        ("rediss://host", "<RedisStore 'chatstream:' <LeaseKeeper [0 held]>>"),
        ("unix:///run/redis.sock?db=1", "<RedisStore 'chatstream:' <LeaseKeeper [0 held]>>"),
        ("sqlite:///chat.db", "<SQLStore sqlite:///chat.db <LeaseKeeper [0 held]>>"),
        (
            "postgresql://me:secret@host/chat",
            "<SQLStore postgresql+psycopg://me:***@host/chat <LeaseKeeper [0 held]>>",
        ),
        ("postgres://host/chat", "<SQLStore postgresql+psycopg://host/chat <LeaseKeeper [0 held]>>"),
    ],
)
def test_each_kind_is_made_without_connecting(url: str, shown: str) -> None:
    assert repr(make_store(url, 50)) == shown


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "must start with memory://, redis://"),
        ("chat.db", "must start with memory://, redis://"),
        ("mysql://me:secret@host/chat", "or postgresql://, not with 'mysql'"),
        ("memory://10", "memory:// has no options"),
        ("redis://:secret@host:port", "must be redis://"),
        ("sqlite://", "SQLite in memory cannot store conversations"),
        ("sqlite:///:memory:", "SQLite in memory cannot store conversations"),
        ("postgresql://me:secret@host:port/chat", "must be sqlite:///path or postgresql://"),
    ],
)
def test_a_wrong_url_is_refused_and_not_shown(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_store(url, 50)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["memory://", "redis://host", "sqlite:///chat.db"])
def test_the_time_to_live_is_checked(url: str) -> None:
    with pytest.raises(ConfigError, match="ttl_sec must be"):
        make_store(url, 0)


WITHOUT_LIBRARIES = """
import sys
import chatstream_flask
from chatstream_flask.conversation.urls import make_store
from chatstream_flask.errors import ConfigError
libraries = {"redis", "sqlalchemy", "psycopg"}
assert not libraries & set(sys.modules)
for url, library in [("redis://a", "redis"), ("sqlite:///a", "sqlalchemy"), ("postgresql://a", "psycopg")]:
    sys.modules[library] = None
    try:
        make_store(url, 50)
    except ConfigError as error:
        print(error)
    del sys.modules[library]
"""


def test_a_missing_library_is_named_with_the_extra_that_has_it() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_LIBRARIES]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=root)
    assert run.stdout.splitlines() == [
        "redis is not installed: pip install 'chatstream-flask[redis]'",
        "sqlalchemy is not installed: pip install 'chatstream-flask[sql]'",
        "psycopg is not installed: pip install 'chatstream-flask[postgresql]'",
    ]
