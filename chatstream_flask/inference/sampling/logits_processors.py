"""LogitsProcessors: changes to the logits of some rows before a token is sampled from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import MULTIPLICATIVE
from ...engine.sequence import Sequence
from .candidates import apply_frequency_penalty, apply_repetition_penalty
from .grammar_masks import TokenMasks
from .seen_tokens import SeenTokens
from .token_counts import TokenCounts

Process = Callable[[Tensor], Tensor]
NEUTRAL = (1.0, 0.0)  # factor and difference of a repetition penalty that changes nothing


@dataclass(frozen=True, kw_only=True)
class LogitsProcessor:
    """A function from scores to new scores `[n, vocab]`, for the rows `[n]` that ask for it."""

    rows: Tensor
    process: Process


class LogitsProcessors:
    """Grammar mask, forbidden tokens, logit bias, and the penalties: repetition, frequency and presence.

    They are applied in this order, and planned once per batch composition. If any row asks for one, all
    scores are copied once; apart from that, rows that ask for none cost nothing, and they are never changed.
    """

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._max_len = max_len
        self._device = device
        self._masks = TokenMasks(num_slots=num_slots, device=device)
        self._seen: SeenTokens | None = None
        self._counts: TokenCounts | None = None
        self._processors: list[LogitsProcessor] = []

    def plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        """Prepare the processors that these rows ask for; None is a padding row."""
        factories = (self._grammar, self._forbidden, self._bias, self._repetition, self._frequency)
        self._processors = []
        for asks, make_process in zip(ASKS, factories, strict=True):
            asking = {row: s for row, s in enumerate(rows) if s is not None and asks(s)}
            if asking:
                process = make_process(list(asking.values()), vocab_size)
                self._processors.append(LogitsProcessor(rows=self._tensor(list(asking)), process=process))

    def apply(self, logits: Tensor) -> Tensor:
        """Return the processed scores `[rows, vocab]` in float32; `logits` are not changed."""
        scores = logits.float()
        if self._processors and scores is logits:
            scores = scores.clone()
        for processor in self._processors:
            own_scores = scores.index_select(0, processor.rows)
            scores.index_copy_(0, processor.rows, processor.process(own_scores))
        return scores

    def _grammar(self, sequences: list[Sequence], vocab_size: int) -> Process:
        def process(scores: Tensor) -> Tensor:
            held = [(row, s.matcher) for row, s in enumerate(sequences) if s.matcher is not None]
            if not held:  # all of them are reasoning
                return scores
            masks = self._masks.scores([matcher for _, matcher in held], vocab_size)
            return scores.index_add(0, self._tensor([row for row, _ in held]), masks)

        return process

    def _forbidden(self, sequences: list[Sequence], vocab_size: int) -> Process:
        mask = torch.zeros(len(sequences), vocab_size, device=self._device)
        for row, sequence in enumerate(sequences):
            if allowed := sequence.params.allowed_token_ids:
                mask[row] = -torch.inf
                mask[row, self._tensor(list(allowed))] = 0.0
        minus_infinity = torch.tensor(-torch.inf, device=self._device)

        def process(scores: Tensor) -> Tensor:
            forbidden = [
                (row, token_id)
                for row, sequence in enumerate(sequences)
                for token_id in sequence.forbidden_ids()
                if token_id < vocab_size
            ]
            rows, ids = self._pairs(forbidden)
            return (scores + mask).index_put((rows, ids), minus_infinity)

        return process

    def _bias(self, sequences: list[Sequence], vocab_size: int) -> Process:
        biases = [
            (row, token_id, bias)
            for row, sequence in enumerate(sequences)
            for token_id, bias in sequence.params.logit_bias
            if token_id < vocab_size
        ]
        rows, ids = self._pairs([(row, token_id) for row, token_id, _ in biases])
        values = self._column([bias for _, _, bias in biases]).squeeze(1)
        return lambda scores: scores.index_put((rows, ids), values, accumulate=True)

    def _repetition(self, sequences: list[Sequence], vocab_size: int) -> Process:
        if self._seen is None:
            self._seen = SeenTokens(num_slots=self._num_slots, max_len=self._max_len, device=self._device)
        seen, slots = self._seen, self._slots(sequences)
        factor = self._column([_strength(sequence)[0] for sequence in sequences])
        difference = self._column([_strength(sequence)[1] for sequence in sequences])
        return lambda scores: apply_repetition_penalty(
            scores, seen.ids(sequences, slots, vocab_size), factor, difference
        )

    def _frequency(self, sequences: list[Sequence], vocab_size: int) -> Process:
        if self._counts is None:
            self._counts = TokenCounts(
                num_slots=self._num_slots, max_len=self._max_len, vocab_size=vocab_size, device=self._device
            )
        counts, slots = self._counts, self._slots(sequences)
        frequency = self._column([sequence.params.frequency_penalty for sequence in sequences])
        presence = self._column([sequence.params.presence_penalty for sequence in sequences])
        return lambda scores: apply_frequency_penalty(
            scores, counts.counts(sequences, slots), frequency, presence
        )

    def _pairs(self, pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Return the first and the second of each pair, as indices."""
        return self._tensor([first for first, _ in pairs]), self._tensor([second for _, second in pairs])

    def _slots(self, sequences: list[Sequence]) -> Tensor:
        return self._tensor([sequence.slot for sequence in sequences])

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def uses_plain_logits(sequence: Sequence) -> bool:
    """Return whether tokens are sampled from unprocessed logits and no log-probabilities are asked for."""
    if sequence.params.num_logprobs is not None or sequence.is_steered:
        return False
    return not any(asks(sequence) for asks in ASKS)


def _strength(sequence: Sequence) -> tuple[float, float]:
    """Return factor and difference of the sequence's repetition penalty."""
    params = sequence.params
    if params.repetition_penalty is None:
        return NEUTRAL
    if params.repetition_penalty_method == MULTIPLICATIVE:
        return params.repetition_penalty, 0.0
    return 1.0, params.repetition_penalty


ASKS: tuple[Callable[[Sequence], bool], ...] = (  # whether a sequence asks for a processor, in their order
    lambda s: s.grammar_matcher is not None,
    lambda s: s.params.is_restricted or s.params.min_new_tokens > 0,
    lambda s: bool(s.params.logit_bias),
    lambda s: _strength(s) != NEUTRAL,
    lambda s: bool(s.params.frequency_penalty or s.params.presence_penalty),
)
