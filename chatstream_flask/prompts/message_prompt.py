"""Messages in the form that API clients send them, rendered by a chat template into token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadRequest
from .chat_template import TEMPLATE_ERRORS, Message, apply_chat_template
from .control_tokens import ControlTokens

TOOLS = re.compile(r"\btools\b")


def encode_messages(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the token ids of a prompt for the assistant's next message.

    Control tokens in messages and tools are encoded as plain text. If the template does not support system
    messages, their text is put in front of the first user message.

    :param template_kwargs: arguments of the template, such as enable_thinking
    :raises BadRequest: there is no chat template, or it refuses these messages, or does not support tools
    """
    if not getattr(tokenizer, "chat_template", None):
        raise BadRequest("the model's tokenizer has no chat template: use /v1/completions with plain text")
    if tools and not TOOLS.search(str(tokenizer.get_chat_template(None, list(tools)))):
        raise BadRequest("the model's chat template does not support tools")
    control = ControlTokens(tokenizer)
    marked = [
        message | {k: _marked(control, v) for k, v in message.items() if k != "role"} for message in messages
    ]
    kwargs = {"add_generation_prompt": True, **(template_kwargs or {})}
    if tools:
        kwargs["tools"] = _marked(control, list(tools))
    try:
        return control.encode(apply_chat_template(tokenizer, marked, **kwargs), False)
    except TEMPLATE_ERRORS as error:
        raise BadRequest(f"the model's chat template refuses these messages: {error}") from error


def _marked(control: ControlTokens, value: Any) -> Any:
    if isinstance(value, str):
        return control.mark(value)
    if isinstance(value, list):
        return [_marked(control, item) for item in value]
    if isinstance(value, dict):  # templates look keys up, so only keys that contain control tokens are marked
        keys = {key: control.mark(key) if control.occur_in(key) else key for key in value}
        return {keys[key]: _marked(control, item) for key, item in value.items()}
    return value
