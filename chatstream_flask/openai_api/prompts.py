"""From the messages of a request to the tokens of its prompt."""

from __future__ import annotations

from typing import Any

from ..chat.service import ChatService
from ..errors import ConfigError
from ..prompts.template_params import TemplateParams
from ..reply_format.tools.tool_words import tool_words, with_words
from .errors import ApiError
from .messages import template_messages
from .schema import ChatBody
from .tools import ToolUse


class PromptEncoder:
    """Writes prompts with the model's chat template.

    :param template_kwargs: arguments of the chat template that hold where a request has no others
    """

    def __init__(self, service: ChatService, template_kwargs: dict[str, Any]) -> None:
        self._source = service.source
        self.template_kwargs = {**service.template_params.to_kwargs(), **template_kwargs}

    def check(self, body: ChatBody) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the messages and the arguments of the chat template, without any costly work.

        :raises ApiError: one of them is not allowed
        """
        template_kwargs = {
            **self.template_kwargs,
            **template_params(body).to_kwargs(),
            **body.template_options,
        }
        return template_messages(body.messages), template_kwargs

    def encode(
        self, messages: list[dict[str, Any]], template_kwargs: dict[str, Any], use: ToolUse
    ) -> list[int]:
        """Return the token ids of the prompt that checked messages and tools make.

        :raises BadRequest: the chat template refuses them, or the model has no embedding for a token
        """
        if use.tools and not self._source.reply_format.knows_tools:
            words = tool_words(use.tools, use.forced)
            return self._source.encode_messages(with_words(messages, words), [], template_kwargs)
        return self._source.encode_messages(messages, use.tools, template_kwargs)


def template_params(body: ChatBody) -> TemplateParams:
    """Return what the request says about the chat template.

    :raises ApiError: an argument is not allowed
    """
    try:
        return TemplateParams(
            enable_thinking=body.enable_thinking,
            reasoning_effort=body.reasoning_effort,
            chat_template_kwargs=body.chat_template_kwargs or {},
        )
    except ConfigError as error:
        raise ApiError(str(error), param="chat_template_kwargs") from error
