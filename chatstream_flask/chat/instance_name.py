"""The name of a ChatStream: what keeps several of them in one app apart."""

from __future__ import annotations

import re

from ..config import shown
from ..conversation.record_index import ID_PREFIX as LIST_PREFIX
from ..errors import ConfigError, NotFound

DEFAULT_NAME = "default"
RESERVED = {  # first segments of the default instance's paths, and Flask's own
    *("chat_stream", "chatstream", "chatstream_ui", "clear_context", "conversation", "conversations"),
    *("get_generation_params", "get_load", "get_prompt", "get_resource_usage"),
    *("health", "metrics", "openapi.json", "set_feedback", "set_generation_params", "static", "v1"),
    *("detokenize", "ping", "tokenize", "version", "widget.js"),
}
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
ID_PREFIX = "chatstream-instance:"  # before the conversation ids of a ChatStream with a name of its own


class InstanceName(str):
    """A checked name, and what follows from it; the default one adds nothing to any path or key."""

    __slots__ = ()

    @classmethod
    def parse(cls, name: object) -> InstanceName:
        """Check a name.

        :raises ConfigError: it has other characters than are allowed in a path, or is one of the paths
            that the default instance has
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(
                "name must begin with a lower-case letter and have at most 32 lower-case letters, digits, "
                f"'-' and '_', not {shown(name)}"
            )
        if name in RESERVED:
            raise ConfigError(
                f"name must not be {name!r}: the routes of this ChatStream would be below /{name}, which is "
                "a route of a ChatStream without a name"
            )
        return cls(name)

    @property
    def is_default(self) -> bool:
        """True for a ChatStream that was given no name."""
        return self == DEFAULT_NAME

    @property
    def url_prefix(self) -> str:
        """What the routes begin with, unless the app registers the blueprint elsewhere."""
        return "" if self.is_default else f"/{self}"

    def blueprint(self, name: str) -> str:
        """Return the name of a blueprint of this instance."""
        return name if self.is_default else f"{name}_{self}"

    def conversation_id(self, given: str) -> str:
        """Return the key under which the conversation `given` by the request handler is kept.

        :raises NotFound: the key would be that of a conversation of another instance, or of a list
        """
        if given.startswith((ID_PREFIX, LIST_PREFIX)):
            raise NotFound("there is no such conversation")
        return given if self.is_default else f"{ID_PREFIX}{self}:{given}"

    def given_id(self, conversation_id: str) -> str:
        """Return the id from which `conversation_id` made this key."""
        return conversation_id.removeprefix(f"{ID_PREFIX}{self}:")

    def owner(self, given: str) -> str:
        """Return the owner under which this instance lists the conversations of the owner `given`."""
        return given if self.is_default else f"{given}\n{self}"
