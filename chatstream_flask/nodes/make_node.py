"""Make the node of a URL; the library of Redis is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .node import Node


def make_node(url: str, name: str) -> Node:
    """Return this server as one of several that share a Redis.

    :param name: name of the ChatStream
    :raises ConfigError: the URL is wrong, or the package redis is missing
    """
    try:
        from .node import Node
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'chatstream-flask[redis]'") from error
    return Node(url, name)
