"""Reasoning between tags, such as <think>: the tags of each family, and a splitter that follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from ..engine.reasoning import Piece
from .markers import APERTUS_CALLS, KIMI_CALLS, held_len, may_become


@dataclass(frozen=True)
class ReasoningTags:
    """The tags of a family.

    :param open: before the reasoning; written by the model or at the end of the prompt
    :param close: after it
    :param answer_open: some families put the answer between tags too; these are left out
    :param call_open: begins the tool calls that some families write without closing the reasoning
    """

    open: str
    close: str
    answer_open: str = ""
    answer_close: str = ""
    call_open: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        return self.open, self.close, self.answer_open, self.answer_close

    @property
    def separator(self) -> str:
        """The text between the closing tag and the answer."""
        return f"\n\n{self.answer_open}"

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts that end the reasoning."""
        return (self.close, self.call_open) if self.call_open else (self.close,)

    def closing_text(self, *, is_begun: bool) -> str:
        """Return the text that ends the reasoning and begins the answer; `is_begun` makes no difference."""
        return f"\n{self.close}{self.separator}"

    def make_splitter(self, prompt: str, *, is_constrained: bool = False) -> TagSplitter:
        """Return the splitter of a reply to the prompt, whose end may have begun the reasoning.

        `is_constrained` makes no difference.
        """
        return TagSplitter(self, is_open=prompt.rstrip().endswith(self.open.rstrip()))

    def is_over(self, prompt: str) -> bool:
        """Return whether the end of the prompt has closed the reasoning, as templates do to turn it off."""
        return prompt.rstrip().endswith(self.close)


class State(Enum):
    """Where in its reply a splitter is."""

    START = auto()
    REASONING = auto()
    CLOSED = auto()  # after the closing tag and before the first word of the answer
    ANSWER = auto()


class TagSplitter:
    """Finds a block of reasoning at the start of a reply; a tag that stands later is text.

    White space around the reasoning and before the answer after it belongs to neither. What may still become
    a tag is held back, and nothing more.
    """

    def __init__(self, tags: ReasoningTags, *, is_open: bool) -> None:
        """Create the splitter of one reply.

        :param is_open: whether the prompt has begun the reasoning
        """
        self._tags = tags
        self._is_open = is_open
        self._state = State.START
        self._rest = ""  # not yet decided
        self._is_first = True  # of the reasoning no word was returned yet
        self._answer_close = ""  # set where the answer is between tags
        self._steps: dict[State, Callable[[], str]] = {
            State.START: self._start,
            State.REASONING: self._reason,
            State.CLOSED: self._begin_answer,
            State.ANSWER: self._answer,
        }

    @property
    def is_reasoning(self) -> bool:
        return self._state is State.REASONING or (self._is_open and self._state is State.START)

    def push(self, text: str) -> list[Piece]:
        self._rest += text
        pieces: list[Piece] = []
        while True:
            state = self._state
            if text := self._steps[state]():
                pieces.append(Piece(text, is_reasoning=state is State.REASONING))
            if self._state is state:
                return pieces

    def finish(self) -> list[Piece]:
        is_reasoning, rest = self.is_reasoning, self._rest
        if is_reasoning:
            rest = rest.rstrip()
        elif self._answer_close and rest.rstrip().endswith(self._answer_close):
            rest = rest.rstrip().removesuffix(self._answer_close).rstrip()
        self._rest = ""
        return [Piece(rest, is_reasoning)] if rest else []

    # Each step takes what is certain from the rest and returns it. It is repeated if it changes the state.

    def _start(self) -> str:
        text = self._rest.lstrip()
        if text.startswith(self._tags.open):  # also after a prompt with it: some models repeat it
            self._rest = text[len(self._tags.open) :]
            self._state = State.REASONING
        elif text and not may_become(text, self._tags.open):
            self._state = State.REASONING if self._is_open else State.ANSWER
        return ""

    def _reason(self) -> str:
        rest, ends = self._rest, self._tags.ends
        found = min(((rest.index(end), end) for end in ends if end in rest), default=None)
        stop = len(rest) - held_len(rest, *ends) if found is None else found[0]
        shown = rest[:stop].rstrip()
        if found is None:
            self._rest = rest[len(shown) :]
        else:
            self._rest = rest[stop:].removeprefix(self._tags.close)
            self._state = State.CLOSED
        if self._is_first:
            shown = shown.lstrip()
        self._is_first = self._is_first and not shown
        return shown

    def _begin_answer(self) -> str:
        self._rest = self._rest.lstrip()
        open_tag = self._tags.answer_open
        if open_tag and self._rest.startswith(open_tag):
            self._rest = self._rest[len(open_tag) :].lstrip()
            self._answer_close = self._tags.answer_close
        elif not open_tag:
            self._answer_close = self._tags.answer_close
        if self._rest and not (not self._answer_close and may_become(self._rest, open_tag)):
            self._state = State.ANSWER
        return ""

    def _answer(self) -> str:
        text, close = self._rest, self._answer_close
        if close:
            text = text.rstrip()
            end = len(text) - (len(close) if text.endswith(close) else held_len(text, close))
            text = text[:end].rstrip()
        self._rest = self._rest[len(text) :]
        return text


FAMILIES = (  # the first one with a tag in the chat template, or with both in the vocabulary, is the model's
    ReasoningTags("<|channel>thought", "<channel|>"),  # Gemma 4
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R7B and A
    ReasoningTags("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>", call_open=APERTUS_CALLS),  # Apertus
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("◁think▷", "◁/think▷"),  # Kimi-VL
    ReasoningTags("<thought>", "</thought>"),  # EXAONE Deep
    ReasoningTags(  # Apriel
        "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", answer_close="[END FINAL RESPONSE]"
    ),
    ReasoningTags("<think>", "</think>", "<response>", "</response>"),  # Granite
    ReasoningTags("<think>", "</think>", "<answer>", "</answer>"),  # Hunyuan
    ReasoningTags("<think>", "</think>", call_open=KIMI_CALLS),  # Kimi K2 Thinking
    ReasoningTags("<think>", "</think>"),  # Qwen3, QwQ, DeepSeek, GLM, SmolLM3, Nemotron, EXAONE 4 ...
)


def find_tags(template: str, vocabulary: set[str]) -> ReasoningTags | None:
    """Return the tags of a model.

    :param template: its chat template; it may only have the closing tag, to leave out old reasoning
    :param vocabulary: tokens that were added to the tokenizer
    """
    for tags in FAMILIES:
        has_other_tags = tags.answer_open in template and tags.call_open in template
        is_in_template = tags.close in template or tags.open in template
        if has_other_tags and (is_in_template or {tags.open, tags.close} <= vocabulary):
            return tags
    return None
