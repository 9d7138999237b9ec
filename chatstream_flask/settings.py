"""Settings of one Flask app: the `CHATSTREAM_*` keys of its config."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from flask import Flask

from .config import VisitorLimits, check_int, check_names, check_number
from .errors import ConfigError

PREFIX = "CHATSTREAM_"
CHOICES = {
    "locale": ("en", "ja"),
    "log_format": ("human", "json"),
    "metrics": ("off", "open", "key"),
    "status": ("off", "open", "key"),
}
OPTIONAL_COUNTS = {  # each with its lowest value; None means no limit
    "max_conversation_bytes": 1,
    "max_conversations_per_visitor": 1,
    "store_max_bytes": 1,
    "store_max_conversations": 1,
    "max_turns": 1,
    "max_running_per_visitor": 1,
    "max_waiting_per_visitor": 0,
    "max_tokens_per_minute_per_visitor": 1,
}
HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+")
MIN_KEY_LEN = 16  # characters of API keys and the admin key
KEY_DIGEST = "sha256:"  # prefix of an API key that is given as its SHA-256 digest


class ConfigKey(NamedTuple):
    """Documentation of one key of the Flask config."""

    name: str  # CHATSTREAM_...
    type: str  # as annotated: "float", "int | None", ...
    default: Any
    text: str


def _key(default: Any, text: str, *, repr: bool = True) -> Any:
    """Return a dataclass field that carries its description for `describe`."""
    return field(default=default, repr=repr, metadata={"text": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Validated settings of one app; field `x` is the config key `CHATSTREAM_X`."""

    allowed_hosts: Sequence[str] | None = _key(
        None,
        "Host names and addresses, without a port, that requests may name; `.example.com` also allows every "
        "name that ends so. Health checks may name any. `None` allows all; `serve` without an app of yours "
        "allows those of this machine if it listens to this machine only.",
    )
    allowed_origins: Sequence[str] = _key(
        (),
        "Origins of web pages, such as `https://www.example.com`, that may send requests other than GET, "
        "beside those that have the server's own host.",
    )
    api_keys: Sequence[str] | None = _key(
        None,
        "API keys that requests to `/v1` may use, each as it is or as `sha256:` and its hexadecimal digest; "
        "`None` accepts every request.",
        repr=False,
    )
    client_timeout_sec: float = _key(
        60.0,
        "Seconds for a whole request to arrive (20 for its head), and after which a client that reads "
        "nothing of its response is disconnected.",
    )
    cookie_secure: bool = _key(
        True,
        "Whether the session cookie has the `Secure` attribute, where the app has no session of its own; "
        "`False` is only for plain HTTP on your own machine.",
    )
    drain_sec: float = _key(
        30.0, "Seconds for which a server that is told to stop lets running and waiting replies finish."
    )
    heartbeat_sec: float = _key(
        10.0, "Longest silence of an event stream in seconds; a comment is sent when there is no text."
    )
    hung_after_sec: float = _key(
        30.0, "Seconds without a step after which a busy worker thread counts as hung and is replaced."
    )
    locale: str = _key(
        "en", 'Language of log messages: `"en"` or `"ja"`; the same in all apps of a ChatStream.'
    )
    log_format: str = _key(
        "human", 'Format of log lines: `"human"` for text, `"json"` for one JSON object per line.'
    )
    log_prompts: bool = _key(False, "Whether the access log contains what visitors wrote and the replies.")
    max_body_len: int = _key(1_048_576, "Largest request body in bytes.")
    max_input_len: int = _key(65_536, "Longest `user_input` in characters.")
    prefill_priority: float | None = _key(
        None,
        "In place of the constructor's `prefill_priority`: the share of a step's time, 0 to 1, that prompts "
        "may take while replies are running. `None`: the constructor's.",
    )
    probe_sec: float = _key(
        0.1, "Seconds between two checks whether the client of a reply is still connected."
    )
    resume_sec: float = _key(
        30.0,
        "Seconds for which a reply continues after its reader lost the connection (in the queue at most 5), "
        "and for which an ended reply can be read again; 0 ends a reply as soon as its reader is gone.",
    )
    request_timeout_sec: float = _key(
        600.0, "Longest time in seconds from the arrival of a request to the last token of its reply."
    )
    max_conversation_bytes: int | None = _key(
        16_777_216, "Largest stored conversation in bytes; its oldest turns are dropped. `None`: no limit."
    )
    max_conversations_per_visitor: int | None = _key(
        1000, "Most conversations in the list of one visitor or user. `None`: no limit."
    )
    max_turns: int | None = _key(
        None, "Most turns stored of one conversation; the oldest are dropped. `None`: no limit."
    )
    max_running_per_visitor: int | None = _key(
        None, "Most replies generated for one visitor at once; further requests wait. `None`: no limit."
    )
    max_waiting_per_visitor: int | None = _key(
        None, "Most requests of one visitor that may wait; further ones are refused. `None`: no limit."
    )
    max_tokens_per_minute_per_visitor: int | None = _key(
        None, "Most tokens of prompts and replies for one visitor within a minute. `None`: no limit."
    )
    admin_key: str | None = _key(
        None,
        "Key, of at least 16 characters, that opens what `CHATSTREAM_METRICS` and `CHATSTREAM_STATUS` keep "
        'for `"key"`.',
        repr=False,
    )
    model_aliases: Sequence[str] = _key(
        (),
        "Further names by which clients of `/v1` may call the model, for example those of a hosted model "
        'that they ask for; `"*"` is any name.',
    )
    metrics: str = _key(
        "open",
        'Access to `/metrics` and to the details in `/health/ready`: `"off"`, `"open"` for everybody, or '
        '`"key"` for those who have the admin key. `serve` without an app of yours has `"key"` if there is '
        'an admin key, else `"off"`.',
    )
    shared_redis: str | None = _key(
        None,
        "URL of the Redis, `redis://...`, through which several servers of this app share limits, turns and "
        "running replies. `None`: this server knows of no other, and has limits of its own.",
        repr=False,
    )
    status: str = _key(
        "off",
        'Access to the status page `/chatstream/status`: `"off"`, `"open"` for everybody, or `"key"` for '
        "those who have the admin key.",
    )
    store: str | None = _key(
        None,
        "URL of the conversation store: `memory://`, `redis://`, `sqlite:///path` or `postgresql://`; `None` "
        "stores conversations where the app's sessions are stored.",
    )
    store_dir: str | os.PathLike[str] | None = _key(  # noqa: RUF009
        None,
        "Folder of the file-based session and conversation store; `None` is `chatstream` in the app's "
        "instance folder.",
    )
    store_fsync: bool = _key(
        True,
        "Whether a turn in files or SQLite is flushed to the disk before its client is told of the end, so "
        "that a power failure does not lose it.",
    )
    store_lease_sec: float = _key(
        30.0,
        "Seconds after which another process may continue a conversation whose process died during a reply; "
        "at most 5 with `CHATSTREAM_SHARED_REDIS`.",
    )
    store_max_bytes: int | None = _key(
        1_073_741_824,
        "Most bytes that a store of files, SQLite, PostgreSQL or Redis keeps; in SQL, conversations with an "
        "owner do not count. The least recently used are removed, never one with a running reply. `None`: no "
        "limit.",
    )
    store_max_conversations: int | None = _key(
        100_000,
        "Most conversations that a store of files, SQLite, PostgreSQL or Redis keeps, counted and removed in "
        "the same way. `None`: no limit.",
    )
    store_sweep_sec: float = _key(
        600.0,
        "Seconds between two sweeps, which delete expired sessions and conversations and those beyond the "
        "limits of the store.",
    )
    store_retry_sec: float = _key(
        5.0,
        "Seconds for which a reply that could not be stored is tried again, while its client waits; then the "
        "client is told that the store failed.",
    )
    store_ttl_sec: float = _key(
        2_678_400.0,
        "Seconds for which the store of `CHATSTREAM_STORE` keeps a conversation after its last turn.",
    )

    def __post_init__(self) -> None:
        for name in ("cookie_secure", "log_prompts", "store_fsync"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                allowed = " or ".join(repr(word) for word in words)
                raise ConfigError(f"{name} must be {allowed}, not {getattr(self, name)!r}")
        if self.admin_key is not None:
            if not isinstance(self.admin_key, str):
                raise ConfigError("admin_key must be a string, or None")
            _check_key_len("admin_key", self.admin_key)
        for name in ("metrics", "status"):
            if getattr(self, name) == "key" and self.admin_key is None:
                raise ConfigError(f'{name}="key" needs an admin_key')
        check_number("client_timeout_sec", self.client_timeout_sec, 0.1, 3600)
        check_number("drain_sec", self.drain_sec, 0, 3600)
        check_number("heartbeat_sec", self.heartbeat_sec, 0.01, 3600)
        check_number("hung_after_sec", self.hung_after_sec, 0.1, 86_400)
        if self.prefill_priority is not None:
            check_number("prefill_priority", self.prefill_priority, 0, 1)
        check_int("max_body_len", self.max_body_len, 1)
        check_int("max_input_len", self.max_input_len, 1)
        check_number("probe_sec", self.probe_sec, 0.001, 60)
        check_number("request_timeout_sec", self.request_timeout_sec, 0.001, 86_400)
        check_number("resume_sec", self.resume_sec, 0, 3600)
        check_number("store_lease_sec", self.store_lease_sec, 0.1, 3600)
        check_number("store_retry_sec", self.store_retry_sec, 0, 3600)
        check_number("store_sweep_sec", self.store_sweep_sec, 1, 10**7)
        check_number("store_ttl_sec", self.store_ttl_sec, 1, 10**10)
        for name, low in OPTIONAL_COUNTS.items():
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), low)
        if self.api_keys is not None:
            check_api_keys(self.api_keys)
        if self.allowed_hosts is not None:
            _check_texts("allowed_hosts", self.allowed_hosts, HOST, "host names without a port, or None")
        _check_texts("allowed_origins", self.allowed_origins, ORIGIN, "origins such as https://example.com")
        if not isinstance(self.model_aliases, list | tuple) or not all(
            isinstance(name, str) and name for name in self.model_aliases
        ):
            raise ConfigError(f"model_aliases must be a list of names, not {self.model_aliases!r}")
        if not isinstance(self.store, str | None):
            raise ConfigError(f"store must be a URL, or None, not {self.store!r}")
        if self.shared_redis is not None:
            self._check_shared_redis()
        if not isinstance(self.store_dir, str | os.PathLike | None) or self.store_dir == "":
            raise ConfigError(f"store_dir must be the path of a folder, or None, not {self.store_dir!r}")

    def _check_shared_redis(self) -> None:
        if not isinstance(self.shared_redis, str):
            raise ConfigError("shared_redis must be the URL of a Redis, or None")
        if self.store is None or self.store.startswith("memory:"):
            raise ConfigError(
                "shared_redis needs a store that all servers reach: set CHATSTREAM_STORE to redis://... or "
                f"postgresql://..., not {self.store!r}"
            )

    @property
    def visitor_limits(self) -> VisitorLimits:
        """Return the limits that hold for each visitor."""
        return VisitorLimits(
            max_running=self.max_running_per_visitor,
            max_waiting=self.max_waiting_per_visitor,
            max_tokens_per_minute=self.max_tokens_per_minute_per_visitor,
        )

    @classmethod
    def from_app(cls, app: Flask) -> Settings:
        """Read the app's config once, and add the keys it lacks with their defaults.

        :raises ConfigError: a key is unknown, or its value is not allowed
        """
        given = {key: value for key, value in app.config.items() if key.startswith(PREFIX)}
        try:
            check_names("setting", given, {PREFIX + setting.name.upper() for setting in fields(cls)})
            settings = cls(**app.config.get_namespace(PREFIX))
        except ConfigError as error:
            raise ConfigError(f"in the config of {app.name}, {PREFIX}*: {error}") from error
        for setting in fields(cls):
            app.config.setdefault(PREFIX + setting.name.upper(), getattr(settings, setting.name))
        return settings


def describe() -> list[ConfigKey]:
    """Return every key of the config with its type, default and description, in the order of the fields."""
    return [
        ConfigKey(PREFIX + known.name.upper(), str(known.type), known.default, known.metadata["text"])
        for known in fields(Settings)
    ]


def _check_texts(name: str, given: object, form: re.Pattern[str], what: str) -> None:
    """Raise ConfigError unless the value is a list of texts in lower case that have this form."""
    texts = given if isinstance(given, list | tuple) else [given]
    wrong = [text for text in texts if not (isinstance(text, str) and form.fullmatch(text))]
    if texts is not given or wrong:
        raise ConfigError(f"{name} must be a list of {what}, in lower case, not {(wrong or [given])[0]!r}")


def check_api_keys(keys: object) -> None:
    """Raise ConfigError, without showing any key, unless these are API keys or their digests."""
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) and key.strip() for key in keys):
        raise ConfigError("api_keys must be a list of non-empty strings, or None")
    for key in keys:
        if not key.startswith(KEY_DIGEST):
            _check_key_len("each of api_keys", key)
        elif not re.fullmatch(KEY_DIGEST + "[0-9a-fA-F]{64}", key):
            raise ConfigError(f"a digest in api_keys must be {KEY_DIGEST} and 64 hexadecimal digits")


def _check_key_len(name: str, key: str) -> None:
    """Raise ConfigError, without showing the key, if it is so short that it could be guessed."""
    if len(key) < MIN_KEY_LEN:
        raise ConfigError(
            f"{name} must have at least {MIN_KEY_LEN} characters: "
            "python -c 'import secrets; print(secrets.token_urlsafe())' prints a good one"
        )
