"""The prompt of any model whose tokenizer has a chat template."""

from __future__ import annotations

from typing import Any, ClassVar

from jinja2 import TemplateError

from ..errors import ConfigError
from .abstract_chat_prompt import AbstractChatPrompt

Messages = list[dict[str, str]]


class ChatPrompt(AbstractChatPrompt):
    """Renders through `tokenizer.apply_chat_template`; needs no override for any model that has a template.

    Control tokens that a visitor writes ("<|im_end|>") reach the model as plain text.
    """

    chat_template_kwargs: ClassVar[dict[str, Any]] = {}  # what a template offers, such as enable_thinking

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        """:param opts: as for get_contents, and {"tokenizer": ...}, whose template it is"""
        if not self.chat_mode:
            return super().create_prompt(opts)
        tokenizer = (opts or {}).get("tokenizer")
        if tokenizer is None:
            raise ConfigError('ChatPrompt needs the tokenizer: create_prompt({"tokenizer": tokenizer})')
        return self._apply_template(tokenizer, self._messages(opts))

    def to_token_ids(self, tokenizer: Any, add_special_tokens: bool | None = None) -> list[int]:
        """`add_special_tokens` has no effect: a chat template writes its special tokens itself."""
        return super().to_token_ids(tokenizer, False if self.chat_mode else add_special_tokens)

    def _messages(self, opts: dict[str, Any] | None = None) -> Messages:
        return [
            {"role": "user" if content.is_requester else "assistant", "content": content.message or ""}
            for content in self.get_contents_to_render(opts)
            if content.is_requester or content.message
        ]

    def _apply_template(self, tokenizer: Any, messages: Messages) -> str:
        """With the system text as a message; in the first user message where the template refuses that."""
        check_has_template(tokenizer)
        if not messages and not self.system:
            return ""
        kwargs = {"tokenize": False, **self.chat_template_kwargs}
        kwargs["add_generation_prompt"] = not messages or messages[-1]["role"] == "user"
        system = {"role": "system", "content": self.system}
        for attempt in ([system, *messages], _folded(self.system, messages)) if self.system else [messages]:
            try:
                return str(tokenizer.apply_chat_template(attempt, **kwargs))
            except TemplateError as error:
                refusal = error
        raise ConfigError(f"the tokenizer's chat template refuses this conversation: {refusal}") from refusal


def check_has_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ConfigError(
            f"the tokenizer {name!r} has no chat template: set chat_prompt_clazz to a class that writes "
            "the prompts of this model"
        )


def _folded(system: str, messages: Messages) -> Messages:
    for i, message in enumerate(messages):
        if message["role"] == "user":
            first = {"role": "user", "content": f"{system}\n\n{message['content']}"}
            return [*messages[:i], first, *messages[i + 1 :]]
    return messages
