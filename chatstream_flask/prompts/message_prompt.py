"""A list of messages, as API clients send them, through the tokenizer's chat template to token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from ..errors import BadRequest
from .control_tokens import ControlTokens

Message = dict[str, Any]
TOOLS = re.compile(r"\btools\b")


def encode_messages(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """The ids of a prompt that asks for the next message; control tokens in messages and tools are text.

    A template that knows no system messages gets their text with the first message of the user.

    :param template_kwargs: what the template offers, such as enable_thinking
    :raises BadRequest: there is no chat template, or it refuses these messages, or it knows no tools
    """
    if not getattr(tokenizer, "chat_template", None):
        raise BadRequest("the model's tokenizer has no chat template; ask for a completion of plain text")
    if tools and not TOOLS.search(str(tokenizer.get_chat_template(None, list(tools)))):
        raise BadRequest("the model's chat template knows no tools")
    control = ControlTokens(tokenizer)
    marked = [
        message | {k: _marked(control, v) for k, v in message.items() if k != "role"} for message in messages
    ]
    kwargs = dict(template_kwargs or {}) | {"tokenize": False, "add_generation_prompt": True}
    if tools:
        kwargs["tools"] = _marked(control, list(tools))
    for attempt in _attempts(marked):
        try:
            return control.encode(str(tokenizer.apply_chat_template(attempt, **kwargs)), False)
        except (TemplateError, TypeError, ValueError) as error:
            refusal = error
    raise BadRequest(f"the model's chat template refuses these messages: {refusal}") from refusal


def _marked(control: ControlTokens, value: Any) -> Any:
    if isinstance(value, str):
        return control.mark(value)
    if isinstance(value, list):
        return [_marked(control, item) for item in value]
    if isinstance(value, dict):  # templates look for keys, so only those that do harm change
        keys = {key: control.mark(key) if control.is_spelled_in(key) else key for key in value}
        return {keys[key]: _marked(control, item) for key, item in value.items()}
    return value


def _attempts(messages: list[Message]) -> list[list[Message]]:
    """As they are; then, if that is possible, with the system text in the first message of the user."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    first = next((i for i, message in enumerate(rest) if message["role"] == "user"), None)
    if not system or first is None:
        return [messages]
    folded = rest[first] | {"content": "\n\n".join([*system, rest[first]["content"]])}
    return [messages, [*rest[:first], folded, *rest[first + 1 :]]]
