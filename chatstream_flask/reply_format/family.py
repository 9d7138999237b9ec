"""The format of a model's replies, found once from its tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.reasoning import Reasoning
from ..prompts.message_prompt import knows_tools
from ..prompts.template_probe import REASONING
from .harmony import CHANNEL, MESSAGE, HarmonyFormat
from .reasoning_tags import ReasoningTags, find_tags
from .reply_parser import ReplyParser, TextReply
from .template_reply import TemplateReply
from .tools.call_parser import ToolCallParser
from .tools.syntax import BARE, HARMONY, HERMES, ToolSyntax, find_tool_syntax


@dataclass(frozen=True)
class ReplyFormat:
    """How a model writes reasoning and tool calls.

    :param response_template: the tokenizer's own description of replies; it is followed if set
    :param reasoning: None: the model does not reason
    :param opening_ids: tokens that begin the reasoning
    :param closing_ids: tokens that end the reasoning and begin the answer
    :param first_closing_ids: the same, as the first tokens of a reply
    :param separator_ids: those of the closing tokens that follow the closing tag
    :param tool_syntax: how the model writes tool calls
    :param reasoning_tokens: special tokens that mark reasoning, with their text
    :param tool_tokens: special tokens that mark tool calls, with their text
    :param call_tokens: all tokens that were added for that, also those that are not special
    :param knows_tools: whether the chat template writes tools into the prompt
    :param knows_effort: whether the chat template says how much to reason
    """

    response_template: dict[str, Any] | None = None
    reasoning: ReasoningTags | HarmonyFormat | None = None
    opening_ids: tuple[int, ...] = ()
    closing_ids: tuple[int, ...] = ()
    first_closing_ids: tuple[int, ...] = ()
    separator_ids: tuple[int, ...] = ()
    tool_syntax: ToolSyntax = HERMES
    reasoning_tokens: Mapping[int, str] = field(default_factory=dict)
    tool_tokens: Mapping[int, str] = field(default_factory=dict)
    call_tokens: Mapping[int, str] = field(default_factory=dict)
    knows_tools: bool = True
    knows_effort: bool = False

    @property
    def num_opening(self) -> int:
        return len(self.opening_ids)

    @property
    def reasoning_settings(self) -> tuple[str, ...]:
        """Names of the generation parameters that change how the model reasons; none if it does not."""
        if self.reasoning is None:
            return ()
        effort = ("reasoning_effort",) if self.knows_effort else ()
        return ("enable_thinking", *effort, "max_reasoning_tokens")

    def reasoning_of(
        self,
        prompt_end: str,
        *,
        room: int,
        budget: int | None = None,
        is_counted: bool = False,
        is_constrained: bool = False,
    ) -> Reasoning | None:
        """Return how a reply to the prompt reasons; None if the model does not.

        :param prompt_end: the text of the prompt or of its end, which may have begun the reasoning
        :param room: tokens that the context has beyond prompt and max_new_tokens
        :param budget: tokens of reasoning after which the model is made to answer; None: as many as fit
        :param is_counted: whether max_new_tokens limits reasoning and answer together; always without room
        :param is_constrained: whether a grammar holds the answer
        """
        if self.reasoning is None:
            return None
        room -= self.num_opening + len(self.closing_ids)
        is_counted = is_counted or room < 0
        limits = [
            limit for limit in (budget, None if is_counted else room + self.num_opening) if limit is not None
        ]
        max_tokens = min(limits, default=None)
        splitter = self.reasoning.make_splitter(prompt_end, is_constrained=is_constrained)
        may_begin = not (splitter.is_reasoning or self.reasoning.is_over(prompt_end) or max_tokens == 0)
        return Reasoning(
            splitter=splitter,
            closing_ids=self.first_closing_ids if max_tokens == 0 else self.closing_ids,
            max_tokens=max_tokens,
            num_opening=self.num_opening,
            opening_ids=self.opening_ids if may_begin else (),
            separator_ids=self.separator_ids if may_begin or splitter.is_reasoning else (),
            is_counted=is_counted,
        )

    def reserved_tokens(self, max_new_tokens: int, budget: int | None, context_len: int) -> int:
        """Return how many tokens of the context are kept free for reasoning, beyond `max_new_tokens`.

        As many as the budget or else as the answer, but at most half of what a prompt would have without.
        """
        if self.reasoning is None:
            return 0
        wanted = (max_new_tokens if budget is None else budget) + self.num_opening + len(self.closing_ids)
        return min(wanted, (context_len - max_new_tokens) // 2)

    @property
    def constrained_syntax(self) -> ToolSyntax:
        """How calls are written in replies that a grammar holds: the model's own way, if a grammar can."""
        is_own = self.response_template is None and not isinstance(self.reasoning, HarmonyFormat)
        return self.tool_syntax if is_own and self.tool_syntax.form is not None else BARE

    def make_parser(self, tools: Sequence[dict[str, Any]] = (), *, streams: bool = False) -> ReplyParser:
        """Return the parser of an answer, from which the reasoning has been taken out.

        :param tools: the tools that the model was shown
        :param streams: return tool calls in pieces
        """
        if self.response_template is not None:
            return TemplateReply(self.response_template, "", list(tools))
        if tools:
            return ToolCallParser(self.tool_syntax, tools, streams=streams, kept_tokens=self.tool_tokens)
        return TextReply()


def find_reply_format(tokenizer: Any) -> ReplyFormat:
    """Return the format of the replies of the model that a tokenizer belongs to."""
    response_template = getattr(tokenizer, "response_template", None)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token_id: token.content for token_id, token in added.items() if token.special}
    template = _chat_template(tokenizer)
    reasoning: ReasoningTags | HarmonyFormat | None = _tags_of(response_template)
    if reasoning is None:
        vocabulary = {token.content for token in added.values()}
        is_harmony = all(marker in template or marker in vocabulary for marker in (CHANNEL, MESSAGE))
        reasoning = HarmonyFormat() if is_harmony else find_tags(template, vocabulary)
    shows_tools = knows_tools(tokenizer)
    syntax = find_tool_syntax(template) if shows_tools else HERMES  # which is told in words
    if isinstance(reasoning, HarmonyFormat):
        syntax = HARMONY
    tool_tokens = _within(syntax.markers, special)
    call_tokens = _within(syntax.markers, {token_id: token.content for token_id, token in added.items()})
    if reasoning is None:
        return ReplyFormat(
            response_template,
            tool_syntax=syntax,
            tool_tokens=tool_tokens,
            call_tokens=call_tokens,
            knows_tools=shows_tools,
        )

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    closing = reasoning.closing_text(is_begun=True)
    closing_ids, tag_ids = encode(closing), encode(closing.removesuffix(reasoning.separator))
    return ReplyFormat(
        response_template,
        reasoning,
        opening_ids=encode(reasoning.markers[0]),
        closing_ids=closing_ids,
        first_closing_ids=encode(reasoning.closing_text(is_begun=False)),
        separator_ids=closing_ids[len(tag_ids) :] if closing_ids[: len(tag_ids)] == tag_ids else (),
        tool_syntax=syntax,
        reasoning_tokens=_within(reasoning.markers, special),
        tool_tokens=tool_tokens,
        call_tokens=call_tokens,
        knows_tools=shows_tools,
        knows_effort="reasoning_effort" in template,
    )


def _chat_template(tokenizer: Any) -> str:
    """Return the text of all chat templates of a tokenizer."""
    template = getattr(tokenizer, "chat_template", None)
    return "".join(template.values()) if isinstance(template, dict) else template or ""


def _tags_of(response_template: dict[str, Any] | None) -> ReasoningTags | None:
    """Return the tags between which a response template finds reasoning, if they are plain strings."""
    fields = (response_template or {}).get("fields", {})
    for name in REASONING:
        opened, closed = (fields.get(name, {}).get(key) for key in ("open", "close"))
        if isinstance(opened, str) and isinstance(closed, str):
            return ReasoningTags(opened, closed)
    return None


def _within(markers: Iterable[str], tokens: Mapping[int, str]) -> dict[int, str]:
    """Return the tokens that are a part of a marker."""
    texts = tuple(markers)
    return {token_id: token for token_id, token in tokens.items() if any(token in text for text in texts)}
