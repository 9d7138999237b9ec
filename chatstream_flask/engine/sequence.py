"""A sequence: one request while it holds a slot of a worker thread."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Set
from typing import NamedTuple, Protocol

from ..errors import ChatStreamError
from .detokenizer import Detokenizer
from .outcome import FinishReason
from .pending_logprobs import PendingLogprobs
from .prompt_lookup import PromptLookup
from .reply_text import TokenLogprob
from .request import GenerationRequest


class Matcher(Protocol):
    """State of a grammar for one reply; used by its worker thread only."""

    num_bytes: int  # size of a mask

    def accept(self, token_id: int) -> bool:
        """Advance by one token; return True if the reply is complete and nothing may follow."""

    def write_mask(self, address: int, num_bytes: int) -> bool:
        """Set bit i, counted from the lowest, if token i may come next; return False if no token may."""


class Sequence:
    """Token ids of prompt and reply, and the state needed to continue them.

    Used by its worker thread only. The slot holds the keys and values of the first `num_cached` tokens.
    """

    def __init__(self, request: GenerationRequest, slot: int, detokenizer: Detokenizer) -> None:
        self.request = request
        self.params = request.params
        self.slot = slot
        self.detokenizer = detokenizer
        self.token_ids = list(request.prompt_ids)
        self.num_prompt = len(request.prompt_ids)
        self.num_cached = 0
        self.awaited: Sequence | None = None  # computes a prefix of the prompt, which this one will reuse
        self.awaited_len = 0  # tokens of that prefix
        self.logprobs: list[TokenLogprob] = []  # of each new token if asked for; written by the runner
        self.prompt_logprobs = request.prompt_logprobs  # written by the runner: token i + 1 at index i
        self.drafts: list[int] = []  # draft tokens of the latest step; written by the runner
        self.ending_ids: Set[int] = frozenset()  # tokens that end the reply; set by the worker
        self.fault: ChatStreamError | None = None  # why it cannot go on; written by the runner
        self.lookup = PromptLookup()
        self.pending_logprobs = PendingLogprobs(detokenizer)
        self.last_token_at: float | None = None
        self.grammar_matcher: Matcher | None = None
        self.max_generated = request.params.max_new_tokens  # grows with each token that does not count
        self._forced_ids: deque[int] = deque()  # come next, whatever the model chooses
        self._was_closed = False  # the reasoning, by forced ids
        self.random = random.Random(request.seed)  # one uniform number for each sampled token
        self._close_reasoning_if_due()

    def __repr__(self) -> str:
        cached = f"{self.num_cached}/{len(self.token_ids)}"
        return f"<Sequence {self.request.id[:8]} slot={self.slot} {cached} cached>"

    @property
    def num_pending(self) -> int:
        """Tokens still to be computed: one while decoding, more during prefill."""
        return len(self.token_ids) - self.num_cached

    @property
    def is_decoding(self) -> bool:
        return self.num_cached >= self.num_prompt

    @property
    def is_reasoning(self) -> bool:
        reasoning = self.request.reasoning
        return reasoning is not None and reasoning.splitter.is_reasoning

    @property
    def matcher(self) -> Matcher | None:
        """State of the grammar for the next token; None without a grammar and before the answer."""
        return None if self.is_reasoning else self.grammar_matcher

    @property
    def has_forced(self) -> bool:
        """Whether the next token is known already: it ends the reasoning."""
        return bool(self._forced_ids)

    @property
    def is_steered(self) -> bool:
        """Whether Python must see each token before the next one is computed."""
        return bool(self._forced_ids) or self.grammar_matcher is not None

    def forbidden_ids(self) -> Iterator[int]:
        """Yield tokens that must not come next: they would end the reply too early, or a bad word."""
        if self.request.num_generated < self.params.min_new_tokens:
            yield from self.ending_ids
        for *before, last in self.params.bad_words_ids:
            start = len(self.token_ids) - len(before)
            if start >= self.num_prompt and self.token_ids[start:] == before:
                yield last

    @property
    def num_left(self) -> int:
        """How many tokens may follow, as far as is known now: reasoning does not count."""
        return self.max_generated - self.request.num_generated

    def append_tokens(self, token_ids: list[int]) -> FinishReason | None:
        """Append the tokens of a step and their text; return why the reply ends, or None.

        Where a token is forced, those after it are dropped: they were computed after another one.

        :raises FloatingPointError: the runner found no valid token, which a negative id stands for
        """
        for i, token_id in enumerate(token_ids, start=1):
            if token_id in self.ending_ids and self.is_reasoning and self.grammar_matcher is not None:
                self._close_reasoning()  # the answer that the grammar promises is still to come
            is_forced = bool(self._forced_ids)
            if reason := self._append(token_id):
                return reason
            if is_forced or self._forced_ids:
                self.num_cached -= len(token_ids) - i
                break
        return None

    def _append(self, token_id: int) -> FinishReason | None:
        if token_id < 0:
            raise FloatingPointError("the logits are not numbers, or no token is allowed")
        request, is_forced = self.request, bool(self._forced_ids)
        if request.is_prompt_only:
            return FinishReason.LENGTH
        if is_forced:
            token_id = self._forced_ids.popleft()
        self.token_ids.append(token_id)
        request.count_token(token_id)
        if not is_forced and token_id in self.ending_ids:
            self._keep_ending_logprob()
            return FinishReason.STOP
        was_reasoning, matcher = self.is_reasoning, None if is_forced else self.matcher
        self._emit(self._decode(token_id))
        if was_reasoning or is_forced or self.is_reasoning:
            self._count_reasoning(is_forced=is_forced)
        if self.detokenizer.is_stopped:
            return FinishReason.STOP
        if matcher is not None and matcher.accept(token_id):
            return FinishReason.STOP
        if request.num_generated >= self.max_generated:
            return FinishReason.LENGTH
        return None

    def _keep_ending_logprob(self) -> None:
        """Show the token that ends the reply to clients that read one value for each token."""
        params = self.params
        if params.num_logprobs is not None and params.num_prompt_logprobs is not None:
            self.pending_logprobs.push(
                self.logprobs[self.request.num_generated - 1], self.detokenizer.num_decoded
            )

    def _count_reasoning(self, *, is_forced: bool) -> None:
        """Count the newest token as reasoning; once it was closed, it counts as answer too."""
        request, reasoning = self.request, self.request.reasoning
        assert reasoning is not None
        num_new = 1 if request.num_reasoning else request.num_generated  # the first: with the opening tag
        request.count_reasoning(num_new)
        if not reasoning.is_counted and (is_forced or not self._was_closed):
            self.max_generated = min(self.max_generated + num_new, request.max_generated)
        self._close_reasoning_if_due()

    def _close_reasoning_if_due(self) -> None:
        reasoning, request = self.request.reasoning, self.request
        if reasoning is None or not reasoning.splitter.is_reasoning:
            return
        is_over = reasoning.max_tokens is not None and request.num_reasoning >= reasoning.max_tokens
        if is_over or request.is_answer_wanted:
            self._close_reasoning()

    def _close_reasoning(self) -> None:
        """Let the tokens that close it come next, unless they do already."""
        if self.request.reasoning is not None and not self._was_closed:
            self._was_closed = True
            self._forced_ids.extend(self.request.reasoning.closing_ids)

    def flush_text(self) -> None:
        """Emit the text and log-probabilities that were held back; call once, after the last token."""
        self._emit(self.detokenizer.finish(), is_last=True)

    def _decode(self, token_id: int) -> str:
        num_before, was_reasoning = self.detokenizer.num_decoded, self.is_reasoning
        text = self.detokenizer.push(token_id)
        if self.params.num_logprobs is None:
            return text
        if self.is_reasoning:
            self.pending_logprobs.drop_unfinished()  # tokens of the tag that began it
        elif not was_reasoning:
            self.pending_logprobs.push(self.logprobs[self.request.num_generated - 1], num_before)
        return text

    def _emit(self, text: str, *, is_last: bool = False) -> None:
        text_filter = self.request.text_filter
        if text and text_filter is not None:
            text = text_filter.push(text)
        if is_last and text_filter is not None:
            text += text_filter.finish()
        logprobs = self.pending_logprobs.pop(is_last=is_last)
        if text or logprobs or self.request.token_ids is not None:
            self.request.add_text(text, logprobs)


class Chunk(NamedTuple):
    """The next prompt tokens of a sequence to compute."""

    sequence: Sequence
    num_tokens: int

    @property
    def stop(self) -> int:
        """Position after the last token of the chunk."""
        return self.sequence.num_cached + self.num_tokens

    @property
    def is_last(self) -> bool:
        return self.stop == len(self.sequence.token_ids)
