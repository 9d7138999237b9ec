"""Messages in the form that API clients send them, rendered by a chat template into token ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import BadRequest
from .chat_template import TEMPLATE_ERRORS, apply_chat_template
from .control_tokens import ControlTokens, Mark
from .message_forms import Message

TOOLS = re.compile(r"\b(?:xml_)?tools\b")  # SmolLM3's template has its own name
PROBE_MESSAGES = [{"role": "user", "content": "Hello"}]
PROBE_PARAMETERS = {"type": "object", "properties": {"q": {"type": "string", "description": "A word."}}}
PROBE_FUNCTION = {"name": "probed_function", "description": "A probe.", "parameters": PROBE_PARAMETERS}
PROBE_TOOLS = [{"type": "function", "function": PROBE_FUNCTION}]


def knows_tools(tokenizer: Any) -> bool:
    """Return whether a chat template of the tokenizer writes tools into the prompt.

    Some that mention tools leave them out, or fail in the Jinja of transformers as soon as there is one.
    """
    template = getattr(tokenizer, "chat_template", None)
    texts = template.values() if isinstance(template, dict) else [template or ""]
    if not any(map(TOOLS.search, texts)):
        return False
    try:
        return str(PROBE_FUNCTION["name"]) in _prompt(tokenizer, PROBE_MESSAGES, PROBE_TOOLS)
    except TEMPLATE_ERRORS:
        return not _is_rendered(tokenizer)  # then it is not for the tools that it fails


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
    given = {"messages": list(messages), "tools": list(tools or [])}

    def render(mark: Mark) -> str:
        changed = _changed(given, mark, control)
        return _prompt(tokenizer, changed["messages"], changed["tools"], template_kwargs)

    try:
        return control.encode(render(str), _texts(given), render, False)
    except TEMPLATE_ERRORS as error:
        raise BadRequest(f"the model's chat template refuses these messages: {error}") from error


def _prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] = (),
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    kwargs = {"add_generation_prompt": True, **(template_kwargs or {})}
    if tools:
        kwargs |= {"tools": tools, "xml_tools": tools}
    return apply_chat_template(tokenizer, messages, **kwargs)


def _is_rendered(tokenizer: Any) -> bool:
    try:
        _prompt(tokenizer, PROBE_MESSAGES)
    except TEMPLATE_ERRORS:
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a value of JSON's types, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)


def _changed(value: Any, mark: Mark, control: ControlTokens) -> Any:
    """Return a value of JSON's types with its strings marked, except roles.

    Templates look keys up, so only keys that contain control tokens are marked.
    """
    if isinstance(value, str):
        return mark(value)
    if isinstance(value, list):
        return [_changed(item, mark, control) for item in value]
    if isinstance(value, dict):
        return {
            mark(key) if control.occur_in(key) else key: item
            if key == "role"
            else _changed(item, mark, control)
            for key, item in value.items()
        }
    return value
