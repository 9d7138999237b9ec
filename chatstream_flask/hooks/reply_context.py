"""A reply as the functions of an app see it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NoReturn

from flask import Request

from ..config import SamplingParams
from ..engine.outcome import Outcome
from ..errors import Refused
from ..prompts.message_forms import text_of

Message = dict[str, Any]


class ReplyContext:
    """What the hooks of an app know of one reply, and may add to it.

    Each choice of a `/v1` request with `n` has a copy of its own from `on_text` on.

    :ivar request: the Flask request that asked for the reply
    :ivar visitor: name of the visitor for whom limits count; None: nobody's
    :ivar conversation_id: id of the stored conversation; None in `/v1`
    :ivar messages: what the model is asked, oldest first, each with `role` and `content`, which is a
        text or a list of parts; the texts of
        `/v1/completions` are the user's
    :ivar params: sampling parameters; change them with `set_params`
    :ivar sources: what `add_source` has added, each with `title` and, if it has one, `url`
    :ivar data: for the app: what one hook leaves for another
    :ivar text: the answer as it was let through; set for `after_reply`, as all that follows
    :ivar reasoning: what the model wrote before its answer, as it was let through
    :ivar finish_reason: "stop", "length", "cancelled", "timeout", "disconnected", "shutdown" or "error"
    :ivar error: why it failed; None if it did not
    :ivar usage: `prompt_tokens`, `cached_tokens`, `completion_tokens` and `reasoning_tokens`
    :ivar total_sec: seconds from the request to the end of the reply
    """

    def __init__(
        self,
        request: Request,
        messages: Sequence[Message],
        params: SamplingParams,
        *,
        visitor: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        self.request = request
        self.messages = list(messages)
        self.params = params
        self.visitor = visitor
        self.conversation_id = conversation_id
        self.sources: list[dict[str, str]] = []
        self.data: dict[str, Any] = {}
        self.text = ""
        self.reasoning = ""
        self.finish_reason = ""
        self.error: str | None = None
        self.usage: dict[str, int] = {}
        self.total_sec = 0.0
        self._added: list[str] = []

    def __repr__(self) -> str:
        return f"<ReplyContext {self.request.path} {self.visitor} {self.finish_reason or 'begins'}>"

    @property
    def user_input(self) -> str:
        """The newest message of the user."""
        texts = (text_of(message) for message in reversed(self.messages) if message["role"] == "user")
        return next(texts, "")

    def refuse(self, words: str) -> NoReturn:
        """Refuse the request, or end the reply, with words for the client.

        :raises Refused: always
        """
        raise Refused(words)

    def add_context(self, text: str) -> None:
        """Put a text before the newest message of the user, for the model only; it is not stored.

        `/v1/completions`, whose prompts have no messages, is as if it were not called.
        """
        self._added.append(text)

    def add_source(self, title: str, text: str = "", *, url: str = "") -> None:
        """Show a source with the reply; the model gets its number, title and text as by `add_context`."""
        self.sources.append({"title": title} | ({"url": url} if url else {}))
        self.add_context(f"[{len(self.sources)}] {title}" + (f"\n{text}" if text else ""))

    def set_params(self, **params: Any) -> None:
        """Change sampling parameters of this reply, by the names of `SamplingParams`.

        :raises ConfigError: a value is not allowed
        :raises TypeError: there is no such parameter
        """
        self.params = replace(self.params, **params)

    @property
    def added_text(self) -> str:
        """All that `add_context` and `add_source` have added."""
        return "\n\n".join(self._added)

    def with_added_text(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages with the added text before the newest one of the user."""
        changed = list(messages)
        for i in range(len(changed) - 1, -1, -1):
            if self._added and changed[i]["role"] == "user":
                content = changed[i]["content"]
                if isinstance(content, list):
                    content = [{"type": "text", "text": self.added_text}, *content]
                else:
                    content = f"{self.added_text}\n\n{content}"
                changed[i] = changed[i] | {"content": content}
                break
        return changed

    def copy(self) -> ReplyContext:
        """Return a context for another choice of the same request."""
        copied = copy(self)
        copied.data = dict(self.data)
        return copied

    def end(self, text: str, reasoning: str, outcome: Outcome) -> None:
        """Set what came of the reply."""
        self.text, self.reasoning = text, reasoning
        self.finish_reason, self.error = outcome.finish_reason.value, outcome.error
        self.total_sec = outcome.total_sec
        self.usage = {
            "prompt_tokens": outcome.prompt_tokens,
            "cached_tokens": outcome.cached_tokens,
            "completion_tokens": outcome.completion_tokens,
            "reasoning_tokens": outcome.reasoning_tokens,
        }
