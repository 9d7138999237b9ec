"""Checks of constructor arguments."""

from __future__ import annotations

import inspect
from typing import Any

from ..config import shown
from ..errors import ConfigError
from ..prompts import AbstractChatPrompt, ChatPrompt


def checked_type(name: str, value: Any, kind: type, default: Any = None) -> Any:
    """Return an argument, or the default if it is None.

    :raises ConfigError: it has another type
    """
    if value is None:
        value = default
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be a {kind.__name__}, not {value!r}")
    return value


def checked_texts(name: str, values: Any) -> tuple[str, ...]:
    """Return an argument that is a list of texts.

    :raises ConfigError: it is something else, or a text is empty
    """
    if not isinstance(values, (list, tuple)) or not all(isinstance(it, str) and it for it in values):
        raise ConfigError(f"{name} must be a list of texts that are not empty, not {shown(values)}")
    return tuple(values)


def checked_prompt_class(clazz: Any) -> type[AbstractChatPrompt]:
    """Return a prompt class; None is ChatPrompt.

    :raises ConfigError: it is not derived from AbstractChatPrompt, or is abstract
    """
    if clazz is None:
        return ChatPrompt
    if not (isinstance(clazz, type) and issubclass(clazz, AbstractChatPrompt)):
        raise ConfigError(f"chat_prompt_clazz must be a class derived from AbstractChatPrompt, not {clazz!r}")
    has_no_format = all(
        getattr(clazz, name) is getattr(AbstractChatPrompt, name)
        for name in ("render", "create_prompt", "to_token_ids")
    )
    if has_no_format or inspect.isabstract(clazz):
        raise ConfigError(
            f"chat_prompt_clazz={clazz.__name__} is abstract: it must override render() or create_prompt(), "
            "and all abstract methods"
        )
    return clazz
