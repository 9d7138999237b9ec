"""Prompt of any model whose tokenizer has a chat template."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import ConfigError
from .abstract_chat_prompt import AbstractChatPrompt
from .chat_template import TEMPLATE_ERRORS, apply_chat_template, check_has_template
from .message_forms import Message


class ChatPrompt(AbstractChatPrompt):
    """Prompt rendered by `tokenizer.apply_chat_template`; works with every model that has a template.

    Control tokens in a visitor's message ("<|im_end|>") reach the model as plain text. The reasoning of
    earlier replies is given to the template, which decides whether the model sees it.
    """

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
        return super().to_token_ids(tokenizer, False if self.chat_mode else add_special_tokens)

    def _messages(self, opts: dict[str, Any] | None = None) -> list[Message]:
        return [
            {"role": "user" if content.is_requester else "assistant", "content": content.message or ""}
            | ({"reasoning_content": content.reasoning} if content.reasoning else {})
            for content in self.get_contents_to_render(opts)
            if content.is_requester or content.message
        ]

    def _render(self, tokenizer: Any, messages: list[Message]) -> str:
        check_has_template(tokenizer)
        if not messages and not self.system:
            return ""
        kwargs = {
            **self.chat_template_kwargs,
            **self.template_kwargs,
            "add_generation_prompt": not messages or messages[-1]["role"] == "user",
        }
        system = [{"role": "system", "content": self.system}] if self.system else []
        try:
            return apply_chat_template(tokenizer, [*system, *messages], **kwargs)
        except TEMPLATE_ERRORS as error:
            raise ConfigError(f"the tokenizer's chat template refuses this conversation: {error}") from error
