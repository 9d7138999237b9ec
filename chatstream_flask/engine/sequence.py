"""A sequence: the tokens of one request while it holds a slot of a generation thread."""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

from .detokenizer import Detokenizer
from .pending_logprobs import PendingLogprobs
from .prompt_lookup import PromptLookup
from .reply_text import TokenLogprob
from .request import GenerationRequest


class Matcher(Protocol):
    """The grammar of one reply; belongs to its generation thread."""

    num_bytes: int  # of a mask

    def accept(self, token_id: int) -> bool:
        """The reply goes on with this token. True: it is complete, and nothing may follow."""

    def write_mask(self, address: int, num_bytes: int) -> bool:
        """Sets bit i, the lowest first, where token i may come next. False: the grammar cannot go on."""


class Sequence:
    """Belongs to one generation thread; `num_cached` tokens have their keys and values in the slot."""

    def __init__(self, request: GenerationRequest, slot: int, detokenizer: Detokenizer) -> None:
        self.request = request
        self.params = request.params
        self.slot = slot
        self.detokenizer = detokenizer
        self.token_ids = list(request.prompt_ids)
        self.num_prompt = len(request.prompt_ids)
        self.num_cached = 0
        self.logprobs: list[TokenLogprob] = []  # of each new token, if asked for; written by the runner
        self.drafts: list[int] = []  # proposed for the newest step; written by the runner, as the next
        self.lookup = PromptLookup()
        self.pending_logprobs = PendingLogprobs(detokenizer)
        self.last_token_at: float | None = None  # when its newest token came
        self.matcher: Matcher | None = None  # of its grammar
        self.random = random.Random(request.seed)  # one uniform number per sampled token

    def __repr__(self) -> str:
        cached = f"{self.num_cached}/{len(self.token_ids)}"
        return f"<Sequence {self.request.id[:8]} slot={self.slot} {cached} cached>"

    @property
    def num_pending(self) -> int:
        """Tokens still to be computed: one while decoding, more while prefilling."""
        return len(self.token_ids) - self.num_cached

    @property
    def is_decoding(self) -> bool:
        return self.num_cached >= self.num_prompt


class Chunk(NamedTuple):
    """The next tokens of a prompt that are computed."""

    sequence: Sequence
    num_tokens: int

    @property
    def stop(self) -> int:
        return self.sequence.num_cached + self.num_tokens

    @property
    def is_last(self) -> bool:
        return self.stop == len(self.sequence.token_ids)
