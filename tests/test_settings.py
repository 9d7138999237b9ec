"""Settings of an app: the CHATSTREAM_* keys of its config."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from chatstream_flask.errors import ConfigError
from chatstream_flask.settings import Settings, describe


def app_with(**config: Any) -> Flask:
    app = Flask("host")
    app.config.from_mapping(config)
    return app


def test_every_setting_is_in_the_config_afterwards() -> None:
    app = app_with(CHATSTREAM_HEARTBEAT_SEC=3, OTHER=1)
    settings = Settings.from_app(app)
    assert settings.heartbeat_sec == 3
    for field in fields(Settings):
        assert app.config[f"CHATSTREAM_{field.name.upper()}"] == getattr(settings, field.name)


def test_a_misspelt_key_names_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_app(app_with(CHATSTREAM_HEARTBEAT_SECS=3))
    assert "in the config of host" in str(caught.value)
    assert "unknown setting CHATSTREAM_HEARTBEAT_SECS; allowed: CHATSTREAM_ADMIN_KEY, " in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("COOKIE_SECURE", "no", "cookie_secure must be True or False, not 'no'"),
        ("SHARED_REDIS", 1, "shared_redis must be the URL of a Redis, or None"),
        (
            "SHARED_REDIS",
            "redis://host",
            "shared_redis needs a store that all servers reach: set CHATSTREAM_STORE",
        ),
        ("COOKIE_SECURE", 0, "cookie_secure must be True or False, not 0"),
        ("HEARTBEAT_SEC", 0, "heartbeat_sec must be between 0.01 and 3600, not 0"),
        ("HEARTBEAT_SEC", "10", "heartbeat_sec must be a number, not '10'"),
        ("MAX_BODY_LEN", 0, "max_body_len must be at least 1, not 0"),
        ("MAX_INPUT_LEN", 1.5, "max_input_len must be a whole number, not 1.5"),
        ("PROBE_SEC", float("nan"), "probe_sec must be between 0.001 and 60, not nan"),
        ("REQUEST_TIMEOUT_SEC", None, "request_timeout_sec must be a number, not None"),
        ("MAX_RUNNING_PER_VISITOR", 0, "max_running_per_visitor must be at least 1, not 0"),
        ("MAX_WAITING_PER_VISITOR", -1, "max_waiting_per_visitor must be at least 0, not -1"),
        ("MAX_TOKENS_PER_MINUTE_PER_VISITOR", 0.5, "per_visitor must be a whole number, not 0.5"),
        ("STORE_DIR", 5, "store_dir must be the path of a folder, or None, not 5"),
        ("STORE_DIR", "", "store_dir must be the path of a folder, or None, not ''"),
        ("API_KEYS", "key", "api_keys must be a list of non-empty strings, or None"),
        ("API_KEYS", ("key", " "), "api_keys must be a list of non-empty strings, or None"),
        ("API_KEYS", ("a" * 16, "b" * 15), "each of api_keys must have at least 16 characters"),
        ("ALLOWED_HOSTS", "a.example", "allowed_hosts must be a list of host names without a port, or None"),
        ("ALLOWED_HOSTS", ["a:3000"], "in lower case, not 'a:3000'"),
        ("ALLOWED_HOSTS", ["A.example"], "in lower case, not 'A.example'"),
        ("ALLOWED_ORIGINS", ["https://a/b"], "must be a list of origins such as https://example.com"),
        ("ALLOWED_ORIGINS", ["*"], "not '*'"),
        ("ALLOWED_ORIGINS", None, "not None"),
        ("METRICS", "on", "metrics must be 'off' or 'open' or 'key', not 'on'"),
        ("API_KEYS", ("sha256:123",), "a digest in api_keys must be sha256: and 64 hexadecimal digits"),
    ],
)
def test_wrong_value(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_app(app_with(**{f"CHATSTREAM_{key}": value}))
    assert sentence in str(caught.value)


def test_a_path_is_a_store_dir(tmp_path: Path) -> None:
    assert Settings.from_app(app_with(CHATSTREAM_STORE_DIR=tmp_path)).store_dir == tmp_path


def test_every_key_is_described() -> None:
    described = {key.name: key for key in describe()}
    assert list(described) == [f"CHATSTREAM_{field.name.upper()}" for field in fields(Settings)]
    for name, _, default, text in described.values():
        assert text[0].isupper() and text.endswith("."), name
        assert default == getattr(Settings(), name.removeprefix("CHATSTREAM_").lower())
    assert described["CHATSTREAM_MAX_TURNS"].type == "int | None"
    assert described["CHATSTREAM_DRAIN_SEC"][1:3] == ("float", 30.0)


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Settings(api_keys=["secret" * 3], admin_key="secret" * 3))
