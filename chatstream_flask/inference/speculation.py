"""Speculation: draft tokens for the greedy sequences of a decode step, where they save time."""

from __future__ import annotations

from ..engine.sequence import Sequence
from .draft_length_tuner import DraftLengthTuner
from .sampling.logits_processors import uses_plain_logits


class Speculation:
    """Speculative decoding (arXiv 2211.17192) with drafts from prompt lookup; belongs to one runner.

    `begin` is called before a decode step, `end` or `postpone` after it. Only greedy sequences with
    `uses_plain_logits` get drafts. Replies stay the same, up to rounding: a forward pass over more tokens may
    round differently.
    """

    def __init__(self, tuner: DraftLengthTuner, max_len: int) -> None:
        self._tuner = tuner
        self._max_len = max_len
        self._sequences: list[Sequence] = []
        self._proposed: dict[Sequence, list[int]] = {}

    def begin(self, sequences: list[Sequence]) -> int:
        """Set `drafts` of each sequence; return the largest number of drafts."""
        self._sequences = sequences
        self._proposed = {
            sequence: sequence.lookup.propose(sequence.token_ids, self._max_drafts(sequence))
            for sequence in sequences
            if sequence.params.is_greedy and uses_plain_logits(sequence)
        }
        num = self._tuner.begin(
            num_rows=1 + max(sequence.slot for sequence in sequences),
            key_len=max(len(sequence.token_ids) for sequence in sequences),
            num_proposed=max(map(len, self._proposed.values()), default=0),
            expected=self._expected,
        )
        for sequence in sequences:
            sequence.drafts = self._proposed.get(sequence, [])[:num]
        return num

    def end(self, new_ids: list[list[int]]) -> None:
        """Learn from the new ids of each sequence, and from the duration of the step."""
        if any(new_ids):
            self._tuner.end()
        self._learn(new_ids)

    def postpone(self, new_ids: list[list[int]]) -> None:
        """Drop the drafts, because these ids of an earlier step come before them; learn from the ids."""
        for sequence in self._sequences:
            sequence.drafts = []
        self._learn(new_ids)

    def _learn(self, new_ids: list[list[int]]) -> None:
        for sequence, ids in zip(self._sequences, new_ids, strict=True):
            if proposed := self._proposed.get(sequence):
                sequence.lookup.learn(proposed, ids)

    def _max_drafts(self, sequence: Sequence) -> int:
        """Return how many drafts fit; the token after the drafts needs no cache position."""
        num_left = sequence.num_left - 1
        return max(min(self._tuner.max_drafts, num_left, self._max_len - len(sequence.token_ids)), 0)

    def _expected(self, num: int) -> float:
        """Return the expected number of new ids of a step with up to `num` drafts for each sequence."""
        accepted = (s.lookup.num_expected(min(num, len(it))) for s, it in self._proposed.items())
        return len(self._sequences) + sum(accepted)


def accepted(drafts: list[int], own_ids: list[int]) -> list[int]:
    """Return the drafts that agree with the model, and the model's own id after them.

    :param own_ids: what the model chose after the newest token and after each of the drafts
    """
    num = next((i for i, draft in enumerate(drafts) if draft != own_ids[i]), len(drafts))
    return own_ids[: num + 1]
