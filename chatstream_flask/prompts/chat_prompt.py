"""Prompt of any model whose tokenizer has a chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError
from .abstract_chat_prompt import AbstractChatPrompt
from .chat_template import TEMPLATE_ERRORS, apply_chat_template, check_has_template
from .message_forms import Message
from .message_prompt import encode_messages

if TYPE_CHECKING:
    from typing_extensions import Self


class ChatPrompt(AbstractChatPrompt):
    """Prompt rendered by `tokenizer.apply_chat_template`; works with every model that has a template.

    Control tokens in a visitor's message ("<|im_end|>") reach the model as plain text. The reasoning of
    earlier replies is given to the template, which decides whether the model sees it.
    """

    _tools: Sequence[dict[str, Any]] = ()  # that the model is shown, if its template knows tools
    _following: Sequence[Message] = ()
    chat_template_kwargs: ClassVar[dict[str, Any]] = {}  # arguments of the template, such as enable_thinking

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        """Return the text of the prompt.

        :param opts: options of `get_contents`, and "tokenizer", whose chat template is used; the default is
            the model's in a prompt that `ChatStream.get_chat_prompt` returned
        :raises ConfigError: there is no tokenizer or template, or the template refuses this conversation
        """
        if not self.chat_mode:
            return super().create_prompt(opts)
        tokenizer = (opts or {}).get("tokenizer", self.tokenizer)
        if tokenizer is None:
            raise ConfigError('ChatPrompt needs the tokenizer: create_prompt({"tokenizer": tokenizer})')
        return self._render(tokenizer, self._messages(opts))

    def to_token_ids(self, tokenizer: Any, add_special_tokens: bool | None = None) -> list[int]:
        """Return the token ids of the prompt.

        `add_special_tokens` has no effect, as a chat template writes its special tokens itself.
        """
        has_steps = any(content.steps for content in self.get_contents_to_render())
        if not (self.chat_mode and (self._tools or self._following or has_steps)):
            return super().to_token_ids(tokenizer, False if self.chat_mode else add_special_tokens)
        kwargs = {**self.chat_template_kwargs, **self.template_kwargs}
        messages = [*self._system_message(), *self._messages(), *self._following]
        return encode_messages(tokenizer, messages, self._tools, kwargs)

    def with_tools(self, tools: Sequence[dict[str, Any]], words: str = "") -> Self:
        """Return a copy that shows the model tools; with `words`, those in the system text tell of them."""
        copied = copy(self)
        copied._tools = () if words else tools
        copied.system = f"{self.system}\n\n{words}".strip() if words else self.system
        return copied

    def with_messages(self, messages: Sequence[Message]) -> Self:
        """Return a copy with calls and their results after the newest message of the requester."""
        copied = copy(self)
        copied._following = messages
        return copied

    def _messages(self, opts: dict[str, Any] | None = None) -> list[Message]:
        return [
            message
            for content in self.get_contents_to_render(opts)
            if content.is_requester or content.message
            for message in [
                *_messages_of(content.steps or ()),
                {"role": "user" if content.is_requester else "assistant", "content": content.message or ""}
                | ({"reasoning_content": content.reasoning} if content.reasoning else {}),
            ]
        ]

    def _system_message(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def _render(self, tokenizer: Any, messages: list[Message]) -> str:
        check_has_template(tokenizer)
        if not messages and not self.system:
            return ""
        kwargs = {
            **self.chat_template_kwargs,
            **self.template_kwargs,
            "add_generation_prompt": not messages or messages[-1]["role"] == "user",
        }
        try:
            return apply_chat_template(tokenizer, [*self._system_message(), *messages], **kwargs)
        except TEMPLATE_ERRORS as error:
            raise ConfigError(f"the tokenizer's chat template refuses this conversation: {error}") from error


def _messages_of(steps: Iterable[dict[str, Any]]) -> list[Message]:
    """Return the messages of calls of functions, each followed by its result."""
    messages: list[Message] = []
    for step in steps:
        function = {"name": step["name"], "arguments": step["arguments"]}
        call = {"id": step["id"], "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": step["id"], "name": step["name"], "content": step["result"]},
        ]
    return messages
