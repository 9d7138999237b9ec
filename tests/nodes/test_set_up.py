"""What several servers need to share: a store, sessions, and the package for Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from chatstream_flask import ChatStream
from chatstream_flask.errors import ConfigError

URL = "redis://:s3cret-password@127.0.0.1:1/0"


def app_with(tmp_path: Path, **config: object) -> Flask:
    app = Flask("host", instance_path=str(tmp_path))
    app.config.from_mapping(
        {"CHATSTREAM_SHARED_REDIS": URL, "CHATSTREAM_STORE": URL, "SECRET_KEY": "0123456789abcdef"} | config
    )
    return app


def test_sessions_in_files_of_one_server_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set SECRET_KEY to the same value in all of them"):
        ChatStream(use_mock_response=True, app=app_with(tmp_path, SECRET_KEY=None))


def test_a_wrong_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the URL of Redis must be") as refused:
        ChatStream(use_mock_response=True, app=app_with(tmp_path, CHATSTREAM_SHARED_REDIS="http://s3cret"))
    assert "s3cret" not in str(refused.value)


def test_apps_that_share_a_chat_stream_share_the_redis_too(tmp_path: Path) -> None:
    chat_stream = ChatStream(use_mock_response=True, app=app_with(tmp_path))
    with pytest.raises(
        ConfigError, match="CHATSTREAM_SHARED_REDIS is one URL in 'host', but another"
    ) as refused:
        chat_stream.init_app(app_with(tmp_path, CHATSTREAM_SHARED_REDIS="redis://elsewhere"))
    assert "s3cret" not in str(refused.value)


def test_a_lease_lasts_no_longer_than_a_dead_server_counts_as_alive(tmp_path: Path) -> None:
    app = app_with(tmp_path)
    chat_stream = ChatStream(use_mock_response=True, app=app)
    assert vars(chat_stream.store(app))["lease_sec"] == 5.0
