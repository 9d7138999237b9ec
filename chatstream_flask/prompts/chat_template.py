"""Rendering of messages through the chat template of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from ..errors import NoChatTemplate

Message = dict[str, Any]

TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError)  # raised by templates that refuse their messages


def check_has_template(tokenizer: Any) -> None:
    """Raise NoChatTemplate if the tokenizer has none."""
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise NoChatTemplate(
            f"the tokenizer {name!r} has no chat template: give one with chat_template (--chat-template), "
            "or set chat_prompt_clazz to a class that writes the prompts of this model"
        )


def apply_chat_template(tokenizer: Any, messages: Sequence[Message], **kwargs: Any) -> str:
    """Return the text of a prompt.

    If the template refuses the messages and there are system messages, their text is put in front of the
    first user message instead.

    :param kwargs: arguments of the template, such as `add_generation_prompt`
    :raises TemplateError, TypeError, ValueError: the template refuses these messages
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **kwargs))
    except TEMPLATE_ERRORS:
        folded = _fold_system(messages)
        if folded is None:
            raise
    return str(tokenizer.apply_chat_template(folded, tokenize=False, **kwargs))


def _fold_system(messages: Sequence[Message]) -> list[Message] | None:
    """Return the messages with the system text in the first user message; None if either is missing."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    first = next((i for i, message in enumerate(rest) if message["role"] == "user"), None)
    if not system or first is None:
        return None
    folded = rest[first] | {"content": "\n\n".join([*system, rest[first]["content"]])}
    return [*rest[:first], folded, *rest[first + 1 :]]
