"""The format of a model's replies, found once from its tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .reply_parser import ReplyParser, TextReply
from .template_reply import HERMES, TemplateReply


@dataclass(frozen=True)
class ReplyFormat:
    """How a model writes reasoning and tool calls."""

    response_template: dict[str, Any] | None = None  # the tokenizer's own description; it is followed if set

    def make_parser(self, prompt: str, tools: Sequence[dict[str, Any]] = ()) -> ReplyParser:
        """Return the parser of one reply.

        :param prompt: the text of the prompt, whose end may have begun the reply, for example with "<think>"
        :param tools: the tools that the model was shown
        """
        if self.response_template is not None:
            return TemplateReply(self.response_template, prompt, list(tools))
        return TemplateReply(HERMES, "", list(tools)) if tools else TextReply()


def find_reply_format(tokenizer: Any) -> ReplyFormat:
    """Return the format of the replies of the model that a tokenizer belongs to."""
    return ReplyFormat(getattr(tokenizer, "response_template", None))
