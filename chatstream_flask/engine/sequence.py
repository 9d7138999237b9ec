"""A sequence: one request while it holds a slot of a worker thread."""

from __future__ import annotations

import random
from collections.abc import Set
from typing import NamedTuple, Protocol

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
        self.logprobs: list[TokenLogprob] = []  # of each new token if asked for; written by the runner
        self.drafts: list[int] = []  # draft tokens of the latest step; written by the runner
        self.lookup = PromptLookup()
        self.pending_logprobs = PendingLogprobs(detokenizer)
        self.last_token_at: float | None = None
        self.matcher: Matcher | None = None
        self.random = random.Random(request.seed)  # one uniform number for each sampled token

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

    def append_token(self, token_id: int, eos_ids: Set[int]) -> FinishReason | None:
        """Append a generated token and its text; return why the reply ends with it, or None.

        :raises FloatingPointError: the runner found no valid token, which a negative id stands for
        """
        if token_id < 0:
            raise FloatingPointError("the logits are not numbers, or the grammar allows no token")
        request = self.request
        self.token_ids.append(token_id)
        request.count_token()
        if token_id in eos_ids or token_id in request.stop_ids:
            return FinishReason.STOP
        self._emit(self._decode(token_id))
        if self.detokenizer.is_stopped:
            return FinishReason.STOP
        if self.matcher is not None and self.matcher.accept(token_id):
            return FinishReason.STOP
        if request.num_generated >= self.params.max_new_tokens:
            return FinishReason.LENGTH
        return None

    def flush_text(self) -> None:
        """Emit the text and log-probabilities that were held back; call once, after the last token."""
        self._emit(self.detokenizer.finish(), is_last=True)

    def _decode(self, token_id: int) -> str:
        num_before = self.detokenizer.num_decoded
        text = self.detokenizer.push(token_id)
        if self.params.num_logprobs is not None:
            self.pending_logprobs.push(self.logprobs[self.request.num_generated - 1], num_before)
        return text

    def _emit(self, text: str, *, is_last: bool = False) -> None:
        text_filter = self.request.text_filter
        if text and text_filter is not None:
            text = text_filter.push(text)
        if is_last and text_filter is not None:
            text += text_filter.finish()
        logprobs = self.pending_logprobs.pop(is_last=is_last)
        if text or logprobs:
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
