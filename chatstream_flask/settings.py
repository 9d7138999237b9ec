"""What a deployment sets for each app: the CHATSTREAM_* keys of its Flask config."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from flask import Flask

from .config import VisitorLimits, check_int, check_names, check_number
from .errors import ConfigError

PREFIX = "CHATSTREAM_"
CHOICES = {"locale": ("en", "ja"), "log_format": ("human", "json"), "status": ("off", "open", "key")}
OPTIONAL_COUNTS = {  # and their lowest values; None: no limit
    "max_conversation_bytes": 1,
    "max_turns": 1,
    "max_running_per_visitor": 1,
    "max_waiting_per_visitor": 0,
    "max_tokens_per_minute_per_visitor": 1,
}
KEY_DIGEST = "sha256:"  # before the digest of an API key, for those who keep no key in a config


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Field `x` is the config key CHATSTREAM_X."""

    api_keys: Sequence[str] | None = field(default=None, repr=False)  # for /v1; None lets everybody in
    client_timeout_sec: float = 60.0  # gunicorn: cuts off a client that neither sends nor takes anything
    cookie_secure: bool = True  # of the session that we set up; False only for plain http on your own machine
    drain_sec: float = 30.0  # a server that is told to end lets replies finish for so long
    heartbeat_sec: float = 10.0  # an event stream is never silent for longer
    hung_after_sec: float = 30.0  # a generation thread that makes no step for longer is replaced
    locale: str = "en"  # of log messages: "en" or "ja"
    log_format: str = "human"  # or "json": one object a line
    log_prompts: bool = False  # also what visitors wrote and were answered
    max_body_len: int = 1_048_576  # bytes of a request's body
    max_input_len: int = 65_536  # characters of user_input
    probe_sec: float = 0.1  # how often a waiting reply looks whether its client is still there
    resume_sec: float = 30.0  # a reply goes on so long for a reader that lost its connection; 0: ends at once
    request_timeout_sec: float = 600.0  # from arrival to the last token
    max_conversation_bytes: int | None = None  # of a kept conversation; its oldest turns are left out
    max_turns: int | None = None  # of a kept conversation, likewise
    max_running_per_visitor: int | None = None  # of a visitor: replies at once
    max_waiting_per_visitor: int | None = None  # of a visitor: requests
    max_tokens_per_minute_per_visitor: int | None = None  # of a visitor
    admin_key: str | None = None  # for the status page, where it asks for a key
    status: str = "off"  # the page /chatstream/status: "off", "open", or "key" for who has the admin key
    store: str | None = None  # URL of a store of its own: memory://, redis://, sqlite:/// or postgresql://
    store_dir: str | os.PathLike[str] | None = None  # embedded; None: "chatstream" in the instance folder

    store_lease_sec: float = 30.0  # after which another process may go on where one died in a reply
    store_ttl_sec: float = 2_678_400.0  # a store of its own keeps a conversation so long after its last turn

    def __post_init__(self) -> None:
        for name in ("cookie_secure", "log_prompts"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                allowed = " or ".join(repr(word) for word in words)
                raise ConfigError(f"{name} must be {allowed}, not {getattr(self, name)!r}")
        if not isinstance(self.admin_key, str | None) or self.admin_key == "":
            raise ConfigError("admin_key must be a string that is not empty, or None")
        if self.status == "key" and self.admin_key is None:
            raise ConfigError('status="key" needs an admin_key')
        check_number("client_timeout_sec", self.client_timeout_sec, 0.1, 3600)
        check_number("drain_sec", self.drain_sec, 0, 3600)
        check_number("heartbeat_sec", self.heartbeat_sec, 0.01, 3600)
        check_number("hung_after_sec", self.hung_after_sec, 0.1, 86_400)
        check_int("max_body_len", self.max_body_len, 1)
        check_int("max_input_len", self.max_input_len, 1)
        check_number("probe_sec", self.probe_sec, 0.001, 60)
        check_number("request_timeout_sec", self.request_timeout_sec, 0.001, 86_400)
        check_number("resume_sec", self.resume_sec, 0, 3600)
        check_number("store_lease_sec", self.store_lease_sec, 0.1, 3600)
        check_number("store_ttl_sec", self.store_ttl_sec, 1, 10**10)
        for name, low in OPTIONAL_COUNTS.items():
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), low)
        if self.api_keys is not None:
            check_api_keys(self.api_keys)
        if not isinstance(self.store, str | None):
            raise ConfigError(f"store must be a URL, or None, not {self.store!r}")
        if not isinstance(self.store_dir, str | os.PathLike | None) or self.store_dir == "":
            raise ConfigError(f"store_dir must be the path of a folder, or None, not {self.store_dir!r}")

    @property
    def visitor_limits(self) -> VisitorLimits:
        return VisitorLimits(
            max_running=self.max_running_per_visitor,
            max_waiting=self.max_waiting_per_visitor,
            max_tokens_per_minute=self.max_tokens_per_minute_per_visitor,
        )

    @classmethod
    def of(cls, app: Flask) -> Settings:
        """Reads them once; afterwards the config shows every key with the value in force."""
        given = {key: value for key, value in app.config.items() if key.startswith(PREFIX)}
        try:
            check_names("setting", given, {PREFIX + setting.name.upper() for setting in fields(cls)})
            settings = cls(**app.config.get_namespace(PREFIX))
        except ConfigError as error:
            raise ConfigError(f"in the config of {app.name}, {PREFIX}*: {error}") from error
        for setting in fields(cls):
            app.config.setdefault(PREFIX + setting.name.upper(), getattr(settings, setting.name))
        return settings


def check_api_keys(keys: object) -> None:
    """An error names no key."""
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) and key.strip() for key in keys):
        raise ConfigError("api_keys must be a list of non-empty strings, or None")
    if any(
        key.startswith(KEY_DIGEST) and not re.fullmatch(KEY_DIGEST + "[0-9a-fA-F]{64}", key) for key in keys
    ):
        raise ConfigError(f"a digest in api_keys must be {KEY_DIGEST} and 64 hexadecimal digits")
