"""LogitsProcessors: what is done to the scores of some rows before a token is chosen from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import MULTIPLICATIVE
from ...engine.sequence import Sequence
from .candidates import count_penalised, penalised
from .grammar_masks import TokenMasks
from .seen_tokens import SeenTokens
from .token_counts import TokenCounts

Edit = Callable[[Tensor], Tensor]
NEUTRAL = (1.0, 0.0)  # a repetition penalty that changes nothing: times 1, minus 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`edit` makes new scores `[n, vocab]` of those of `rows` `[n]`; all other rows stay as they are."""

    rows: Tensor
    edit: Edit


class LogitsProcessors:
    """Grammar, bias, repetition penalty, frequency and presence penalty, in this order.

    Planned once per batch composition. Where any row asks for one, all scores are copied once; beyond that
    a row that asks for none costs nothing, and it is never changed.
    """

    def __init__(self, *, num_slots: int, max_len: int, device: torch.device) -> None:
        self._num_slots = num_slots
        self._max_len = max_len
        self._device = device
        self._masks = TokenMasks(num_slots=num_slots, device=device)
        self._seen: SeenTokens | None = None
        self._counts: TokenCounts | None = None
        self._rules: list[Rule] = []

    def plan(self, rows: list[Sequence | None], vocab_size: int) -> None:
        makers = (self._grammar, self._bias, self._repetition, self._frequency)
        self._rules = []
        for asks, make_edit in zip(ASKS, makers, strict=True):
            asking = {row: s for row, s in enumerate(rows) if s is not None and asks(s)}
            if asking:
                edit = make_edit(list(asking.values()), vocab_size)
                self._rules.append(Rule(rows=self._tensor(list(asking)), edit=edit))

    def apply(self, logits: Tensor) -> Tensor:
        """Scores in float32; `logits` stay as they are."""
        scores = logits.float()
        if self._rules and scores is logits:
            scores = scores.clone()
        for rule in self._rules:
            scores.index_copy_(0, rule.rows, rule.edit(scores.index_select(0, rule.rows)))
        return scores

    def _grammar(self, sequences: list[Sequence], vocab_size: int) -> Edit:
        matchers = [sequence.matcher for sequence in sequences if sequence.matcher is not None]
        return lambda scores: scores + self._masks.scores(matchers, vocab_size)

    def _bias(self, sequences: list[Sequence], vocab_size: int) -> Edit:
        places = [
            (row, token_id, bias)
            for row, sequence in enumerate(sequences)
            for token_id, bias in sequence.params.logit_bias
            if token_id < vocab_size
        ]
        rows, ids = self._tensor([row for row, _, _ in places]), self._tensor([i for _, i, _ in places])
        values = self._column([bias for _, _, bias in places]).squeeze(1)
        return lambda scores: scores.index_put((rows, ids), values, accumulate=True)

    def _repetition(self, sequences: list[Sequence], vocab_size: int) -> Edit:
        if self._seen is None:
            self._seen = SeenTokens(num_slots=self._num_slots, max_len=self._max_len, device=self._device)
        seen, slots = self._seen, self._slots(sequences)
        factor = self._column([_strength(sequence)[0] for sequence in sequences])
        difference = self._column([_strength(sequence)[1] for sequence in sequences])
        return lambda scores: penalised(scores, seen.ids(sequences, slots, vocab_size), factor, difference)

    def _frequency(self, sequences: list[Sequence], vocab_size: int) -> Edit:
        if self._counts is None:
            self._counts = TokenCounts(
                num_slots=self._num_slots, max_len=self._max_len, vocab_size=vocab_size, device=self._device
            )
        counts, slots = self._counts, self._slots(sequences)
        frequency = self._column([sequence.params.frequency_penalty for sequence in sequences])
        presence = self._column([sequence.params.presence_penalty for sequence in sequences])
        return lambda scores: count_penalised(scores, counts.counts(sequences, slots), frequency, presence)

    def _slots(self, sequences: list[Sequence]) -> Tensor:
        return self._tensor([sequence.slot for sequence in sequences])

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]


def goes_by_scores_alone(sequence: Sequence) -> bool:
    """Its tokens are chosen from the model's scores as they are, and only their ids are asked for."""
    return sequence.params.num_logprobs is None and not any(asks(sequence) for asks in ASKS)


def _strength(sequence: Sequence) -> tuple[float, float]:
    """Factor and difference of a sequence's repetition penalty."""
    params = sequence.params
    if params.repetition_penalty is None:
        return NEUTRAL
    if params.repetition_penalty_method == MULTIPLICATIVE:
        return params.repetition_penalty, 0.0
    return 1.0, params.repetition_penalty


ASKS: tuple[Callable[[Sequence], bool], ...] = (  # for a rule, in their order
    lambda s: s.matcher is not None,
    lambda s: bool(s.params.logit_bias),
    lambda s: _strength(s) != NEUTRAL,
    lambda s: bool(s.params.frequency_penalty or s.params.presence_penalty),
)
