"""Speculation: drafts for the greedy sequences of a step, where that pays."""

from __future__ import annotations

from ..engine.sequence import Sequence
from .num_drafts import DraftLengthTuner
from .sampling.logits_processors import goes_by_scores_alone


class Speculation:
    """Speculative decoding (arXiv 2211.17192) by prompt lookup; belongs to one runner.

    `begin` before a step of decoding, `end` after it. A row whose tokens are sampled, or chosen by more than
    the model's scores, is never speculated on. Replies stay the same, as far as a forward over more tokens
    rounds as one over fewer.
    """

    def __init__(self, choice: DraftLengthTuner, max_len: int) -> None:
        self._choice = choice
        self._max_len = max_len
        self._sequences: list[Sequence] = []
        self._proposed: dict[Sequence, list[int]] = {}
        self._only_waits = False

    def begin(self, sequences: list[Sequence], *, is_late: bool = False) -> int:
        """Writes `drafts` of each; returns how many they are at the most.

        :param is_late: a step is on its way whose ids must come first. Then there are no drafts, and if any
            number is returned, that step is only to be waited for.
        """
        self._sequences = sequences
        self._proposed = {
            sequence: sequence.lookup.propose(sequence.token_ids, self._num_allowed(sequence))
            for sequence in sequences
            if sequence.params.is_greedy and goes_by_scores_alone(sequence)
        }
        num = self._choice.begin(
            num_rows=1 + max(sequence.slot for sequence in sequences),
            key_len=max(len(sequence.token_ids) for sequence in sequences),
            num_proposed=max(map(len, self._proposed.values()), default=0),
            expected=self._expected,
        )
        self._only_waits = is_late and num > 0
        for sequence in sequences:
            sequence.drafts = [] if is_late else self._proposed.get(sequence, [])[:num]
        return num

    def end(self, new_ids: list[list[int]]) -> None:
        """What came, for each sequence of the step."""
        if any(new_ids) and not self._only_waits:
            self._choice.end()
        for sequence, ids in zip(self._sequences, new_ids, strict=True):
            if proposed := self._proposed.get(sequence):
                sequence.lookup.learn(proposed, ids)

    def _num_allowed(self, sequence: Sequence) -> int:
        """One token comes after the drafts, and needs no column."""
        num_generated = len(sequence.token_ids) - sequence.num_prompt
        num_left = sequence.params.max_new_tokens - num_generated - 1
        return max(min(self._choice.most, num_left, self._max_len - len(sequence.token_ids)), 0)

    def _expected(self, num: int) -> float:
        accepted = (s.lookup.num_expected(min(num, len(it))) for s, it in self._proposed.items())
        return len(self._sequences) + sum(accepted)


def accepted(drafts: list[int], own_ids: list[int]) -> list[int]:
    """The drafts that the model would have said, and what it says after them.

    :param own_ids: what it says after the newest token, and after each of the drafts
    """
    num = next((i for i, draft in enumerate(drafts) if draft != own_ids[i]), len(drafts))
    return own_ids[: num + 1]
