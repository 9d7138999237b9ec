"""The format of a model's replies, found once from its tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .reply_parser import ReplyParser, TextReply
from .template_reply import TemplateReply
from .tools.call_parser import ToolCallParser
from .tools.syntax import HERMES, ToolSyntax, find_tool_syntax


@dataclass(frozen=True)
class ReplyFormat:
    """How a model writes reasoning and tool calls."""

    response_template: dict[str, Any] | None = None  # the tokenizer's own description; it is followed if set
    tool_syntax: ToolSyntax = HERMES
    kept_tokens: Mapping[int, str] = field(default_factory=dict)  # special tokens that mark tool calls

    def make_parser(
        self, prompt: str, tools: Sequence[dict[str, Any]] = (), *, streams: bool = False
    ) -> ReplyParser:
        """Return the parser of one reply.

        :param prompt: the text of the prompt, whose end may have begun the reply, for example with "<think>"
        :param tools: the tools that the model was shown
        :param streams: return tool calls in pieces
        """
        if self.response_template is not None:
            return TemplateReply(self.response_template, prompt, list(tools))
        if tools:
            return ToolCallParser(self.tool_syntax, tools, streams=streams, kept_tokens=self.kept_tokens)
        return TextReply()


def find_reply_format(tokenizer: Any) -> ReplyFormat:
    """Return the format of the replies of the model that a tokenizer belongs to."""
    template = getattr(tokenizer, "chat_template", None) or ""
    syntax = find_tool_syntax("".join(template.values()) if isinstance(template, dict) else str(template))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    kept = {
        token_id: token.content
        for token_id, token in added.items()
        if token.special and any(token.content in marker for marker in syntax.markers)
    }
    return ReplyFormat(getattr(tokenizer, "response_template", None), syntax, kept)
