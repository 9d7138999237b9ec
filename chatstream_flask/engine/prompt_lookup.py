"""Prompt lookup: draft tokens for speculative decoding, found in the prompt and the reply so far."""

from __future__ import annotations

NGRAM_LENGTHS = (3, 2)  # tokens; the longest n-gram that is found counts
MAX_INDEXED = 4096  # tokens per step, so that a long prompt delays no other reply
INITIAL_RATE = 0.5
WEIGHT = 0.2  # of the latest draft in an acceptance rate


class PromptLookup:
    """Proposes the tokens that followed an earlier occurrence of the sequence's last n-gram.

    Keeps the position after the latest occurrence of each n-gram, so that a step only looks at its new
    tokens, and the acceptance rate for each length of n-gram. Proposals are scored even when not drafted, so
    the acceptance rate is tracked for free.
    """

    def __init__(self) -> None:
        self._next_positions: dict[tuple[int, ...], int] = {}  # n-gram -> position after it
        self._num_indexed = min(NGRAM_LENGTHS)  # first such position that is not in it yet
        self._rates = dict.fromkeys(NGRAM_LENGTHS, INITIAL_RATE)
        self._length = NGRAM_LENGTHS[0]  # of the n-gram that was found last

    def propose(self, token_ids: list[int], num: int) -> list[int]:
        """Return `num` draft tokens, or none. `token_ids` must only grow from call to call."""
        self._index(token_ids)
        for length in NGRAM_LENGTHS:
            start = self._next_positions.get(tuple(token_ids[-length:]))
            if start is not None:
                self._length = length
                period = len(token_ids) - start
                return [token_ids[start + i % period] for i in range(num)]  # repeats if it runs past the end
        return []

    def learn(self, proposed: list[int], new_ids: list[int]) -> None:
        """Update the acceptance rate.

        :param proposed: the last proposal
        :param new_ids: the tokens that came: accepted drafts, then one token in place of a wrong one
        """
        for draft, new_id in zip(proposed, new_ids, strict=False):
            rate = self._rates[self._length]
            self._rates[self._length] = rate + WEIGHT * ((draft == new_id) - rate)

    def num_expected(self, num: int) -> float:
        """Return how many of the next `num` drafts to expect right; one is only if all before it are."""
        rate = self._rates[self._length]
        return sum(rate**i for i in range(1, num + 1))

    def _index(self, token_ids: list[int]) -> None:
        """Add all n-grams but the last ones, which nothing follows yet."""
        stop = min(len(token_ids), self._num_indexed + MAX_INDEXED)
        for end in range(self._num_indexed, stop):
            for length in NGRAM_LENGTHS:
                if length <= end:
                    self._next_positions[tuple(token_ids[end - length : end])] = end
        self._num_indexed = max(self._num_indexed, stop)
