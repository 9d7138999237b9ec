"""Answers as dictionaries, whole and in chunks, as OpenAI's API reference describes them."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..engine.reply_text import TokenLogprob
from ..reply_format.deltas import Delta, message_of
from .generations import Choice, News
from .token_text import TextOffsets, Tokens, chat_logprobs, completion_logprobs, prompt_logprobs

Json = dict[str, Any]


class Answer(ABC):
    """The answer to one request; all of its chunks have the same id and time."""

    id_prefix: str
    kind: str  # the field "object"
    chunk_kind: str

    def __init__(
        self,
        model: str,
        fingerprint: str,
        tokens: Tokens,
        has_logprobs: bool,
        num_prompt_logprobs: int | None = None,
    ) -> None:
        """Start an answer.

        :param num_prompt_logprobs: how many of the most likely tokens to show for each token of the prompt,
            as vLLM does; None: nothing of the prompt
        """
        self._common: Json = {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._tokens = tokens
        self._has_logprobs = has_logprobs
        self.num_prompt_logprobs = num_prompt_logprobs

    def whole(self, choices: list[Json], usage: Json) -> Json:
        return self._common | {"object": self.kind, "choices": choices, "usage": usage}

    def chunk(self, choices: list[Json]) -> Json:
        return self._common | {"object": self.chunk_kind, "choices": choices}

    @abstractmethod
    def first(self, index: int) -> Json | None:
        """Return a chunk's choice that announces a choice; None if the API has none."""

    def token_chunk(self, index: int, news: News) -> Json | None:
        """Return a chunk's choice for new tokens that have no text yet; None if the API has none."""
        return None

    @abstractmethod
    def part(self, index: int, delta: Delta, news: News) -> Json:
        """Return a chunk's choice with new content.

        :param news: has the log-probabilities and token ids of the content
        """

    @abstractmethod
    def end(self, index: int, reason: str, news: News) -> Json:
        """Return a chunk's choice that ends the choice of this index."""

    @abstractmethod
    def choice(self, index: int, reason: str, read: News) -> Json:
        """Return a choice of a whole answer."""

    @abstractmethod
    def add_prompts(self, whole: Json, prompts: Sequence[Sequence[TokenLogprob]]) -> None:
        """Add the log-probabilities of each choice's prompt to a whole answer."""


class ChatAnswer(Answer):
    """Answer of POST /v1/chat/completions."""

    id_prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def first(self, index: int) -> Json:
        return self._choice(index, {"role": "assistant", "content": ""}, None, ())

    def part(self, index: int, delta: Delta, news: News) -> Json:
        return self._choice(index, _with_both_names(delta), None, news.logprobs)

    def end(self, index: int, reason: str, news: News) -> Json:
        return self._choice(index, {}, reason, news.logprobs)

    def choice(self, index: int, reason: str, read: News) -> Json:
        return {
            "index": index,
            "message": _with_both_names(message_of(read.deltas)),
            "finish_reason": reason,
            "logprobs": chat_logprobs(read.logprobs, self._tokens) if self._has_logprobs else None,
        }

    def add_prompts(self, whole: Json, prompts: Sequence[Sequence[TokenLogprob]]) -> None:
        whole["prompt_logprobs"] = prompt_logprobs(prompts[0], self._tokens)

    def _choice(self, index: int, delta: Json, reason: str | None, logprobs: Sequence[TokenLogprob]) -> Json:
        shown = chat_logprobs(logprobs, self._tokens) if logprobs else None
        return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": shown}


class CompletionAnswer(Answer):
    """Answer of POST /v1/completions."""

    id_prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(
        self,
        *args: Any,
        prompts: Sequence[Sequence[int]] | None = None,
        names_tokens_by_id: bool = False,
        echoes: bool = False,
    ) -> None:
        """Start an answer.

        :param prompts: the prompt ids of each choice, if the answer shows token ids, as vLLM's does
        :param names_tokens_by_id: log-probabilities name a token "token_id:7", not by its text
        :param echoes: log-probabilities begin with those of the prompt
        """
        super().__init__(*args)
        self._prompts = prompts
        self._name = "token_id:{}".format if names_tokens_by_id else self._tokens.token_text
        self._echoes = echoes
        self._offsets: dict[int, TextOffsets] = {}  # of each choice
        self._began: set[int] = set()  # choices whose prompt was shown

    def first(self, index: int) -> None:
        return None

    def token_chunk(self, index: int, news: News) -> Json | None:
        return None if self._prompts is None else self._choice(index, "", None, news)

    def part(self, index: int, delta: Delta, news: News) -> Json:
        return self._choice(index, delta["content"], None, news)

    def end(self, index: int, reason: str, news: News) -> Json:
        return self._choice(index, "", reason, news)

    def choice(self, index: int, reason: str, read: News) -> Json:
        text = "".join(delta["content"] for delta in read.deltas)
        return self._choice(index, text, reason, read, is_whole=True)

    def add_prompts(self, whole: Json, prompts: Sequence[Sequence[TokenLogprob]]) -> None:
        for choice, prompt in zip(whole["choices"], prompts, strict=True):
            choice["prompt_logprobs"] = prompt_logprobs(prompt, self._tokens)

    def _choice(
        self, index: int, text: str, reason: str | None, news: News, *, is_whole: bool = False
    ) -> Json:
        shown = None
        if news.logprobs or (is_whole and self._has_logprobs):
            offsets = self._offsets.setdefault(index, TextOffsets(self._tokens, begins_text=self._echoes))
            shown = completion_logprobs(news.logprobs, self._name, offsets)
        choice: Json = {"index": index, "text": text, "finish_reason": reason, "logprobs": shown}
        if self._prompts is not None:
            choice["token_ids"] = news.token_ids
            if index not in self._began:
                self._began.add(index)
                choice["prompt_token_ids"] = self._prompts[index]
        return choice


def usage_of(choices: Sequence[Choice], num_prompts: int) -> Json:
    """Return the token counts of an answer; a prompt counts once, however many choices it has."""
    outcomes = [choice.outcome for choice in choices if choice.outcome is not None]
    per_prompt = len(choices) // num_prompts
    first_outcomes = outcomes[::per_prompt]
    prompt_tokens = sum(outcome.prompt_tokens for outcome in first_outcomes)
    completion_tokens = sum(outcome.completion_tokens for outcome in outcomes)
    reasoning_tokens = sum(outcome.reasoning_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(outcome.cached_tokens for outcome in first_outcomes)},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def _with_both_names(message: Json) -> Json:
    """Return the message with its reasoning under both names that clients look for."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else message | {"reasoning": reasoning}
